"""Attentions whose rows choose stretches of keys, on a CPU: who sees a stretch, in lists.

    mask: j <= i and chosen[i, j // 64]
    -->  for each stretch n of 64 keys a list of the rows with chosen[i, n]; the mask is j <= i

A block of rows sees nearly every stretch that any of many rows may choose, so that visiting what a
block sees is as good as visiting all. What it takes is read off the mask: terms in which the key
stands as ``j // c`` alone are one truth for a stretch of c keys. In a derivative, where rows and
keys have changed places, it is rows that stand so: a stretch of them has one list of keys.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields, replace
from typing import Any

from ...ir.expression import Call, Expr, Index, Size, call
from ...ir.host import evaluate_host, is_host
from ...ir.key_ranges import Conjunct
from ...ir.normaliser import Plain, Rescaled
from ...ir.plan import Buffer
from ...ir.rewriting import transform
from ...ir.targets import CpuTarget
from ...ir.task import AttentionTask, ListedKeysTask, ListedRowsTask, Lists
from ...ir.tile import DType
from ..analysis.conditions import all_of, conditions_of
from ..schedules.one_pass import needs_sum
from .plan_builder import PlanBuilder

_SHORTEST = 16  # keys that a product of matrices takes
_SHARE = 1024  # rows whose outputs so far the second cache has room for


def with_lists(builder: PlanBuilder, task: AttentionTask) -> ListedRowsTask | ListedKeysTask | None:
    """The attention by lists; None where nothing chooses stretches.

    Where rows carry no maximum, stretches of rows come first: what they sum up stays where it is.
    """
    if not isinstance(builder.target, CpuTarget) or not _goes_by_stretches(builder, task):
        return None
    keys = _listed_keys(builder, task) if isinstance(task.form, Plain) else None
    return keys or _listed_rows(builder, task)


def _goes_by_stretches(builder: PlanBuilder, task: AttentionTask) -> bool:
    if len(task.ranges.disjuncts) != 1 or task.across or task.split or not task.outputs:
        return False
    return not {task.over, *task.queries} & {*builder.context.sizes, *builder.lengths}


def _listed_rows(builder: PlanBuilder, task: AttentionTask) -> ListedRowsTask | None:
    """By stretches of keys, with the rows of each."""
    found = _choice(builder, task, task.over, task.block)
    if found is None:
        return None
    chosen, rest, length = found
    stretches, shares = _dims(builder, task.over, length, task.block, _SHARE)
    terms = [_of_stretch(builder, term, task.over, stretches) for term in chosen]
    terms += _within(task.ranges.disjuncts[0], stretches, length)
    dims = builder.order(frozenset(task.queries))
    places = _list_buffer(builder, f"{task.outputs[0][0]}_rows", dims)
    lists = Lists(
        places, _all(terms), task.block, stretches, shares, length, _SHARE, _all([*chosen, *rest])
    )
    builder.findings.append(
        f"lists of rows for each stretch of keys: rows choose stretches of {length} along "
        f"{task.over}"
    )
    given = _given(task, chosen, rest)
    return ListedRowsTask(**given, lists=lists, kept=_kept(builder, task))


def _listed_keys(builder: PlanBuilder, task: AttentionTask) -> ListedKeysTask | None:
    """By stretches of rows, with the keys of each."""
    found = _choice(builder, task, task.block, task.over)
    if found is None:
        return None
    chosen, rest, length = found
    size = max(_SHARE // length, 1) * length
    stretches, shares = _dims(builder, task.block, length, task.block, size)
    terms = [_of_stretch(builder, term, task.block, stretches) for term in chosen]
    dims = (*builder.order(frozenset(task.queries) - {task.block}), shares, task.over)
    places = _list_buffer(builder, f"{task.outputs[0][0]}_keys", dims)
    lists = Lists(
        places, _all(terms), task.over, stretches, shares, length, size, _all([*chosen, *rest])
    )
    builder.findings.append(
        f"lists of keys for each stretch of rows: stretches of {length} along {task.block} are "
        f"chosen along {task.over}"
    )
    return ListedKeysTask(**_given(task, chosen, rest), lists=lists)


def _given(task: AttentionTask, chosen: list[Expr], rest: list[Expr]) -> dict[str, Any]:
    """The task's fields, with what is left of its mask."""
    ranges = replace(task.ranges, rest=tuple(t for t in task.ranges.rest if t not in chosen))
    given = {f.name: getattr(task, f.name) for f in fields(task)}
    return given | {"mask": all_of(rest), "ranges": ranges}


