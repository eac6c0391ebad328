"""A mixer as a person reads it: equations, key ranges, masks and plan, on a terminal."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rich.console import Console

    from ..ir.mixer import Mixer
    from ..runtime.lowering import Held, Lowering
    from .mask_picture import MaskPicture


def write(
    console: Console, mixer: Mixer, found: Lowering, masks: Sequence[MaskPicture] = ()
) -> None:
    """The equations, the key ranges, the masks and the plan, in this order."""
    from .mask_picture import terminal_lines

    write_equations(console, mixer)
    for ranges in found.ranges:
        rows = f", for the rows of a block of {ranges.block}" if ranges.block else ""
        title = f"key ranges of {ranges.stage} over {ranges.over}{rows}"
        write_section(console, title, ranges.lines)
    for mask in masks:
        write_section(console, f"mask of {mask.title}", terminal_lines(mask))
    write_section(console, "found", found.findings)
    write_section(console, "plan", list(plan_lines(found)))
    write_section(console, "memory", [_held(one) for one in found.memory])


def plan_lines(found: Lowering) -> Iterator[str]:
    """Two lines per kernel: what it is, and how its programs are cut; further in, under a line of
    their own, those that run once for each row."""
    first = {loop.kernels[0]: loop for loop in found.loops}
    inside = {name for loop in found.loops for name in loop.kernels}
    for number, kernel in enumerate(found.kernels, 1):
        if loop := first.get(kernel.name):
            yield f"for each row along {loop.over}{', the last first' if loop.reverse else ''}"
        edge = "   " if kernel.name in inside else ""
        yield f"{edge}{number}. {kernel.name} ({kernel.schedule}): {', '.join(kernel.computes)}"
        blocks = ", ".join(f"{name} = {size}" for name, size in kernel.blocks.items())
        cut = f"a program per {', '.join(kernel.grid)}; {blocks}"
        cut = "by torch.fft" if kernel.schedule == "transform" else cut
        yield f"{edge}   {kernel.reason}; {cut}"
    if found.kernels and found.without_gradient is not None:
        yield f"gradients: by torch on a CPU, and there far slower: {found.without_gradient}"
    elif found.kernels:
        return
    elif found.obstacle is None:
        yield "nothing to compute"
    else:
        yield found.obstacle
        yield "so a CPU runs this by torch, often 10 to 1000 times slower; a GPU refuses it"


def _held(one: Held) -> str:
    """``between kernels: 16.4 kB for each B, T (h_before, d_h_now)``."""
    from ..runtime.room import in_bytes

    axes = f" for each {', '.join(one.axes)}" if one.axes else ""
    return f"{one.what}: {in_bytes(one.bytes)}{axes} ({', '.join(one.buffers)})"


def write_equations(console: Console, mixer: Mixer) -> None:
    """What the spec says, line by line with axes."""
    from rich.text import Text

    from .description import describe

    console.print(Text(mixer.name, style="bold"))
    for remark in (mixer.about, mixer.source):
        if remark:
            console.print(Text(" ".join(remark.split())))
    for section in describe(mixer):
        write_section(console, section.title, [str(line) for line in section.lines])


def write_section(console: Console, title: str, lines: Sequence[str]) -> None:
    """Lines under a title; nothing where there are none."""
    from rich.text import Text

    if lines:
        console.print(Text(f"\n{title}", style="bold"))
    for line in lines:
        console.print(Text(f"  {line}"), soft_wrap=True)


def console(stderr: bool = False) -> Console:
    """Where a person reads; as wide as the terminal, 100 columns where there is none."""
    from rich.console import Console

    return Console(stderr=stderr, highlight=False, width=None if _on_terminal(stderr) else 100)


def _on_terminal(stderr: bool) -> bool:
    return (sys.stderr if stderr else sys.stdout).isatty()
