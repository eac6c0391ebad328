"""The forms in which dots read their operands.

``rows``: bfloat16 with the summed axis last. ``pairs``: two bfloat16 of adjacent summed positions
side by side. ``columns``: floats with the result's columns last. ``pointer`` and ``vectors``:
floats where they lie in memory, to be read number by number or in vectors.
"""

from __future__ import annotations

from collections import defaultdict

from ...ir.targets import CpuTarget
from ...ir.tile import Dot, DType, Load, Program, Value, all_ops
from .fusion import Fusion
from .layout import Layout, dot_operands


def is_paired(target: CpuTarget, dot: Dot) -> bool:
    """Whether a dot takes bfloat16 two at a time."""
    return target.paired_dot and dot.a.dtype is DType.BFLOAT16


def operand_requests(
    program: Program, layout: Layout, fusion: Fusion, target: CpuTarget
) -> tuple[set[str], dict[str, set[tuple[str, str]]]]:
    """Which values need a plain array, and which other forms dots want of which values."""
    forms: dict[str, set[tuple[str, str]]] = defaultdict(set)
    plain: set[str] = set()
    for dot in all_ops(program.body):
        if not isinstance(dot, Dot):
            continue
        paired = is_paired(target, dot)
        operands = dot_operands(dot, layout)
        for operand, axis in ((operands.left, operands.row), (operands.right, operands.column)):
            value, over, other = fusion.root(operand, dot.over, axis)
            form = _form(layout, fusion, value, over, other, paired, operand is operands.left)
            if form is None:
                plain.add(value.name)
            else:
                forms[value.name].add((form, over))
    return plain, forms


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
