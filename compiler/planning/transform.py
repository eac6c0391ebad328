"""Fourier sums as tasks of their own: what a fast Fourier transform does in n log n.

``sum(x * cos(2 * pi * t * f / T), T)`` --> the real part of a transform of x, whose other part is
the sum of sines, should an equation ask for it. Cosines of one value and sines of another are the
transform of both as a complex number. Over few positions the sums stay where they are.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from ...ir.expression import Call, Expr, Index, Kind, Literal, Read, Reduce, Ref, Size, call
from ...ir.plan import Buffer
from ...ir.rewriting import rebuild, walk
from ...ir.task import TransformTask
from ...ir.tile import DType
from ...ir.transform import FFT_TERMS, NEVER, Operand, Transform, Turn, has_wave
from ..analysis.angles import Lengths
from ..analysis.fourier_sums import (
    FourierSum,
    fourier_sums,
    one_axis_after_another,
)
from ..analysis.lag_sums import LagSum, circular_sum, with_numbers
from .plan_builder import PlanBuilder

TERMS = FFT_TERMS.default
_REASON = "what a Fourier transform is of"
REAL, IMAGINARY = 0, 1  # parts of a transform


def with_transforms(builder: PlanBuilder, name: str, value: Expr, terms: int) -> Expr:
    """``value``, called ``name``, with its long Fourier sums read from buffers that tasks fill.

    ``terms``: as many of them make a sum long; lengths of the call's own do unless it is NEVER.
    """
    if not any(isinstance(node, Reduce) and node.op == "sum" for node in walk(value)):
        return value
    transforms = Transforms(builder, name, terms)
    return transforms.as_output(transforms.visit(value))


@dataclass(frozen=True, slots=True)
class _Side:
    """What cosines, or sines, of one axis are factors of: ``sign * x``."""

    sign: int
    x: Expr


def lengths_of(builder: PlanBuilder) -> Lengths:
    """The lengths of a plan's dims, as far as they are known."""
    context, formulas = builder.context, dict(builder.mixer.sizes) | builder.lengths
    known = {dim: with_numbers(size, builder.params) for dim, size in formulas.items()}
    return Lengths(context.sizes, context.equal, known)


