"""Numbers, positions and elementwise functions, as statements of a kernel."""

from __future__ import annotations

from ...ir.sign import keeps_nonnegative
from ...ir.tile import Cast, Constant, DType, Elementwise, Range
from ..python_text import call, infix, name
from .functions import TRITON_TYPE, write_call, write_number
from .kernel_scope import KernelScope

_WHOLE = (DType.INT32, DType.INT64)


def write_constant(kernel: KernelScope, op: Constant) -> None:
    """A number; a tile of it where it has axes."""
    kernel.constants[op.out.name] = op.value
    if not op.out.axes:
        kernel.texts[op.out.name] = write_number(op.value)
        if op.value >= 0:
            kernel.nonnegative.add(op.out.name)
        return
    shape = f"[{kernel.blocks(kernel.layout.of(op.out))}]"
    dtype = TRITON_TYPE[op.out.dtype]
    if op.value == 0:
        kernel.texts[op.out.name] = call("tl.zeros", shape, dtype)
    else:
        kernel.texts[op.out.name] = call("tl.full", shape, write_number(op.value), dtype)


def write_range(kernel: KernelScope, op: Range) -> None:
    """Positions: of a tile that only places loads and stores, from its start."""
    (dim,) = op.out.axes
    variable = kernel.unique(op.out.name)
    text = call("tl.arange", 0, kernel.blocks((dim,)))
    if op.start is not None:
        offset = kernel.offset(dim)
        if offset not in kernel.taken:
            kernel.taken.add(offset)
            kernel.bodies[0].assign(offset, text)
            kernel.kept.add(offset)
        kernel.starts[op.out.name] = op.start
        if op.out.name not in kernel.computed:  # it only places loads and stores
            return
        text = infix(kernel.texts[op.start.name], "+", name(offset))
    if op.start is None or op.start.name in kernel.nonnegative:
        kernel.nonnegative.add(op.out.name)
    kernel.bodies[-1].assign(variable, text)
    kernel.name_value(op.out.name, variable)


def write_elementwise(kernel: KernelScope, op: Elementwise) -> None:
    """A function of values that line up by the names of their axes."""
    if op.out.dtype is DType.BOOL:
        kernel.conditions[op.out.name] = op
        if op.out.name in kernel.masks_turned:
            return
    order = kernel.layout.of(op.out)
    args = [kernel.shaped(a, order) for a in op.args]
    constants = [kernel.constants.get(a.name) for a in op.args]
    signs = [a.name in kernel.nonnegative for a in op.args]
    if op.out.dtype in _WHOLE and keeps_nonnegative(
        op.fn, op.args, signs, constants[-1], {tile.symbol for tile in kernel.program.tiles}
    ):
        kernel.nonnegative.add(op.out.name)
    whole = op.out.dtype in _WHOLE
    quick = not kernel.quick.isdisjoint(a.name for a in op.args)
    if quick and op.fn == "mul":  # by a scale
        kernel.quick.add(op.out.name)
    keeps_nan = op.out.dtype.is_float and not quick
    text, device = write_call(op.fn, args, constants, all(signs), whole, keeps_nan)
    if device is not None:
        kernel.device.add(device)
    kernel.define(op, op.out, text)


def write_cast(kernel: KernelScope, op: Cast) -> None:
    """The same in another type."""
    text = kernel.shaped(op.x, kernel.layout.of(op.out))
    if op.x.name in kernel.nonnegative:
        kernel.nonnegative.add(op.out.name)
    if op.x.name in kernel.compile_time:  # a plain number, which meets any type
        kernel.texts[op.out.name] = text
        return
    if op.x.dtype in _WHOLE and not op.out.axes:  # it may be a plain number here
        kernel.define(op, op.out, call("tl.cast", text, TRITON_TYPE[op.out.dtype]))
    else:
        kernel.define(op, op.out, text.then(f".to({TRITON_TYPE[op.out.dtype]})"))
