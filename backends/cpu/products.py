"""Dots as C++, and how each of their operands is made or read (see ``operand_forms``)."""

from __future__ import annotations

from ...ir.knob import Configuration, Knob
from ...ir.tile import Constant, Dot, Elementwise, Value
from .kernel_scope import KernelScope
from .layout import dot_operands
from .nest import fill
from .operand_forms import is_paired

DOT_ROWS = Knob("dot_rows", (4, 6, 8, 10, 12), 8, "rows of a product that stay in registers")
DOT_VECTORS = Knob("dot_vectors", (1, 2, 4), 2, "vectors of a row that stay in registers")


def vectors_held(configuration: Configuration) -> int:
    """The registers of a product: its sums, a row of the second factor, one of the first."""
    rows, vectors = configuration[DOT_ROWS.name], configuration[DOT_VECTORS.name]
    return rows * vectors + vectors + 1


def declare_form(kernel: KernelScope, value: Value, form: str, over: str) -> str:
    """Declare the array of a form."""
    name = kernel.fresh(f"{value.name}_{form}")
    size = kernel.size(kernel.layout.of(value))
    kind = {"pairs": "uint32_t", "rows": "uint16_t", "columns": "float"}[form]
    count = size // 2 if form == "pairs" else size
    kernel.local(kind, name, count)
    kernel.forms[value.name][form, over] = name
    return name


def pack_operands(kernel: KernelScope, value: Value) -> None:
    """Forms that are made from the plain array."""
    for form, over in sorted(kernel.operand_forms.get(value.name, ())):
        form = "columns" if form == "vectors" else form
        if (form, over) in kernel.forms[value.name] or form == "pointer":
            continue
        axes = kernel.layout.of(value)
        (other,) = value.axes - {over}
        pairs = kernel.forms[value.name].get(("pairs", over))
        name = declare_form(kernel, value, form, over)
        if form == "rows" and pairs is not None:
            sizes = f"{kernel.blocks[other]}, {kernel.blocks[over]}"
            kernel.add(f"mx::turn_pairs<{sizes}>({name}, {pairs});")
            continue
        array = kernel.arrays[value.name].name
        strides = {axes[0]: kernel.blocks[axes[1]], axes[1]: 1}
        rows, columns = (other, over) if form == "rows" else (over, other)
        kernel.add(
            f"mx::make_{form}<{kernel.blocks[rows]}, {kernel.blocks[columns]}>("
            f"{name}, {array}, {strides[rows]}, {strides[columns]});"
        )


def write_dot(kernel: KernelScope, op: Dot) -> None:
    """Multiply two tiles, in place where the sums so far are not read again."""
    operands = dot_operands(op, kernel.layout)
    start, scale = _start_dot(kernel, op, operands.row, operands.column)
    out = kernel.arrays[op.out.name].name
    kind = "mx::Pairs" if is_paired(kernel.target, op) else "mx::Floats"
    m, n, k = (kernel.blocks[a] for a in (operands.row, operands.column, op.over))
    assert n % kernel.target.lanes == 0, "columns of a product fill vectors"
    left = _left(kernel, operands.left, operands.row, op)
    right = _right(kernel, operands.right, operands.column, op)
    rows, vectors = kernel.knob(DOT_ROWS), kernel.knob(DOT_VECTORS)
    left_masks = "true" if operands.left == op.a else "false"
    if op.out.name in kernel.tiled:
        shape = f"{'true' if kernel.half_tiles else 'false'}, {m}, {n}, {k}, mx::Start::{start}"
        name, shape = ("masked_", f"{shape}, {left_masks}") if op.masked else ("", shape)
        kernel.add(f"mx::{name}tile_dot<{shape}>({', '.join([out, *left, *right, *scale])});")
        return
    # One vector of a row leaves registers for more rows.
    most = rows * (vectors if n == kernel.target.lanes else 1)
    # A few rows need more vectors of each to keep the multipliers busy.
    vectors = vectors if m >= rows else max(8 // m, 1)
    shape = f"{kind}, {m}, {n}, {k}, {most}, {vectors}, mx::Start::{start}"
    name, few = "dot", [kernel.counting.get(a) for a in (operands.row, operands.column)]
    arguments = [out, *left, *right, *scale]
    if any(few):
        arguments += [*([] if scale else ["nullptr"]), few[0] or str(m), few[1] or str(n)]
    if op.masked:
        name = "masked_dot"
        shape += f", {left_masks}"
    kernel.add(f"mx::{name}<{shape}>({', '.join(arguments)});")


def _start_dot(kernel: KernelScope, op: Dot, row: str, column: str) -> tuple[str, list[str]]:
    """What the sums start from: nothing, the array itself, or the array times a factor."""
    acc = op.acc
    if acc is None or _is_zero(kernel, acc):
        kernel.declare(op.out)
        return "ZERO", []
    source, factor = _scaled(kernel, acc)
    read = {kernel.fusion.root(v, "", "")[0].name for v in (op.a, op.b)}
    if source is not None and source.name not in read and kernel.may_overwrite(source, op.out, op):
        kernel.take(op.out, source)
        if factor is None:
            return "OUT", []
        start = "ROWS_SCALED" if factor.axes == {row} else "COLUMNS_SCALED"
        return start, [kernel.arrays[factor.name].name]
    array = kernel.declare(op.out)
    fill(kernel, array, acc)
    return "OUT", []


def _is_zero(kernel: KernelScope, value: Value) -> bool:
    maker = kernel.fusion.makers.get(value.name)
    return isinstance(maker, Constant) and maker.value == 0


def _scaled(kernel: KernelScope, acc: Value) -> tuple[Value | None, Value | None]:
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


def _left(kernel: KernelScope, operand: Value, axis: str, op: Dot) -> list[str]:
    value, over, row = kernel.fusion.root(operand, op.over, axis)
    direct = kernel.direct.get((value.name, over))
    if direct is not None:
        return list(direct)
    forms = kernel.forms[value.name]
    if is_paired(kernel.target, op) and ("rows", over) in forms:
        return [forms["rows", over], str(kernel.blocks[over]), "2"]
    if is_paired(kernel.target, op):
        return [f"(const uint16_t*){forms['pairs', over]}", "2", str(2 * kernel.blocks[row])]
    array = kernel.arrays[value.name]
    inner = {array.axes[0]: kernel.blocks[array.axes[1]], array.axes[1]: 1}
    return [array.name, str(inner[row]), str(inner[over])]


def _right(kernel: KernelScope, operand: Value, axis: str, op: Dot) -> tuple[str, str]:
    value, over, column = kernel.fusion.root(operand, op.over, axis)
    direct = kernel.direct_right.get((value.name, over))
    if direct is not None:
        return direct
    forms, width = kernel.forms[value.name], str(kernel.blocks[column])
    if is_paired(kernel.target, op):
        return forms["pairs", over], width
    if kernel.layout.of(value)[0] != over:
        return forms["columns", over], width
    return kernel.arrays[value.name].name, width