def _dims(
    builder: PlanBuilder, stretched: str, length: int, shared: str, size: int
) -> tuple[str, str]:
    """The dims that count stretches of one dim, and shares of another."""
    stretches = builder.free_dim(f"{stretched}_stretches")
    builder.add_dim(stretches, _pieces(stretched, length))
    shares = builder.free_dim(f"{shared}_shares")
    builder.add_dim(shares, _pieces(shared, size))
    return stretches, shares


def _list_buffer(builder: PlanBuilder, hint: str, dims: tuple[str, ...]) -> str:
    name = builder.free_name(hint)
    builder.context.buffers[name] = Buffer(name, dims, DType.INT32, "temporary")
    return name


def _all(terms: Iterable[Expr]) -> Expr:
    whole = all_of(list(terms))
    assert whole is not None
    return whole


def _choice(
    builder: PlanBuilder, task: AttentionTask, stretched: str, listed: str
) -> tuple[list[Expr], list[Expr], int] | None:
    """The terms of the mask that choose stretches, the others, and how long a stretch is."""
    chosen, rest, lengths = list[Expr](), list[Expr](), set[int]()
    for term in conditions_of(task.mask):
        found = _lengths(builder, term, stretched)
        if term in task.ranges.rest and listed in term.axes and len(found) == 1:
            chosen.append(term)
            lengths |= found
        else:
            rest.append(term)
    if len(lengths) != 1 or min(lengths) < _SHORTEST:
        return None
    return chosen, rest, lengths.pop()


def _lengths(builder: PlanBuilder, term: Expr, dim: str) -> set[int]:
    """The c of every ``j // c``; none where the position stands in any other way."""
    found: set[int] = set()

    def note(node: Expr) -> Expr | None:
        made = _stretch(builder, node, dim, "")
        if made is not None:
            assert isinstance(node, Call)
            found.add(_number(builder, node.args[1]) or 0)
        return made

    return found if dim not in transform(term, note).axes else set()


def _of_stretch(builder: PlanBuilder, term: Expr, dim: str, stretches: str) -> Expr:
    return transform(term, lambda node: _stretch(builder, node, dim, stretches))


def _stretch(builder: PlanBuilder, node: Expr, dim: str, stretches: str) -> Expr | None:
    """``j // c`` --> the number of the stretch."""
    match node:
        case Call("floordiv", (Index(own), by)) if own == dim and _number(builder, by):
            return Index(stretches)
    return None


def _number(builder: PlanBuilder, expr: Expr) -> int | None:
    if not is_host(expr):  # a length that depends on the row: c = 2 ** l
        return None
    try:
        return int(evaluate_host(expr, builder.context.sizes, builder.params))
    except KeyError:
        return None


def _within(conjunct: Conjunct, stretches: str, length: int) -> list[Expr]:
    """What the bounds on keys say of a stretch: that some of it lies within them."""
    first, one = call("mul", Index(stretches), length), Index(stretches)
    after = call("mul", call("add", one, 1), length)
    lower = [call("gt", after, b.loose) for b in conjunct.lower if not b.searches]
    upper = [call("lt", first, b.loose) for b in conjunct.upper if not b.searches]
    return [*lower, *upper, *(c.value for c in conjunct.conditions)]


def _pieces(dim: str, length: int) -> Expr:
    return call("floordiv", call("add", Size(dim), length - 1), length)


def _kept(builder: PlanBuilder, task: AttentionTask) -> tuple[str, ...]:
    """Buffers for what rows carry."""
    rows = frozenset(task.queries)
    axes = {f"{n}_kept": rows | (v.axes - {task.over}) for n, v in task.outputs}
    match task.form:
        case Rescaled():
            axes = {"row_max_kept": rows, "row_sum_kept": rows, **axes}
        case Plain() as form if needs_sum(task, form):
            axes = {"row_sum_kept": rows, **axes}
    names = []
    for hint, own in axes.items():
        name = builder.free_name(hint)
        buffer = Buffer(name, builder.order(own), DType.FLOAT32, "temporary")
        builder.context.buffers[name] = buffer
        names.append(name)
    return tuple(names)


__all__ = ["with_lists"]
