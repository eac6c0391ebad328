"""Truth-valued expressions as formulas over atoms, and their disjunctive normal form."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import TypeVar

from ....ir.expression import Call, Expr, Kind, Literal, call

OPPOSITE = {"lt": "ge", "ge": "lt", "le": "gt", "gt": "le", "eq": "ne", "ne": "eq"}


@dataclass(frozen=True, slots=True)
class Atom:
    """One statement that the normal form does not look into."""

    content: Hashable


@dataclass(frozen=True, slots=True)
class Every:
    """True where all parts are; with no part, everywhere."""

    parts: tuple[Formula, ...]


@dataclass(frozen=True, slots=True)
class Some:
    """True where one part is; with no part, nowhere."""

    parts: tuple[Formula, ...]


_Part = TypeVar("_Part", bound=Hashable)
Formula = Atom | Every | Some
Conjunction = tuple[Atom, ...]
TRUE = Every(())
FALSE = Some(())


def formula(
    expr: Expr,
    compare: Callable[[str, Expr, Expr], Formula],
    other: Callable[[Expr], Formula],
    negated: bool = False,
    twice: int = 5,
) -> Formula:
    """``expr`` (or its negation) in negation normal form.

    ``compare(fn, a, b)`` makes the formula of a comparison of numbers, ``other`` that of any
    truth value that is not put together by and, or, not, where and comparisons. What stands in
    the formula twice (the condition of a where, both sides of an equality) is opened ``twice``
    levels deep at most, as the formula doubles with each.
    """

    def part(sub: Expr, flip: bool = False) -> Formula:
        return formula(sub, compare, other, negated != flip, twice)

    def opposites(sub: Expr) -> tuple[Formula, Formula]:
        """A value as it is and negated, whatever is around it."""
        yes = formula(sub, compare, other, False, twice - 1)
        return yes, formula(sub, compare, other, True, twice - 1)

    match expr:
        case Literal(value):
            return TRUE if bool(value) != negated else FALSE
        case Call("not", (a,)):
            return part(a, flip=True)
        case Call("and" | "or", (a, b)):
            both = (expr.fn == "and") != negated
            return Every((part(a), part(b))) if both else Some((part(a), part(b)))
        case Call("where", (c, a, b)) if expr.kind is Kind.BOOL and twice:
            yes, no = opposites(c)
            return Some((Every((yes, part(a))), Every((no, part(b)))))
        case Call("eq" | "ne", (a, b)) if _is_truth(a) and _is_truth(b):
            if not twice or not any(isinstance(x, Call | Literal) for x in (a, b)):
                return other(call("not", expr) if negated else expr)
            (yes, no), (also, neither) = opposites(a), opposites(b)
            if (expr.fn == "eq") == negated:
                yes, no = no, yes
            return Some((Every((yes, also)), Every((no, neither))))
        case Call(fn, (a, b)) if fn in OPPOSITE:
            return compare(OPPOSITE[fn] if negated else fn, a, b)
        case _:
            return other(call("not", expr) if negated else expr)


def _is_truth(expr: Expr) -> bool:
    return expr.kind is Kind.BOOL


def disjuncts(root: Formula, limit: int = 64) -> tuple[Conjunction, ...] | None:
    """The disjunctive normal form, without conjunctions that another one covers.

    None where it would have more than ``limit`` conjunctions.
    """
    numbers: dict[Atom, int] = {}
    found = _expanded(root, limit, numbers)
    if found is None:
        return None
    atoms = list(numbers)
    return tuple(tuple(atoms[number] for number in one) for one in found)


# A conjunction while it is made: the numbers of its atoms, in order of appearance.
_Numbers = tuple[int, ...]


def _expanded(root: Formula, limit: int, numbers: dict[Atom, int]) -> list[_Numbers] | None:
    match root:
        case Atom():
            return [(numbers.setdefault(root, len(numbers)),)]
        case Some(parts):
            found: list[_Numbers] = []
            for part in parts:
                below = _expanded(part, limit, numbers)
                if below is None:
                    return None
                found = absorbed([*found, *below])
                if len(found) > limit:
                    return None
            return found
        case Every(parts):
            result: list[_Numbers] = [()]
            for part in parts:
                below = _expanded(part, limit, numbers)
                if below is None or len(result) * len(below) > 4 * limit:
                    return None
                joined = [tuple(dict.fromkeys(a + b)) for a, b in product(result, below)]
                result = absorbed(joined)
                if len(result) > limit:
                    return None
            return result


def absorbed(conjunctions: Sequence[tuple[_Part, ...]]) -> list[tuple[_Part, ...]]:
    """The conjunctions that no other one covers: a or (a and b) --> a."""
    first: dict[frozenset[_Part], tuple[_Part, ...]] = {}
    for one in conjunctions:
        first.setdefault(frozenset(one), one)
    kept: list[frozenset[_Part]] = []
    for parts in sorted(first, key=len):
        if not any(other <= parts for other in kept):
            kept.append(parts)
    minimal = set(kept)
    return [one for parts, one in first.items() if parts in minimal]
