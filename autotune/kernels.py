"""Generated kernels with a configuration bound, and the knobs that they have."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..ir.binding import Number
from ..ir.knob import Configuration, Knob
from ..ir.mixer import Mixer
from .devices import Device
from .shapes import feature_sizes

if TYPE_CHECKING:
    from torch import Tensor

    from .trial import Problem

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

    def admits(self, configuration: Configuration) -> bool:
        """Whether every knob is one of the space, its value one of its choices, and all fits."""
        choices = {knob.name: knob.choices for knob in self.knobs}
        known = all(value in choices.get(name, ()) for name, value in configuration.items())
        return known and self.refusal({**self.default, **configuration}) is None


def space_of(mixer: Mixer, sizes: Mapping[str, int], dtype: str, device: Device) -> Space:
    """The knobs of a mixer's kernels on a device."""
    if device.kind == "cpu":
        return cpu_space(mixer, sizes, dtype)
    return gpu_space(mixer, sizes, dtype, device.architecture)


def configured_runner(problem: Problem, configuration: Configuration) -> Runner:
    """The kernels of a problem with a configuration; built at the first call."""
    from ..compiler.pipeline import lower

    if problem.device == "cpu":
        from ..backends.cpu.run import CpuRunner

        return CpuRunner(problem.mixer, lower, dict(configuration))
    from ..backends.triton.run import TritonRunner
    from ..compiler.configurations import bind_configuration

    chosen = dict(configuration)
    return TritonRunner(problem.mixer, lower, lambda sizes, dtype: chosen, bind_configuration)


def cpu_space(mixer: Mixer, sizes: Mapping[str, int], dtype: str) -> Space:
    """The knobs of the C++ kernels on this machine. UnsupportedError without a compiler."""
    from ..backends.cpu.build import FLAGS, find_compiler
    from ..backends.cpu.configure import configure, defaults, knobs
    from ..backends.cpu.emit import emit_source
    from ..compiler.pipeline import lower

    compiler = find_compiler()
    plan = lower(mixer, feature_sizes(mixer, sizes), dtype)
    text = emit_source(configure(plan, defaults(compiler.target)), compiler.target).text
    source = "\n".join([text, compiler.version, compiler.macros_digest, *FLAGS])
    return Space(knobs(compiler.target), lambda _: None, source)


def gpu_space(mixer: Mixer, sizes: Mapping[str, int], dtype: str, architecture: str) -> Space:
    """The knobs of the Triton kernels, cut by what an architecture has room for."""
    from importlib.metadata import version

    from ..backends.triton.emit import emit_module
    from ..compiler.configurations import bind_configuration, knobs, refusal
    from ..compiler.pipeline import lower
    from ..ir.targets import parse_target

    plan = lower(mixer, feature_sizes(mixer, sizes), dtype)
    target = parse_target(architecture)
    source = "\n".join([emit_module(plan), version("triton"), architecture])
    return Space(
        knobs(plan), lambda chosen: refusal(bind_configuration(plan, chosen), target), source
    )
