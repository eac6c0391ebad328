"""Which passes over the keys a normaliser needs, decided by what it computes.

``Rescaled``: the weight has a factor exp(e(score)). With m the running maximum of e, everything
that is summed (total and outputs) is kept divided by exp(m); when m grows, it is multiplied by
exp(old m - new m). That is a homomorphism: it commutes with adding up blocks of keys, so one pass
does. ``Plain``: an elementwise weight without such a factor; blocks simply add up. ``TwoPass``:
the weight looks at other pairs; the reductions are computed before, by a kernel of their own.
"""

from __future__ import annotations

import math
from dataclasses import replace

from ...ir.errors import UnsupportedError
from ...ir.expression import Call, Cumsum, Expr, Kind, Literal, Reduce, Ref, call
from ...ir.mixer import Attention
from ...ir.names import names_in
from ...ir.normaliser import SCALE, Normaliser, Plain, Rescaled, TwoPass
from ...ir.rewriting import rebuild, substitute, walk
from .linear import expression, linear


def classify(attention: Attention) -> Normaliser:
    """How the attention's weights can be normalised in a loop over the keys.

    Raises:
        UnsupportedError: the weight has a running sum along an axis of the pairs.
    """
    statistics, simple = _statistics(attention)
    then = _of_elementwise(simple.weight, simple.denominator)
    if not statistics.found:
        return then
    named = ", ".join(f"{name} = {reduce}" for name, reduce in statistics.written)
    reason = f"the weight depends on other pairs ({named}), which takes a pass before"
    return TwoPass(tuple(statistics.found), then, reason)


def statistics_apart(attention: Attention) -> tuple[tuple[tuple[str, Reduce], ...], Attention]:
    """The statistics of a ``TwoPass`` normaliser, none of another, and the attention in their
    names, without what its rows cancel.

    Raises:
        UnsupportedError: the weight has a running sum along an axis of the pairs.
    """
    statistics, simple = _statistics(attention)
    return tuple(statistics.found), simple


def _statistics(attention: Attention) -> tuple[_Statistics, Attention]:
    """The reductions over pairs, and the attention with their names in their places."""
    pairs = attention.queries | {attention.over}
    simple = _without_row_constants(attention)
    for part in (simple.weight, simple.denominator):
        for node in walk(part):
            if isinstance(node, Cumsum) and node.over in pairs:
                raise UnsupportedError(
                    f"a running sum along {node.over} inside a normaliser: {node}\n"
                    "  allowed: reductions (sum, max, min, ...); write the running sum as a let"
                )
    found = _Statistics(simple, pairs)
    weight, denominator = found.named(simple.weight), found.named(simple.denominator)
    return found, replace(simple, weight=weight, denominator=denominator)


def _of_elementwise(weight: Expr, denominator: Expr) -> Rescaled | Plain:
    found = _exponential(weight) or _by_algebra(weight)
    if found is None or not _has_score(found[0]):
        total = "" if _mentions(denominator, "total") else ", and the total is not needed"
        return Plain(weight, denominator, f"the weights of blocks of keys add up{total}")
    exponent, factor = found
    scaled = _scaled(denominator)
    start = 0.0 if scaled is None or _mentions(scaled, "scale") else -math.inf
    if scaled is None:
        score = Ref("total", frozenset(), Kind.REAL)
        whole = _renamed(denominator, "total", call("mul", score, SCALE))
        scaled = call("div", whole, SCALE)
    reason = f"exp({exponent}) rescales with the running maximum"
    return Rescaled(_tidy(exponent), factor, scaled, start, reason)


def _tidy(exponent: Expr) -> Expr:
    return expression(linear(exponent))


