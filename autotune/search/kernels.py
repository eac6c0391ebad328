"""Generated kernels with a configuration bound, and the knobs that they have."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from ...ir.binding import Number
from ...ir.knob import Configuration, Knob, fault
from ...ir.mixer import Mixer
from ...ir.roles import shares_of_keys
from ..checking.shapes import feature_sizes
from ..results.devices import Device

if TYPE_CHECKING:
    from random import Random

    from torch import Tensor

    from .trial import Problem

_DRAWS = 50
Runner = Callable[["Mapping[str, Tensor]", Mapping[str, Number]], "Mapping[str, Tensor]"]


@dataclass(frozen=True)
class Space:
    """The knobs of a mixer's kernels on a device, and which combinations it takes.

    ``source`` stands for all that a measurement depends on: the kernels at their defaults, and
    who compiles them.
    """

    knobs: tuple[Knob, ...]
    refusal: Callable[[Configuration], str | None]
    source: str

    @property
    def default(self) -> dict[str, int]:
        """Every knob at its default."""
        return {knob.name: knob.default for knob in self.knobs}

    def fault(self, configuration: Configuration) -> tuple[str, str] | None:
        """The first knob that is none of the space's or has a value that is none of its choices,
        and what is wrong; or no knob, and why the whole is refused."""
        known = {knob.name for knob in self.knobs}
        foreign = next((name for name in configuration if name not in known), None)
        if foreign is not None:
            return foreign, f"{foreign}: these kernels have no such knob"
        found = fault(self.knobs, configuration)
        if found is None and (why := self.refusal({**self.default, **configuration})) is not None:
            return "configuration", why
        return found

    def admits(self, configuration: Configuration) -> bool:
        """Whether every knob is one of the space, its value one of its choices, and all fits."""
        return self.fault(configuration) is None

    def draw(self, random: Random) -> dict[str, int] | None:
        """A configuration that a search may try, not the default; None where none turns up."""
        for _ in range(_DRAWS):
            drawn = {knob.name: random.choice(knob.choices) for knob in self.knobs}
            if drawn != self.default and self.refusal(drawn) is None:
                return drawn
        return None


def space_of(mixer: Mixer, sizes: Mapping[str, int], dtype: str, device: Device) -> Space:
    """The knobs of a mixer's kernels on a device."""
    if device.kind == "cpu":
        return cpu_space(mixer, sizes, dtype)
    import torch

    units = torch.cuda.get_device_properties(0).multi_processor_count
    return gpu_space(mixer, sizes, dtype, device.architecture, units)


def configured_runner(problem: Problem, configuration: Configuration) -> Runner:
    """The kernels of a problem with a configuration; built at the first call."""
    from ...compiler.pipeline import lower

    if problem.device == "cpu":
        from ...backends.cpu.run import CpuRunner

        return CpuRunner(problem.mixer, lower, dict(configuration))
    from ...backends.triton.run import TritonRunner
    from ...compiler.schedules.configurations import bind_configuration

    chosen = dict(configuration)
    return TritonRunner(problem.mixer, lower, lambda sizes, dtype: chosen, bind_configuration)


def cpu_space(mixer: Mixer, sizes: Mapping[str, int], dtype: str) -> Space:
    """The knobs of the C++ kernels on this machine. UnsupportedError without a compiler."""
    import torch

    from ...backends.cpu.build import FLAGS, find_compiler
    from ...backends.cpu.configure import (
        BY_ROWS,
        NARROWEST,
        chunks_pay,
        configure,
        knobs,
        knobs_of_stages,
        own_defaults,
        refusal,
    )
    from ...backends.cpu.emit import emit_source
    from ...compiler.pipeline import lower

    compiler = find_compiler()
    own_knobs = knobs_of_stages(mixer)
    form = "loop" if BY_ROWS in own_knobs and BY_ROWS.default else "chunk"
    features = feature_sizes(mixer, sizes)
    plan = lower(mixer, features, dtype, target=compiler.target, recurrence=form)
    known = {**sizes, **dict(plan.sizes)}
    by_rows = {}
    if BY_ROWS in own_knobs and compiler.target.tile_dot and dtype == "bfloat16":
        chunks = lower(mixer, features, dtype, target=compiler.target, recurrence="chunk")
        if chunks_pay(chunks, compiler.target, known):
            plan, by_rows = chunks, {BY_ROWS.name: 0}
    own = by_rows | own_defaults(plan, compiler.target, known, torch.get_num_threads())
    found = [
        replace(knob, default=own.get(knob.name, knob.default))
        for knob in (*knobs(compiler.target), *own_knobs)
    ]
    shares = shares_of_keys(mixer, sizes, torch.get_num_threads(), 64, NARROWEST)
    space = Space((*found, *_splits(shares)), partial(refusal, target=compiler.target), "")
    configured = configure(plan, space.default, l1_bytes=compiler.target.l1_bytes)
    text = emit_source(configured, compiler.target).text
    source = "\n".join([text, compiler.version, compiler.macros_digest, *FLAGS])
    return replace(space, source=source)


def _splits(shares: int) -> tuple[Knob, ...]:
    """A knob for the shares that keys are dealt out in, where queries are few."""
    if shares < 2:
        return ()
    choices = tuple(sorted({1, *(min(shares * more, 64) for more in (1, 2, 4, 8))}))
    return (Knob("splits", choices, shares, "shares of the keys, so that every core has work"),)


def gpu_space(
    mixer: Mixer, sizes: Mapping[str, int], dtype: str, architecture: str, units: int = 1
) -> Space:
    """The knobs of the Triton kernels, cut by what an architecture has room for.

    ``units``: multiprocessors of the GPU that is to run them.
    """
    from importlib.metadata import version

    from ...backends.triton.emit import emit_module
    from ...backends.triton.run import BESIDE
    from ...compiler.pipeline import lower
    from ...compiler.schedules.configurations import bind_configuration, knobs, refusal
    from ...compiler.schedules.parts import plan_knobs
    from ...ir.targets import parse_target

    target = parse_target(architecture)
    plan = lower(mixer, feature_sizes(mixer, sizes), dtype, target=target)
    source = "\n".join([emit_module(plan), version("triton"), architecture])
    shares = shares_of_keys(mixer, sizes, units, rows=64, beside=BESIDE)
    return Space(
        (*knobs(plan), *plan_knobs(plan), *_splits(shares)),
        lambda chosen: refusal(bind_configuration(plan, chosen), target),
        source,
    )
