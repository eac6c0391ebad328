"""Elementwise states whose new value is affine over a semiring: (+, *), (max, +) and their kin."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import reduce

from ....ir.expression import Call, Expr, Literal, Ref, call
from ....ir.mixer import State
from ....ir.recurrence_forms import Affine
from ....ir.reductions import NEUTRAL
from ....ir.rewriting import transform
from ....ir.single_assignment import before_row
from .evaluation import Evaluation, is_long
from .logarithm import logarithm
from .polynomial import ZERO, Monomial, Polynomial, plus, polynomial, tidy, written
from .superposition import NotLinearError, Superposition, Term

# The additions of semirings whose product is a sum.
_ADDITIONS = ("max", "logaddexp", "min")


def linear(states: Sequence[State], values: Sequence[Superposition], over: str) -> Affine:
    """The form over (+, *).

    Raises:
        NotLinearError: a term that is not elementwise.
    """
    rows = []
    for value in values:
        row: list[Expr | None] = [None] * len(states)
        for term in value.terms:
            place = _place(states, term)
            row[place] = tidy(term.coefficient if row[place] is None else _sum(row[place], term))
        rows.append(tuple(None if c == Literal(0) else c for c in row))
    offsets = tuple(_offset(value.free) for value in values)
    return _form(states, "add", "mul", tuple(rows), offsets, over)


def _sum(before: Expr | None, term: Term) -> Expr:
    return term.coefficient if before is None else plus(before, term.coefficient)


def _offset(free: Expr) -> Expr | None:
    value = tidy(free)
    return None if value == Literal(0) else value


def _place(states: Sequence[State], term: Term) -> int:
    if term.over or term.moved:
        raise NotLinearError(term.value, "not elementwise")
    place = next(i for i, s in enumerate(states) if before_row(s) == term.state)
    if any(s.dims != states[0].dims for s in states):
        raise NotLinearError(term.value, "states of different axes")
    return place


def _form(
    states: Sequence[State],
    plus_: str,
    times_: str,
    rows: tuple[tuple[Expr | None, ...], ...],
    offsets: tuple[Expr | None, ...],
    over: str,
) -> Affine:
    changing = any(c is not None and over in c.axes for row in rows for c in row)
    return Affine(tuple(states), plus_, times_, rows, offsets, not changing)


@dataclass(frozen=True, slots=True)
class Tropical:
    """The semiring's sum of ``coefficient + state``, by state, and of ``offset``."""

    coefficients: tuple[tuple[str, Expr], ...] = ()
    offset: Expr | None = None

    @property
    def expressions(self) -> tuple[Expr, ...]:
        """Every part."""
        offset = () if self.offset is None else (self.offset,)
        return (*(coefficient for _, coefficient in self.coefficients), *offset)


def tropical(
    states: Sequence[State], values: Sequence[Expr], evaluation: Evaluation, over: str
) -> Affine | None:
    """The form over (max, +), (min, +) or (logaddexp, +); None where none fits."""
    if any(s.dims != states[0].dims for s in states):
        return None
    for addition in _ADDITIONS:
        try:
            found = [_Reading(addition, evaluation).of(value) for value in values]
        except NotLinearError:
            continue
        rows = []
        if is_long(e for value in found for e in value.expressions):
            return None
        for value in found:
            given = dict(value.coefficients)
            rows.append(tuple(_tidied(given.get(before_row(s).name)) for s in states))
        return _form(
            states, addition, "add", tuple(rows), tuple(_tidied(v.offset) for v in found), over
        )
    return None


def _tidied(value: Expr | None) -> Expr | None:
    return None if value is None else tidy(value)