def _exponential(expr: Expr) -> tuple[Expr, Expr] | None:
    """(exponent, factor) by structure, or None where the expression has no factor exp(...)."""
    match expr:
        case Call("exp", (a,)):
            return a, Literal(1)
        case Call("exp2", (a,)):
            return call("mul", math.log(2), a), Literal(1)
        case Call("pow", (Literal(base), a)) if base > 0 and _has_score(a):
            return call("mul", math.log(base), a), Literal(1)
        case Call("pow", (a, power)) if not _has_score(power):
            inner = _exponential(a)
            if inner is None or inner[1] != Literal(1):
                return None
            return call("mul", power, inner[0]), Literal(1)
        case Call("sqrt", (a,)):
            return _exponential(call("pow", a, 0.5))
        case Call("mul" | "div", (a, b)):
            return _of_product(expr.fn, a, b)
        case Call("where", (c, a, b)):
            return _of_choice(c, a, b)
        case Call("neg", (a,)):
            inner = _exponential(a)
            return None if inner is None else (inner[0], call("neg", inner[1]))
        case _:
            return None


def _of_product(fn: str, a: Expr, b: Expr) -> tuple[Expr, Expr] | None:
    left, right = _exponential(a), _exponential(b)
    if left is None and right is None:
        return None
    zero, one = Literal(0), Literal(1)
    upper, factor = left or (zero, a)
    lower, other = right or (zero, b)
    exponent = expression(linear(call("add" if fn == "mul" else "sub", upper, lower)))
    if other == one:
        return exponent, factor
    return exponent, other if factor == one and fn == "mul" else call(fn, factor, other)


def _of_choice(c: Expr, a: Expr, b: Expr) -> tuple[Expr, Expr] | None:
    """Of ``where(c, a, b)``, where each side has the factor or is 0."""
    left, right = _exponential(a), _exponential(b)
    zero = Literal(0)
    if left is not None and _is_zero(b):
        return left[0], call("where", c, left[1], zero)
    if right is not None and _is_zero(a):
        return right[0], call("where", c, zero, right[1])
    if left is None or right is None:
        return None
    if left[1] == right[1]:
        return call("where", c, left[0], right[0]), left[1]
    return call("where", c, left[0], right[0]), call("where", c, left[1], right[1])


def _is_zero(expr: Expr) -> bool:
    return isinstance(expr, Literal) and expr.value == 0


def _by_algebra(weight: Expr) -> tuple[Expr, Expr] | None:
    """(exponent, factor) of a weight w with w(s + c) = w(s) h(c), however it is written."""
    scores = {node for node in walk(weight) if isinstance(node, Ref) and node.name == "score"}
    if not scores or not _may_be_exponential(weight):
        return None
    from .algebra import exponential_in

    (score,) = scores
    found = exponential_in(weight, score)
    return None if found is None else (call("mul", found[0], score), found[1])


def _may_be_exponential(weight: Expr) -> bool:
    """Whether it is worth asking sympy, whose import takes most of a second."""
    calls = [node for node in walk(weight) if isinstance(node, Call) and _has_score(node)]
    grow = [n for n in calls if n.fn in ("exp", "exp2", "expm1") or _is_power_of_score(n)]
    bend = [n for n in calls if n.fn in ("sigmoid", "logsigmoid", "softplus", "tanh", "logaddexp")]
    return len(calls) > 1 and len(grow) + len(bend) // 2 > 0


def _is_power_of_score(node: Call) -> bool:
    return node.fn == "pow" and _has_score(node.args[1])


def _scaled(expr: Expr) -> Expr | None:
    """The denominator at total * scale, divided by scale, or None where scale can't be taken out.

    total + 1 --> total + 1 / scale;  max(abs(total), c) --> max(abs(total), c / scale)
    """
    if not _mentions(expr, "total"):
        return expr if expr == Literal(0) else call("div", expr, SCALE)
    match expr:
        case Ref("total"):
            return expr
        case Call("where", (c, a, b)) if not _mentions(c, "total"):
            parts = [_scaled(a), _scaled(b)]
            known = [part for part in parts if part is not None]
            return call("where", c, *known) if len(known) == 2 else None
        case Call("add" | "sub" | "min" | "max" | "neg" | "abs" | "relu", args):
            parts = [_scaled(a) for a in args]
            known = [part for part in parts if part is not None]
            return call(expr.fn, *known) if len(known) == len(args) else None
        case Call("mul", (a, b)) if not _mentions(a, "total"):
            inner = _scaled(b)
            return None if inner is None else call("mul", a, inner)
        case Call("mul" | "div", (a, b)) if not _mentions(b, "total"):
            inner = _scaled(a)
            return None if inner is None else call(expr.fn, inner, b)
        case _:
            return None


