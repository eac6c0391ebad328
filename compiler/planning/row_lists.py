"""Attentions whose rows choose stretches of keys, on a CPU: the rows of each stretch, in lists.

    mask: j <= i and chosen[i, j // 64]
    -->  for each stretch n of 64 keys a list of the rows with chosen[i, n]; the mask is j <= i

A block of rows sees nearly every stretch that any of many rows may choose, so that visiting what a
block sees is as good as visiting all. What it takes is read off the mask: terms in which the key
stands as ``j // c`` alone are one truth for a stretch of c keys.
"""

from __future__ import annotations

from dataclasses import fields, replace

from ...ir.expression import Call, Expr, Index, Size, call
from ...ir.host import evaluate_host, is_host
from ...ir.key_ranges import Conjunct
from ...ir.normaliser import Rescaled
from ...ir.plan import Buffer
from ...ir.rewriting import transform
from ...ir.targets import CpuTarget
from ...ir.task import AttentionTask, ListedRowsTask, RowLists
from ...ir.tile import DType
from ..analysis.conditions import all_of, conditions_of
from .plan_builder import PlanBuilder

_SHORTEST = 16  # keys that a product of matrices takes
_SHARE = 1024  # rows whose outputs so far the second cache has room for


def with_row_lists(builder: PlanBuilder, task: AttentionTask) -> ListedRowsTask | None:
    """The attention by lists, whose task goes before; None where rows choose no stretches."""
    found = _choice(builder, task)
    if found is None:
        return None
    chosen, rest, length = found
    stretches, shares = (
        builder.free_dim(f"{task.over}_stretches"),
        builder.free_dim(f"{task.block}_shares"),
    )
    builder.add_dim(stretches, _pieces(task.over, length))
    builder.add_dim(shares, _pieces(task.block, _SHARE))
    terms = [
        transform(term, lambda n: _stretch(builder, n, task.over, stretches)) for term in chosen
    ]
    terms += _within(task.ranges.disjuncts[0], stretches, length)
    whole = all_of(terms)
    assert whole is not None
    rows = builder.free_name(f"{task.outputs[0][0]}_rows")
    lists = RowLists(rows, whole, task.block, stretches, shares, length, _SHARE)
    dims = builder.order(frozenset(task.queries))
    builder.context.buffers[rows] = Buffer(rows, dims, DType.INT32, "temporary")
    reason = f"rows choose stretches of {length} along {task.over}"
    builder.findings.append(f"lists of rows for each stretch of keys: {reason}")
    ranges = replace(task.ranges, rest=tuple(t for t in task.ranges.rest if t not in chosen))
    given = {f.name: getattr(task, f.name) for f in fields(task)}
    given |= {"mask": all_of(rest), "ranges": ranges}
    return ListedRowsTask(**given, lists=lists, kept=_kept(builder, task))


def _choice(builder: PlanBuilder, task: AttentionTask) -> tuple[list[Expr], list[Expr], int] | None:
    """The terms of the mask that choose stretches, the others, and how long a stretch is."""
    fixed = builder.context.sizes
    if not isinstance(builder.target, CpuTarget) or not isinstance(task.form, Rescaled):
        return None
    if len(task.ranges.disjuncts) != 1 or task.across or task.split or not task.outputs:
        return None
    if {task.over, *task.queries} & {*fixed, *builder.lengths}:
        return None
    chosen, rest, lengths = list[Expr](), list[Expr](), set[int]()
    for term in conditions_of(task.mask):
        found = _lengths(builder, term, task.over)
        if term in task.ranges.rest and task.block in term.axes and len(found) == 1:
            chosen.append(term)
            lengths |= found
        else:
            rest.append(term)
    if len(lengths) != 1 or min(lengths) < _SHORTEST:
        return None
    return chosen, rest, lengths.pop()


def _lengths(builder: PlanBuilder, term: Expr, over: str) -> set[int]:
    """The c of every ``j // c``; none where the key stands in any other way."""
    found: set[int] = set()

    def note(node: Expr) -> Expr | None:
        made = _stretch(builder, node, over, "")
        if made is not None:
            assert isinstance(node, Call)
            found.add(_number(builder, node.args[1]) or 0)
        return made

    return found if over not in transform(term, note).axes else set()


def _stretch(builder: PlanBuilder, node: Expr, over: str, stretches: str) -> Expr | None:
    """``j // c`` --> the number of the stretch."""
    match node:
        case Call("floordiv", (Index(dim), by)) if dim == over and _number(builder, by):
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
    axes = {"row_max_kept": rows, "row_sum_kept": rows}
    axes |= {f"{n}_kept": rows | (v.axes - {task.over}) for n, v in task.outputs}
    names = []
    for hint, own in axes.items():
        name = builder.free_name(hint)
        buffer = Buffer(name, builder.order(own), DType.FLOAT32, "temporary")
        builder.context.buffers[name] = buffer
        names.append(name)
    return tuple(names)


__all__ = ["with_row_lists"]
