"""``mixc show``: equations with axes, key ranges, a picture of the mask, the plan."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from .options import (
    answer,
    dim_sizes,
    json_option,
    load_spec,
    param_option,
    size_option,
    spec_argument,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from ..ir.mixer import Mixer
    from ..lowering import Lowering


@click.command("show")
@spec_argument
@param_option
@size_option
@click.option(
    "--png", type=click.Path(dir_okay=False, path_type=Path), help="Write the mask as an image."
)
@json_option
def command(
    spec: str, params: tuple[str, ...], sizes: tuple[str, ...], png: Path | None, as_json: bool
) -> None:
    """What a spec says and what was found: axes, key ranges, mask, plan."""
    from .. import checking
    from ..description import description
    from ..lowering import lowering

    mixer, fixed = load_spec(spec, params), dim_sizes(sizes)
    checking.check_sizes(mixer, fixed)
    found = lowering(mixer, fixed)
    data = {**description(mixer), **found.as_dict()}
    answer(data, as_json, lambda console: write(console, mixer, found))


def write(console: Console, mixer: Mixer, found: Lowering) -> None:
    """The equations, the key ranges, the mask and the plan, in this order."""
    write_equations(console, mixer)
    for ranges in found.ranges:
        title = f"key ranges over {ranges.over}, for the rows of a block of {ranges.block}"
        write_section(console, title, ranges.lines)
    write_section(console, "found", found.findings)
    lines = []
    for number, kernel in enumerate(found.kernels, 1):
        lines.append(f"{number}. {kernel.name} ({kernel.schedule}): {', '.join(kernel.computes)}")
        blocks = ", ".join(f"{name} = {size}" for name, size in kernel.blocks.items())
        lines.append(f"   {kernel.reason}; a program per {', '.join(kernel.grid)}; {blocks}")
    write_section(console, "plan", lines or [found.obstacle or "nothing to compute"])


def write_equations(console: Console, mixer: Mixer) -> None:
    """What the spec says, line by line with axes."""
    from rich.text import Text

    from ..description import describe

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
