"""What lowering has taken for granted and left out of a program: checked wherever it may break.

A mask that is true by such a fact is not in the program any more. So whoever sets a block has to
keep the fact, or the kernel leaves its memory.
"""

from __future__ import annotations

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
class DividingBlocks:
    """The blocks of ``dim`` divide stretches of ``length`` positions: each lies in one of them."""

    dim: str
    length: int

    def __str__(self) -> str:
        return f"blocks of {self.dim} divide stretches of {self.length}"

    def is_kept_by(self, block: int) -> bool:
        """Whether blocks of this many positions are such ones."""
        return block > 0 and self.length % block == 0


@dataclass(frozen=True, slots=True)
class CommonBlocks:
    """The programs that have the dim ``shared`` cut ``dim`` alike: it counts blocks of ``dim``, or
    stretches of several blocks."""

    dim: str
    shared: str

    def __str__(self) -> str:
        return f"{self.shared} counts blocks of {self.dim}"


Promise = WholeBlocks | DividingBlocks | CommonBlocks
