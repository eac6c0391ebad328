"""The terms that move along axes: reductions, contractions, reads and running sums."""

from __future__ import annotations

import math
import string
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ...ir.expression import Kind
from ...ir.reductions import identity
from .elementwise import kind_of
from .values import Setting, Value

_MOST_AT_ONCE = 1 << 26  # numbers that a reduction by group spreads out: half a GiB in float64


def _nothing(op: str, tensor: Tensor) -> float | int | bool:
    """What ``op`` of no positions is; integers have no infinity, so theirs is the last one."""
    number = identity(op)
    if tensor.is_floating_point() or not math.isinf(number):
        return number
    whole = torch.iinfo(torch.int64)
    return whole.max if number > 0 else whole.min


def reduce(
    setting: Setting,
    op: str,
    x: Value,
    over: Sequence[str],
    where: Value | None = None,
    group: Sequence[tuple[str, Value]] = (),
) -> Value:
    """``op`` of what ``where`` admits, by group where there are groups."""
    if again := {dim for dim, _ in group} & {*over}:  # the groups' axis and the one reduced
        names = {dim: f"{dim}." for dim in again}
        sizes = {**setting.sizes, **{name: setting.sizes[dim] for dim, name in names.items()}}
        setting = replace(setting, sizes=sizes)
        x = _renamed(setting, x, names)
        where = None if where is None else _renamed(setting, where, names)
        group = [(dim, _renamed(setting, index, names)) for dim, index in group]
        over = [names.get(dim, dim) for dim in over]
    x = setting.of_kind(x, Kind.BOOL if op in ("any", "all") else max(Kind.INT, kind_of(x.tensor)))
    admitted = _admitted(setting, where, group)
    if op == "sum" and is_finite([x]):
        return contract(setting, [x] if admitted is None else [x, admitted], over)
    if admitted is None:
        return _reduced(setting, op, x, None, over)
    apart = [dim for dim, _ in group if dim in admitted.dims and dim not in {*x.dims, *over}]
    dims = setting.ordered({*x.dims, *admitted.dims, *over})
    if not apart or math.prod(setting.shape(dims)) <= _MOST_AT_ONCE:
        return _reduced(setting, op, x, admitted, over)
    return _by_groups(setting, op, x, admitted, over, apart[0])


