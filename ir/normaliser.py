"""How an attention's weights are normalised in a walk over its keys, as data."""

from __future__ import annotations

from dataclasses import dataclass

from .expression import Expr, Kind, Reduce, Ref

SCALE = Ref("scale", frozenset(), Kind.REAL)


@dataclass(frozen=True, slots=True)
class Rescaled:
    """weight = factor * exp(exponent); the running maximum is that of the exponent.

    ``exponent`` and ``factor`` are expressions in ``Ref("score")`` (the factor mostly 1).
    ``denominator`` is what the sums are divided by at the end, in ``Ref("total")``, the total
    divided by exp(m), and ``Ref("scale")``, which is exp(m) itself: in any overflow-free way,
    ``c / scale`` is c * exp(-m). ``start`` is what m starts from: -inf, or 0 where the
    denominator has terms beside the total, so that exp(-m) stays finite.
    """

    exponent: Expr
    factor: Expr
    denominator: Expr
    start: float
    reason: str

    @property
    def expressions(self) -> tuple[Expr, ...]:
        """What is evaluated for the weights and for their total."""
        return self.denominator, self.exponent, self.factor


@dataclass(frozen=True, slots=True)
class Plain:
    """An elementwise weight in ``Ref("score")``; the denominator is one in ``Ref("total")``."""

    weight: Expr
    denominator: Expr
    reason: str

    @property
    def expressions(self) -> tuple[Expr, ...]:
        """What is evaluated for the weights and for their total."""
        return self.denominator, self.weight


@dataclass(frozen=True, slots=True)
class TwoPass:
    """Named reductions, in an order that resolves, and the normaliser that is left with them.

    Each statistic sees visible pairs only: the mask is in its ``where``. It may mention
    ``Ref("score")`` and statistics before it. ``then`` mentions them as ``Ref(name)``.
    """

    statistics: tuple[tuple[str, Reduce], ...]
    then: Rescaled | Plain
    reason: str


Normaliser = Rescaled | Plain | TwoPass