@dataclass(frozen=True)
class Transforms:
    """The writer of the transforms of an equation called ``name``."""

    builder: PlanBuilder
    name: str
    terms: int
    done: dict[Expr, Expr] = field(default_factory=dict)
    made: set[str] = field(default_factory=set)  # results of transforms

    def visit(self, node: Expr) -> Expr:
        """An expression with its Fourier sums read from buffers."""
        if node not in self.done:
            self.done[node] = self._visited(node)
        return self.done[node]

    def _visited(self, node: Expr) -> Expr:
        if node in self.builder.stored:
            return self.builder.stored[node]
        if isinstance(node, Reduce) and (apart := one_axis_after_another(node, self._lengths)):
            return self.visit(rebuild(apart, self.visit))
        around = circular_sum(node, self._lengths) if isinstance(node, Reduce) else None
        if around is not None and self._is_long(around.lag, "a sum around the end of"):
            return self.around(around)
        terms = self._terms(node, 1)
        if any(isinstance(term, FourierSum) for _, term in terms):
            return self._total(terms)
        return rebuild(node, self.visit)

    @property
    def _lengths(self) -> Lengths:
        return lengths_of(self.builder)

    def _terms(self, node: Expr, sign: int) -> list[tuple[int, FourierSum | Expr]]:
        """What a node is a sum of: Fourier sums, and what is none."""
        match node:
            case Call("add" | "sub" as fn, (a, b)):
                other = sign if fn == "add" else -sign
                return [*self._terms(a, sign), *self._terms(b, other)]
            case Call("neg", (a,)):
                return self._terms(a, -sign)
            case Reduce("sum", x, (over,)) if has_wave(x, over):
                found = fourier_sums(node, self._lengths)
                if found is not None and self._is_long(over):
                    return [(sign * one.sign, one) for one in found]
        return [(sign, node)]

    def around(self, one: LagSum) -> Expr:
        """A circular sum: a product for each frequency, which takes the place of the lag.

        Row, lag and the signal's axis are of one length.
        With X the sum of x(p) e^(-i p f) and K that of k(l) e^(+-i l f), the sign being the lag's,
        the result is the mean over f of X K e^(+-i t f), the sign being the row's.
        """
        turns = (Turn(one.lag, one.lag, 1), Turn(one.over, one.lag, 1))
        (k_re, k_im), (x_re, x_im) = (
            [self._part(self._operand(value), None, turn, part) for part in (REAL, IMAGINARY)]
            for value, turn in zip((one.kernel, one.signal), turns, strict=True)
        )
        straight, crossed = call("mul", x_im, k_im), call("mul", x_re, k_im)
        re: Expr = _plus(call("mul", x_re, k_re), one.lag_sign, straight)
        im: Expr = _plus(_plus(None, one.lag_sign, crossed), -1, call("mul", x_im, k_re))
        if one.summed:
            re, im = Reduce("sum", re, one.summed), Reduce("sum", im, one.summed)
        turn = Turn(one.lag, one.row, one.row_sign)
        whole = self._part(self._operand(re), self._operand(im), turn, REAL)
        mean = call("div", whole, Size(one.lag))
        return mean if one.factor == Literal(1.0) else call("mul", self.visit(one.factor), mean)

    def _is_long(self, over: str, what: str = "a Fourier sum over") -> bool:
        """Whether a transform along the axis is worth it; says so."""
        size = self._lengths.number(over)
        is_long = self.terms < NEVER if size is None else size >= self.terms
        how = "by a fast Fourier transform"
        if not is_long:
            few = "it is asked for" if size is None else f"{size} positions are too few"
            how = f"term by term: {few}"
        finding = f"{self.name}: {what} {over}, {how}"
        if finding not in self.builder.findings:
            self.builder.findings.append(finding)
        return is_long

    def _total(self, terms: list[tuple[int, FourierSum | Expr]]) -> Expr:
        """The sum of terms, Fourier sums of the same axes together."""
        total: Expr | None = None
        groups: dict[tuple[object, ...], list[tuple[int, FourierSum]]] = {}
        for sign, term in terms:
            if isinstance(term, FourierSum):
                alike = (term.factor, term.over, term.row, term.place)
                groups.setdefault(alike, []).append((sign, term))
            else:
                total = _plus(total, sign, self.visit(term))
        for group in groups.values():
            one = group[0][1]
            for sign, made in self._parts(group):
                if one.place is not None:
                    made = Read(made, ((one.row, one.place),))
                if one.factor != Literal(1.0):
                    made = call("mul", self.visit(one.factor), made)
                total = _plus(total, sign, made)
        assert total is not None
        return total

    def _parts(self, group: list[tuple[int, FourierSum]]) -> list[tuple[int, Expr]]:
        """Sums of cosines and of sines of one axis, as parts of transforms."""
        cosine, sine = (self._side([s for s in group if s[1].fn == fn]) for fn in ("cos", "sin"))
        one = group[0][1]
        sides = [side for side in (cosine, sine) if side is not None]
        if len(sides) == 2 and cosine is not None and sine is not None:
            a, b = self._operand(cosine.x), self._operand(sine.x)
            if a != b and {*a.dims} == {*b.dims}:
                return [self._of_both(one, (cosine.sign, a), (sine.sign, b))]
        turn = Turn(one.over, one.row, 1)
        return [
            (side.sign, self._part(self._operand(side.x), None, turn, part))
            for side, part in ((cosine, REAL), (sine, IMAGINARY))
            if side is not None
        ]

    def _side(self, terms: list[tuple[int, FourierSum]]) -> _Side | None:
        """What is summed with cosines, or with sines: linear, so that one sum does."""
        if not terms:
            return None
        first = terms[0][0]
        total: Expr | None = None
        for sign, term in terms:
            total = _plus(total, sign * first, term.x)
        assert total is not None
        sign, value = _signed(self.visit(total))
        return _Side(sign * first, value)

    def _of_both(
        self, one: FourierSum, cosine: tuple[int, Operand], sine: tuple[int, Operand]
    ) -> tuple[int, Expr]:
        """The sum of a's cosines and b's sines: a part of a transform of a + i b, or of b + i a.

        Of a + i b the real part has both with one sign where the exponent is negative; of b + i a
        the imaginary part has, where it is positive. Which is first does not depend on who asks, so
        that a value's two parts come from one transform.
        """
        (sign, a), (other, b) = cosine, sine
        alike = sign == other
        if self._rank(a) <= self._rank(b):
            turn = Turn(one.over, one.row, -1 if alike else 1)
            return sign, self._part(a, b, turn, REAL)
        turn = Turn(one.over, one.row, 1 if alike else -1)
        return sign, self._part(b, a, turn, IMAGINARY)

    def _rank(self, operand: Operand) -> tuple[bool, str]:
        """The imaginary part of an earlier transform comes second."""
        tasks = [t for t in self.builder.tasks if isinstance(t, TransformTask)]
        second = any(t.transform.parts[IMAGINARY] == operand.buffer for t in tasks)
        return second, operand.buffer

    # -------------------------------------------------------------------------------- buffers

    def _operand(self, x: Expr) -> Operand:
        """A buffer that holds a value, in float32 where it is made for this."""
        builder = self.builder
        value = self.visit(x)
        match value:
            case Ref(name) if builder.is_stored(value):
                return Operand(name, builder.context.buffers[name].dims)
            case Read(Ref(name) as ref, at) if builder.is_stored(ref) and self._renames(value):
                names = {dim: index.dim for dim, index in at if isinstance(index, Index)}
                dims = builder.context.buffers[name].dims
                return Operand(name, tuple(names.get(dim, dim) for dim in dims))
        if value not in builder.stored:
            name = builder.temporary_name(value)
            self._buffer(name, value.axes)
            builder.compute(name, value, builder.context.buffers[name].dims, _REASON)
            builder.stored[value] = Ref(name, value.axes, value.kind)
        made = builder.stored[value]
        return Operand(made.name, builder.context.buffers[made.name].dims)

    def _renames(self, read: Read) -> bool:
        """Whether a read gives axes other names and does nothing else."""
        lengths = self._lengths
        kept = read.x.axes - {dim for dim, _ in read.at}
        new = [index.dim for _, index in read.at if isinstance(index, Index)]
        return (
            len(new) == len(read.at) == len({*new})
            and kept.isdisjoint(new)
            and all(lengths.are_equal(dim, to) for (dim, _), to in zip(read.at, new, strict=True))
        )

    def _part(self, a: Operand, b: Operand | None, turn: Turn, part: int) -> Ref:
        """A part of the transform of a + i b, from the task that has it, or gets it."""
        builder = self.builder
        whole = Transform(a, b, (turn,), (None, None))
        axes = whole.axes
        for place, task in enumerate(builder.tasks):
            if not isinstance(task, TransformTask):
                continue
            known = task.transform
            if replace(known, parts=whole.parts) != whole:
                continue
            found = known.parts[part]
            if found is None:
                found = self._new("_re" if part == REAL else "_im", axes)
                builder.tasks[place] = TransformTask.of(task.name, known.with_part(part, found))
            if builder.context.buffers[found].dtype is DType.FLOAT32:
                return Ref(found, axes, Kind.REAL)
        name = self._new("", axes)
        made = TransformTask.of(builder.kernel_name(name), whole.with_part(part, name))
        builder.tasks.append(made)
        return Ref(name, axes, Kind.REAL)

    def _new(self, suffix: str, axes: frozenset[str]) -> str:
        """A buffer for a part of a transform, called after the equation."""
        taken = {*self.builder.context.buffers, *(o.name for o in self.builder.mixer.outputs)}
        name = self.builder.free_name(f"{self.name}{suffix if self.name in taken else ''}")
        self._buffer(name, axes)
        self.made.add(name)
        return name

    def as_output(self, value: Expr) -> Expr:
        """Where a part of a transform is an output of the mixer, it is written there."""
        builder, buffers = self.builder, self.builder.context.buffers
        output = next((o for o in builder.mixer.outputs if o.name == self.name), None)
        if output is None or not isinstance(value, Ref) or value.name not in self.made:
            return value
        wide = builder.dtype is DType.FLOAT32 or builder.is_wide(self.name)
        if self.name in builder.read and not wide:
            return value  # others take it unrounded
        del buffers[value.name]
        builder.declare(self.name, output.dims, value, "output")
        for place, task in enumerate(builder.tasks):
            if isinstance(task, TransformTask) and value.name in task.writes:
                part = task.transform.parts.index(value.name)
                whole = task.transform.with_part(part, self.name)
                first = task.transform.results[0] == value.name
                name = builder.kernel_name(self.name) if first else task.name
                builder.tasks[place] = TransformTask.of(name, whole)
        return Ref(self.name, value.axes, Kind.REAL)

    def _buffer(self, name: str, axes: frozenset[str]) -> None:
        dims = self.builder.order(axes)
        self.builder.context.buffers[name] = Buffer(name, dims, DType.FLOAT32, "temporary")


def _signed(value: Expr) -> tuple[int, Expr]:
    """A value with its sign apart."""
    match value:
        case Call("neg", (x,)):
            sign, x = _signed(x)
            return -sign, x
        case Read(x, at, 0.0):
            sign, x = _signed(x)
            return sign, Read(x, at) if sign < 0 else value
    return 1, value


def _plus(total: Expr | None, sign: int, term: Expr) -> Expr:
    if total is None:
        return term if sign > 0 else call("neg", term)
    return call("add" if sign > 0 else "sub", total, term)


__all__ = ["TERMS", "Transforms", "lengths_of", "with_transforms"]
