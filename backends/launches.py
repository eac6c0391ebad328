"""Which kernels serve a call: found once for a class of sizes, by straight code from then on.

What depends on the sizes (query heads as rows, the shares that keys are dealt out in, the kernels'
blocks, that no length is beyond what a plan is made for) is the same for all lengths between two
powers of two, but for a few numbers that generated code computes. So a call with a new length costs
hardly more than one with a known length: in decoding, every call has a new one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from ..ir.grouping import QueryGroups
from ..ir.host import host_code
from ..ir.mixer import Mixer
from ..ir.plan import Plan
from ..ir.roles import UNITS, feature_dims, share_count
from ..ir.sole_groups import with_sole_groups
from ..ir.verify_plan import LONGEST, verify_lengths
from .prepared import compiled

Kernels = TypeVar("Kernels")
# For a mixer, sizes and shares: what runs, and the plan that it was made from.
Build = Callable[[Mixer, Mapping[str, int], int], tuple[Kernels, Plan]]
_ROWS = 64  # of a block, where shares are counted


@dataclass(frozen=True)
class _Group:
    """What sizes of one class have in common.

    ``fit(sizes, units)`` gives the sizes with those of rows, and the rest of what decides between
    kernels.
    """

    mixer: Mixer
    dims: tuple[str, ...]
    fit: Callable[[tuple[int, ...], int], tuple[tuple[int, ...], tuple[int, ...]]]


class Launches(Generic[Kernels]):
    """The kernels for calls of a mixer, by the sizes of ``dims``; ``columns``: of a state, for a
    program, where shares are counted, and ``beside``: such programs that keep a unit busy."""

    def __init__(
        self,
        mixer: Mixer,
        dims: tuple[str, ...],
        build: Build[Kernels],
        columns: int = _ROWS,
        beside: int = 1,
    ) -> None:
        self.dims = dims
        self._counted = (_ROWS, columns, beside)
        self._build = build
        self._grouping = QueryGroups(mixer)
        self._class = _classes(dims, feature_dims(mixer) | self._grouping.deciding)
        self._groups: dict[tuple[int, ...], _Group] = {}
        self._kernels: dict[tuple[int, ...], Kernels] = {}

    def find(self, sizes: tuple[int, ...], units: int) -> tuple[Kernels, tuple[int, ...]]:
        """The kernels for ``units`` that work side by side, and all sizes of the call: those given,
        then those of rows.

        Raises:
            PromiseError, ArgumentError: lengths that no plan is made for.
            UnsupportedError: a term that can't be lowered.
        """
        kind = self._class(sizes)
        group = self._groups.get(kind)
        if group is None:
            group = self._groups[kind] = self._grouped(sizes)
        own, more = group.fit(sizes, units)
        key = (units, *kind, *more)
        found = self._kernels.get(key)
        if found is None:
            found = self._built(group, dict(zip(group.dims, own, strict=True)), more[0], key)
        return found, own

    def _built(
        self, group: _Group, sizes: dict[str, int], shares: int, key: tuple[int, ...]
    ) -> Kernels:
        kernels, plan = self._build(group.mixer, sizes, shares)
        verify_lengths(plan, sizes)
        if _holds_for_class(plan, sizes):
            self._kernels[key] = kernels
        return kernels

    def _grouped(self, sizes: tuple[int, ...]) -> _Group:
        mixer, own = self._grouping.grouped(dict(zip(self.dims, sizes, strict=True)))
        mixer = with_sole_groups(mixer, own)  # fewer groups are half the heads: another class
        dims = tuple(own)
        names = {dim: f"n{place}" for place, dim in enumerate(dims)}
        rows = [names[dim] for dim in dims[len(sizes) :]]
        values = dict(mixer.sizes)
        lines = [f"({_listed([names[dim] for dim in self.dims])}) = sizes"]
        lines += [f"{names[dim]} = {host_code(values[dim], names)}" for dim in dims[len(sizes) :]]
        shares = host_code(share_count(mixer, *self._counted), {**names, UNITS.name: "units"})
        lines.append(f"shares = 1 << (max({shares}, 1).bit_length() - 1)")
        more = _listed(["shares", *(f"length_class({name})" for name in rows)])
        lines.append(f"return ({_listed(list(names.values()))}), ({more})")
        fit = compiled(["sizes", "units"], lines, {"length_class": length_class})
        return _Group(mixer, dims, fit)


def length_class(size: int) -> int:
    """What kernels may be chosen by: lengths between powers of two are alike."""
    return size if size <= 1 else 2 * (size - 1).bit_length() + (size & (size - 1) == 0)


def _classes(
    dims: tuple[str, ...], exact: frozenset[str]
) -> Callable[[tuple[int, ...]], tuple[int, ...]]:
    """A function of sizes: all of them that decide between kernels, and no more."""
    names = [f"n{place}" for place in range(len(dims))]
    parts = [
        name if dim in exact else f"length_class({name})"
        for dim, name in zip(dims, names, strict=True)
    ]
    lines = [f"({_listed(names)}) = sizes", f"return ({_listed(parts)})"]
    made: Callable[[tuple[int, ...]], tuple[int, ...]] = compiled(
        ["sizes"], lines, {"length_class": length_class}
    )
    return made


def _holds_for_class(plan: Plan, sizes: Mapping[str, int]) -> bool:
    """Whether no length of this class is beyond what the plan is made for."""
    fixed = dict(plan.sizes)
    longest = {d: n if d in fixed else 1 << max(n - 1, 0).bit_length() for d, n in sizes.items()}
    limits = dict(plan.limits)
    return all(n <= min(LONGEST, limits.get(dim, LONGEST)) for dim, n in longest.items())


def _listed(parts: list[str]) -> str:
    return "".join(f"{part}, " for part in parts)


__all__ = ["Launches", "length_class"]
