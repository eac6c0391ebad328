"""Sums weighted by a softmax, as attentions: sum(softmax(s, J) * v, J) in one sweep over J.

The weights are recognised by what they are, t / sum(t, J) with t = exp(s), however the sum goes on.
What s lacks of J cancels, so a largest score that was subtracted is left out.
"""

from __future__ import annotations

from ...ir.expression import Call, Expr, Kind, Literal, Reduce, Ref, call, product_of
from ...ir.mixer import Attention, Equation
from ..tiles.contraction import factors_of


def attention_of(node: Expr, name: str) -> Attention | None:
    """The attention that a sum is, its output called ``name``; None where it is none.

    It has an axis to be made for each position of: a batch or rows.
    """
    match node:
        case Reduce("sum", x, (over,), where=None) if not node.group:
            pass
        case _:
            return None
    factors = factors_of(x)
    for divisor in factors:
        match divisor:
            case Call("div", (Literal(1), total)):
                pass
            case _:
                continue
        for terms in factors:
            found = _score(terms, over)
            if found is None or not _is_total(total, terms, over):
                continue
            score, mask = found
            rest = [f for f in factors if f is not divisor and f is not terms]
            if not any(over in factor.axes for factor in rest):
                continue
            value = product_of(rest)
            weight = call("exp", Ref("score", frozenset(), Kind.REAL))
            sums = Ref("total", frozenset(), Kind.REAL)
            outputs = (Equation(name, value),)
            made = Attention(over, score, mask, weight, sums, None, None, outputs)
            return made if made.queries and made.results[0].axes == node.axes else None
    return None


def _score(terms: Expr, over: str) -> tuple[Expr, Expr | None] | None:
    """The score and the mask of weights before they are divided."""
    match terms:
        case Call("exp", (exponent,)) if over in exponent.axes:
            return _without_constant(exponent, over), None
        case Call("where", (mask, Call("exp", (exponent,)), Literal(0))) if over in exponent.axes:
            match exponent:
                case Call("where", (same, inner, _)) if same == mask:
                    exponent = inner
            return _without_constant(exponent, over), mask
    return None


def _without_constant(exponent: Expr, over: str) -> Expr:
    """Without what is subtracted from every score alike."""
    match exponent:
        case Call("sub", (score, least)) if over not in least.axes:
            return score
    return exponent


def _is_total(total: Expr, terms: Expr, over: str) -> bool:
    """Whether it is the sum of the terms; where there are none, it may be any number."""
    match total:
        case Call("where", (Call("ne", (tested, Literal(0))), whole, _)) if tested == whole:
            total = whole
    return total == Reduce("sum", terms, (over,))


__all__ = ["attention_of"]
