"""Products of tiles, as statements of a kernel."""

from __future__ import annotations

from ...ir.tile import Dot, DType, Value
from ..python_text import Text, call
from .kernel_scope import KernelScope
from .layout import Order, dot_operands


def write_dot(kernel: KernelScope, op: Dot) -> None:
    """A product, added to the sums so far where there are any."""
    (a, a_order), (b, b_order) = dot_operands(op, kernel.layout.order)
    texts = [_operand(kernel, a, a_order), _operand(kernel, b, b_order)]
    if op.acc is not None:
        texts.append(kernel.shaped(op.acc, kernel.layout.of(op.out)))
    precision = f'"{_precision(kernel, op)}"'
    if op.masked:
        if op.acc is None:
            shape = f"[{kernel.blocks(kernel.layout.of(op.out))}]"
            texts.append(call("tl.zeros", shape, "tl.float32"))
        kernel.device.add("masked_dot")
        product = call("_masked_dot", *texts, f"{a == op.a}", precision)
    elif a.dtype is DType.FLOAT32:
        product = call("tl.dot", *texts, input_precision=precision)
    else:
        product = call("tl.dot", *texts)
    kernel.define(op, op.out, product)


def _precision(kernel: KernelScope, op: Dot) -> str:
    """How operands in float32 are multiplied.

    Where a choice by narrow numbers hangs on them, by their two leading parts in bfloat16, 16 bits,
    on tensor cores of every target; Triton's interpreter, which has no such parts, by all bits.
    """
    if op.exact:
        return "ieee" if kernel.wide_dots else "bf16x3"
    return kernel.precision


def _operand(kernel: KernelScope, value: Value, order: Order) -> Text:
    text = kernel.ordered(value, order)
    if kernel.wide_dots and value.dtype is DType.BFLOAT16:
        return text.then(".to(tl.float32)")
    return text
