"""Dots as C++, and the forms in which they read their operands.

``rows``: bfloat16 with the summed axis last. ``pairs``: two bfloat16 of adjacent summed positions
side by side. ``columns``: floats with the result's columns last. ``pointer`` and ``vectors``:
floats where they lie in memory, to be read number by number or in vectors.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from ...ir.tile import Constant, Dot, DType, Elementwise, Load, Value, all_ops
from .layout import dot_operands

if TYPE_CHECKING:
    from .kernel_text import KernelText


def _paired(kernel: KernelText, dot: Dot) -> bool:
    return kernel.target.paired_dot and dot.a.dtype is DType.BFLOAT16


def operand_requests(kernel: KernelText) -> tuple[set[str], dict[str, set[tuple[str, str]]]]:
    """Which values need a plain array, and which other forms dots want of which values."""
    forms: dict[str, set[tuple[str, str]]] = defaultdict(set)
    plain: set[str] = set()
    for op in all_ops(kernel.program.body):
        if not isinstance(op, Dot):
            continue
        operands = dot_operands(op, kernel.layout)
        for value, other in ((operands.left, operands.row), (operands.right, operands.column)):
            maker = kernel.fusion.makers.get(value.name)
            left = value is operands.left
            if not _paired(kernel, op):
                if left and isinstance(maker, Load) and value.dtype is DType.FLOAT32:
                    forms[value.name].add(("pointer", op.over))
                elif not left and _rows_of_vectors(kernel, value, other):
                    forms[value.name].add(("vectors", op.over))
                elif not left and kernel.layout.of(value) != (op.over, other):
                    forms[value.name].add(("columns", op.over))
                else:
                    plain.add(value.name)
            elif left and _rows_in_memory(kernel, value, op.over, other):
                forms[value.name].add(("rows", op.over))
            else:
                forms[value.name].add(("pairs", op.over))
    return plain, forms


def _rows_of_vectors(kernel: KernelText, value: Value, column: str) -> bool:
    """Whether a loaded operand lies in memory with its columns side by side."""
    maker = kernel.fusion.makers.get(value.name)
    if not isinstance(maker, Load) or value.dtype is not DType.FLOAT32:
        return False
    dims = [next(iter(v.axes)) for _, v in maker.index if len(v.axes) == 1]
    return bool(dims) and dims[-1] == column


def _rows_in_memory(kernel: KernelText, value: Value, over: str, other: str) -> bool:
    """Whether pairs along ``over`` lie side by side already."""
    maker = kernel.fusion.makers.get(value.name)
    if isinstance(maker, Load):
        dims = [next(iter(v.axes)) for _, v in maker.index if len(v.axes) == 1]
        return bool(dims) and dims[-1] == over
    return kernel.layout.of(value) == (other, over)


def declare_form(kernel: KernelText, value: Value, form: str) -> str:
    """Declare the array of a form."""
    name = kernel.fresh(f"{value.name}_{form}")
    size = kernel.size(kernel.layout.of(value))
    kind = {"pairs": "uint32_t", "rows": "uint16_t", "columns": "float"}[form]
    count = size // 2 if form == "pairs" else size
    kernel.add(f"alignas(64) {kind} {name}[{count}];")
    kernel.forms[value.name][form] = name
    return name


def late_forms(kernel: KernelText, value: Value) -> None:
    """Forms that are made from the plain array."""
    for form, over in sorted(kernel.operand_forms.get(value.name, ())):
        form = "columns" if form == "vectors" else form
        if form in kernel.forms[value.name] or form == "pointer":
            continue
        axes = kernel.layout.of(value)
        (other,) = value.axes - {over}
        name = declare_form(kernel, value, form)
        array = kernel.arrays[value.name].name
        strides = {axes[0]: kernel.blocks[axes[1]], axes[1]: 1}
        rows, columns = (other, over) if form == "rows" else (over, other)
        kernel.add(
            f"mx::make_{form}<{kernel.blocks[rows]}, {kernel.blocks[columns]}>("
            f"{name}, {array}, {strides[rows]}, {strides[columns]});"
        )


def write_dot(kernel: KernelText, op: Dot) -> None:
    """Multiply two tiles, in place where the sums so far are not read again."""
    operands = dot_operands(op, kernel.layout)
    start, scale = _start_dot(kernel, op, operands.row, operands.column)
    out = kernel.arrays[op.out.name].name
    kind = "mx::Pairs" if _paired(kernel, op) else "mx::Floats"
    m, n, k = (kernel.blocks[a] for a in (operands.row, operands.column, op.over))
    left = _left(kernel, operands.left, operands.row, op)
    right = _right(kernel, operands.right, op)
    # A few rows need more vectors of each to keep the multipliers busy.
    vectors = kernel.dot_vectors if m >= kernel.dot_rows else max(8 // m, 1)
    shape = f"{kind}, {m}, {n}, {k}, {kernel.dot_rows}, {vectors}, mx::Start::{start}"
    kernel.add(f"mx::dot<{shape}>({', '.join([out, *left, *right, *scale])});")


def _start_dot(kernel: KernelText, op: Dot, row: str, column: str) -> tuple[str, list[str]]:
    """What the sums start from: nothing, the array itself, or the array times a factor."""
    acc = op.acc
    if acc is None or _is_zero(kernel, acc):
        kernel.declare(op.out)
        return "ZERO", []
    source, factor = _scaled(kernel, acc)
    if source is not None and _ends_here(kernel, source, op):
        kernel.arrays[op.out.name] = kernel.arrays[source.name]
        if factor is None:
            return "OUT", []
        start = "ROWS_SCALED" if factor.axes == {row} else "COLUMNS_SCALED"
        return start, [kernel.arrays[factor.name].name]
    array = kernel.declare(op.out)
    kernel.fill(array, acc)
    return "OUT", []


def _is_zero(kernel: KernelText, value: Value) -> bool:
    maker = kernel.fusion.makers.get(value.name)
    return isinstance(maker, Constant) and maker.value == 0


def _scaled(kernel: KernelText, acc: Value) -> tuple[Value | None, Value | None]:
    """The array and the factor per row or column whose product ``acc`` is, if it is one."""
    if acc.name in kernel.arrays and kernel.arrays[acc.name].axes == kernel.layout.of(acc):
        return acc, None
    maker = kernel.fusion.makers.get(acc.name)
    match maker:
        case Elementwise(_, "mul", (a, b)) if acc.name in kernel.fusion.virtual:
            for x, y in ((a, b), (b, a)):
                there = x.name in kernel.arrays and y.name in kernel.arrays
                if there and x.axes == acc.axes and len(y.axes) == 1:
                    return x, y
    return None, None


def _ends_here(kernel: KernelText, value: Value, op: Dot) -> bool:
    """Whether a dot is the only reader of a value, so that it may be updated in place."""
    readers = kernel.fusion.chain_readers(value.name)
    return len(readers) == 1 and readers[0] is op and kernel.is_current(value)


def _left(kernel: KernelText, value: Value, row: str, op: Dot) -> list[str]:
    direct = kernel.direct.get((value.name, op.over))
    if direct is not None:
        return list(direct)
    forms = kernel.forms[value.name]
    if _paired(kernel, op) and "rows" in forms:
        return [forms["rows"], str(kernel.blocks[op.over]), "2"]
    if _paired(kernel, op):
        return [f"(const uint16_t*){forms['pairs']}", "2", str(2 * kernel.blocks[row])]
    array = kernel.arrays[value.name]
    inner = {array.axes[0]: kernel.blocks[array.axes[1]], array.axes[1]: 1}
    return [array.name, str(inner[row]), str(inner[op.over])]


def _right(kernel: KernelText, value: Value, op: Dot) -> tuple[str, str]:
    (column,) = value.axes - {op.over}
    direct = kernel.direct_right.get((value.name, op.over))
    if direct is not None:
        return direct
    forms, width = kernel.forms[value.name], str(kernel.blocks[column])
    if _paired(kernel, op):
        return forms["pairs"], width
    if kernel.layout.of(value)[0] != op.over:
        return forms["columns"], width
    return kernel.arrays[value.name].name, width