@dataclass(frozen=True, slots=True)
class _Reading:
    addition: str
    evaluation: Evaluation
    named: dict[str, Tropical] = field(default_factory=dict)
    opened: dict[tuple[str, bool], Expr] = field(default_factory=dict)

    def of(self, expr: Expr) -> Tropical:
        match expr:
            case Ref(name) if name in self.evaluation.current:
                return Tropical(((name, Literal(0)),))
            case Ref(name) if self._depends(expr) and name in self.evaluation.dependence.values:
                if name not in self.named:
                    self.named[name] = self.of(self.evaluation.dependence.values[name])
                return self.named[name]
            case _ if not self._depends(expr):
                return Tropical((), self.evaluation.known_value(expr))
            case Call(fn, (a, b)) if fn == self.addition:
                return self.joined(self.of(a), self.of(b))
            case Call("relu", (x,)):
                return self.of(call("max", x, 0))
            case Call("where", (c, a, b)):
                if self._is_larger(c, a, b):
                    return self.joined(self.of(a), self.of(b))
                condition = self.evaluation.known_value(c)
                return self.chosen(condition, self.of(a), self.of(b))
            case Call("log", (x,)) if self.addition == "logaddexp":
                return self.log(x)
            case _:
                return self._sum(expr)

    def _sum(self, expr: Expr) -> Tropical:
        """One part that depends on the states, and what is added to it."""
        parts = polynomial(expr).monomials
        changing = [m for m in parts if any(self._depends(f) for f in m.factors)]
        if len(changing) != 1 or changing[0].key == frozenset({(expr, 1)}):
            raise NotLinearError(expr, f"not affine over ({self.addition}, +)")
        rest = written(Polynomial(tuple(m for m in parts if m not in changing)))
        match changing[0]:
            case Monomial(1, (factor,)):
                value = self.of(factor)
            case Monomial(-1, (Call(fn, (a, b)),)) if {fn, self.addition} == {"max", "min"}:
                value = self.of(call(self.addition, call("neg", a), call("neg", b)))
            case _:
                raise NotLinearError(expr, f"not affine over ({self.addition}, +)")
        return self.shifted(value, self.evaluation.known_value(rest))

    def _depends(self, expr: Expr) -> bool:
        return bool(self.evaluation.dependence.of(expr) & self.evaluation.current)

    def joined(self, a: Tropical, b: Tropical) -> Tropical:
        found = dict(a.coefficients)
        for name, coefficient in b.coefficients:
            before = found.get(name)
            same = before is None or (before == coefficient and self.addition != "logaddexp")
            found[name] = coefficient if same else call(self.addition, before or 0, coefficient)
        offsets = [o for o in (a.offset, b.offset) if o is not None]
        joint = reduce(lambda x, y: call(self.addition, x, y), offsets) if offsets else None
        return Tropical(tuple(found.items()), joint)

    def shifted(self, value: Tropical, by: Expr) -> Tropical:
        moved = tuple((name, plus(c, by)) for name, c in value.coefficients)
        return Tropical(moved, None if value.offset is None else plus(value.offset, by))

    def chosen(self, condition: Expr, yes: Tropical, no: Tropical) -> Tropical:
        nothing = Literal(NEUTRAL[self.addition])

        def pick(a: Expr | None, b: Expr | None) -> Expr:
            return call("where", condition, a or nothing, b or nothing)

        first, second = dict(yes.coefficients), dict(no.coefficients)
        names = dict.fromkeys((*first, *second))
        offset = None
        if yes.offset is not None or no.offset is not None:
            offset = pick(yes.offset, no.offset)
        return Tropical(tuple((n, pick(first.get(n), second.get(n))) for n in names), offset)

    def log(self, x: Expr) -> Tropical:
        """The logarithm of a sum of exponentials: log(exp(a) + exp(b)) is logaddexp(a, b)."""
        total, free = Tropical(), ZERO
        for monomial in polynomial(self._opened(x)).monomials:
            rest, changing = monomial.split(self._depends)
            if not changing.factors:
                free = free.plus(Polynomial((monomial,)))
                continue
            match changing.factors:
                case (Call("exp", (exponent,)),) if rest.number > 0:
                    by = self._log_free(Polynomial((rest,)))
                    total = self.joined(total, self.shifted(self.of(exponent), by))
                case _:
                    raise NotLinearError(x, "not a sum of exponentials")
        if free.monomials:
            total = self.joined(total, Tropical((), self._log_free(free)))
        return total

    def _log_free(self, p: Polynomial) -> Expr:
        value = self.evaluation.known_value(written(p))
        found = logarithm(value)
        return call("log", value) if found is None else found

    def _is_larger(self, condition: Expr, a: Expr, b: Expr) -> bool:
        """where(a > b, a, b) is max(a, b), where(a < b, a, b) is min(a, b)."""
        match condition:
            case Call("gt" | "ge" | "lt" | "le" as fn, (x, y)):
                first, second, yes, no = (
                    polynomial(self._opened(part, every=True)).key for part in (x, y, a, b)
                )
                larger = fn in ("gt", "ge")
                if (first, second) == (no, yes):
                    larger = not larger
                elif (first, second) != (yes, no):
                    return False
                return self.addition == ("max" if larger else "min")
        return False

    def _opened(self, x: Expr, every: bool = False) -> Expr:
        """``x`` with the names that depend on the states, or all, as what they stand for."""
        values = self.evaluation.dependence.values

        def change(node: Expr) -> Expr | None:
            if not isinstance(node, Ref) or node.name not in values:
                return None
            if not every and not self._depends(node):
                return None
            if (node.name, every) not in self.opened:
                self.opened[node.name, every] = self._opened(values[node.name], every)
            return self.opened[node.name, every]

        found = transform(x, change)
        if is_long((found,)):
            raise NotLinearError(x, "a value too long to write out")
        return found
