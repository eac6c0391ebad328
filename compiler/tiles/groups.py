"""Reductions by group as plain ones: over the members of each group."""

from __future__ import annotations

from collections.abc import Mapping

from ...ir.errors import UnsupportedError
from ...ir.expression import Expr, Index, Literal, Read, Reduce, call
from ...ir.host import Number, evaluate_host, is_host
from ...ir.rewriting import transform


def without_group(expr: Reduce, sizes: Mapping[str, int], params: Mapping[str, Number]) -> Expr:
    """``Reduce(x, J, N=g)`` --> ``Reduce(x, J, where=g == n)``.

    Where an axis is summed and is that of the groups too (what is read at (d + 1) % D, in a
    derivative), its positions would be two at once; if each group has one member, it is read:
    ``Reduce(x, D, D=(d + 1) % D)`` --> ``x[D=(d - 1) % D]``.

    Raises:
        UnsupportedError: several members there, or none.
    """
    same = [(dim, index) for dim, index in expr.group if dim in expr.over]
    if same:
        return _read(expr, same, sizes, params)
    where = expr.where
    for dim, index in expr.group:
        belongs = call("eq", index, Index(dim))
        where = belongs if where is None else call("and", where, belongs)
    return Reduce(expr.op, expr.x, expr.over, where, span=expr.span)


def _read(
    expr: Reduce,
    same: list[tuple[str, Expr]],
    sizes: Mapping[str, int],
    params: Mapping[str, Number],
) -> Expr:
    """A sum along an axis of whose positions each is a group, as a read of the other order."""
    (dim, index), *more = same
    back = None if more or len(expr.group) > 1 else _inverse(dim, index, sizes, params)
    if back is None or expr.over != (dim,) or expr.where is not None or expr.op != "sum":
        raise UnsupportedError(f"a {expr.op} along {dim} for each {index} along {dim} itself")
    return Read(expr.x, ((dim, back),))


def _inverse(
    dim: str, index: Expr, sizes: Mapping[str, int], params: Mapping[str, Number]
) -> Expr | None:
    """The position that ``index`` takes to a position of ``dim``; None where there is not one."""
    places = _places(dim, index, sizes, params)
    if places is None or sorted(places) != list(range(len(places))):
        return None
    if all(places[place] == n for n, place in enumerate(places)):  # there and back again
        return index
    shifts = {(n - place) % len(places) for n, place in enumerate(places)}
    if len(shifts) == 1:
        moved = call("add", Index(dim), shifts.pop())
        return call("mod", moved, len(places))
    return None


def _places(
    dim: str, index: Expr, sizes: Mapping[str, int], params: Mapping[str, Number]
) -> list[int] | None:
    """Where each position of a feature goes; None where that depends on more than its size."""
    if dim not in sizes:
        return None

    def at(n: int) -> Expr:
        return transform(index, lambda node: Literal(n) if node == Index(dim) else None)

    found = [at(n) for n in range(sizes[dim])]
    if not all(is_host(value) for value in found):
        return None
    return [int(evaluate_host(value, sizes, params)) for value in found]


__all__ = ["without_group"]
