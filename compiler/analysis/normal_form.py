"""Truth-valued expressions as formulas over atoms, and their disjunctive normal form."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from itertools import product

from ...ir.expression import Call, Expr, Kind, Literal, call

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


Formula = Atom | Every | Some
Conjunction = tuple[Atom, ...]
TRUE = Every(())
FALSE = Some(())


def formula(
    expr: Expr,
    compare: Callable[[str, Expr, Expr], Formula],
    other: Callable[[Expr], Formula],
    negated: bool = False,
) -> Formula:
    """``expr`` (or its negation) in negation normal form.

    ``compare(fn, a, b)`` makes the formula of a comparison of numbers, ``other`` that of any
    truth value that is not put together by and, or, not, where and comparisons.
    """

    def part(sub: Expr, flip: bool = False) -> Formula:
        return formula(sub, compare, other, negated != flip)

    match expr:
        case Literal(value):
            return TRUE if bool(value) != negated else FALSE
        case Call("not", (a,)):
            return part(a, flip=True)
        case Call("and" | "or", (a, b)):
            both = (expr.fn == "and") != negated
            return Every((part(a), part(b))) if both else Some((part(a), part(b)))
        case Call("where", (c, a, b)) if expr.kind is Kind.BOOL:
            chosen = formula(c, compare, other), formula(c, compare, other, True)
            return Some((Every((chosen[0], part(a))), Every((chosen[1], part(b)))))
        case Call("eq" | "ne", (a, b)) if a.kind is Kind.BOOL and b.kind is Kind.BOOL:
            return _same_truth(expr, a, b, compare, other, negated)
        case Call(fn, (a, b)) if fn in OPPOSITE:
            return compare(OPPOSITE[fn] if negated else fn, a, b)
        case _:
            return other(call("not", expr) if negated else expr)


def _same_truth(
    expr: Call,
    a: Expr,
    b: Expr,
    compare: Callable[[str, Expr, Expr], Formula],
    other: Callable[[Expr], Formula],
    negated: bool,
) -> Formula:
    if not (isinstance(a, Call | Literal) or isinstance(b, Call | Literal)):
        return other(call("not", expr) if negated else expr)
    same = (expr.fn == "eq") != negated
    yes, no = (formula(a, compare, other), formula(a, compare, other, True))
    if not same:
        yes, no = no, yes
    return Some(
        (
            Every((yes, formula(b, compare, other))),
            Every((no, formula(b, compare, other, True))),
        )
    )


def disjuncts(root: Formula, limit: int = 64) -> tuple[Conjunction, ...] | None:
    """The disjunctive normal form, without conjunctions that another one covers.

    None where it would have more than ``limit`` conjunctions.
    """
    match root:
        case Atom():
            return ((root,),)
        case Some(parts):
            found: list[Conjunction] = []
            for part in parts:
                below = disjuncts(part, limit)
                if below is None:
                    return None
                found.extend(below)
            return _within(absorbed(found), limit)
        case Every(parts):
            result: tuple[Conjunction, ...] = ((),)
            for part in parts:
                below = disjuncts(part, limit)
                if below is None or len(result) * len(below) > limit * limit:
                    return None
                joined = [_joined(a, b) for a, b in product(result, below)]
                within = _within(absorbed(joined), limit)
                if within is None:
                    return None
                result = within
            return result


def _joined(first: Conjunction, second: Conjunction) -> Conjunction:
    return tuple(dict.fromkeys(first + second))


def absorbed(conjunctions: list[Conjunction]) -> tuple[Conjunction, ...]:
    """The conjunctions that no other one covers: a or (a and b) --> a."""
    kept: list[Conjunction] = []
    for one in sorted(dict.fromkeys(conjunctions), key=len):
        if not any(set(other) <= set(one) for other in kept):
            kept.append(one)
    return tuple(one for one in dict.fromkeys(conjunctions) if one in kept)


def _within(found: tuple[Conjunction, ...], limit: int) -> tuple[Conjunction, ...] | None:
    return found if len(found) <= limit else None