def _by_groups(
    setting: Setting, op: str, x: Value, admitted: Value, over: Sequence[str], dim: str
) -> Value:
    """The same, some groups after others: what all would take has no place in memory."""
    size, axis = setting.sizes[dim], admitted.dims.index(dim)
    each = math.prod(setting.shape(setting.ordered({*x.dims, *admitted.dims, *over} - {dim})))
    count = max(_MOST_AT_ONCE // max(each, 1), 1)
    parts = []
    for first in range(0, size, count):
        some = admitted.tensor.narrow(axis, first, min(count, size - first))
        within = replace(setting, sizes={**setting.sizes, dim: some.shape[axis]})
        parts.append(_reduced(within, op, x, Value(some, admitted.dims), over))
    return Value(torch.cat([p.tensor for p in parts], parts[0].dims.index(dim)), parts[0].dims)


def _reduced(
    setting: Setting, op: str, x: Value, admitted: Value | None, over: Sequence[str]
) -> Value:
    if admitted is not None:
        dims = setting.ordered({*x.dims, *admitted.dims, *over})
        tensor, admits = setting.aligned([x, admitted], dims)
        nothing = torch.tensor(_nothing(op, tensor), dtype=tensor.dtype, device=tensor.device)
        x = Value(torch.where(admits, tensor, nothing), dims)
    x = setting.expanded(x, over)
    kept = tuple(dim for dim in x.dims if dim not in over)
    axes = [x.dims.index(dim) for dim in over]
    return Value(_reduce_axes(op, x.tensor, axes), kept)


def _renamed(setting: Setting, x: Value, names: Mapping[str, str]) -> Value:
    """The value with other names for some of its axes."""
    dims = tuple(names.get(dim, dim) for dim in x.dims)
    order = setting.ordered(dims)
    return Value(x.tensor.permute([dims.index(dim) for dim in order]), order)


def _admitted(
    setting: Setting, where: Value | None, group: Sequence[tuple[str, Value]]
) -> Value | None:
    """Where a position counts, with an axis more per group."""
    found = None if where is None else setting.of_kind(where, Kind.BOOL)
    for dim, index in group:
        member, position = setting.aligned([index, setting.positions(dim)])
        here = Value(member == position, setting.ordered({*index.dims, dim}))
        found = here if found is None else _both(setting, found, here)
    return found


def _both(setting: Setting, a: Value, b: Value) -> Value:
    first, second = setting.aligned([a, b])
    return Value(first & second, setting.ordered({*a.dims, *b.dims}))


def _reduce_axes(op: str, tensor: Tensor, axes: Sequence[int]) -> Tensor:
    if not axes:
        return tensor
    if any(tensor.shape[axis] == 0 for axis in axes):
        kept = [n for axis, n in enumerate(tensor.shape) if axis not in axes]
        return tensor.new_full(kept, _nothing(op, tensor))
    match op:
        case "sum":
            return tensor.sum(tuple(axes))
        case "max":
            return tensor.amax(tuple(axes))
        case "min":
            return tensor.amin(tuple(axes))
        case "any":
            return tensor.any(tuple(axes))
        case "all":
            return tensor.all(tuple(axes))
        case _:
            for axis in sorted(axes, reverse=True):
                tensor = tensor.prod(axis)
            return tensor


def is_finite(values: Sequence[Value]) -> bool:
    """Whether no value holds an infinity or a nan."""
    return all(
        not v.tensor.is_floating_point() or bool(torch.isfinite(v.tensor).all()) for v in values
    )


def contract(setting: Setting, factors: Sequence[Value], over: Sequence[str]) -> Value:
    """``sum(f1 * f2 * ..., over)`` without the product over all axes in memory.

    The factors are finite, or have no gradient: an infinite one would reach, in the backward of a
    contraction, sums that it takes no part in.
    """
    kind = max(Kind.INT, *(kind_of(f.tensor) for f in factors))
    factors = setting.in_one_precision([setting.of_kind(f, kind) for f in factors])
    if setting.factor_dtype is not None and len(factors) > 1:
        factors = [_rounded(f, setting.factor_dtype) for f in factors]
    missing = [dim for dim in over if not any(dim in f.dims for f in factors)]
    repeats = math.prod(setting.shape(missing))
    scale = math.prod([f.tensor for f in factors if not f.dims], start=torch.tensor(repeats))
    tensors = [f for f in factors if f.dims]
    kept = setting.ordered({dim for f in tensors for dim in f.dims} - set(over))
    if not tensors:
        return Value(scale.to(factors[0].tensor), ())
    if kind is Kind.INT:
        return Value(_integer_contraction(setting, tensors, kept) * scale, kept)
    letters = dict(zip(setting.sizes, string.ascii_letters, strict=False))
    terms = ",".join("".join(letters[dim] for dim in f.dims) for f in tensors)
    result = torch.einsum(
        f"{terms}->{''.join(letters[dim] for dim in kept)}",
        *_same_dtype([f.tensor for f in tensors]),
    )
    return Value(result * scale if scale.requires_grad or scale.item() != 1 else result, kept)


def _rounded(factor: Value, dtype: torch.dtype) -> Value:
    if not factor.dims or not factor.tensor.is_floating_point():
        return factor
    return Value(factor.tensor.to(dtype).to(factor.tensor.dtype), factor.dims)


def _integer_contraction(setting: Setting, factors: Sequence[Value], kept: Sequence[str]) -> Tensor:
    """The same by forming the product: not every device has an integer matrix product."""
    dims = setting.ordered({dim for f in factors for dim in f.dims})
    product = math.prod(setting.aligned(factors, dims))
    assert isinstance(product, Tensor)
    return _reduce_axes("sum", product, [dims.index(dim) for dim in dims if dim not in kept])


def _same_dtype(tensors: Sequence[Tensor]) -> list[Tensor]:
    dtype = tensors[0].dtype
    for tensor in tensors[1:]:
        dtype = torch.promote_types(dtype, tensor.dtype)
    return [tensor.to(dtype) for tensor in tensors]


def read(setting: Setting, x: Value, at: Mapping[str, Value], fill: float) -> Value:
    """x at computed positions along the dims of ``at``; ``fill`` where any lies outside."""
    if not float(fill).is_integer():
        x = setting.of_kind(x, Kind.REAL)
    x = setting.expanded(x, at)
    index_dims = setting.ordered({dim for index in at.values() for dim in index.dims})
    free = tuple(dim for dim in x.dims if dim not in at and dim not in index_dims)
    # Axes that x shares with the positions are read in step, so they count as positions too.
    shared = tuple(dim for dim in x.dims if dim not in at and dim in index_dims)
    places = [setting.places(dim) for dim in shared] + [
        setting.of_kind(index, Kind.INT) for index in at.values()
    ]
    indexed = (*shared, *at)
    grid = setting.aligned(places, index_dims)
    grid = [place.expand(setting.shape(index_dims)) for place in grid]
    value = Value(x.tensor.permute([x.dims.index(dim) for dim in (*indexed, *free)]), x.dims)
    result = _read_grid(value.tensor, grid, [setting.sizes[dim] for dim in indexed], fill)
    return setting.reordered(Value(result, (*index_dims, *free)))


def _read_grid(
    tensor: Tensor, grid: Sequence[Tensor], extents: Sequence[int], fill: float
) -> Tensor:
    nothing = torch.tensor(fill, device=tensor.device).to(tensor.dtype)
    shape = [*grid[0].shape, *tensor.shape[len(grid) :]]
    if 0 in extents:
        return nothing.expand(shape)
    inside = torch.ones_like(grid[0], dtype=torch.bool)
    for place, extent in zip(grid, extents, strict=True):
        inside = inside & (place >= 0) & (place < extent)
    clamped = [p.clamp(0, n - 1) for p, n in zip(grid, extents, strict=True)]
    found = tensor[tuple(clamped)]
    return torch.where(inside[(...,) + (None,) * (found.ndim - inside.ndim)], found, nothing)


def solve(setting: Setting, matrix: Value, vector: Value, left: str, right: str) -> Value:
    """The x along ``right`` for which ``sum(matrix * x, right) == vector``, for each ``left``.

    Half precisions are solved in float32, as torch has no solver for them.
    """
    real = [setting.of_kind(v, Kind.REAL) for v in (matrix, vector)]
    (matrix, vector) = setting.in_one_precision(real)
    matrix = setting.expanded(matrix, [left, right])
    vector = setting.expanded(vector, [left])
    batch = setting.ordered({*matrix.dims} - {left, right})
    sides = setting.ordered({*vector.dims} - {left, *batch})
    a = matrix.tensor.permute([matrix.dims.index(d) for d in (*batch, left, right)])
    whole = setting.expanded(vector, batch)
    b = whole.tensor.permute([whole.dims.index(d) for d in (*batch, left, *sides)])
    wide = torch.promote_types(torch.promote_types(a.dtype, b.dtype), torch.float32)
    flat = b.reshape(*b.shape[: len(batch) + 1], math.prod(setting.shape(sides))).to(wide)
    x = torch.linalg.solve(a.to(wide), flat).reshape(setting.shape((*batch, right, *sides)))
    return setting.reordered(
        Value(x.to(torch.promote_types(a.dtype, b.dtype)), (*batch, right, *sides))
    )


def running_sum(setting: Setting, x: Value, over: str, reverse: bool, exclusive: bool) -> Value:
    """The running sum along ``over``, from the other end with ``reverse``."""
    x = setting.of_kind(x, max(Kind.INT, kind_of(x.tensor)))
    x = setting.expanded(x, [over])
    axis = x.dims.index(over)
    tensor = x.tensor.flip(axis) if reverse else x.tensor
    result = torch.cumsum(tensor, axis)
    if exclusive and tensor.shape[axis]:
        start = torch.zeros_like(result.narrow(axis, 0, 1))
        result = torch.cat([start, result.narrow(axis, 0, tensor.shape[axis] - 1)], axis)
    return Value(result.flip(axis) if reverse else result, x.dims)
