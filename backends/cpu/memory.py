"""Index maps and masks of loads and stores, as far as they are affine.

An affine index is an offset plus a number per axis; then a tile has one stride per axis, and
no index is computed per element. A mask that only says which positions exist becomes a count.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from ...ir.tile import Elementwise, Load, Op, Range, Rename, Store, Value

ScalarText = Callable[[Value], str]


@dataclass(frozen=True, slots=True)
class Affine:
    """``offset`` + sum of coefficient * position along each axis, as C++ text."""

    offset: str
    axes: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Access:
    """A tile in memory: where it starts, its stride per axis, which positions exist.

    Those before ``counts``, and from ``firsts`` on where an axis has one; ``whether``: conditions
    on which there is anything at all.
    """

    pointer: str
    strides: Mapping[str, str]
    counts: Mapping[str, str]
    whether: tuple[str, ...] = ()
    firsts: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Extent:
    """What a mask says: conditions, and the bounds of positions along each axis."""

    whether: tuple[str, ...] = ()
    firsts: Mapping[str, str] = field(default_factory=dict)
    counts: Mapping[str, str] = field(default_factory=dict)

    def meet(self, other: _Extent) -> _Extent:
        """What both admit."""
        return _Extent(
            (*self.whether, *other.whether),
            _together("mx::max", self.firsts, other.firsts),
            _together("mx::min", self.counts, other.counts),
        )

    def renamed(self, axis: str, to: str) -> _Extent:
        """The same of the axis ``to``."""
        return _Extent(self.whether, _moved(self.firsts, axis, to), _moved(self.counts, axis, to))


class AccessReader:
    """Reads accesses of one kernel; ``makers`` are the ops behind values."""

    def __init__(self, makers: Mapping[str, Op], scalar: ScalarText) -> None:
        self.makers = makers
        self.scalar = scalar

    def access(self, op: Load | Store) -> Access | None:
        """The access of an op, or None where it is no affine one."""
        strides: dict[str, list[str]] = {}
        offsets: list[str] = []
        for dim, value in op.index:
            affine = self.affine(value)
            if affine is None:
                return None
            stride = f"{op.buffer}_stride_{dim}"
            if affine.offset != "0":
                offsets.append(f"int64_t({affine.offset}) * {stride}")
            for axis, factor in affine.axes.items():
                term = stride if factor == "1" else f"int64_t({factor}) * {stride}"
                strides.setdefault(axis, []).append(term)
        extent = _Extent() if op.mask is None else self.extent(op.mask)
        if extent is None:
            return None
        pointer = " + ".join([op.buffer, *offsets])
        steps = {axis: " + ".join(terms) for axis, terms in strides.items()}
        return Access(pointer, steps, extent.counts, extent.whether, extent.firsts)

    def affine(self, value: Value) -> Affine | None:
        """An index as an affine map, or None."""
        if not value.axes:
            return Affine(self.scalar(value), {})
        match self.makers.get(value.name):
            case Range(out, start):
                (axis,) = out.axes
                return Affine("0" if start is None else self.scalar(start), {axis: "1"})
            case Rename(_, x, axis, to):
                inner = self.affine(x)
                return None if inner is None else Affine(inner.offset, _moved(inner.axes, axis, to))
            case Elementwise(_, "add" | "sub" as fn, (a, b)):
                left, right = self.affine(a), self.affine(b)
                if left is None or right is None or left.axes.keys() & right.axes.keys():
                    return None
                sign = "+" if fn == "add" else "-"
                moved = {x: f if fn == "add" else f"-({f})" for x, f in right.axes.items()}
                offset = f"({left.offset} {sign} {right.offset})"
                return Affine(offset, {**left.axes, **moved})
            case Elementwise(_, "mul", (a, b)) if not (a.axes and b.axes):
                number, moving = (b, a) if a.axes else (a, b)
                inner, factor = self.affine(moving), self.scalar(number)
                if inner is None:
                    return None
                scaled = {x: f"({f}) * ({factor})" for x, f in inner.axes.items()}
                return Affine(f"({inner.offset}) * ({factor})", scaled)
        return None

    def extent(self, mask: Value) -> _Extent | None:
        """Which positions of each axis a mask admits, if that is all it says."""
        if not mask.axes:
            return _Extent((self.scalar(mask),))
        match self.makers.get(mask.name):
            case Elementwise(_, "lt" | "ge" as fn, (position, bound)) if not bound.axes:
                affine = self.affine(position)
                if affine is None or list(affine.axes.values()) != ["1"]:
                    return None
                (axis,) = affine.axes
                end = {axis: f"int64_t({self.scalar(bound)}) - ({affine.offset})"}
                return _Extent(counts=end) if fn == "lt" else _Extent(firsts=end)
            case Rename(_, x, axis, to):
                found = self.extent(x)
                return None if found is None else found.renamed(axis, to)
            case Elementwise(_, "and", (a, b)):
                left, right = self.extent(a), self.extent(b)
                return None if left is None or right is None else left.meet(right)
        return None


def _together(fn: str, a: Mapping[str, str], b: Mapping[str, str]) -> dict[str, str]:
    both = {axis: f"{fn}({a[axis]}, {b[axis]})" for axis in a.keys() & b.keys()}
    return {**a, **b, **{axis: both[axis] for axis in (*a, *b) if axis in both}}


def _moved(axes: Mapping[str, str], axis: str, to: str) -> dict[str, str]:
    return {to if a == axis else a: text for a, text in axes.items()}
