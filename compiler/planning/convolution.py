"""Long sums over lags as tasks of their own: what a fast Fourier transform does in n log n, and
what takes each number from memory once where there are fewer.

``gelu(sum(taps * u[T=t - l], L))`` --> the taps, where they are no buffer yet, the sum by a
convolution, and what is made of it. Of few lags, or rows, the sum stays where it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce

from ...ir.expression import Expr, Index, Kind, Literal, Read, Reduce, Ref, call
from ...ir.plan import Buffer
from ...ir.rewriting import rebuild, walk
from ...ir.targets import CpuTarget
from ...ir.task import ConvolutionTask
from ...ir.tile import DType
from ..analysis.lag_sums import LagSum, lag_sums, with_numbers
from .plan_builder import PlanBuilder

# From so many lags on a kernel of its own is worth its passes: measured with vectors of 16.
LAGS = 32
_REASON = "a factor of a long sum over lags"


def with_convolutions(builder: PlanBuilder, name: str, value: Expr, lags: int) -> Expr:
    """``value``, called ``name``, with its long sums over lags read from buffers that tasks fill.

    ``lags``: as many of them, and rows, make a sum long; lengths of the call's own always do.
    """
    return _Convolutions(builder, name, lags).visit(value)


@dataclass(frozen=True)
class _Convolutions:
    builder: PlanBuilder
    name: str
    lags: int

    def visit(self, node: Expr) -> Expr:
        if node in self.builder.stored:
            return self.builder.stored[node]
        if isinstance(node, Reduce) and (found := self._sums(node)) is not None:
            reason = next((r for one in found if (r := self._refusal(one))), None)
            if not self._is_said(node):
                self._say(found, reason)
            if reason is None:
                return reduce(lambda a, b: call("add", a, b), map(self._convolved, found))
        return rebuild(node, self.visit)

    def _sums(self, node: Reduce) -> tuple[LagSum, ...] | None:
        return lag_sums(with_numbers(node, self.builder.params))

    def _refusal(self, one: LagSum) -> str | None:
        """Why the sum stays where it is, if it does."""
        sizes = self.builder.context.sizes
        few = [d for d in (one.lag, one.row) if sizes.get(d, self.lags) < self.lags]
        if few:
            return f"{sizes[few[0]]} positions of {few[0]} are fewer than {self.lags}"
        if not isinstance(self.builder.target, CpuTarget):
            return "kernels of a GPU have no transform"
        return None

    def _is_said(self, node: Expr) -> bool:
        """Whether an equation before this one has the sum in what it stands for."""
        return any(node in walk(named) for named in self.builder.context.names)

    def _say(self, found: tuple[LagSum, ...], reason: str | None) -> None:
        over = ", ".join(dict.fromkeys(one.lag for one in found))
        how = f"sum by sum: {reason}" if reason else "in a kernel of its own"
        finding = f"{self.name}: a sum over the lags {over}, {how}"
        if finding not in self.builder.findings:
            self.builder.findings.append(finding)

    def _convolved(self, one: LagSum) -> Expr:
        builder = self.builder
        whole = (one.kernel.axes | one.signal.axes) - {one.lag, one.over, *one.summed}
        lanes = self._lanes(one, whole | {one.row})
        kernel = self._operand(one.kernel, one.lag, lanes)
        signal = self._operand(one.signal, one.over, lanes)
        place = call("add", _signed(one.row_sign, one.row), _signed(one.lag_sign, one.lag))
        read = Read(signal, ((one.over, call("add", place, one.offset)),))
        term = Reduce("sum", call("mul", kernel, read), (one.lag, *one.summed))
        if term not in builder.stored:
            builder.stored[term] = self._made(one, kernel, signal, lanes)
        made = builder.stored[term]
        return made if one.factor == Literal(1.0) else call("mul", one.factor, made)

    def _made(self, one: LagSum, kernel: Ref, signal: Ref, lanes: str | None) -> Ref:
        builder = self.builder
        name = builder.free_name(self.name)
        task = ConvolutionTask(
            builder.kernel_name(name),
            name,
            kernel,
            signal,
            one.row,
            one.lag,
            one.over,
            one.row_sign,
            one.lag_sign,
            one.offset,
            one.summed,
            lanes,
            f"{name}: {kernel.name} and {signal.name}, convolved along {one.row}",
            f"a long sum over the lags {one.lag}, by products or a fast Fourier transform",
        )
        self._buffer(name, task.axes, one.row, lanes)
        builder.tasks.append(task)
        return Ref(name, task.axes, Kind.REAL)

    def _lanes(self, one: LagSum, axes: frozenset[str]) -> str | None:
        """The axis whose positions are done side by side: one that both factors have, at best."""
        kept = [d for d in self.builder.order(axes) if d != one.row]
        both = [d for d in kept if d in one.kernel.axes and d in one.signal.axes]
        best = both or kept
        return best[-1] if best else None

    def _operand(self, value: Expr, along: str, lanes: str | None) -> Ref:
        """A buffer that holds a factor, in float32 where it is made for this."""
        builder = self.builder
        value = self.visit(value)
        if isinstance(value, Ref) and builder.is_stored(value):
            return value
        if value not in builder.stored:
            name = builder.temporary_name(value)
            self._buffer(name, value.axes, along, lanes)
            builder.compute(name, value, builder.context.buffers[name].dims, _REASON)
            builder.stored[value] = Ref(name, value.axes, value.kind)
        return builder.stored[value]

    def _buffer(self, name: str, axes: frozenset[str], along: str, lanes: str | None) -> None:
        """Declare a buffer, the channels that are done side by side next to each other."""
        others = [d for d in self.builder.order(axes) if d not in (along, lanes)]
        last = [] if lanes is None or lanes not in axes else [lanes]
        dims = (*others, along, *last)
        self.builder.context.buffers[name] = Buffer(name, dims, DType.FLOAT32, "temporary")


def _signed(sign: int, dim: str) -> Expr:
    return Index(dim) if sign > 0 else call("neg", Index(dim))


__all__ = ["LAGS", "with_convolutions"]
