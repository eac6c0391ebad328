"""Whether one pass over the keys can normalise (first form)."""

from __future__ import annotations

from dataclasses import dataclass

from ...ir.expression import Call, Expr, Kind, Literal, Reduce, Ref
from ...ir.mixer import Attention


@dataclass(frozen=True, slots=True)
class Rescaled:
    exponent: Expr
    factor: Expr
    scaled_denominator: Expr | None


@dataclass(frozen=True, slots=True)
class Plain:
    pass


@dataclass(frozen=True, slots=True)
class TwoPass:
    statistics: tuple[tuple[str, Reduce], ...]
    weight: Expr
    denominator: Expr
    reason: str


def classify(attention: Attention) -> Rescaled | Plain | TwoPass:
    match attention.weight:
        case Call("exp", (Ref("score") as score,)):
            return Rescaled(score, Literal(1.0), attention.denominator)
    return Plain()
