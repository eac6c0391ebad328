"""The adjoint of an attention: weighted sums over its pairs, by the chain rule.

With e the exponent of a weight, p = gain * exp(e - lse) / F, F the denominator by the total, and
for a pair dp = gain * sum(do * v) and for a row delta = sum(do * o),

    de = exp(e - lse) / F * (dp - F' * delta) + exp(e - lse) * dlse,     dv = sum p * do

(Dao et al. 2022, arXiv 2205.14135, appendix B, for F = 1). A weight that is no exponential has
its own slope in place of the exponential. Every gradient is a sum over keys or queries of these,
so it is an attention with the weight of the forward pass and no normaliser.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from ....ir.errors import UnsupportedError
from ....ir.expression import Call, Expr, Index, Kind, Literal, Ref, call
from ....ir.mixer import Attention
from ....ir.names import names_in
from ....ir.normaliser import Rescaled, TwoPass
from ....ir.rewriting import transform, with_names
from ...analysis.gradients.derivatives import pullback, sum_to
from ...analysis.gradients.partials import ONE, ZERO, add, mul
from ...analysis.normaliser import classify
from .adjoints import Adjoints
from .pair_sums import PairSums


@dataclass(frozen=True)
class Weights:
    """A normaliser as the backward pass has it: everything by the row's logarithm, or its total.

    ``unnormalised`` is the weight of a visible pair over the scale of its row, ``exponent`` what
    it is an exponential of (None: of nothing), ``divisor`` the denominator over that scale, and
    ``slope`` the derivative of the denominator by the total. ``scaled_sink`` is the sink's weight.
    """

    unnormalised: Expr
    exponent: Expr | None
    divisor: Expr
    slope: Expr
    total: Expr  # over the scale
    scaled_sink: Expr | None


def needs_lse(stage: Attention) -> bool:
    """Whether the adjoint of an attention is computed from the logarithm of its total."""
    form = classify(stage)
    return isinstance(form, Rescaled) and form.factor == Literal(1)


def attention_adjoint(
    stage: Attention,
    query: str | None,
    adjoints: Adjoints,
    given: Mapping[str, Expr],
    several: tuple[str, ...] = (),
) -> None:
    """Add what an attention adds to the adjoints of the names that it reads.

    Args:
        stage: the attention; its ``lse`` is named where ``needs_lse``.
        query: the axis of its queries that is walked beside the keys', if any.
        given: the adjoints of its results.
        several: the positions of a query, ``query`` among them, where it has more than one.

    Raises:
        UnsupportedError: a normaliser that looks at other pairs, or whose denominator has keys.
    """
    _Attention(stage, query, adjoints, given, several).run()


class _Attention:
    def __init__(
        self,
        stage: Attention,
        query: str | None,
        adjoints: Adjoints,
        given: Mapping[str, Expr],
        several: tuple[str, ...],
    ) -> None:
        self.stage, self.adjoints, self.given, self.several = stage, adjoints, given, several
        self.walked = (stage.over,) if query is None else (stage.over, query)
        self.pairs = stage.queries | {stage.over}
        self.weights = self._weights()

    def run(self) -> None:
        weights = self.weights
        share = Ref(self.adjoints.unused("weight"), self.pairs, Kind.REAL)
        normalised = _over(weights.unnormalised, weights.divisor)
        weight = self._spread(normalised)
        sums = PairSums(self.adjoints, share, weight, self.stage.mask, self.walked, self.several)
        parts = self._of_values(share)
        by_weight = self._by_weight()
        delta, by_total = self._row_terms(by_weight, sums, share)
        lse = None if self.stage.lse is None else self.given.get(self.stage.lse)
        above = self._above(by_weight, by_total, lse)
        if weights.exponent is not None:
            whole = mul(share, above) if above != ZERO else ZERO
            parts += self._of_exponent(whole, weights.exponent)
        else:
            self._of_plain(above)
        parts += self._of_gain(share)
        for name, value, hint in parts:
            self._add(name, sums.lowered(value, hint))
        sums.close()
        for name, value in self._of_rows(delta, by_total, lse):
            self._add(name, value)

    def _add(self, name: str, value: Expr) -> None:
        self.adjoints.add({name: value})

    # ---------------------------------------------------------------------------- normaliser

    def _weights(self) -> Weights:
        stage = self.stage
        form = classify(stage)
        if isinstance(form, TwoPass):
            raise UnsupportedError(
                f"the derivative of a normaliser that looks at other pairs: {form.reason}"
            )
        if isinstance(form, Rescaled) and form.factor == Literal(1):
            return self._exponential(form)
        return self._plain()

    def _exponential(self, form: Rescaled) -> Weights:
        stage = self.stage
        assert stage.lse is not None
        lse = Ref(stage.lse, stage.queries, Kind.REAL)
        exponent = with_names(form.exponent, {"score": stage.score})
        total = call("exp", lse)
        divisor = _without_scale(form.denominator, lse)
        slope = pullback(stage.denominator, ONE, ("total",), stage.queries).get("total", ZERO)
        sink = None
        if stage.sink is not None:
            # A sink of -inf takes no weight, and a row that sees nothing has an lse of -inf then.
            above = call("where", call("gt", lse, -math.inf), lse, 0.0)
            sink = call("exp", call("sub", self._of_sink(form.exponent), above))
        return Weights(
            unnormalised=call("exp", call("sub", exponent, lse)),
            exponent=exponent,
            divisor=divisor,
            slope=with_names(slope, {"total": total}),
            total=ONE,
            scaled_sink=sink,
        )

    def _of_sink(self, form: Expr) -> Expr:
        assert self.stage.sink is not None
        return with_names(form, {"score": self.stage.sink})

    def _plain(self) -> Weights:
        stage = self.stage
        weight = with_names(stage.weight, {"score": stage.score})
        total: Expr = ONE
        if "total" in names_in(stage.denominator) or stage.lse in self.given:
            total = self._total(weight)
        denominator = with_names(stage.denominator, {"total": total})
        if stage.over in denominator.axes:
            raise UnsupportedError("the derivative of a denominator that has the axis of the keys")
        slope = pullback(stage.denominator, ONE, ("total",), stage.queries).get("total", ZERO)
        return Weights(
            unnormalised=weight,
            exponent=None,
            divisor=denominator,
            slope=with_names(slope, {"total": total}),
            total=total,
            scaled_sink=None if stage.sink is None else self._of_sink(stage.weight),
        )

    def _total(self, weight: Expr) -> Expr:
        """The sum of the weights of a row, computed once more."""
        symbol = Ref(self.adjoints.unused("weight"), self.pairs, Kind.REAL)
        sums = PairSums(
            self.adjoints, symbol, self._spread(weight), self.stage.mask, (self.stage.over,)
        )
        found = sums.lowered(sum_to(symbol, self.pairs, self.stage.queries), "total")
        sums.close()
        if self.stage.sink is not None:
            found = call("add", found, self._of_sink(self.stage.weight))
        return self.adjoints.named("total", found)

    def _spread(self, weight: Expr) -> Expr:
        """A weight that names every axis of the pairs."""
        mask = frozenset[str]() if self.stage.mask is None else self.stage.mask.axes
        for dim in sorted(self.pairs - weight.axes - mask):
            weight = call("where", call("ge", Index(dim), 0), weight, 0.0)
        return weight

    # -------------------------------------------------------------------------- what is given

    def _outputs(self) -> Iterator[tuple[Expr, Expr]]:
        """(what is summed, the adjoint of the sum) of each output that has one."""
        for output in self.stage.outputs:
            if output.name in self.given:
                yield output.value, self.given[output.name]

    def _product(self) -> Expr:
        """sum(do * v) of a pair, over all outputs, before the gain."""
        found: Expr = ZERO
        for value, above in self._outputs():
            axes = value.axes | above.axes | self.pairs
            found = add(found, sum_to(mul(above, value), axes, self.pairs))
        return found

    def _by_weight(self) -> Expr:
        """The adjoint of the normalised weight of a pair."""
        found = self._product()
        if self.stage.gain is not None and found != ZERO:
            found = mul(found, self.stage.gain)
        if self.stage.weights in self.given:
            found = add(found, self.given[self.stage.weights or ""])
        return found

    def _row_terms(self, by_weight: Expr, sums: PairSums, share: Ref) -> tuple[Expr, Expr]:
        """(delta, the adjoint of the total by its scale) of a row; delta is sum(p * dp)."""
        slope = self.weights.slope
        reads = names_in(self.stage.denominator) & self.adjoints.active
        if (slope == ZERO and not reads) or by_weight == ZERO:
            return ZERO, ZERO
        if self.stage.weights in self.given:
            whole = mul(share, by_weight)
            delta = sums.lowered(sum_to(whole, self.pairs, self.stage.queries), "delta")
            sums.close()
        else:
            delta = ZERO
            for output, result in zip(self.stage.outputs, self.stage.results, strict=False):
                if output.name in self.given:
                    above = self.given[output.name]
                    axes = result.axes | above.axes
                    delta = add(delta, sum_to(mul(above, result), axes, self.stage.queries))
        delta = self.adjoints.named("delta", delta)
        return delta, call("neg", mul(delta, slope)) if slope != ZERO else ZERO

    def _above(self, by_weight: Expr, by_total: Expr, lse: Expr | None) -> Expr:
        """What multiplies a pair's weight in the adjoint of its exponent.

        p (dp - delta), and p F dlse, for exp(e - lse) = p F: one product for each pair, since what
        has no key is put together row by row.
        """
        row: Expr = ZERO
        if by_total != ZERO:
            assert isinstance(by_total, Call)
            row = by_total.args[0]
        if lse is None or self.weights.exponent is None:
            return call("sub", by_weight, row) if row != ZERO else by_weight
        of_lse = mul(self.weights.divisor, lse)
        if row == ZERO:
            return add(by_weight, of_lse)
        return call("sub", by_weight, self.adjoints.named("delta", call("sub", row, of_lse)))

    # ---------------------------------------------------------------------------- of a pair

    def _of_values(self, share: Ref) -> list[tuple[str, Expr, str]]:
        found = []
        for value, above in self._outputs():
            gained = share if self.stage.gain is None else mul(share, self.stage.gain)
            whole = mul(gained, above)
            axes = self.pairs | above.axes | value.axes
            part = sum_to(whole, axes, value.axes)
            for name, one in pullback(value, part, self.adjoints.active).items():
                found.append((name, one, f"d_{name}_part"))
        return found

    def _of_exponent(self, whole: Expr, exponent: Expr) -> list[tuple[str, Expr, str]]:
        if whole == ZERO:
            return []
        whole = sum_to(whole, self.pairs, exponent.axes)
        parts = pullback(exponent, whole, self.adjoints.active)
        return [(name, part, f"d_{name}_part") for name, part in parts.items()]

    def _of_plain(self, above: Expr) -> None:
        """The weight is no exponential: sums with its adjoint as their weight."""
        weights, stage = self.weights, self.stage
        whole = _over(above, weights.divisor) if above != ZERO else ZERO
        if stage.lse in self.given:
            # Where all weights are 0 the log of their total is -inf, a constant.
            by_total = call("div", self.given[stage.lse or ""], weights.total)
            whole = add(whole, call("where", call("ne", weights.total, 0.0), by_total, 0.0))
        if whole == ZERO:
            return
        symbol = Ref(self.adjoints.unused("d_weight"), self.pairs, Kind.REAL)
        mask = stage.mask
        own = PairSums(self.adjoints, symbol, self._spread(whole), mask, self.walked, self.several)
        above = sum_to(symbol, self.pairs, weights.unnormalised.axes)
        for name, part in pullback(weights.unnormalised, above, self.adjoints.active).items():
            self._add(name, own.lowered(part, f"d_{name}_part"))
        own.close()

    def _of_gain(self, share: Ref) -> list[tuple[str, Expr, str]]:
        gain = self.stage.gain
        if gain is None or (product := self._product()) == ZERO:
            return []
        whole = sum_to(mul(share, product), self.pairs, gain.axes)
        parts = pullback(gain, whole, self.adjoints.active)
        return [(name, part, f"d_{name}_part") for name, part in parts.items()]

    # ----------------------------------------------------------------------------- of a row

    def _of_rows(self, delta: Expr, by_total: Expr, lse: Expr | None) -> Iterator[tuple[str, Expr]]:
        """The sink's adjoint, and that of what the denominator reads beside the total."""
        stage, weights = self.stage, self.weights
        if stage.sink is not None and weights.scaled_sink is not None:
            above = _over(by_total, weights.divisor) if by_total != ZERO else ZERO
            if lse is not None:
                above = add(above, _over(lse, weights.total))
            if above != ZERO:
                above = sum_to(above, above.axes, weights.scaled_sink.axes)
                names = self.adjoints.active - {stage.lse}
                yield from pullback(weights.scaled_sink, above, names).items()
        # An input may be called like the total: in a denominator that is the sum of the weights.
        beside = self.adjoints.active - {"score", "total"}
        if delta != ZERO and names_in(stage.denominator) & beside:
            total: Expr = weights.total
            if weights.exponent is not None:
                total = call("exp", Ref(stage.lse or "", stage.queries, Kind.REAL))
            above = call("neg", _over(delta, stage.denominator))
            parts = pullback(stage.denominator, above, beside)
            for name, part in parts.items():
                yield name, with_names(part, {"total": total})


def _over(value: Expr, divisor: Expr) -> Expr:
    """value / divisor, and 0 where the divisor is 0."""
    if divisor in (Literal(1), ONE):
        return value
    some = call("ne", divisor, 0.0)
    return call("where", some, call("div", value, call("where", some, divisor, 1.0)), 0.0)


def _without_scale(denominator: Expr, lse: Expr) -> Expr:
    """A denominator by the total, exp(lse): total + 1 / scale --> 1 + exp(-lse)."""
    per_scale = call("exp", call("neg", lse))

    def change(node: Expr) -> Expr | None:
        match node:
            case Ref("total"):
                return ONE
            case Call("div", (a, Ref("scale"))):
                return mul(a, per_scale)
            case Ref("scale"):
                return call("exp", lse)
            case _:
                return None

    return transform(denominator, change)


__all__ = ["Weights", "attention_adjoint", "needs_lse"]
