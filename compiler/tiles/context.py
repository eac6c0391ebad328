"""What schedules may take for granted while they make programs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from ...ir.expression import Expr
from ...ir.mixer import Mixer
from ...ir.plan import Buffer
from ...ir.roles import equal_lengths
from ...ir.targets import EVERY_GPU, AnyTarget
from ...ir.tile import DType
from ..analysis.facts import Facts, facts_of
from ..analysis.integer_range import IntegerRanges

Launch = tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class Context:
    """What is fixed while a plan is made.

    ``sizes`` are the dims whose length is known at compile time: a tile holds them whole.
    ``equal`` maps a dim to a representative of the dims that have its length. ``buffers`` are the
    names that are in memory; every other name has been written out.
    """

    sizes: Mapping[str, int]
    params: Mapping[str, int | float | bool]
    dtype: DType
    buffers: dict[str, Buffer]
    names: dict[Expr, str] = field(default_factory=dict)  # what the spec calls an expression
    equal: Mapping[str, str] = field(default_factory=dict)
    heads: frozenset[tuple[str, str]] = frozenset()
    blocks: Mapping[str, int] = field(default_factory=dict)  # dim -> default block size
    runtime: frozenset[str] = frozenset()  # params given at each call
    derived: Mapping[str, Expr] = field(default_factory=dict)  # sizes of dims that no buffer has
    masks: Facts = field(default_factory=Facts)  # what the mask analysis may take for granted
    ranges: IntegerRanges = field(default_factory=lambda: IntegerRanges({}, {}))
    features: frozenset[str] = frozenset()  # channels, and what else a tile holds whole
    tiling: Mapping[str, tuple[int, ...]] = field(default_factory=dict)  # what a spec allows
    target: AnyTarget = EVERY_GPU  # what programs have to fit
    wide: bool = False  # what kernels hand to each other keeps float32
    exact: bool = False  # a choice hangs on what is made: no product is of narrowed numbers

    def length(self, dim: str) -> int | None:
        """The dim's length where it is fixed."""
        return self.sizes.get(dim)

    def with_blocks(self, blocks: Mapping[str, int]) -> Context:
        """With blocks of these sizes, as far as the spec's ``tiling`` allows them."""
        allowed = self.tiling
        chosen = {d: _allowed(n, allowed.get(f"block_{d.lower()}")) for d, n in blocks.items()}
        return replace(self, blocks=chosen)

    def launch(self, launch: Launch) -> Launch:
        """Warps and pipeline stages as the spec's ``tiling`` allows them."""
        return tuple(
            (name, _allowed(number, self.tiling.get(name.removeprefix("num_"))))
            for name, number in launch
        )


def context_of(
    mixer: Mixer,
    sizes: Mapping[str, int],
    params: Mapping[str, int | float | bool],
    dtype: DType,
    buffers: dict[str, Buffer],
    lengths: Mapping[str, Expr] = {},
    integers: Mapping[str, Expr] = {},
) -> Context:
    """What a mixer's declarations say, with the sizes and params that compile time knows.

    ``lengths`` are sizes of further dims, ``integers`` what is in buffers of integers.
    """
    wide = frozenset(i.name for i in mixer.inputs if i.dtype == "int64")
    derived = {**dict(mixer.sizes), **lengths}
    return Context(
        sizes,
        params,
        dtype,
        buffers,
        equal=equal_lengths(mixer),
        heads=frozenset(mixer.heads),
        runtime=frozenset(p.name for p in mixer.params if p.runtime),
        masks=facts_of(mixer, {name: float(value) for name, value in params.items()}),
        ranges=IntegerRanges(sizes, params, derived, dict(integers), wide=wide),
    )


def _allowed(number: int, choices: tuple[int, ...] | None) -> int:
    """A knob's value: the compiler's, where the spec does not rule it out."""
    return number if not choices or number in choices else choices[0]


def padded(size: int, least: int = 1) -> int:
    """The power of two that holds ``size`` positions."""
    return max(least, 1 << max(0, size - 1).bit_length())
