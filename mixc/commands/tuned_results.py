"""``mixc tuned``: the results that are stored, side by side by device, merged and pruned."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .options import answer, json_option
from .tuned_list import list_command, sizes_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rich.console import Console

    from ..autotune.results.result import Result


class _ListByDefault(click.Group):
    """``mixc tuned gla`` is ``mixc tuned list gla``."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put ``list`` before what names no command."""
        named = args and (args[0] in self.commands or args[0] in ctx.help_option_names)
        return super().parse_args(ctx, args if named else ["list", *args])


@click.command("tuned", cls=_ListByDefault)
def command() -> None:
    """Tuned results: list them (also without a word), compare devices, merge, prune.

    Each command takes --json.
    """


@click.command("compare")
@click.argument("specs", nargs=-1, metavar="[SPEC]...")
@json_option
def compare(specs: tuple[str, ...], as_json: bool) -> None:
    """Times of the same work on several devices, side by side."""
    from ..autotune.results.stored import stored_results

    found = [r for _, r in stored_results() if not specs or r.key.spec in specs]
    works: dict[tuple[str, str, str], dict[str, Result]] = {}
    for result in found:
        work = (result.key.spec, result.key.dtype, sizes_of(result))
        works.setdefault(work, {}).setdefault(result.key.device.name, result)
    rows = [
        {"spec": spec, "dtype": dtype, "sizes": sizes,
         "times_us": {name: result.time_us for name, result in by_device.items()}}
        for (spec, dtype, sizes), by_device in sorted(works.items())
    ]  # fmt: skip
    answer({"works": rows}, as_json, lambda console: write_comparison(console, rows))


def write_comparison(console: Console, rows: Sequence[dict[str, Any]]) -> None:
    """A column per device."""
    from rich.table import Table
    from rich.text import Text

    devices = list(dict.fromkeys(name for row in rows for name in row["times_us"]))
    table = Table(box=None, pad_edge=False)
    for heading in ("spec", "dtype", "sizes"):
        table.add_column(heading)
    for name in devices:
        table.add_column(name, justify="right")
    for row in rows:
        times = (row["times_us"].get(name) for name in devices)
        cells = ["-" if time is None else f"{time:,.0f} us" for time in times]
        table.add_row(*(Text(c) for c in (row["spec"], row["dtype"], row["sizes"], *cells)))
    console.print(table)


@click.command("merge")
@click.argument("sources", nargs=-1, required=True, metavar="SOURCE...")
@click.option("--into", type=click.Path(path_type=Path, file_okay=False), help="A folder; by "
              "default that of your own results.")  # fmt: skip
@json_option
def merge_command(sources: tuple[str, ...], into: Path | None, as_json: bool) -> None:
    """Bring results together: of folders, files, and storages that machines tuned with --all.

    Where a result for the same work on the same device is there, the faster stays.
    """
    from ..autotune.results.folders import result_folders
    from ..autotune.results.upkeep import merge

    folder = into or result_folders()[0]
    found = [result for source in sources for result in results_of(source)]
    written = merge(found, folder)
    data = {"found": len(found), "written": [str(path) for path in written]}
    told = f"{len(found)} results found, {len(written)} of them new or faster, into {folder}"
    answer(data, as_json, lambda console: console.print(told, markup=False, soft_wrap=True))


def results_of(source: str) -> Iterator[Result]:
    """The results of a folder, of a file of one, or of a storage."""
    from ..autotune.results.stored import stored_results
    from ..autotune.results.validation import ResultFault, read_result
    from ..autotune.search.fleet import fleet_results
    from ..autotune.search.journal import open_storage

    path = Path(source)
    if path.is_dir():
        yield from (result for _, result in stored_results([path]))
    elif path.suffix == ".yaml":
        try:
            yield read_result(path)
        except ResultFault as fault:
            raise click.UsageError(f"{path}:{fault.line}: {fault}") from fault
    elif "://" in source or path.exists():
        yield from fleet_results(open_storage(source))
    else:
        raise click.UsageError(f"{source}: no folder, no file, and no storage's URL.")


@click.command("prune")
@click.option("--dry-run", is_flag=True, help="Say what would go, and leave it.")
@json_option
def prune(dry_run: bool, as_json: bool) -> None:
    """Remove your own results that are damaged, or were tuned with other versions."""
    from ..autotune.results.folders import result_folders
    from ..autotune.results.upkeep import stale

    found = list(stale(result_folders()[0]))
    if not dry_run:
        for path, _ in found:
            path.unlink(missing_ok=True)
    data = {"removed" if not dry_run else "stale": [{"path": str(p), "why": w} for p, w in found]}
    lines = [f"{path}: {why}" for path, why in found] or ["nothing is stale"]
    answer(data, as_json, lambda console: console.print("\n".join(lines), markup=False,
                                                        soft_wrap=True))  # fmt: skip


for _subcommand in (list_command, compare, merge_command, prune):
    command.add_command(_subcommand)
