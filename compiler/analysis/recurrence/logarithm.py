"""The logarithm of a decay, where it is known without computing the decay."""

from __future__ import annotations

import math

from ....ir.expression import Call, Expr, Literal, call
from ..gradients.partials import negative
from .bounds import bounds
from .polynomial import Polynomial, plus, polynomial, tidy, times


def logarithm(expr: Expr) -> Expr | None:
    """log(expr), of products of exponentials and of what is certain to be positive, else None."""
    found = _log_product(polynomial(expr))
    if found is None and bounds(expr).low > 0:
        return call("log", expr)
    return found


def _log_product(p: Polynomial) -> Expr | None:
    if len(p.monomials) == 2:
        return _log_complement(p)
    if len(p.monomials) != 1 or p.monomials[0].number <= 0:
        return None
    total: Expr = Literal(0)
    for factor in p.monomials[0].factors:
        part = _log_factor(factor)
        if part is None:
            return None
        total = plus(total, part)
    number = p.monomials[0].number
    return tidy(total if number == 1 else plus(total, Literal(math.log(number))))


def _log_complement(p: Polynomial) -> Expr | None:
    """log(1 - sigmoid(x)) --> logsigmoid(-x), log(1 + exp(x)) --> softplus(x)."""
    one = next((m for m in p.monomials if not m.factors), None)
    if one is None or one.number != 1:
        return None
    (other,) = (m for m in p.monomials if m is not one)
    match other.factors:
        case (Call("sigmoid", (x,)),) if other.number == -1:
            return call("logsigmoid", negative(x))
    log = _log_product(Polynomial((other,)))
    return None if log is None else call("softplus", log)


def _log_factor(factor: Expr) -> Expr | None:
    match factor:
        case Call("exp", (x,)):
            return x
        case Call("exp2", (x,)):
            return times(x, Literal(math.log(2)))
        case Call("sigmoid", (x,)):
            return call("logsigmoid", x)
        case Call("div", (Literal(1), x)):
            return _scaled(logarithm(x), Literal(-1))
        case Call("pow", (base, power)):
            return _scaled(logarithm(base), power)
        case Call("where", (condition, yes, no)):
            logs = logarithm(yes), logarithm(no)
            found = [log for log in logs if log is not None]
            return call("where", condition, *found) if len(found) == 2 else None
        case Call("sqrt" | "rsqrt", (x,)):
            return _scaled(logarithm(x), Literal(0.5 if factor.fn == "sqrt" else -0.5))
        case _:
            return None


def _scaled(log: Expr | None, by: Expr) -> Expr | None:
    return None if log is None else times(by, log)