def _without_row_constants(attention: Attention) -> Attention:
    """``exp(score - max(score, J)) / total --> exp(score) / total``.

    A factor exp(r) that is the same for all keys of a row cancels where the denominator is
    homogeneous in the total. Only reductions are taken out (they would cost a pass), and only
    where the logarithm of the total is not asked for.
    """
    found = _exponential(attention.weight)
    if found is None or attention.lse is not None:
        return attention
    scaled = _scaled(attention.denominator)
    if scaled is None or _mentions(scaled, "scale"):
        return attention
    exponent, factor = found
    form = linear(exponent)
    kept = tuple(
        (term, coefficient)
        for term, coefficient in form.terms
        if attention.over in term.axes or not _reduces(term, attention.over)
    )
    if kept == form.terms:
        return attention
    weight = call("exp", expression(replace(form, terms=kept)))
    if factor != Literal(1):
        weight = call("mul", factor, weight)
    return replace(attention, weight=weight)


def _reduces(expr: Expr, axis: str) -> bool:
    return any(isinstance(node, Reduce) and axis in node.over for node in walk(expr))


class _Statistics:
    """The reductions over pairs inside a normaliser, under names."""

    def __init__(self, attention: Attention, pairs: frozenset[str]) -> None:
        self.attention = attention
        self.pairs = pairs
        self.found: list[tuple[str, Reduce]] = []
        self.written: list[tuple[str, Reduce]] = []
        parts = (attention.weight, attention.denominator, attention.score)
        self.taken = {*names_in(*parts)}

    def named(self, expr: Expr) -> Expr:
        """``expr`` with its reductions over pairs, innermost first, as names."""
        if isinstance(expr, Reduce) and set(expr.over) & self.pairs:
            opened = _renamed(expr, "total", self._total())
            inner = rebuild(opened, self.named)
            assert isinstance(inner, Reduce)
            return self._name(self._of_visible(inner), expr)
        return rebuild(expr, self.named)

    def _name(self, reduce: Reduce, written: Reduce) -> Ref:
        for name, known in self.found:
            if known == reduce:
                return Ref(name, reduce.axes, reduce.kind)
        stem = f"{reduce.op}_{'_'.join(reduce.over).lower()}"
        names = (stem, *(f"{stem}_{number}" for number in range(2, 100)))
        name = next(name for name in names if name not in self.taken)
        self.taken.add(name)
        self.found.append((name, reduce))
        self.written.append((name, written))
        return Ref(name, reduce.axes, reduce.kind)

    def _of_visible(self, reduce: Reduce) -> Reduce:
        """With the mask in ``where``; what has no key axis sees the rows that see any key."""
        mask = self.attention.mask
        if mask is None:
            return reduce
        axes = frozenset[str]().union(*(c.axes for c in reduce.children)) | set(reduce.over)
        over = self.attention.over
        if over not in axes and over in mask.axes:
            mask = self._name(Reduce("any", mask, (over,)), Reduce("any", mask, (over,)))
        where = mask if reduce.where is None else call("and", reduce.where, mask)
        return replace(reduce, where=where)

    def _total(self) -> Expr:
        """What ``total`` stands for, where a reduction needs it before the end of the pass."""
        summed: Expr = Reduce("sum", self.attention.weight, (self.attention.over,))
        if self.attention.sink is None:
            return summed
        return call("add", summed, _renamed(self.attention.weight, "score", self.attention.sink))


def _renamed(expr: Expr, name: str, value: Expr) -> Expr:
    refs = {n for n in walk(expr) if isinstance(n, Ref) and n.name == name}
    return substitute(expr, dict.fromkeys(refs, value))


def _mentions(expr: Expr, name: str) -> bool:
    return name in names_in(expr)


def _has_score(expr: Expr) -> bool:
    return _mentions(expr, "score")


__all__ = ["SCALE", "Normaliser", "Plain", "Rescaled", "TwoPass", "classify", "statistics_apart"]
