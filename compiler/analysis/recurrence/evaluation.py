"""The values of a step as superpositions of states: what each line says, with the lines before it
written in.

States play three parts here. Those of the component at hand are unknowns. Matrix states of
components before it are unknowns too, but each contraction of one may be settled: it is a reading,
which is known. All other states are known, row by row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import reduce

from ....ir.expression import Call, Expr, Index, Literal, Read, Reduce, Ref, call
from ....ir.rewriting import rebuild
from .dependence import Dependence
from .polynomial import applied, plus
from .readings import WholeError
from .superposition import NotLinearError, Superposition, Term, chosen, contracted, read

LONGEST, DEEPEST = 2000, 120  # nodes of one value and their nesting, names written out


@dataclass
class Evaluation:
    """The values of one component; ``unknown`` is what the names of unknowns stand for.

    ``current`` are the unknowns that cannot be settled; ``known`` what other names stand for;
    ``settle_term`` makes a reading of a term (or raises); ``finals`` are the states that have a
    value at the end of the row, by that value.
    """

    dependence: Dependence
    unknown: Mapping[str, Ref]
    current: frozenset[str]
    known: Mapping[str, Expr]
    settle_term: Callable[[Term], Expr]
    finals: dict[Expr, Expr] = field(default_factory=dict)
    _named: dict[str, Superposition | Exception] = field(default_factory=dict)

    def value(self, expr: Expr) -> Superposition:
        """The value of an expression, its names evaluated in the order of the lines."""
        needed = self.dependence.needed(expr, {*self.unknown, *self.known})
        for name, value in self.dependence.values.items():
            if name in needed and name not in self._named:
                self._named[name] = self._line(value)
        return self.of(expr)

    def _line(self, value: Expr) -> Superposition | Exception:
        try:
            found = self.of(value)
        except (NotLinearError, WholeError) as error:
            return error
        if not found.terms and found.free in self.finals:
            return Superposition(free=self.finals[found.free])
        if _is_long(found):
            return NotLinearError(value, "a value too long to write out")
        return found

    def named(self, ref: Ref) -> Superposition:
        """The value of a name."""
        if ref.name in self.unknown:
            return Superposition((Term(Literal(1), self.unknown[ref.name]),))
        if ref.name in self.known:
            return Superposition(free=self.known[ref.name])
        if ref.name in self.dependence.opaque:
            raise NotLinearError(ref, "an inner loop")
        if ref.name not in self.dependence.values:
            return Superposition(free=ref)
        if ref.name not in self._named:
            self._named[ref.name] = self._line(self.dependence.values[ref.name])
        found = self._named[ref.name]
        if isinstance(found, Exception):
            raise found
        return found

    def settled(self, value: Superposition, blame: Expr) -> Expr:
        """The value with every contraction of an earlier state as a reading."""
        own = [t for t in value.terms if t.state.name in self.current]
        if own:
            raise NotLinearError(blame, "not linear in the state")
        parts = [applied(t.coefficient, self.settle_term(t)) for t in value.terms]
        return reduce(plus, parts, value.free) if parts else value.free

    def known_value(self, expr: Expr, blame: Expr | None = None) -> Expr:
        """The value of an expression that must not depend on an unknown of the component."""
        return self.settled(self.of(expr), expr if blame is None else blame)

    def of(self, expr: Expr) -> Superposition:
        """The value of an expression."""
        match expr:
            case Ref():
                return self.named(expr)
            case Call("add" | "sub" as fn, (a, b)):
                return self._sum(expr, fn, self.of(a), self.of(b))
            case Call("neg", (a,)):
                value = self.of(a)
                return value.scaled(Literal(-1)) if value.terms else _free(expr, value)
            case Call("mul", (a, b)):
                return self._product(expr, self.of(a), self.of(b))
            case Call("div", (a, b)):
                value = self.of(a)
                below = self.known_value(b, expr)
                known = Superposition(free=below)
                return value.divided(below) if value.terms else _free(expr, value, known)
            case Call("where", (c, a, b)):
                condition, yes, no = self.known_value(c, expr), self.of(a), self.of(b)
                if yes.terms or no.terms:
                    return chosen(condition, yes, no)
                return _free(expr, Superposition(free=condition), yes, no)
            case Reduce("sum", x, over, where, ()):
                value = self._settled_inside(self.of(x), expr)
                admitted = None if where is None else self.known_value(where, expr)
                if value.terms:
                    return contracted(value, over, admitted)
                return Superposition(free=replace(expr, x=spread(value.free, x), where=admitted))
            case Read(x, at, fill):
                value = self.of(x)
                places = tuple((dim, self.known_value(index, expr)) for dim, index in at)
                if value.terms:
                    return read(value, places, fill)
                return Superposition(free=replace(expr, x=spread(value.free, x), at=places))
            case _:
                return self._plain(expr)

    def _plain(self, expr: Expr) -> Superposition:
        """A node that is not linear, of parts that are known."""

        def known(part: Expr) -> Expr:
            value = self.known_value(part, expr)
            return value if isinstance(expr, Call) else spread(value, part)

        return Superposition(free=rebuild(expr, known))

    def _sum(self, expr: Call, fn: str, a: Superposition, b: Superposition) -> Superposition:
        if not a.terms and not b.terms:
            return _free(expr, a, b)
        return a.plus(b if fn == "add" else b.scaled(Literal(-1)))

    def _product(self, expr: Call, a: Superposition, b: Superposition) -> Superposition:
        if not a.terms and not b.terms:
            return _free(expr, a, b)
        if not a.terms or (b.terms and not self._has_current(a)):
            return b.scaled(self.settled(a, expr))
        return a.scaled(self.settled(b, expr))

    def _has_current(self, value: Superposition) -> bool:
        return any(t.state.name in self.current for t in value.terms)

    def _settled_inside(self, value: Superposition, expr: Expr) -> Superposition:
        """What a sum is over: a reading inside a reading is known by itself."""
        terms = [t for t in value.terms if t.over and t.state.name not in self.current]
        if not terms:
            return value
        kept = tuple(t for t in value.terms if t not in terms)
        known = self.settled(Superposition(tuple(terms), value.free), expr)
        return Superposition(kept, known)


def _free(expr: Call, *parts: Superposition) -> Superposition:
    """A node of parts that have no unknown."""
    return Superposition(free=replace(expr, args=tuple(part.free for part in parts)))


def spread(value: Expr, old: Expr) -> Expr:
    """The value with the axes that it lost where terms cancelled."""
    for axis in sorted(old.axes - value.axes):
        value = call("add", value, call("mul", Index(axis), 0))
    return value


def _is_long(value: Superposition) -> bool:
    """Whether a value is more than is worth writing out."""
    weights = (t.weight for t in value.terms if t.weight is not None)
    return is_long((value.free, *(t.coefficient for t in value.terms), *weights))


def is_long(parts: Iterable[Expr]) -> bool:
    """Whether expressions have more nodes in all, or are nested deeper, than is worth it."""
    waiting, count = [(part, 0) for part in parts], 0
    while waiting:
        node, depth = waiting.pop()
        count += 1
        if count > LONGEST or depth > DEEPEST:
            return True
        waiting += [(child, depth + 1) for child in node.children]
    return False
