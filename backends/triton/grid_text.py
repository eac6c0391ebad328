"""Where a program instance stands: its number, taken apart into the positions of the grid."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ...ir.tile import GridAxis, Program
from ..python_text import PRODUCT, Text, call, infix, name
from .kernel_scope import Body


def grid_axes(program: Program) -> list[GridAxis]:
    """The axes of the grid, the fastest first: neighbours share all but the block they take."""
    tiled = [g for g in program.grid if g.tiled]
    return [*reversed(tiled), *reversed([g for g in program.grid if not g.tiled])]


def write_grid(
    program: Program,
    body: Body,
    names: Mapping[str, str],
    sizes: Mapping[str, int],
    unique: Callable[[str], str],
) -> None:
    """The statements that make the grid's positions, under their names.

    ``sizes`` are fixed; ``unique`` finds a variable that nothing else has.
    """
    axes = grid_axes(program)
    if axes:
        body.assign("program", call("tl.program_id", 0))
    for axis in axes:
        count = Text(f"{sizes.get(axis.dim, axis.dim)}")
        if axis.tiled and (axis is not axes[-1] or axis.descending):
            blocks = unique(f"{axis.dim.lower()}_blocks")
            body.assign(blocks, call("tl.cdiv", count, f"BLOCK_{axis.dim}"))
            count = name(blocks)
        here = name("program")
        if axis is not axes[-1]:
            here = infix(here, "%", count)
        if axis.descending:
            body.say("the last block first: it has the most to do")
            here = infix(infix(count, "-", Text("1")), "-", here)
        if axis.tiled:
            here = infix(here.at(PRODUCT), "*", Text(f"BLOCK_{axis.dim}"))
        body.assign(names[axis.position.name], here)
        if axis is not axes[-1]:
            body.assign("program", infix(name("program"), "//", count))
