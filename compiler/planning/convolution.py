"""Long sums over lags as tasks of their own: what a fast Fourier transform does in n log n, and
what takes each number from memory once where there are fewer.

``gelu(sum(taps * u[T=t - l], L))`` --> the taps, where they are no buffer yet, the sum by a
convolution, and what is made of it. Of few lags, or rows, the sum stays where it is.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import reduce

from ...ir.expression import (
    Cumsum,
    Expr,
    Index,
    Kind,
    Literal,
    Read,
    Reduce,
    Ref,
    Size,
    call,
)
from ...ir.plan import Buffer
from ...ir.rewriting import rebuild, walk
from ...ir.targets import CpuTarget
from ...ir.task import ConvolutionTask
from ...ir.tile import DType
from ..analysis.lag_sums import LagSum, lag_sums, with_numbers
from .plan_builder import PlanBuilder
from .transform import TERMS, Transforms, lengths_of

# From so many lags on a kernel of its own is worth its passes: measured with vectors of 16.
LAGS = 32
# On a GPU products of fewer take less than the passes of three transforms, by their bytes.
GPU_LAGS = 512
_AROUND = 64  # positions of a longer axis come in so many: lengths of small factors are quick
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
        if self._is_task:
            sizes, least = self.builder.context.sizes, self.lags
            few = [d for d in (one.lag, one.row) if sizes.get(d, least) < least]
            return f"{sizes[few[0]]} positions of {few[0]} are fewer than {least}" if few else None
        lengths, least = lengths_of(self.builder), max(self.lags, GPU_LAGS)
        for dim in (one.lag, one.row):
            size = lengths.number(dim)
            if size is not None and size < least:
                return f"{size} positions of {dim} are fewer than {least}"
            if size is None and not lengths.are_equal(dim, one.over):
                return f"how many positions {dim} has is known at run time only"
        return None

    @property
    def _is_task(self) -> bool:
        """Whether the backend's runtime has such sums; a GPU has transforms alone."""
        return isinstance(self.builder.target, CpuTarget)

    def _is_said(self, node: Expr) -> bool:
        """Whether an equation before this one has the sum in what it stands for."""
        return any(node in walk(named) for named in self.builder.context.names)

    def _say(self, found: tuple[LagSum, ...], reason: str | None) -> None:
        over = ", ".join(dict.fromkeys(one.lag for one in found))
        done = "in a kernel of its own" if self._is_task else "by a fast Fourier transform"
        how = f"sum by sum: {reason}" if reason else done
        finding = f"{self.name}: a sum over the lags {over}, {how}"
        if finding not in self.builder.findings:
            self.builder.findings.append(finding)

    def _convolved(self, one: LagSum) -> Expr:
        if not self._is_task:
            return self._around(one)
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

    def _around(self, one: LagSum) -> Expr:
        """The sum as one around the end of a longer axis Z, with zeros behind both factors.

        sum(k[l] * x[t - l]) over l --> r[z=t], r[z] = sum(k[l] * x[(z - l) % Z]), Z >= L + T

        Where lags add to the place, what belongs before the start lies at the end.
        """
        builder, longer = self.builder, self._longer(one)
        kernel, signal = self._stored(one.kernel), self._stored(one.signal)
        # What is not finite would reach every result: it is left out, and put where it belongs.
        finite = call("eq", call("sub", signal, signal), 0.0)
        key = Reduce("sum", call("mul", kernel, signal), (one.lag, one.over, *one.summed))
        signed = call("mul", one.lag_sign, key)
        if signed not in builder.stored:
            clean = call("where", finite, signal, 0.0)
            padded = replace(
                one,
                factor=Literal(1.0),
                kernel=Read(kernel, ((one.lag, Index(longer)),)),
                signal=Read(clean, ((one.over, Index(longer)),)),
                row=longer,
                lag=longer,
                over=longer,
                row_sign=1,
                offset=Literal(0),
            )
            mean = Transforms(builder, self.name, TERMS).around(padded)
            reason = "a sum around the end of a longer axis"
            name = builder.temporary_name(mean)
            builder.stored[signed] = builder.store(name, mean, None, "temporary", reason)
        made = builder.stored[signed]
        place = call("add", _signed(one.row_sign, one.row), one.offset)
        if one.lag_sign < 0:
            value: Expr = Read(made, ((longer, place),))
        else:
            here = Read(made, ((longer, call("mod", place, Size(longer))),))
            reached = call("gt", call("add", place, Size(one.lag)), 0)
            reached = call("and", reached, call("lt", place, Size(one.over)))
            value = call("where", reached, here, 0.0)
        value = call("div", value, call("where", self._reaches(one, finite, place), 0.0, 1.0))
        return value if one.factor == Literal(1.0) else call("mul", one.factor, value)

    def _stored(self, value: Expr) -> Ref:
        """A factor as a buffer, in float32 where it is made for this."""
        builder, value = self.builder, self.visit(value)
        if isinstance(value, Ref) and builder.is_stored(value):
            return value
        if value not in builder.stored:
            name = builder.temporary_name(value)
            builder.store(name, value, None, "temporary", _REASON, wide=True)
        return builder.stored[value]

    def _reaches(self, one: LagSum, finite: Expr, place: Expr) -> Expr:
        """Whether one of the numbers that a row reads is not finite."""
        flags: Expr = call("where", finite, 0.0, 1.0)
        summed = tuple(dim for dim in one.summed if dim in flags.axes)
        flags = Reduce("max", flags, summed) if summed else flags
        count = Cumsum(flags, one.over)
        most = call("sub", Size(one.lag), 1)
        first = place if one.lag_sign > 0 else call("sub", place, most)
        last = call("add", place, most) if one.lag_sign > 0 else place
        end = call("sub", Size(one.over), 1)
        before, up_to = (
            Read(count, ((one.over, call("min", index, end)),))
            for index in (call("sub", first, 1), last)
        )
        return call("gt", call("sub", up_to, before), 0.0)

    def _longer(self, one: LagSum) -> str:
        """The axis that is as long as both together, for all sums of such."""
        builder = self.builder
        both = call("add", Size(one.over), Size(one.lag))
        blocks = call("floordiv", call("add", both, _AROUND - 1), _AROUND)
        size = call("mul", blocks, _AROUND)
        known = next((dim for dim, length in builder.lengths.items() if length == size), None)
        if known is not None:
            return known
        longer = builder.free_dim(f"{one.over}_{one.lag}")
        builder.add_dim(longer, size)
        return longer

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
