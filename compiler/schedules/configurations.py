"""The knobs of a plan's kernels on a GPU, and a plan with its knobs bound.

An attention cuts the dims of its grid into ``block_rows`` and the dims that it walks into
``block_keys``; a recurrence cuts its rows into ``chunk``, and an axis that its states keep to
themselves into ``block_channels``. Where several kernels of a plan are tuned, a knob's name says
whose it is:
``causal_o.block_rows``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from ...ir.knob import Configuration, Knob, check_configuration
from ...ir.plan import Kernel, Plan
from ...ir.targets import Target
from ...ir.tile import Tile
from ..tiles.context import padded
from . import attention, held, pointwise
from .estimates import registers, shared_bytes
from .space import Space

# By the name of a kernel's schedule; others have what pointwise kernels have.
_SPACES: Mapping[str, Space] = {
    "flash": attention.SPACE,
    "listed rows": attention.SPACE,
    "chunk": held.SPACE,
    "scan": held.SPACE,
    "loop": held.SPACE,
}
# Registers that addresses, indices and masks take beside the tiles.
_REGISTERS_ASIDE = 40


def knobs(plan: Plan) -> tuple[Knob, ...]:
    """The knobs of a plan, with the values it has as defaults; ``tiling`` of its spec cuts them."""
    tiling = dict(plan.mixer.tiling)
    made = []
    for kernel in _tuned(plan):
        prefix = _prefix(plan, kernel)
        for name, default in _values(kernel).items():
            asked = _asked(kernel, name, tiling)
            knob = _space(kernel).knob(name)
            admitted = (n for n in asked or knob.choices if _admits(kernel, name, n))
            choices = tuple(sorted({*admitted, default}))
            made.append(Knob(prefix + name, choices, default, knob.reason))
    return tuple(made)


def bind_configuration(plan: Plan, configuration: Configuration) -> Plan:
    """The plan with blocks and launch settings as a configuration has them.

    What the configuration leaves out stays. A knob without a kernel's name is for each that has it:
    what was tuned for one kernel holds for those that it becomes where its work is shared out.

    Raises:
        ArgumentError: a value that is none of its knob's choices.
    """
    check_configuration(knobs(plan), configuration)
    bound = {
        kernel.program.name: _bound(kernel, _prefix(plan, kernel), configuration)
        for kernel in _tuned(plan)
    }
    kernels = tuple(bound.get(kernel.program.name, kernel) for kernel in plan.kernels)
    return replace(plan, kernels=kernels).with_common_blocks()


def refusal(plan: Plan, target: Target) -> str | None:
    """Why a target can't run a plan, as far as one can tell before compiling; None if it can."""
    for kernel in plan.emitted:
        program = kernel.program
        shared, held = shared_bytes(program), registers(program)
        if shared > target.shared_memory_bytes:
            has = target.shared_memory_bytes
            return f"{program.name} takes {shared:,} bytes of shared memory of {has:,}"
        if held > target.registers_per_thread - _REGISTERS_ASIDE:
            return f"{program.name} holds {held} registers of {target.registers_per_thread}"
    return None


def _tuned(plan: Plan) -> tuple[Kernel, ...]:
    """The kernels with knobs: attentions and recurrences, or all where there is none."""
    main = tuple(k for k in plan.kernels if _space(k).tuned)
    return main or plan.emitted


def _space(kernel: Kernel) -> Space:
    return _SPACES.get(kernel.schedule, pointwise.SPACE)


def _prefix(plan: Plan, kernel: Kernel) -> str:
    return "" if len(_tuned(plan)) == 1 else f"{kernel.program.name}."


def _roles(kernel: Kernel) -> Iterator[tuple[Tile, str]]:
    in_grid = {axis.dim for axis in kernel.program.grid if axis.tiled}
    space = _space(kernel)
    for tile in kernel.program.blocks:
        if not tile.whole:
            yield tile, (space.shared_out if tile.dim in in_grid else space.walked).name


def _values(kernel: Kernel) -> dict[str, int]:
    blocks = {role: tile.block for tile, role in reversed(list(_roles(kernel)))}
    launch = {knob.name: knob.default for knob in _space(kernel).launch}
    return {**blocks, **launch, **dict(kernel.program.launch)}


def _asked(kernel: Kernel, knob: str, tiling: dict[str, tuple[int, ...]]) -> tuple[int, ...]:
    """What the spec's ``tiling`` says of a knob, by the name of the dim or of the setting."""
    for tile, role in _roles(kernel):
        for name in (tile.dim, f"block_{tile.dim.lower()}"):
            if role == knob and name in tiling:
                return tiling[name]
    return tiling.get(knob, tiling.get(knob.removeprefix("num_"), ()))


def _bound(kernel: Kernel, prefix: str, configuration: Configuration) -> Kernel:
    program = kernel.program
    values = {
        name: configuration.get(prefix + name, _common(kernel, name, configuration, default))
        for name, default in _values(kernel).items()
    }
    blocks = {tile.dim: _fitting(tile, values[name]) for tile, name in _roles(kernel)}
    launch = tuple((knob.name, values[knob.name]) for knob in _space(kernel).launch)
    return replace(kernel, program=replace(program.with_blocks(blocks), launch=launch))


def _common(kernel: Kernel, name: str, configuration: Configuration, default: int) -> int:
    """What a knob without a kernel's name says, or one with it where the kernel has become the only
    one of its plan, where this kernel has the choice."""
    value = configuration.get(f"{kernel.program.name}.{name}", configuration.get(name, default))
    chosen = value in _space(kernel).knob(name).choices and _admits(kernel, name, value)
    return value if chosen else default


def _admits(kernel: Kernel, knob: str, block: int) -> bool:
    """Whether a kernel's program counts on nothing that a block of this size breaks."""
    tiles = [tile for tile, role in _roles(kernel) if role == knob]
    return all(kernel.program.admits(tile.dim, _fitting(tile, block)) for tile in tiles)


def _fitting(tile: Tile, block: int) -> int:
    """A block that is no larger than a dim of known size: programs count on that."""
    return block if tile.size is None else min(block, padded(tile.size, 16))
