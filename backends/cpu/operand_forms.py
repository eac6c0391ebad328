"""The forms in which dots read their operands.

``rows``: bfloat16 with the summed axis last. ``pairs``: two bfloat16 of adjacent summed positions
side by side; dots of tiles take ``rows`` by ``pairs``. ``columns``: floats with the result's
columns last. ``pointer`` and ``vectors``: floats where they lie in memory, to be read number by
number or in vectors.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

from ...ir.knob import Knob
from ...ir.targets import CpuTarget
from ...ir.tile import Dot, DType, Load, Program, Value, all_ops
from .fusion import Fusion
from .layout import Layout, dot_operands

TILE_DOTS = Knob("tile_dots", (0, 1), 1, "products of bfloat16 by tiles of registers, or by pairs")
_TILE = 16  # rows, columns and summed numbers of a tile are multiples of it


def is_paired(target: CpuTarget, dot: Dot) -> bool:
    """Whether a dot takes bfloat16 two at a time."""
    return target.paired_dot and dot.a.dtype is DType.BFLOAT16


def tile_dots(program: Program, target: CpuTarget) -> list[Dot]:
    """The dots that go by tiles of registers: of bfloat16, of blocks that fill tiles."""
    blocks = {tile.dim: tile.block for tile in program.tiles}
    if not target.tile_dot or not dict(program.launch).get(TILE_DOTS.name, TILE_DOTS.default):
        return []
    dots = (op for op in all_ops(program.body) if isinstance(op, Dot))
    return [dot for dot in dots if is_paired(target, dot) and _fills_tiles(dot, blocks)]


def _fills_tiles(dot: Dot, blocks: Mapping[str, int]) -> bool:
    return all(blocks[axis] % _TILE == 0 for axis in dot.a.axes | dot.b.axes)


def operand_requests(
    program: Program, layout: Layout, fusion: Fusion, target: CpuTarget, tiled: frozenset[str]
) -> tuple[set[str], dict[str, set[tuple[str, str]]]]:
    """Which values need a plain array, and which other forms dots want of which values.

    ``tiled``: what dots of tiles make, by name.
    """
    forms: dict[str, set[tuple[str, str]]] = defaultdict(set)
    plain: set[str] = set()
    for dot in all_ops(program.body):
        if not isinstance(dot, Dot):
            continue
        paired = is_paired(target, dot)
        operands = dot_operands(dot, layout)
        for operand, axis in ((operands.left, operands.row), (operands.right, operands.column)):
            value, over, other = fusion.root(operand, dot.over, axis)
            left = operand is operands.left
            if dot.out.name in tiled:
                forms[value.name] |= _tile_forms(layout, fusion, value, over, left)
                continue
            form = _form(layout, fusion, value, over, other, paired, left)
            if form is None:
                plain.add(value.name)
            else:
                forms[value.name].add((form, over))
    return plain, forms


def _tile_forms(
    layout: Layout, fusion: Fusion, value: Value, over: str, left: bool
) -> set[tuple[str, str]]:
    """Rows by pairs; rows of what is made the other way round come out of pairs."""
    if not left:
        return {("pairs", over)}
    is_turned = layout.of(value)[-1] != over
    is_loaded = isinstance(fusion.makers.get(value.name), Load)
    return {("rows", over), ("pairs", over)} if is_turned and not is_loaded else {("rows", over)}


def _form(
    layout: Layout,
    fusion: Fusion,
    value: Value,
    over: str,
    other: str,
    paired: bool,
    left: bool,
) -> str | None:
    """How a dot wants an operand; None: as numbers, the way the layout has them."""
    maker = fusion.makers.get(value.name)
    loaded = maker if isinstance(maker, Load) else None
    if paired:
        aside = _last_dim(loaded) == over if loaded else layout.of(value) == (other, over)
        return "rows" if left and aside else "pairs"
    if left:
        return "pointer" if loaded and value.dtype is DType.FLOAT32 else None
    if loaded and value.dtype is DType.FLOAT32 and _last_dim(loaded) == other:
        return "vectors"
    return None if layout.of(value) == (over, other) else "columns"


def _last_dim(load: Load) -> str | None:
    """The axis along which neighbours in memory lie, of those that a single index moves along."""
    axes = [next(iter(value.axes)) for _, value in load.index if len(value.axes) == 1]
    return axes[-1] if axes else None
