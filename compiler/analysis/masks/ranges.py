"""Masks as ranges of positions along the loop axis (design, section 3.1).

A boolean mask over a block axis (``I``: the rows that one program instance takes) and a loop axis
(``J``: what it walks over) becomes a union of conjunctions of bounds on j. Each bound is a closed
form per row; over the rows i0 ... i1 of a block

* the *loosest* range ``[lo, hi)`` holds every j that matters to some row,
* the *tightest* range ``[full_lo, full_hi)`` holds only j that every row sees (no mask needed),

and both follow from the bounds at the block's first or last row where a bound is monotone, and by
a reduction over its rows otherwise. The roles are symmetric: ``key_ranges(mask, "I", "J")`` gives
the ranges of queries for a block of keys, as a backward pass wants them.

How a kernel uses a ``Conjunct`` for the rows i0 ... i1 (clipped to the sequence: rows beyond its
end must not count in any of the reductions):

    lo      = max(0, max over lower of min_i loose)
    hi      = min(J, min over upper of max_i loose)
    empty, unless every condition holds for some row
    full_lo = max(lo, max over lower of max_i tight)
    full_hi = min(hi, min over upper of min_i tight)
    empty, unless every condition holds for every row and the conjunct is ``exact``
    (cut full_lo to hi, and full_hi to at least full_lo)

``Bound.row(largest)`` says at which row of the block the extreme is found, so that a monotone
bound is evaluated once, at i0 or i1. Use 64-bit integers: ``i + window`` may be beyond 32 bits
where a window of 2**31 - 1 means "no window" (a param that is known is cut to 2**30).

Example: ``j <= i and i - j < window`` has one disjunct with lower ``(i - window + 1)`` and upper
``(i + 1)``, both rising in i, hence lo = i0 - window + 1, hi = i1 + 1, full_lo = i1 - window + 1
and full_hi = i0 + 1.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from itertools import chain, count

from ....ir.expression import Call, Expr, Read, Reduce, Ref
from ....ir.key_ranges import Bound, Conjunct, KeyRanges, RowCondition, Search, Trend
from ....ir.names import names_in
from ....ir.rewriting import substitute, walk
from ..facts import Facts, look_through
from ..linear import plus, spread, times
from .isolate import Condition, Limit, Residual, bounds_of
from .normal_form import Conjunction, disjuncts
from .trend import LIMIT, trend
from .unions import conjunctions, is_exact


def key_ranges(
    mask: Expr | None, axis: str, block: str, facts: Facts | None = None, limit: int = 4
) -> KeyRanges:
    """The ranges along ``axis`` that ``mask`` admits, for blocks of rows along ``block``.

    ``limit`` bounds the number of conjuncts; beyond it conjuncts are merged into what they have
    in common (looser, never wrong). No mask: one conjunct without bounds, full everywhere.
    """
    known = Facts() if facts is None else facts
    if mask is None:
        return KeyRanges(axis, block, (Conjunct((), (), ()),))
    root = bounds_of(look_through(mask, known), axis, known)
    conjuncts = [_conjunct(c, block, known) for c in conjunctions(root, limit)]
    conjuncts.sort(key=lambda conjunct: (bool(conjunct.lower), not conjunct.exact))
    plain = disjuncts(root)
    whole = plain is not None and len(plain) == len(conjuncts) == 1
    return KeyRanges(axis, block, tuple(conjuncts), conjuncts[0].residual if whole else ())


def _conjunct(atoms: Conjunction, block: str, facts: Facts) -> Conjunct:
    contents = [atom.content for atom in atoms]
    limits = [_bound(c, block, facts) for c in contents if isinstance(c, Limit)]
    sides = [c.upper for c in contents if isinstance(c, Limit)]
    conditions = tuple(
        RowCondition(c.value, _trend_of((c.value,), block, facts))
        for c in contents
        if isinstance(c, Condition)
    )
    residual = tuple(c.value for c in contents if isinstance(c, Residual))
    return Conjunct(
        tuple(b for b, upper in zip(limits, sides, strict=True) if not upper),
        tuple(b for b, upper in zip(limits, sides, strict=True) if upper),
        conditions,
        residual,
        exact=is_exact(atoms),
    )


def _bound(limit: Limit, block: str, facts: Facts) -> Bound:
    """The limit with its trend; searches get short names, and move as what they look for."""
    names: dict[Expr, Expr] = {}
    moves: dict[Expr, Expr] = {}
    searches: list[Search] = []
    taken = {*names_in(limit.loose, limit.tight)}
    for search in limit.searches:
        if not _mentions(search.ref, (limit.loose, limit.tight)):
            continue
        name = _short_name(search, taken)
        taken.add(name)
        renamed = replace(search, name=name)
        searches.append(renamed)
        names[search.ref] = renamed.ref
        if block not in search.table.axes:  # the number of entries below rises with the value
            moves[renamed.ref] = search.value
    loose, tight = (
        facts.cut(substitute(value, names), LIMIT) for value in (limit.loose, limit.tight)
    )
    moved = tuple(substitute(value, moves) for value in (loose, tight))
    return Bound(loose, tight, _trend_of(moved, block, facts), tuple(searches))


def _trend_of(values: tuple[Expr, ...], block: str, facts: Facts) -> Trend:
    """The trend of all values; one that has the axis and cancels (i > i) is not called constant,
    as it still needs a row to be evaluated at."""
    trends = {trend(value, block, facts) for value in values}
    if len(trends) > 1:
        return Trend.UNKNOWN
    (only,) = trends
    has = any(block in value.axes for value in values)
    return Trend.RISING if only is Trend.CONSTANT and has else only


def _short_name(search: Search, taken: set[str]) -> str:
    stem = f"{search.table.name}_{search.side}"
    numbered = (f"{stem}_{number}" for number in count(2))
    return next(name for name in chain((stem,), numbered) if name not in taken)


def _mentions(ref: Ref, values: Iterable[Expr]) -> bool:
    return any(node == ref for value in values for node in walk(value))


def needs_block_table(ranges: KeyRanges) -> bool:
    """Whether a table of visible blocks could save what bounds cannot.

    True where a disjunct is no band (its bounds are a constant apart) and has a residual term from
    which some blocks may be empty: one that depends on data or on whole blocks (``i // block``),
    not just on positions (``(i - j) % 4 == 0`` has something in every block). With some bound the
    term must depend on both axes: padding under a causal mask is not worth a table.
    """
    both = {ranges.axis, ranges.block}

    def sparse(term: Expr, bounded: bool) -> bool:
        blockwise = any(
            isinstance(n, Ref | Read | Reduce) or (isinstance(n, Call) and n.fn == "floordiv")
            for n in walk(term)
        )
        return blockwise and (both <= term.axes or not bounded)

    return any(
        sparse(term, bool(disjunct.bounds))
        for disjunct in ranges.disjuncts
        if not _is_band(disjunct, ranges.block)
        for term in disjunct.residual
    )


def _is_band(disjunct: Conjunct, block: str) -> bool:
    """Whether a row sees so many positions at most, whatever the row: i - w < j <= i."""
    return any(
        block not in plus(spread(upper.loose), times(spread(lower.loose), -1)).axes
        for lower in disjunct.lower
        for upper in disjunct.upper
    )
