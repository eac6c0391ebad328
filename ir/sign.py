"""What is known of the sign of integers in a tile program.

Positions, sizes and block sizes are never negative; this tells which results are not either, so
that floor division may be truncating division, and ``max(x, 0)`` may be ``x``.
"""

from __future__ import annotations

from collections.abc import Container, Sequence

from .tile import Value


def keeps_nonnegative(
    fn: str,
    args: Sequence[Value],
    nonnegative: Sequence[bool],
    number: float | int | bool | None,
    blocks: Container[str] = (),
) -> bool:
    """Whether an elementwise op on integers gives none that is negative.

    ``nonnegative`` tells which arguments are not negative, ``number`` what the last one is, if that
    is known, and ``blocks`` are the names of block sizes.
    """
    if any(a.dtype.is_float for a in args):
        return False
    match fn:
        case "sub":  # a block has one position at least
            return args[0].name in blocks and number in (0, 1)
        case "add" | "mul" | "floordiv" | "min":
            return all(nonnegative)
        case "mod":
            return nonnegative[1]
        case "max":
            return any(nonnegative)
        case "where":
            return nonnegative[1] and nonnegative[2]
        case "abs" | "relu":
            return True
    return False
