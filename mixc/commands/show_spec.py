"""``mixc show``: equations with axes, key ranges, a picture of the mask, the plan."""

from __future__ import annotations

from dataclasses import replace
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
    from ..ir.mixer import Mixer


@click.command("show")
@spec_argument
@param_option
@size_option
@click.option(
    "--png", type=click.Path(dir_okay=False, path_type=Path), help="Write the mask as an image."
)
@click.option("--grad", is_flag=True, help="Show the backward pass, which is a mixer too.")
@click.option("--target", help="The plan for a GPU (cuda:90, ...) or this cpu, not for every GPU.")
@click.option("--tiles", is_flag=True, help="Also print the tile program of every kernel.")
@json_option
def command(
    spec: str,
    params: tuple[str, ...],
    sizes: tuple[str, ...],
    png: Path | None,
    grad: bool,
    target: str | None,
    tiles: bool,
    as_json: bool,
) -> None:
    """What a spec says and what was found: axes, key ranges, mask, plan."""
    from ..autotune.checking.shapes import check_dims
    from ..runtime.lowering import Held, by_segments, lowering, plan_for
    from ..show.description import description
    from ..show.mask_picture import pictures, write_png
    from ..show.written import write

    mixer, fixed = load_spec(spec, params), dim_sizes(sizes)
    check_dims(mixer, fixed)
    kept, dtype, segments = tuple[str, ...](), "bfloat16", tuple[Held, ...]()
    if grad:
        forward = mixer
        mixer, kept, dtype = _backward(mixer, dtype)
        segments = by_segments(forward, fixed, dtype)
    found = lowering(mixer, fixed, dtype, kept, target)
    found = replace(found, memory=(*found.memory, *segments))
    masks = pictures(mixer, fixed)
    if png is not None:
        if not masks:
            message = "has no attention, or none that is short enough to draw"
            raise click.UsageError(f"{mixer.name} {message}.")
        write_png(masks, png)
    drawn = [
        {"title": mask.title, "rows": mask.rows, "columns": mask.columns, "visible": mask.visible}
        for mask in masks
    ]
    data = {**description(mixer), **found.as_dict(), "masks": drawn}
    answer(data, as_json, lambda console: write(console, mixer, found, masks))
    if tiles and not as_json:
        from ..ir.tile_text import write_program

        for kernel in plan_for(mixer, fixed, dtype, target).kernels:
            click.echo(f"\n{write_program(kernel.program)}")


def _backward(mixer: Mixer, dtype: str) -> tuple[Mixer, tuple[str, ...], str]:
    """The backward pass of a mixer in ``dtype``, what is kept for it, which its ``about`` says too,
    and the dtype that it works in."""
    from ..compiler.mixers.derivative.differentiate import differentiate

    derivative = differentiate(mixer)
    kept = ", ".join(derivative.kept) or "nothing"
    about = (
        f"The backward pass of {mixer.name}. Kept from the forward pass: {kept}; "
        "the rest is recomputed."
    )
    backward = replace(derivative.backward, about=about, source="")
    return backward, derivative.kept, "float32" if derivative.in_float32 else dtype
