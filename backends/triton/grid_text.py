"""Where a program instance stands: its number, taken apart into the positions of the grid."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from ...ir.tile import GridAxis, Program


def grid_axes(program: Program) -> list[GridAxis]:
    """The axes of the grid, the fastest first: neighbours share all but the block they take."""
    tiled = [g for g in program.grid if g.tiled]
    return [*reversed(tiled), *reversed([g for g in program.grid if not g.tiled])]


def grid_lines(
    program: Program,
    names: Mapping[str, str],
    sizes: Mapping[str, int],
    unique: Callable[[str], str],
) -> Iterator[str]:
    """The statements that make the grid's positions, under their names.

    ``sizes`` are fixed; ``unique`` finds a variable that nothing else has.
    """
    axes = grid_axes(program)
    if axes:
        yield "program = tl.program_id(0)"
    for axis in axes:
        name = names[axis.position.name]
        count = str(sizes.get(axis.dim, axis.dim))
        if axis.tiled and (axis is not axes[-1] or axis.descending):
            blocks = unique(f"{axis.dim.lower()}_blocks")
            yield f"{blocks} = tl.cdiv({count}, BLOCK_{axis.dim})"
            count = blocks
        code = "program" if axis is axes[-1] else f"program % {count}"
        if axis.descending:
            yield "# the last block first: it has the most to do"
            code = f"{count} - 1 - {code}"
        if axis.tiled:
            code = code if code.isidentifier() else f"({code})"
            code = f"{code} * BLOCK_{axis.dim}"
        yield f"{name} = {code}"
        if axis is not axes[-1]:
            yield f"program = program // {count}"
