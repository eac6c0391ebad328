"""Products of tiles, as statements of a kernel."""

from __future__ import annotations

from ...ir.tile import Dot, DType, Value
from .functions import ATOM, Text
from .kernel_scope import KernelScope
from .layout import Order, dot_operands


def write_dot(kernel: KernelScope, op: Dot) -> None:
    """A product, added to the sums so far where there are any."""
    (a, a_order), (b, b_order) = dot_operands(op, kernel.layout.order)
    texts = [_operand(kernel, a, a_order), _operand(kernel, b, b_order)]
    if op.acc is not None:
        texts.append(kernel.shaped(op.acc, kernel.layout.of(op.out)))
    args = [t.code for t in texts]
    reads = frozenset[str]().union(*(t.reads for t in texts))
    if op.masked:
        if op.acc is None:
            args.append(f"tl.zeros([{kernel.blocks(kernel.layout.of(op.out))}], tl.float32)")
        args += [f"{a == op.a}", f'"{kernel.precision}"']
        kernel.device.add("masked_dot")
    elif a.dtype is DType.FLOAT32:
        args.append(f'input_precision="{kernel.precision}"')
    name = "_masked_dot" if op.masked else "tl.dot"
    kernel.define(op, op.out, Text(f"{name}({', '.join(args)})", ATOM, reads))


def _operand(kernel: KernelScope, value: Value, order: Order) -> Text:
    text = kernel.ordered(value, order)
    if kernel.wide_dots and value.dtype is DType.BFLOAT16:
        text = Text(f"{text.at(ATOM)}.to(tl.float32)", ATOM, text.reads)
    return text
