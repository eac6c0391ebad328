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
    from rich.console import Console

    from ..ir.mixer import Mixer


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
    from ..description import description

    mixer = load_spec(spec, params)
    data = description(mixer)
    dim_sizes(sizes)
    answer(data, as_json, lambda console: write(console, mixer))


def write(console: Console, mixer: Mixer) -> None:
    """Everything, section by section."""
    from rich.text import Text

    from ..description import describe

    console.print(Text(mixer.name, style="bold"))
    for remark in (mixer.about, mixer.source):
        if remark:
            console.print(Text(" ".join(remark.split())))
    for section in describe(mixer):
        console.print(Text(f"\n{section.title}", style="bold"))
        for line in section.lines:
            console.print(Text(f"  {line}"), soft_wrap=True)
