"""``mixc verify``: kernels against the float64 reading of the spec's equations."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import click

from .options import (
    answer,
    assignments,
    dim_sizes,
    dtype_option,
    json_option,
    load_spec,
    param_option,
    size_option,
    spec_argument,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from ..autotune.checking import Case
    from ..checking import DType
    from ..ir.mixer import Mixer
    from ..running import Chosen


@click.command("verify")
@spec_argument
@click.option(
    "--backend",
    "backends",
    multiple=True,
    type=click.Choice(["cpu", "triton", "interpreter", "reference"]),
    help="Default: triton on a machine with a GPU, else cpu and Triton's interpreter.",
)
@dtype_option(
    multiple=True, help="Default: float32; cpu: bfloat16 too; triton: float16 and bfloat16 too."
)
@click.option("--cases", type=click.IntRange(1), help="Only this many, the most telling first.")
@param_option
@size_option
@json_option
def command(
    spec: str,
    backends: tuple[str, ...],
    dtypes: tuple[str, ...],
    cases: int | None,
    params: tuple[str, ...],
    sizes: tuple[str, ...],
    as_json: bool,
) -> None:
    """Check SPEC's kernels against float64, at awkward sizes."""
    mixer = load_spec(spec)
    values, fixed = assignments(params, "-p"), dim_sizes(sizes)

    from .. import checking

    named = cast("tuple[Chosen, ...]", backends)
    found = checking.verify_mixer(
        mixer, named, cast("tuple[DType, ...]", dtypes), values, fixed, cases
    )
    data = checking.as_json(found)
    answer(data, as_json, lambda console: write(console, mixer, found))
    if not data["ok"]:
        click.get_current_context().exit(1)


def write(console: Console, mixer: Mixer, cases: Sequence[Case]) -> None:
    """A row per case, what failed below, and the verdict."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for heading in ("case", "backend", "dtype", "sizes", "error", "limit", ""):
        table.add_column(heading, justify="right" if heading in ("error", "limit") else "left")
    same = {dim for dim, sequence in mixer.sequences if dim != sequence}
    for case in cases:
        sizes = " ".join(f"{dim}={size}" for dim, size in case.sizes.items() if dim not in same)
        verdict = Text("ok", style="green") if case.ok else Text("wrong", style="red")
        numbers = (f"{case.error:.1e}", f"{case.limit:.1e}")
        table.add_row(case.name, case.backend, case.dtype, Text(sizes), *numbers, verdict)
    console.print(table)
    for case in cases:
        if not case.ok:
            console.print(Text(f"{case.name}, {case.backend}, {case.dtype}: {case.message}"))
    wrong = sum(not case.ok for case in cases)
    outcome = (
        f"{wrong} of {len(cases)} cases are wrong" if wrong else f"{len(cases)} cases, all right"
    )
    console.print(Text(f"{mixer.name}: {outcome}", style="red" if wrong else "green"))
