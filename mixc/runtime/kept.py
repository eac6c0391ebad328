"""What a caller may ask for of what a forward pass keeps for the backward pass."""

from __future__ import annotations

from typing import Literal, cast

from ..ir.errors import ArgumentError

# All, the least, or what is worth its memory; or the rows of a segment.
Kept = Literal["auto", "all", "least"] | int


def checked_kept(kept: object) -> Kept:
    """``kept`` as ``mixc.load`` takes it; ArgumentError for anything else."""
    is_rows = isinstance(kept, int) and not isinstance(kept, bool) and kept > 0
    if not is_rows and kept not in ("auto", "all", "least"):
        raise ArgumentError(
            f"kept: expected auto, all, least or a number of rows from 1 on, got {kept!r}"
        )
    return cast("Kept", kept)


__all__ = ["Kept", "checked_kept"]
