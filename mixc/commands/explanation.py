"""What ``mixc compile --explain`` says of each kernel: its time, what bounds it, which lines."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rich.console import Console

    from ..autotune.gpu_model.expectation import Expectation
    from ..backends.triton.binary_report import KernelReport
    from ..ir.mixer import Mixer
    from ..runtime.compiling import Generated

_PIPES = 4


def explained_sizes(mixer: Mixer, given: Mapping[str, int]) -> dict[str, int]:
    """The shape to explain kernels at, usual sizes where none is given."""
    from ..autotune.checking.shapes import GPU_PROPORTIONS, timed_sizes

    return timed_sizes(mixer, GPU_PROPORTIONS, given)


def explain(
    generated: Generated, reports: Sequence[KernelReport], shape: Mapping[str, int]
) -> list[Expectation]:
    """What the model expects of the kernels that compiled."""
    from ..autotune.gpu_model.expectation import expectations

    return expectations(generated.plan, generated.source, reports, shape)


def as_json(expected: Sequence[Expectation], shape: Mapping[str, int]) -> dict[str, Any]:
    """The explanation as data."""
    return {"sizes": dict(shape), "expected": [one.as_dict() for one in expected]}


def write(console: Console, expected: Sequence[Expectation], shape: Mapping[str, int]) -> None:
    """A paragraph for each kernel and target."""
    from rich.text import Text

    sizes = " ".join(f"{dim}={size}" for dim, size in shape.items())
    lines = [f"expected at {sizes}, by a model; nothing has run"]
    for one in expected:
        lines.extend(_paragraph(one))
    console.print(Text("\n".join(lines)), soft_wrap=True)


def _paragraph(one: Expectation) -> list[str]:
    often = f" for each of {one.launches} rows" if one.launches > 1 else ""
    lines = ["", f"{one.name} on {one.target}: {_time(one.time_us)}{often}, bound by {one.bound}"]
    found = one.estimate
    if found is None:
        return lines
    lines.append(
        f"  compute {_time(found.compute_us)}, memory {_time(found.memory_us)}; "
        f"{found.waves:.2f} waves of {found.resident} a multiprocessor; "
        f"{found.cycles_of_a_turn:,.0f} cycles a turn of the main loop"
    )
    busy = (f"{pipe} {share:.0%}" for pipe, share in found.shares.most(_PIPES))
    lines.append(f"  busy: {', '.join(busy)}")
    for line in one.lines:
        lines.append(f"  {line.share:4.0%}  line {line.number}: {line.text}")
    lines.append(f"  {one.library:4.0%}  in functions of Triton that the lines call (sums, scans)")
    if one.guessed:
        numbers = ", ".join(map(str, one.guessed))
        lines.append(f"  how often loops at {numbers} turn depends on data, and is a guess")
    return lines


def _time(time_us: float) -> str:
    return f"{time_us / 1e3:,.2f} ms" if time_us >= 1e3 else f"{time_us:,.1f} us"
