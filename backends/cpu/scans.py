"""Running sums and running combinations along an axis, as C++.

Along an axis outside the vectors, position after position with the values so far in registers;
along the vectors, sums by shifts within them and anything else number by number.
"""

from __future__ import annotations

from ...ir.tile import Combine, DType, Scan, Value, made_by
from .compaction import only_compacts
from .functions import SCALAR_TYPE, VECTOR_TYPE, Text
from .kernel_scope import KernelScope
from .nest import NestText, declared, write_start, write_together


def write_scan(kernel: KernelScope, op: Scan) -> None:
    """Running sums, products or maxima; not such as are places of what is stored without them."""
    if only_compacts(kernel, op):
        return
    source, array = declared(kernel, op.x), kernel.declare(op.out)
    vector = kernel.in_vectors(array.axes)
    if vector and array.axes[-1] == op.over and op.out.dtype.is_float:
        columns = kernel.blocks[op.over]
        rows = kernel.size(array.axes) // columns
        shape = f"mx::{op.op.capitalize()}, {str(op.reverse).lower()}, {rows}, {columns}"
        kernel.add(f"mx::running_rows<{shape}>({array.name}, {source});")
        return
    nest = _nest(kernel, op, array.axes)
    x = nest.value(op.x)
    so_far = _so_far(nest, op.out, write_start(op.op, op.out.dtype))
    together = write_together(op.op, so_far.code, x.code, x.vector)
    nest.inner.append(f"{so_far.code} = {together};")
    nest.store(array, so_far)
    kernel.add(*nest.lines())


def write_combine(kernel: KernelScope, op: Combine) -> None:
    """Running values of an associative function of several."""
    for x in op.xs:
        declared(kernel, x)
    arrays = [kernel.declare(out) for out in op.outs]
    nest = _nest(kernel, op, arrays[0].axes)
    so_far = [_so_far(nest, out, "0") for out in op.outs]
    here = [nest.value(x) for x in op.xs]
    nest.known |= {v.name: text for v, text in zip(op.left, so_far, strict=True)}
    nest.known |= {v.name: text for v, text in zip(op.right, here, strict=True)}
    nest.own = frozenset(v.name for inner in op.body for v in made_by(inner))
    before = len(nest.inner)
    results = [nest.value(v) for v in op.results]
    together, nest.inner = nest.inner[before:], nest.inner[:before]
    first = kernel.blocks[op.over] - 1 if op.reverse else 0
    assign = [_assign(a, b) for a, b in zip(so_far, results, strict=True)]
    nest.inner += [f"if (at_{op.over} == {first}) {{"]
    nest.inner += [_assign(a, b) for a, b in zip(so_far, here, strict=True)]
    nest.inner += ["} else {", *together, *assign, "}"]
    for array, text in zip(arrays, so_far, strict=True):
        nest.store(array, text)
    kernel.add(*nest.lines())


def _nest(kernel: KernelScope, op: Scan | Combine, axes: tuple[str, ...]) -> NestText:
    """A nest in which the axis is walked innermost, in the op's direction."""
    vector = kernel.in_vectors(axes) and axes[-1] != op.over
    return NestText(
        kernel, axes, over=op.over, vector=vector, backward=op.over if op.reverse else None
    )


def _so_far(nest: NestText, out: Value, start: str) -> Text:
    """A variable that is started before the axis is walked."""
    name = nest.kernel.fresh(f"{out.name}_so_far")
    outside = nest.pre[len(nest.outer) - 1]
    if nest.lane_axis is None:
        outside.append(f"{SCALAR_TYPE[out.dtype]} {name} = {start};")
        return Text(name, out.dtype)
    kind = VECTOR_TYPE[out.dtype]
    number = f"{SCALAR_TYPE[out.dtype]}({start})"
    outside.append(f"{kind} {name}[{nest.width}];")
    outside.append(
        f"MX_UNROLL for (int v = 0; v < {nest.width}; ++v) {name}[v] = mx::splat({number});"
    )
    return Text(f"{name}[v]", out.dtype, True)


def _assign(to: Text, value: Text) -> str:
    code = value.as_vector() if to.vector else value.code
    return f"{to.code} = {'-' if to.dtype is DType.BOOL and not to.vector else ''}{code};"
