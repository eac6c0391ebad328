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
    from collections.abc import Iterator, Sequence

    from rich.console import Console

    from ..ir.mixer import Mixer
    from ..runtime.lowering import Lowering
    from ..show.mask_picture import MaskPicture


@click.command("show")
@spec_argument
@param_option
@size_option
@click.option(
    "--png", type=click.Path(dir_okay=False, path_type=Path), help="Write the mask as an image."
)
@click.option("--grad", is_flag=True, help="Show the backward pass, which is a mixer too.")
@click.option("--tiles", is_flag=True, help="Also print the tile program of every kernel.")
@json_option
def command(
    spec: str,
    params: tuple[str, ...],
    sizes: tuple[str, ...],
    png: Path | None,
    grad: bool,
    tiles: bool,
    as_json: bool,
) -> None:
    """What a spec says and what was found: axes, key ranges, mask, plan."""
    from ..autotune.checking.shapes import check_dims
    from ..runtime.lowering import lowering
    from ..show.description import description
    from ..show.mask_picture import pictures, write_png

    mixer, fixed = load_spec(spec, params), dim_sizes(sizes)
    check_dims(mixer, fixed)
    if grad:
        mixer = _backward(mixer)
    found = lowering(mixer, fixed)
    masks = pictures(mixer, fixed)
    if png is not None:
        if not masks:
            raise click.UsageError(f"{mixer.name} has no attention, and so no mask to draw.")
        write_png(masks, png)
    drawn = [
        {"title": mask.title, "rows": mask.rows, "columns": mask.columns, "visible": mask.visible}
        for mask in masks
    ]
    data = {**description(mixer), **found.as_dict(), "masks": drawn}
    answer(data, as_json, lambda console: write(console, mixer, found, masks))
    if tiles and not as_json:
        from ..compiler.pipeline import lower
        from ..ir.tile_text import write_program

        for kernel in lower(mixer, fixed).kernels:
            click.echo(f"\n{write_program(kernel.program)}")


def write(
    console: Console, mixer: Mixer, found: Lowering, masks: Sequence[MaskPicture] = ()
) -> None:
    """The equations, the key ranges, the masks and the plan, in this order."""
    from ..show.mask_picture import terminal_lines

    write_equations(console, mixer)
    for ranges in found.ranges:
        rows = f", for the rows of a block of {ranges.block}" if ranges.block else ""
        title = f"key ranges of {ranges.stage} over {ranges.over}{rows}"
        write_section(console, title, ranges.lines)
    for mask in masks:
        write_section(console, f"mask of {mask.title}", terminal_lines(mask))
    write_section(console, "found", found.findings)
    write_section(console, "plan", list(plan_lines(found)))


def _backward(mixer: Mixer) -> Mixer:
    """The backward pass of a mixer, with what it keeps of the forward pass in its ``about``."""
    from dataclasses import replace

    from ..compiler.mixers.derivative.differentiate import differentiate

    derivative = differentiate(mixer)
    kept = ", ".join(derivative.kept) or "nothing"
    about = (
        f"The backward pass of {mixer.name}. Kept from the forward pass: {kept}; "
        "the rest is recomputed."
    )
    return replace(derivative.backward, about=about, source="")


def plan_lines(found: Lowering) -> Iterator[str]:
    """Two lines per kernel: what it is, and how its programs are cut."""
    for number, kernel in enumerate(found.kernels, 1):
        yield f"{number}. {kernel.name} ({kernel.schedule}): {', '.join(kernel.computes)}"
        blocks = ", ".join(f"{name} = {size}" for name, size in kernel.blocks.items())
        yield f"   {kernel.reason}; a program per {', '.join(kernel.grid)}; {blocks}"
    if found.kernels and found.without_gradient is not None:
        yield f"gradients: by torch on a CPU, and there far slower: {found.without_gradient}"
    elif found.kernels:
        return
    elif found.obstacle is None:
        yield "nothing to compute"
    else:
        yield found.obstacle
        yield "so a CPU runs this by torch, often 10 to 1000 times slower; a GPU refuses it"


def write_equations(console: Console, mixer: Mixer) -> None:
    """What the spec says, line by line with axes."""
    from rich.text import Text

    from ..show.description import describe

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
