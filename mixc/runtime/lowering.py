"""What the compiler makes of a mixer: key ranges in closed form, and the plan."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from ..ir.errors import UnsupportedError
from ..ir.host import is_host
from ..ir.mixer import Attention, Mixer
from ..ir.targets import parse_target

if TYPE_CHECKING:
    from ..ir.plan import Plan


@dataclass(frozen=True, slots=True)
class StageRanges:
    """The key ranges of one attention, for a block of rows of ``block``, in closed form.

    ``stage`` is its name, or that of its first result.
    """

    stage: str
    over: str
    block: str
    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PlannedKernel:
    """One kernel in words."""

    name: str
    computes: tuple[str, ...]
    schedule: str
    reason: str
    grid: tuple[str, ...]
    blocks: dict[str, int]


@dataclass(frozen=True, slots=True)
class PlannedLoop:
    """Kernels that the host runs once for each row along ``over``."""

    over: str
    reverse: bool
    kernels: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Held:
    """Memory beside inputs and results: ``bytes`` for each position of ``axes``, in ``buffers``."""

    what: str
    axes: tuple[str, ...]
    bytes: int
    buffers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Lowering:
    """What was found; ``obstacle`` is the term that can't be lowered, where there is one.

    ``without_gradient`` is why there is no derivative by kernels, where there is none.
    """

    ranges: tuple[StageRanges, ...]
    findings: tuple[str, ...]
    kernels: tuple[PlannedKernel, ...]
    obstacle: str | None = None
    without_gradient: str | None = None
    memory: tuple[Held, ...] = ()
    loops: tuple[PlannedLoop, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        return asdict(self)


def lowering(
    mixer: Mixer,
    sizes: Mapping[str, int] = {},
    dtype: str = "bfloat16",
    kept: Collection[str] = (),
    target: str | None = None,
) -> Lowering:
    """Lower a mixer, and say what was found on the way.

    ``kept`` are those inputs of a backward pass that the forward pass has kept for it; ``target``
    as of ``plan_for``.
    """
    try:
        plan = plan_for(mixer, sizes, dtype, target)
    except UnsupportedError as error:
        return Lowering(tuple(_ranges(mixer, None)), (), (), str(error))
    kernels = tuple(
        PlannedKernel(
            kernel.program.name,
            kernel.computes,
            kernel.schedule,
            kernel.reason,
            tuple(
                f"blocks of {axis.dim}" if axis.tiled else axis.dim for axis in kernel.program.grid
            ),
            {tile.symbol: tile.block for tile in kernel.program.blocks},
        )
        for kernel in plan.kernels
    )
    findings = tuple(dict.fromkeys(plan.findings))
    without = _without_gradient(mixer, sizes, dtype, target)
    memory = tuple(_memory(plan, kept))
    loops = tuple(
        PlannedLoop(loop.over, loop.reverse, tuple(kernels[place].name for place in places))
        for loop, places in plan.stretches
    )
    return Lowering(tuple(_ranges(mixer, plan)), findings, kernels, None, without, memory, loops)


def plan_for(mixer: Mixer, sizes: Mapping[str, int], dtype: str, target: str | None = None) -> Plan:
    """The plan by default knobs: for every GPU, for one that ``target`` names, or for this ``cpu``.

    Raises:
        UnsupportedError: a term that can't be lowered; for a CPU, no C++ compiler.
        ArgumentError: an unknown target.
    """
    from ..compiler.pipeline import lower

    if target is None:
        return lower(mixer, sizes, dtype)
    if target.strip().lower() != "cpu":
        return lower(mixer, sizes, dtype, target=parse_target(target, others=("cpu",)))
    import torch

    from ..backends.cpu.run import CpuRunner

    return CpuRunner(mixer, lower).plan(sizes, getattr(torch, dtype))


def _memory(plan: Plan, kept: Collection[str]) -> Iterator[Held]:
    """What is alive beside inputs and results."""
    from ..ir.plan_memory import shares

    temporary = [buffer.name for buffer in plan.buffers if buffer.role == "temporary"]
    for what, names in (("kept from the forward pass", kept), ("between kernels", temporary)):
        for share in shares(plan, names):
            yield Held(what, share.dims, share.bytes, share.buffers)


def by_segments(mixer: Mixer, sizes: Mapping[str, int], dtype: str) -> tuple[Held, ...]:
    """What the backward pass keeps that goes by segments of rows; nothing where there is none.

    The positions of a sequence are then those of one segment.
    """
    from ..compiler.mixers.derivative.in_segments import in_segments
    from ..compiler.pipeline import lower
    from ..ir.expression import Kind
    from ..ir.plan_memory import shares

    wanted = [i.name for i in mixer.inputs if i.kind is Kind.REAL and i.grad]
    try:
        found = in_segments(mixer, wanted)
        plan = lower(found.later.backward, sizes, dtype)
    except UnsupportedError:
        return ()
    starts = tuple(h.before for h in found.handed)
    beside = [b.name for b in plan.buffers if b.role == "temporary"]
    rows = (*found.later.kept, *beside)
    return (
        *(
            Held("states at starts of segments", (*one.dims, "segment"), one.bytes, one.buffers)
            for one in shares(plan, starts)
        ),
        *(
            Held("rows of one segment", one.dims, one.bytes, one.buffers)
            for one in shares(plan, rows)
        ),
    )


def _without_gradient(
    mixer: Mixer, sizes: Mapping[str, int], dtype: str, target: str | None = None
) -> str | None:
    """What stands in the way of gradients by kernels; None where there are such."""
    from ..compiler.mixers.derivative.differentiate import differentiate

    try:
        plan_for(differentiate(mixer).backward, sizes, dtype, target)
    except UnsupportedError as error:
        return str(error)
    return None


def _ranges(mixer: Mixer, plan: Plan | None) -> Iterator[StageRanges]:
    from ..compiler.analysis.facts import facts_of
    from ..compiler.analysis.masks.range_words import describe
    from ..compiler.analysis.masks.ranges import key_ranges
    from ..compiler.passes.fold_constants import fold_constants

    facts = facts_of(mixer)
    flags = {p.name: _flag(mixer, p.name) for p in mixer.params if p.flag and is_host(p.value)}
    for stage in mixer.stages:
        if isinstance(stage, Attention):
            name = stage.name or next((made.name for made in stage.results), mixer.name)
            block = _block_axis(mixer, stage, plan)
            lines = ["every key, full"]
            if stage.mask is not None and block is not None:
                mask = fold_constants(stage.mask, flags)
                lines = describe(key_ranges(mask, stage.over, block, facts))
            yield StageRanges(name, stage.over, block or "", tuple(lines))


def _flag(mixer: Mixer, name: str) -> bool:
    from ..ir.host import evaluate_host

    return bool(evaluate_host(mixer.param(name).value, {}, {}))


def _block_axis(mixer: Mixer, stage: Attention, plan: Plan | None) -> str | None:
    """The query axis that the stage's kernel takes in blocks, else its position of the sequence."""
    made = {ref.name for ref in stage.results}
    for kernel in () if plan is None else plan.kernels:
        tiled = [axis.dim for axis in kernel.program.grid if axis.tiled]
        if kernel.schedule == "flash" and made & set(kernel.computes) and tiled:
            return tiled[0]
    own = mixer.sequence(stage.over)
    positions = sorted(dim for dim in stage.queries if own and mixer.sequence(dim) == own)
    return positions[0] if positions else None
