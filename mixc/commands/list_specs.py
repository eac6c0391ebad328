"""``mixc list``: the table of systems, by family."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from .options import answer, json_option

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from rich.console import Console

    from ..show.systems import State, System


@click.command("list")
@click.option("--markdown", "as_markdown", is_flag=True, help="Print README's table of systems.")
@json_option
def command(as_markdown: bool, as_json: bool) -> None:
    """The specs of the library, by family: what each is, its form, what runs it.

    Forward and backward run by kernels or by torch; steps: whether the sequence may come in
    segments, down to single rows. All of it was found by lowering each spec; what has changed since
    is lowered now.
    """
    from ..show.known_states import known_states_of
    from ..show.systems import markdown

    systems = library_systems(known_states_of)
    if as_markdown:
        click.echo(markdown(systems))
        return
    rows = [{**asdict(one), **asdict(one.state), "title": one.title} for one in systems]
    answer({"specs": rows}, as_json, lambda console: write(console, systems))


def library_systems(states: Callable[[Sequence[Path]], list[State]]) -> list[System]:
    """Every spec of the library, with the state that ``states`` gives it."""
    from ..compiler.language.find import library
    from ..show.systems import system_of

    paths = library()
    return [system_of(path, state) for path, state in zip(paths, states(paths), strict=True)]


def write(console: Console, systems: Sequence[System]) -> None:
    """One table per family."""
    from rich.table import Table

    from ..show.systems import HEADINGS, families

    for family, members in families(systems):
        table = Table(title=family, title_justify="left", box=None, pad_edge=False)
        for heading in ("name", *HEADINGS):
            table.add_column(heading, overflow="fold", no_wrap=heading != "system")
        for one in members:
            table.add_row(one.name, *one.cells)
        console.print(table, end="\n\n")
