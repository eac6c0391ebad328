"""A value that is linear in one symbol, as a sum of products with the sums around them.

Sums commute, and a factor that is the same along an axis may go into a sum over it; so whatever
is linear in ``w`` is a sum of terms ``sum(sum(w * x, I), H, G=h // 2)``, each a product with a
chain of sums around it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from ....ir.expression import Call, Expr, Literal, Read, Reduce, Ref, call
from ....ir.names import names_in
from ....ir.rewriting import every_node
from ...analysis.gradients.partials import ONE, mul

Group = tuple[tuple[str, Expr], ...]


class NotLinearError(Exception):
    """The symbol stands where no factor can be taken out: in a read, or in a running sum."""


@dataclass(frozen=True)
class Around:
    """One sum around a product: over some axes, maybe by group."""

    over: tuple[str, ...]
    group: Group = ()


@dataclass(frozen=True)
class Term:
    """``symbol * factor`` with the sums around it, the innermost first."""

    factor: Expr
    sums: tuple[Around, ...] = ()

    def times(self, other: Expr, fn: str = "mul") -> Term:
        """The term with a factor that stood outside its sums; or divided by it."""
        for around in reversed(self.sums):
            there = tuple((dim, index) for dim, index in around.group if dim in other.axes)
            if there:
                other = Read(other, there)
            if any(dim in node.axes for node in every_node([other]) for dim in around.over):
                raise NotLinearError
        factor = mul(self.factor, other) if fn == "mul" else call(fn, self.factor, other)
        return replace(self, factor=factor)

    def chosen(self, condition: Expr, yes: bool) -> Term:
        """The term where a condition holds, or where it does not, else 0."""
        factor = Literal(1.0)
        one = call("where", condition, *((factor, 0.0) if yes else (0.0, factor)))
        return self.times(one)

    def within(self, around: Around) -> Term:
        """The term with one more sum around it."""
        return replace(self, sums=(*self.sums, around))


def linear_terms(value: Expr, symbol: Ref) -> list[Term]:
    """The terms of a value that is linear in ``symbol``.

    Raises:
        NotLinearError: the symbol stands where no factor can be taken out.
    """
    name = symbol.name

    def has(node: Expr) -> bool:
        return name in names_in(node)

    match value:
        case Ref():
            return [Term(ONE)]
        case Call("add", (a, b)):
            return [term for part in (a, b) if has(part) for term in linear_terms(part, symbol)]
        case Call("sub", (a, b)):
            terms = linear_terms(a, symbol) if has(a) else []
            minus = linear_terms(b, symbol) if has(b) else []
            return [*terms, *(_negative(term) for term in minus)]
        case Call("neg", (a,)):
            return [_negative(term) for term in linear_terms(a, symbol)]
        case Call("mul", (a, b)) if has(a) != has(b):
            inner, other = (a, b) if has(a) else (b, a)
            return [term.times(other) for term in linear_terms(inner, symbol)]
        case Call("div", (a, b)) if not has(b):
            return [term.times(b, "div") for term in linear_terms(a, symbol)]
        case Call("where", (c, a, b)) if not has(c):
            yes = [t.chosen(c, True) for t in linear_terms(a, symbol)] if has(a) else []
            no = [t.chosen(c, False) for t in linear_terms(b, symbol)] if has(b) else []
            return [*yes, *no]
        case Reduce("sum", x, over, where, group) if has(x):
            terms = linear_terms(x, symbol)
            if where is not None:
                terms = [term.chosen(where, True) for term in terms]
            return [term.within(Around(over, group)) for term in terms]
        case _:
            raise NotLinearError


def _negative(term: Term) -> Term:
    return replace(term, factor=call("neg", term.factor))


__all__ = ["Around", "NotLinearError", "Term", "linear_terms"]
