"""How much a mixer has to compute at given sizes: the arithmetic of visible pairs and of steps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from ...backends.reference.evaluate import evaluate
from ...backends.reference.values import Value
from ...ir.binding import Number, param_values
from ...ir.expression import (
    Call,
    Cumsum,
    Expr,
    Index,
    Kind,
    Literal,
    Read,
    Reduce,
    Ref,
    Size,
    Solve,
)
from ...ir.mixer import Attention, Mixer, Recurrence, assignments
from ...ir.names import names_in
from ...ir.rewriting import substitute, transform, walk
from ...ir.roles import query_axis

_ROWS = "visited rows"
_PAIRS_AT_ONCE = 1 << 24


@dataclass(frozen=True, slots=True)
class Work:
    """Floating point operations of products and steps, and pairs of a query and a key that count.

    ``pairs`` is over all batches and heads, those of the mask; steps count as they are written, row
    by row. Both whatever a kernel does.
    """

    flops: float
    pairs: int
    bytes: int  # of the inputs and outputs, each once


def work_of(
    mixer: Mixer,
    sizes: Mapping[str, int],
    tensors: Mapping[str, Tensor],
    dtype: torch.dtype,
    params: Mapping[str, Number] = {},
) -> Work | None:
    """The work of all stages together; None where a mask depends on an earlier stage."""
    numbers = param_values(mixer, sizes, params)
    flops, pairs = 0.0, 0
    for stage in mixer.stages:
        if isinstance(stage, Attention):
            seen = visible_pairs(mixer, stage, sizes, tensors, numbers)
            if seen is None:
                return None
            pairs += seen
            flops += float(seen) * flops_per_pair(mixer, stage, sizes)
        elif isinstance(stage, Recurrence):
            flops += step_flops(stage, sizes)
    moved = sum(t.numel() * t.element_size() for t in tensors.values())
    moved += sum(prod(sizes[d] for d in o.dims) * dtype.itemsize for o in mixer.outputs)
    return Work(flops, pairs, moved)


def flops_per_pair(mixer: Mixer, stage: Attention, sizes: Mapping[str, int]) -> float:
    """Two per term of each sum in the score that every pair has its own of, and per value."""
    row = query_axis(mixer, stage)
    sums = {n for n in walk(inlined(mixer, stage.score)) if isinstance(n, Reduce)}
    own = [n for n in sums if {row, stage.over} <= n.axes]
    score = sum(prod(sizes[d] for d in n.over) for n in own)
    kept = stage.queries | {stage.over}
    values = sum(prod(sizes[d] for d in o.value.axes - kept) for o in stage.outputs)
    return 2.0 * (score + values)


def step_flops(stage: Recurrence, sizes: Mapping[str, int]) -> float:
    """One per element of each function and each sum of a step, over all rows.

    What neither changes from row to row nor has a state in it is not counted.
    """
    names = {state.name for state in stage.states} | {made.name for made in stage.own}
    depends: dict[int, bool] = {}
    total = 0.0

    def count(node: Expr, loops: set[str]) -> bool:
        nonlocal total
        if id(node) not in depends:
            inside = [count(child, loops) for child in node.children]
            own = isinstance(node, Ref) and node.name in names
            depends[id(node)] = own or any(inside) or not loops.isdisjoint(node.axes)
            total += _operations(node, loops, sizes) if depends[id(node)] else 0.0
        return depends[id(node)]

    for equation, rounds in assignments(stage.step):
        depends.clear()
        count(equation.value, {stage.over, *rounds})
    return total


def _operations(node: Expr, loops: set[str], sizes: Mapping[str, int]) -> float:
    match node:
        case Call("detach" | "where" | "and" | "or" | "not"):
            return 0.0
        case Call():
            axes = node.axes | loops
        case Reduce(_, x, over):
            axes = x.axes | frozenset(over) | loops
        case Cumsum():
            axes = node.axes | loops
        case Solve(matrix, _, _, right):
            order = sizes[right]
            systems = prod(sizes[dim] for dim in (matrix.axes | loops)) / max(order, 1) ** 2
            return 2 / 3 * order**3 * systems
        case _:
            return 0.0
    return float(prod(sizes[dim] for dim in axes))


def inlined(mixer: Mixer, expr: Expr) -> Expr:
    """``expr`` with the lets of the mixer in place of their names."""
    lets = {let.name: let.value for let in mixer.lets}

    def value(node: Expr) -> Expr | None:
        if isinstance(node, Ref) and node.name in lets:
            return inlined(mixer, lets[node.name])
        return None

    return transform(expr, value)


def visible_pairs(
    mixer: Mixer,
    stage: Attention,
    sizes: Mapping[str, int],
    tensors: Mapping[str, Tensor],
    params: Mapping[str, Number],
) -> int | None:
    """Pairs that the mask admits, over all query axes; None where that isn't known beforehand."""
    axes = stage.queries | {stage.over}
    if stage.mask is None:
        return prod(sizes[d] for d in axes)
    mask = inlined(mixer, stage.mask)
    alike = prod(sizes[d] for d in axes - mask.axes)
    values = _values(mixer, mask, sizes, tensors)
    if values is None:
        return None
    rows = query_axis(mixer, stage)
    if rows not in mask.axes or any(_moves(node, rows) for node in walk(mask)):
        return alike * _count(mask, sizes, values, params)
    others = prod(sizes[d] for d in mask.axes - {rows})
    at_once = max(1, _PAIRS_AT_ONCE // max(others, 1))
    found = 0
    for start in range(0, sizes[rows], at_once):
        found += _count_rows(mask, rows, start, at_once, sizes, values, params)
    return alike * found


def _moves(node: Expr, dim: str) -> bool:
    """Whether a term reaches for other positions of ``dim``, so that rows can't be cut out."""
    return isinstance(node, Read | Reduce | Cumsum) and any(dim in c.axes for c in node.children)


def _values(
    mixer: Mixer, mask: Expr, sizes: Mapping[str, int], tensors: Mapping[str, Tensor]
) -> dict[str, Value] | None:
    """The inputs and tables of a mask; None where it depends on anything else."""
    inputs, tables = {i.name: i for i in mixer.inputs}, {t.name: t for t in mixer.tables}
    order = list(sizes)
    values = {}
    for name in names_in(mask):
        if name in inputs and name in tensors:
            dims = inputs[name].dims
            tensor = tensors[name].cpu().reshape([sizes[d] for d in dims])
        elif name in tables:
            table = tables[name]
            dims = table.dims
            kind = torch.float64 if table.kind is Kind.REAL else torch.int64
            tensor = torch.tensor(table.values, dtype=kind).reshape(table.shape)
        else:
            return None
        arranged = sorted(dims, key=order.index)
        values[name] = Value(tensor.permute([dims.index(d) for d in arranged]), tuple(arranged))
    return values


def _count(
    mask: Expr,
    sizes: Mapping[str, int],
    values: Mapping[str, Value],
    params: Mapping[str, Number],
) -> int:
    found = evaluate(mask, sizes, values, params)
    repeated = prod(sizes[d] for d in mask.axes - set(found.dims))
    return int(found.tensor.count_nonzero()) * repeated


def _count_rows(
    mask: Expr,
    rows: str,
    start: int,
    at_once: int,
    sizes: Mapping[str, int],
    values: Mapping[str, Value],
    params: Mapping[str, Number],
) -> int:
    """The pairs of rows ``start`` and on, their positions as a table of their own."""
    count = min(at_once, sizes[rows] - start)
    positions = Ref(_ROWS, frozenset({rows}), Kind.INT)
    cut = substitute(mask, {Index(rows): positions, Size(rows): Literal(sizes[rows])})
    shorter = {name: _rows_of(value, rows, start, count) for name, value in values.items()}
    shorter[_ROWS] = Value(torch.arange(start, start + count), (rows,))
    return _count(cut, {**sizes, rows: count}, shorter, params)


def _rows_of(value: Value, rows: str, start: int, count: int) -> Value:
    if rows not in value.dims:
        return value
    return Value(value.tensor.narrow(value.dims.index(rows), start, count), value.dims)
