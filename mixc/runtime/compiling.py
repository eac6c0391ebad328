"""From a mixer to the text of its kernels, and what they cost on a target."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..ir.mixer import Mixer

if TYPE_CHECKING:
    from ..backends.triton.binary_report import KernelReport
    from ..backends.triton.cross_compile import CompileWorkers
    from ..ir.plan import Plan
    from ..ir.targets import Target


@dataclass(frozen=True)
class Generated:
    """A plan, and the Triton module that it makes."""

    plan: Plan
    source: str


def generate(
    mixer: Mixer, sizes: Mapping[str, int], dtype: str, targets: Sequence[str] = ()
) -> Generated:
    """The module of a mixer for a working precision.

    ``sizes`` fixes feature dims; a dim that is left out has 64. The module is one for all of
    ``targets``, for every GPU where none is named. Raises ArgumentError for other dims and
    targets, or where sizes contradict each other, and UnsupportedError for a term that can't be
    lowered.
    """
    from ..backends.triton.emit import emit_module
    from ..compiler.pipeline import lower

    check_feature_sizes(mixer, sizes)
    plan = lower(mixer, sizes, dtype, target=_common(targets))
    check_derived_sizes(plan)
    return Generated(plan, emit_module(plan))


def backward_pass(mixer: Mixer) -> Mixer:
    """The backward pass of a mixer by all of its real inputs, a mixer too.

    Raises UnsupportedError where a term has no derivative, or no output depends on a real input.
    """
    from ..compiler.mixers.derivative.differentiate import differentiate
    from ..ir.errors import UnsupportedError

    derivative = differentiate(mixer)
    if not derivative.gradients:
        raise UnsupportedError(f"{mixer.name}: no output has a gradient by an input")
    return derivative.backward


def generate_from(
    path: Path, sizes: Mapping[str, int], dtype: str, targets: Sequence[str] = ()
) -> Generated:
    """The module of a level that ``MIXC_DUMP`` has written: a mixer, or a plan after some passes.

    ``sizes``, ``dtype`` and ``targets`` are for a mixer; a plan has its own.
    """
    from ..backends.triton.emit import emit_module
    from ..compiler.pipeline import lower_on
    from ..ir.errors import ArgumentError

    try:
        plan = lower_on(path.read_text(encoding="utf-8"), sizes, dtype, _common(targets))
    except OSError as error:
        raise ArgumentError(f"{path}: can't be read: {error.strerror}") from error
    except (ArgumentError, UnicodeDecodeError) as error:
        raise ArgumentError(f"{path}: {error}") from error
    return Generated(plan, emit_module(plan))


def _common(targets: Sequence[str]) -> Target:
    """What all of ``targets`` have room for, or every GPU."""
    from ..ir.targets import EVERY_GPU, common_target, parse_target

    return common_target([parse_target(name) for name in targets]) if targets else EVERY_GPU


def check_derived_sizes(plan: Plan) -> None:
    """Refuse sizes of which one follows from others and is another: no call could be right."""
    from ..ir.errors import ArgumentError
    from ..ir.host import evaluate_host
    from ..ir.text import write_expression

    mixer, fixed = plan.mixer, dict(plan.sizes)
    for dim, value in mixer.sizes:
        try:
            size = int(evaluate_host(value, fixed, dict(plan.params)))
        except KeyError:  # a length that calls tell
            continue
        if size != fixed.get(dim, size):
            timed = [(d, n) for d, n in (mixer.bench[0] if mixer.bench else ()) if d in fixed]
            sizes = " ".join(f"--size {d}={n}" for d, n in timed)
            raise ArgumentError(
                f"{mixer.name}: {dim} = {write_expression(value)} is {size} at these sizes, and "
                f"kernels would be made for {dim} = {fixed[dim]}: name sizes that fit each other"
                + (f", such as {sizes}" if sizes else "")
            )


def check_feature_sizes(mixer: Mixer, sizes: Mapping[str, int]) -> None:
    """Refuse sizes of dims that kernels are not compiled for."""
    from ..ir.binding import suggestion
    from ..ir.errors import ArgumentError
    from ..ir.optional import free_dims
    from ..ir.roles import feature_dims

    features = sorted(feature_dims(mixer))
    lengths = {*free_dims(mixer), *(sequence for _, sequence in mixer.sequences)}
    for dim in sizes:
        if dim in lengths and dim not in features:
            known = ", ".join(features) or "none"
            raise ArgumentError(
                f"the size of {dim} is known at run time only, and any will do; sizes that kernels "
                f"are compiled for: {known}"
            )
        if dim not in features:
            raise ArgumentError(f"{mixer.name} has no dim {dim!r}{suggestion(dim, features)}")


def report(
    generated: Generated, targets: Sequence[str], workers: CompileWorkers | None = None
) -> list[KernelReport]:
    """What every kernel costs on every target: registers, spills, shared memory, instructions.

    ``workers`` are compilers that run already; without them some are started.
    """
    from ..backends.triton.cross_compile import cross_compile
    from ..backends.triton.signatures import kernel_signatures
    from ..ir.targets import parse_target

    devices = [parse_target(target) for target in targets]
    signatures = kernel_signatures(generated.plan)
    if workers is None:
        return cross_compile(generated.source, signatures, devices)
    return workers.compile(generated.source, signatures, devices)


def as_json(reports: Sequence[KernelReport]) -> dict[str, Any]:
    """``{"kernels": [...]}``; a kernel that can't be compiled has an ``error``."""
    return {"kernels": [kernel.as_dict() for kernel in reports]}
