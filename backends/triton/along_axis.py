"""Reductions, running combinations and renamed axes, as statements of a kernel."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from ...ir.tile import (
    Cast,
    Combine,
    Comment,
    Constant,
    Elementwise,
    Op,
    Reduce,
    Rename,
    Scan,
    Value,
    made_by,
    operands,
)
from ..python_text import WIDEST, Text, call, comment, listed, name, several, statement
from .functions import KEEPS_NAN, TRITON_TYPE, write_call, write_number
from .kernel_scope import KernelScope

_REDUCTION = {"sum": "tl.sum", "max": "tl.max", "min": "tl.min"}
_COMBINED = {"prod": "_multiply", "any": "_either", "all": "_both"}  # of device functions
_RUNNING = {"sum": "tl.cumsum", "prod": "tl.cumprod"}


def write_reduce(kernel: KernelScope, op: Reduce) -> None:
    """One axis of a tile goes."""
    axis = kernel.layout.of(op.x).index(op.over)
    text = kernel.texts[op.x.name]
    quick = op.over in kernel.quick_over
    is_number = op.x.name in kernel.never_nan
    if quick:
        kernel.quick.add(op.out.name)
    if op.op in KEEPS_NAN and op.out.dtype.is_float and not quick and not is_number:
        kernel.device.add(KEEPS_NAN[op.op])
        reduced = call("tl.reduce", text, axis, f"_{KEEPS_NAN[op.op]}")
    elif op.op in _REDUCTION:
        reduced = call(_REDUCTION[op.op], text, axis)
    else:
        kernel.device.add(op.op)
        reduced = call("tl.reduce", text, axis, _COMBINED[op.op])
    kernel.define(op, op.out, reduced)


def write_scan(kernel: KernelScope, op: Scan) -> None:
    """A running sum, product or maximum."""
    axis = kernel.layout.of(op.x).index(op.over)
    text = kernel.texts[op.x.name]
    reverse = {"reverse": True} if op.reverse else {}
    if op.op in _RUNNING:
        running = call(_RUNNING[op.op], text, axis, **reverse)
    else:
        kernel.device.add("larger")
        running = call("tl.associative_scan", text, axis, "_larger", **reverse)
    kernel.define(op, op.out, running)


def write_rename(kernel: KernelScope, op: Rename) -> None:
    """The same tile under another name; only where the order of its axes turns it is moved."""
    x, out = op.x, op.out
    if x.name in kernel.starts:
        kernel.starts[out.name] = kernel.starts[x.name]
    text = kernel.texts[x.name]
    renamed = [op.to if axis == op.axis else axis for axis in kernel.layout.of(x)]
    text = kernel.turned(text, tuple(renamed), kernel.layout.of(out))
    if x.name in kernel.constants:
        kernel.constants[out.name] = kernel.constants[x.name]
    if x.name in kernel.nonnegative:
        kernel.nonnegative.add(out.name)
    if text.code.isidentifier() or kernel.uses[out.name] == 1 or x.name in kernel.constants:
        kernel.texts[out.name] = text
    else:
        kernel.define(op, out, text)


# --------------------------------------------------------------------------- combinations


def write_combine(kernel: KernelScope, op: Combine) -> None:
    """A scan of several tiles at once, with a function of its own."""
    axis = kernel.layout.of(op.xs[0]).index(op.over)
    function = kernel.own_function(f"combine_{op.outs[0].name}", _function(kernel, op))
    unread = {out.name for out in op.outs if not kernel.uses[out.name]}
    names = [kernel.unique(f"_{o.name}" if o.name in unread else o.name) for o in op.outs]
    texts = [kernel.shaped(x, kernel.layout.of(x)) for x in op.xs]
    scanned = texts[0] if len(texts) == 1 else listed(texts)
    reverse = {"reverse": True} if op.reverse else {}
    running = call("tl.associative_scan", scanned, axis, function, **reverse)
    kernel.bodies[-1].assign(", ".join(names), running)
    for out, made in zip(op.outs, names, strict=True):
        kernel.name_value(out.name, made)


def _function(kernel: KernelScope, op: Combine) -> str:
    """A function of two stretches, left before right; it sees nothing else but numbers."""
    texts = {v.name: name(v.name) for v in (*op.left, *op.right)}
    uses = Counter(v.name for inner in op.body for v in operands(inner))
    uses.update(v.name for v in op.results)
    longer = len(op.outs[0].name) + 4  # than FUNCTION, as which it is named below
    lines = call("FUNCTION", *texts).lines(longer, "def ", ":")
    for inner in op.body:
        if isinstance(inner, Comment):
            lines += comment(inner.text, 4)
            continue
        (out,) = made_by(inner)
        text = _inner_text(kernel, texts, inner)
        if (uses[out.name] == 1 and len(text.code) <= WIDEST // 2) or isinstance(inner, Constant):
            texts[out.name] = text
        else:
            lines += statement(text, 1, f"{out.name} = ")
            texts[out.name] = name(out.name)
    results = several([_seen(kernel, texts, v) for v in op.results])
    return "\n".join([*lines, *statement(results, 1, "return ")])


def _inner_text(kernel: KernelScope, texts: Mapping[str, Text], op: Op) -> Text:
    match op:
        case Constant(_, number):
            return write_number(number)
        case Cast(out, x):
            return _seen(kernel, texts, x).then(f".to({TRITON_TYPE[out.dtype]})")
        case Elementwise(out, fn, args):
            given = [_seen(kernel, texts, arg) for arg in args]
            numbers = [kernel.constants.get(arg.name) for arg in args]
            text, device = write_call(fn, given, numbers, keeps_nan=out.dtype.is_float)
            if device is not None:
                kernel.device.add(device)
            return text
    raise TypeError(type(op).__name__)


def _seen(kernel: KernelScope, texts: Mapping[str, Text], value: Value) -> Text:
    """A value of the function's own, or a number that the kernel knows."""
    if value.name in texts:
        return texts[value.name]
    return write_number(kernel.constants[value.name])
