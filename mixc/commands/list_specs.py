"""``mixc list``: the library of specs, by family."""

from __future__ import annotations

import re
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .options import answer, json_option

if TYPE_CHECKING:
    from rich.console import Console

    Row = dict[str, str]


@click.command("list")
@json_option
def command(as_json: bool) -> None:
    """The specs of the library, by family."""
    from ..compiler.language.find import library

    rows = sorted((describe(path) for path in library()), key=lambda r: (r["family"], r["name"]))
    answer({"specs": rows}, as_json, lambda console: write(console, rows))


def describe(path: Path) -> Row:
    """What the list says of one spec; the family is the folder that it lies in."""
    from ..compiler.language.head import read_head

    head = read_head(path)
    row = {"name": head.name, "family": path.parent.name, "about": head.about}
    return row | {"source": head.source, "path": str(path)}


def write(console: Console, rows: list[Row]) -> None:
    """One table per family."""
    from rich.table import Table

    for family, members in groupby(rows, key=lambda row: row["family"]):
        table = Table(title=family, title_justify="left", box=None, pad_edge=False)
        for heading in ("name", "about", "source"):
            table.add_column(heading, overflow="fold", no_wrap=heading == "name")
        for row in members:
            table.add_row(row["name"], first_sentence(row["about"]), row["source"])
        console.print(table, end="\n\n")


def first_sentence(text: str) -> str:
    """``A. B.`` --> ``A.``; the JSON has it all."""
    return re.split(r"(?<=\w\.)\s", " ".join(text.split()), maxsplit=1)[0]
