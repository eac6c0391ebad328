"""Short axes that no product takes, in tiles as short: tensor cores alone ask for 16 positions.

a tile of K = 3 positions in 16 --> in 4
"""

from __future__ import annotations

from dataclasses import replace

from ...ir.tile import Convolve, Dot, Program, Solve, Tile, all_ops, made_by, operands
from ..tiles.context import padded


def narrow_tiles(program: Program) -> Program:
    """The program with such axes in the power of two that holds them; masks stay as they are."""
    taken = _of_products(program)
    tiles = tuple(tile if tile.dim in taken else _narrowed(tile) for tile in program.tiles)
    return program if tiles == program.tiles else replace(program, tiles=tiles)


def _of_products(program: Program) -> frozenset[str]:
    """The axes of products and systems, and what has the blocks of one."""
    ops = [op for op in all_ops(program.body) if isinstance(op, Dot | Solve | Convolve)]
    values = [value for op in ops for value in (*operands(op), *made_by(op))]
    alike = (frozenset({tile.dim, tile.like}) for tile in program.tiles if tile.like)
    return frozenset[str]().union(*(value.axes for value in values), *alike)


def _narrowed(tile: Tile) -> Tile:
    if tile.size is None:
        return tile
    return replace(tile, block=min(tile.block, padded(tile.size)))


__all__ = ["narrow_tiles"]
