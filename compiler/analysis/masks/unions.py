"""A mask's disjuncts, made few: united where one bound says both, merged where too many."""

from __future__ import annotations

from collections.abc import Sequence

from ....ir.expression import Literal, call
from .isolate import Condition, Limit, Residual
from .normal_form import Atom, Conjunction, Every, Formula, absorbed, disjuncts
from .trend import LIMIT

# What stands for a dropped part of the mask: true as far as bounds go, never known to be so.
_DROPPED = Atom(None)


def conjunctions(root: Formula, limit: int) -> tuple[Conjunction, ...]:
    """At most ``limit`` conjunctions of bounds whose union holds wherever the mask does."""
    found = disjuncts(root)
    while found is None:
        root = _weakened(root)
        found = disjuncts(root)
    united = _without_covered(_united(found))
    while len(united) > limit:
        united = _without_covered(_merged(united))
    return united


def is_exact(conjunction: Conjunction) -> bool:
    """Whether the mask is true wherever the bounds and conditions hold."""
    return not any(a == _DROPPED or isinstance(a.content, Residual) for a in conjunction)


def _without_covered(found: Sequence[Conjunction]) -> tuple[Conjunction, ...]:
    """Without conjunctions in the ranges of another one, unless full blocks can be told by them.

    ``j <= i and (j < a[i] or odd[i, j])`` keeps both: up to a, blocks are full. One with a lower
    bound goes: it would cost the order of the ranges.
    """

    def bounds(conjunction: Conjunction) -> set[Atom]:
        return {a for a in conjunction if isinstance(a.content, Limit | Condition)}

    def told(conjunction: Conjunction) -> bool:
        lower = any(isinstance(a.content, Limit) and not a.content.upper for a in conjunction)
        return is_exact(conjunction) and not lower

    kept = list(dict.fromkeys(found))
    for one in reversed(list(kept)):
        others = [other for other in kept if other is not one]
        if not told(one) and any(bounds(other) <= bounds(one) for other in others):
            kept.remove(one)
    return tuple(kept)


def _weakened(root: Formula) -> Formula:
    """A formula with fewer disjunctions: the last part that has one is dropped."""
    if isinstance(root, Every):
        for place in reversed(range(len(root.parts))):
            part = root.parts[place]
            if not isinstance(part, Atom):
                changed = (*root.parts[:place], _weakened(part), *root.parts[place + 1 :])
                return Every(changed)
    return _DROPPED


def _united(found: Sequence[Conjunction]) -> tuple[Conjunction, ...]:
    """Conjunctions that differ in one upper (or one lower) limit as one: j < a or j < b."""
    result = list(found)
    for place, one in enumerate(result):
        for other in result[place + 1 :]:
            union = _union(one, other)
            if union is not None:
                rest = [c for c in result if c is not one and c is not other]
                return _united([union, *rest])
    return tuple(result)


def _union(one: Conjunction, other: Conjunction) -> Conjunction | None:
    mine = [atom.content for atom in one if atom not in other]
    theirs = [atom.content for atom in other if atom not in one]
    if len(mine) != 1 or len(theirs) != 1:
        return None
    wider = _either(mine[0], theirs[0])
    if wider is None:
        return None
    return (Atom(wider), *(atom for atom in one if atom in other))


def _either(a: object, b: object) -> Limit | Condition | None:
    """One statement for ``a or b``, where there is one."""
    match a, b:
        case Condition(), Condition():
            return Condition(call("or", a.value, b.value))
        case Limit(), Limit() if a.upper == b.upper:
            wider = "max" if a.upper else "min"
            loose, tight = call(wider, a.loose, b.loose), call(wider, a.tight, b.tight)
            searches = tuple(dict.fromkeys(a.searches + b.searches))
            return Limit(a.upper, loose, tight, searches)
        case (Condition(), Limit()) | (Limit(), Condition()):
            limit, condition = (a, b) if isinstance(a, Limit) else (b, a)
            assert isinstance(limit, Limit)
            assert isinstance(condition, Condition)
            free = Literal(LIMIT if limit.upper else -LIMIT)
            loose, tight = (
                call("where", condition.value, free, v) for v in (limit.loose, limit.tight)
            )
            return Limit(limit.upper, loose, tight, limit.searches)
        case _:
            return None


def _merged(found: Sequence[Conjunction]) -> tuple[Conjunction, ...]:
    """One conjunction fewer: the two with the most bounds in common keep only these."""

    def common(pair: tuple[int, int]) -> int:
        shared = set(found[pair[0]]) & set(found[pair[1]])
        return sum(isinstance(atom.content, Limit) for atom in shared) * 8 + len(shared)

    count = len(found)
    a, b = max(((a, b) for a in range(count) for b in range(a + 1, count)), key=common)
    hull = (*(atom for atom in found[a] if atom in found[b]), _DROPPED)
    rest = [c for place, c in enumerate(found) if place not in (a, b)]
    return tuple(absorbed([*rest, tuple(dict.fromkeys(hull))]))


__all__ = ["conjunctions", "is_exact"]
