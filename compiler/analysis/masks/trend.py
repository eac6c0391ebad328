"""How a value moves along an axis."""

from __future__ import annotations

from ....ir.expression import Call, Expr, Index, Literal, Read, Ref
from ....ir.key_ranges import Trend
from ..facts import Facts, in_range, is_positive
from ..linear import linear, plus, times

# No position is as large; every bound that comes from a real number is cut to it.
LIMIT = 2**30


_RISING_FUNCTIONS = frozenset(
    "floor ceil round relu exp exp2 expm1 log log2 log1p sqrt tanh sigmoid logsigmoid softplus "
    "erf sign detach".split()
)


def trend(expr: Expr, dim: str, facts: Facts) -> Trend:
    """How ``expr`` moves along ``dim``; a truth value counts as 0 and 1."""
    if dim not in expr.axes:
        return Trend.CONSTANT
    match expr:
        case Index():
            return Trend.RISING
        case Ref(name):
            return Trend.RISING if (name, dim) in facts.sorted else Trend.UNKNOWN
        case Read():
            return _trend_of_read(expr, dim, facts)
        case Call(fn, args):
            return _trend_of_call(fn, args, dim, facts)
        case _:
            return Trend.UNKNOWN


def _trend_of_call(fn: str, args: tuple[Expr, ...], dim: str, facts: Facts) -> Trend:
    match fn, args:
        case (("lt" | "le"), (a, b)):
            return trend(plus(b, times(a, -1)), dim, facts)
        case (("gt" | "ge"), (a, b)):
            return trend(plus(a, times(b, -1)), dim, facts)
        case (("not" | "neg"), (a,)):
            return trend(a, dim, facts).reversed
        case (("add" | "sub"), (a, b)):
            return _trend_of_sum(plus(a, times(b, -1 if fn == "sub" else 1)), dim, facts)
        case (("and" | "or" | "min" | "max" | "logaddexp"), (a, b)):
            return trend(a, dim, facts).joined(trend(b, dim, facts))
        case "where", (c, a, b):
            return _trend_of_choice(c, a, b, dim, facts)
        case "mul", (a, b):
            return _trend_of_product(a, b, dim, facts)
        case (("floordiv" | "div"), (a, b)) if is_positive(b, facts) and dim not in b.axes:
            return trend(a, dim, facts)
        case _, (a,) if fn in _RISING_FUNCTIONS:
            return trend(a, dim, facts)
        case _:
            return Trend.UNKNOWN


def _trend_of_sum(expr: Expr, dim: str, facts: Facts) -> Trend:
    result = Trend.CONSTANT
    for term, coefficient in linear(expr).terms:
        moves = trend(term, dim, facts)
        result = result.joined(moves if coefficient > 0 else moves.reversed)
    return result


def _trend_of_choice(c: Expr, a: Expr, b: Expr, dim: str, facts: Facts) -> Trend:
    """Of ``where(c, a, b)``: c constant, or turning once between a value and one without end."""
    either = trend(a, dim, facts).joined(trend(b, dim, facts))
    if dim not in c.axes:
        return either
    turns = trend(c, dim, facts)  # rising: b comes first, then a
    for sign, value in ((1, a), (-1, b)):
        if not isinstance(value, Literal) or abs(value.value) < LIMIT or turns is Trend.UNKNOWN:
            continue
        to_infinite = (turns is Trend.RISING) == (sign == 1)
        moved = Trend.RISING if to_infinite == (value.value > 0) else Trend.FALLING
        return moved.joined(either)
    return Trend.UNKNOWN


def _trend_of_product(a: Expr, b: Expr, dim: str, facts: Facts) -> Trend:
    for factor, other in ((a, b), (b, a)):
        if dim in factor.axes:
            continue
        if is_positive(factor, facts):
            return trend(other, dim, facts)
        if is_positive(times(factor, -1), facts):
            return trend(other, dim, facts).reversed
    return Trend.UNKNOWN


def _trend_of_read(read: Read, dim: str, facts: Facts) -> Trend:
    moving = [(along, index) for along, index in read.at if dim in index.axes]
    if not isinstance(read.x, Ref) or len(moving) != 1 or dim in read.x.axes - {moving[0][0]}:
        return Trend.UNKNOWN
    along, index = moving[0]
    if (read.x.name, along) not in facts.sorted or not in_range(index, along, facts):
        return Trend.UNKNOWN
    return trend(index, dim, facts)
