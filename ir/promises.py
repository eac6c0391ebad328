"""What lowering has taken for granted and left out of a program: checked wherever it may break.

A mask that is true by such a fact is not in the program any more. So whoever sets a block or
launches a program has to keep the fact, or the kernel leaves its memory.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class WholeBlocks:
    """The blocks of ``dim`` end where its ``size`` positions do: none of them reaches further."""

    dim: str
    size: int

    def __str__(self) -> str:
        return f"blocks of {self.dim} divide {self.size}"

    def is_kept_by(self, block: int) -> bool:
        """Whether blocks of this many positions are such ones."""
        return 0 < block <= self.size and self.size % block == 0


@dataclass(frozen=True, slots=True)
class SameLength:
    """``dim`` has as many positions as ``other``: a place in one is a place in the other."""

    dim: str
    other: str

    def __str__(self) -> str:
        return f"{self.dim} is as long as {self.other}"

    def is_kept_by(self, sizes: Mapping[str, int]) -> bool:
        """Whether the lengths are such ones."""
        return sizes[self.dim] == sizes[self.other]


@dataclass(frozen=True, slots=True)
class Divides:
    """``groups`` divides ``heads``: head h has the group h // (heads // groups)."""

    groups: str
    heads: str

    def __str__(self) -> str:
        return f"{self.groups} divides {self.heads}"

    def is_kept_by(self, sizes: Mapping[str, int]) -> bool:
        """Whether the lengths are such ones."""
        groups, heads = sizes[self.groups], sizes[self.heads]
        return heads == 0 if groups == 0 else heads % groups == 0


Promise = WholeBlocks | SameLength | Divides
