"""Numbers that go to memory one after another, where a running count of what is chosen says.

to[first + count(chosen so far)] = x where chosen --> the chosen ones of x, without gaps
"""

from __future__ import annotations

from ...ir.tile import Cast, DType, Elementwise, Scan, Store, Value
from .functions import MEMORY_TYPE
from .kernel_scope import KernelScope
from .nest import declared


def compacted(kernel: KernelScope, op: Store) -> bool:
    """Whether the chosen ones have been written together."""
    found = _count_of(kernel, op)
    if found is None:
        return False
    dim, scan, before = found
    (axis,) = scan.out.axes
    assert op.mask is not None
    value, chosen = declared(kernel, op.value), declared(kernel, op.mask)
    terms = [(d, kernel.scalar(v).code) for d, v in op.index if d != dim]
    terms.append((dim, " + ".join([*(kernel.scalar(v).code for v in before), "1"])))
    parts = [f"int64_t({code}) * {op.buffer}_stride_{d}" for d, code in terms]
    kind = MEMORY_TYPE[kernel.program.buffers[op.buffer].dtype]
    pointer = f"({kind}*)({' + '.join([op.buffer, *parts])})"
    shape = kernel.blocks[axis]
    kernel.add(f"mx::compact<{shape}>({pointer}, {op.buffer}_stride_{dim}, {value}, {chosen});")
    return True


def only_compacts(kernel: KernelScope, op: Scan) -> bool:
    """Whether nothing reads a running count but stores that go without it."""
    readers = kernel.fusion.chain_readers(op.out.name)
    return bool(readers) and all(
        isinstance(r, Store) and (found := _count_of(kernel, r)) is not None and found[1] is op
        for r in readers
    )


def _count_of(kernel: KernelScope, op: Store) -> tuple[str, Scan, list[Value]] | None:
    """The dim along which a count of the stored ones is the place, and what is added to it."""
    moving = [(d, v) for d, v in op.index if v.axes]
    if len(moving) != 1 or op.mask is None or op.add:
        return None
    dtypes = {op.value.dtype, kernel.program.buffers[op.buffer].dtype}
    ((dim, place),) = moving
    numbers: list[Value] = []
    while isinstance(maker := kernel.fusion.makers.get(place.name), Elementwise):
        number = next((a for a in maker.args if not a.axes), None)
        if maker.fn != "add" or number is None or not any(a.axes for a in maker.args):
            return None
        numbers.append(number)
        place = next(a for a in maker.args if a.axes)
    if not isinstance(maker, Scan) or maker.reverse or maker.op != "sum":
        return None
    counted = kernel.fusion.makers.get(maker.x.name)
    if not isinstance(counted, Cast) or counted.x != op.mask or dtypes != {DType.INT32}:
        return None
    alone = op.value.axes == op.mask.axes == maker.out.axes == {maker.over}
    return (dim, maker, numbers) if alone else None


__all__ = ["compacted", "only_compacts"]
