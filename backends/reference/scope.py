"""Expressions with values: names, what they stand for, and every term of the mixer level."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from ...ir.expression import (
    Call,
    Cumsum,
    Expr,
    Index,
    Kind,
    Literal,
    Read,
    Reduce,
    Ref,
    Scalar,
    Size,
    Solve,
)
from ...ir.host import evaluate_host, is_host
from ...ir.mixer import Equation
from .axes import contract, is_finite, read, reduce, running_sum, solve
from .elementwise import apply
from .values import Setting, Value

# How a sum is made where not as it stands; None where it is.
Sums = Callable[[Reduce, "Scope"], Value | None]


@dataclass
class Scope:
    """Names with values so far; lets are computed when first needed, shared terms once."""

    setting: Setting
    names: dict[str, Value] = field(default_factory=dict)
    lets: Mapping[str, Equation] = field(default_factory=dict)
    shared: frozenset[int] = frozenset()  # ids of nodes with several parents
    done: dict[int, Value] = field(default_factory=dict)
    sums: Sums | None = None

    def value_with(self, expr: Expr, names: Mapping[str, Value]) -> Value:
        """The value of ``expr`` with some names more, or other ones."""
        if not names:
            return self.value(expr)
        names = {**self.names, **names}
        return Scope(self.setting, names, self.lets, sums=self.sums).value(expr)

    def named(self, name: str) -> Value:
        """The value of an input, table, let or stage result."""
        if name not in self.names:
            self.names[name] = self.value(self.lets[name].value)
        return self.names[name]

    def value(self, expr: Expr) -> Value:
        """The value of ``expr``."""
        if id(expr) in self.done:
            return self.done[id(expr)]
        value = self._compute(expr)
        if id(expr) in self.shared:
            self.done[id(expr)] = value
        return value

    def _compute(self, expr: Expr) -> Value:
        setting = self.setting
        match expr:
            case Ref(name):
                return self.named(name)
            case Index(dim):
                return setting.positions(dim)
            case Literal() | Size() | Scalar():
                return setting.number(evaluate_host(expr, setting.lengths, setting.params))
            case Call(_, args):
                if is_host(expr):
                    return setting.number(evaluate_host(expr, setting.lengths, setting.params))
                return apply(setting, expr, [self.value(a) for a in args])
            case Reduce():
                return self._reduce(expr)
            case Read(x, at, fill):
                places = {dim: self.value(index) for dim, index in at}
                return read(setting, self.value(x), places, fill)
            case Cumsum(x, over, reverse, exclusive):
                return running_sum(setting, self.value(x), over, reverse, exclusive)
            case Solve(matrix, vector, left, right):
                return solve(setting, self.value(matrix), self.value(vector), left, right)
            case _:
                raise TypeError(f"no term of the mixer level: {type(expr).__name__}")

    def _reduce(self, expr: Reduce) -> Value:
        if self.sums is not None and (made := self.sums(expr, self)) is not None:
            return made
        where = None if expr.where is None else self.value(expr.where)
        group = [(dim, self.value(index)) for dim, index in expr.group]
        factors = [self.value(f) for f in self.factors(expr.x)] if expr.op == "sum" else []
        if len(factors) > 1 and not group and (is_finite(factors) or _is_plain(factors, where)):
            if where is not None:
                factors.append(self.setting.of_kind(where, Kind.BOOL))
            return contract(self.setting, factors, expr.over)
        return reduce(self.setting, expr.op, self.value(expr.x), expr.over, where, group)

    def factors(self, expr: Expr) -> list[Expr]:
        """The factors of a product, which a sum over it can contract; else the term itself.

        A product that has a value already is one factor: its own may not have any here.
        """
        match expr:
            case Call("mul", (a, b)) if id(expr) not in self.done and not is_host(expr):
                return [*self.factors(a), *self.factors(b)]
            case _:
                return [expr]


def _is_plain(factors: Sequence[Value], where: Value | None) -> bool:
    """Whether an infinity among the factors does no more than it does in their product.

    Times the 0 of what ``where`` leaves out it would be a nan, and so would it in a gradient.
    """
    return where is None and not any(factor.tensor.requires_grad for factor in factors)


def shared_nodes(expressions: Iterable[Expr]) -> frozenset[int]:
    """The nodes that several terms share as one object; expansions of the loader do."""
    seen, shared = set[int](), set[int]()
    pending = list(expressions)
    while pending:
        node = pending.pop()
        if not node.children:
            continue
        if id(node) in seen:
            shared.add(id(node))
            continue
        seen.add(id(node))
        pending += node.children
    return frozenset(shared)
