"""``mixc tuned list``: the results that are stored, and where."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from .options import answer, json_option
from .tune_table import words

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from rich.console import Console

    from ..autotune.results.result import Result


@click.command("list")
@click.argument("specs", nargs=-1, metavar="[SPEC]...")
@json_option
def list_command(specs: tuple[str, ...], as_json: bool) -> None:
    """List tuned results: your own first, then those that come with mixc."""
    from ..autotune.results.folders import result_folders
    from ..autotune.results.stored import stored_results

    found = [
        (path, result) for path, result in stored_results() if not specs or result.key.spec in specs
    ]
    own = result_folders()[0]
    data = {"results": [{**r.as_dict(), "path": str(path)} for path, r in found]}
    answer(data, as_json, lambda console: write(console, own, found))


def write(console: Console, own: Path, found: Sequence[tuple[Path, Result]]) -> None:
    """A row per result, by device."""
    from rich.table import Table
    from rich.text import Text

    if not found:
        console.print(Text(f"nothing is tuned yet: mixc tune SPEC; results go to {own}"))
        return
    for device in dict.fromkeys(result.key.device for _, result in found):
        table = Table(
            title=f"{device.name} ({device.architecture})",
            title_justify="left",
            box=None,
            pad_edge=False,
        )
        for heading in ("spec", "dtype", "sizes", "time", "default", "configuration"):
            right = heading in ("time", "default")
            table.add_column(heading, justify="right" if right else "left")
        for path, result in found:
            if result.key.device == device:
                yours = path.is_relative_to(own)
                table.add_row(*(Text(cell) for cell in cells(result, yours)))
        console.print(table)
        console.print()


def cells(result: Result, yours: bool) -> tuple[str, ...]:
    """The texts of a row."""
    key: Any = result.key
    default = "-" if result.default_time_us is None else f"{result.default_time_us:,.0f} us"
    time = f"{result.time_us:,.0f} us" + (" (modelled)" if result.modelled else "")
    configuration = words(result.configuration) + ("" if yours else " (with mixc)")
    return key.spec, key.dtype, sizes_of(result), time, default, configuration


def sizes_of(result: Result) -> str:
    """``D=64 T=4096``."""
    sizes = (*result.key.features.items(), *result.key.lengths.items())
    return " ".join(f"{dim}={n}" for dim, n in sizes)
