"""``mixc compile``: the generated kernels, and what they cost on a target."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..show.written import console
from . import explanation
from .options import (
    answer,
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

    from ..backends.triton.binary_report import KernelReport


@click.command("compile")
@spec_argument
@click.option(
    "--target",
    "targets",
    multiple=True,
    default=("cuda:90",),
    help="cuda:80, cuda:90, cuda:100, cuda:120, hip:gfx942; several are allowed.",
)
@click.option(
    "-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="Write the module here."
)
@click.option(
    "--explain",
    "explained",
    is_flag=True,
    help="Instead of the module: each kernel's expected time by a model of its machine code, what "
    "bounds it, and its most costly lines. --size takes lengths too then.",
)
@dtype_option(multiple=False, default="bf16", help="The working precision; bf16 if not given.")
@param_option
@size_option
@json_option
def command(
    spec: str,
    targets: tuple[str, ...],
    output: Path | None,
    explained: bool,
    dtype: str,
    params: tuple[str, ...],
    sizes: tuple[str, ...],
    as_json: bool,
) -> None:
    """Generate SPEC's kernels and compile them for a target.

    SPEC may also be a level of the IR that MIXC_DUMP=folder has written (.txt). No GPU is needed.
    The module goes to -o or to stdout, the report to stderr; with --json the report alone goes to
    stdout. With --explain a model's expectations go to stdout; its lines are those of the module.
    """
    from ..backends.triton.cross_compile import CompileWorkers
    from ..ir.targets import parse_target
    from ..runtime import compiling

    fixed = dim_sizes(sizes)
    for target in targets:
        parse_target(target)
    if output is not None and not output.parent.is_dir():
        raise click.UsageError(f"there is no folder {output.parent} for {output.name}.")
    dumped = spec.endswith(".txt")
    if dumped and params:
        raise click.UsageError(f"{spec} is no spec: its params are set, and --param is for specs.")
    if dumped and explained:
        raise click.UsageError("--explain takes a spec: a level of the IR says no lengths.")
    mixer = None if dumped else load_spec(spec, params)
    with CompileWorkers() as workers:  # they import triton while the spec is lowered
        shape: dict[str, int] = {}
        if explained and mixer is not None:
            shape, fixed = explanation.explained_sizes(mixer, fixed)
        if mixer is None:
            generated = compiling.generate_from(Path(spec), fixed, dtype, targets)
        else:
            generated = compiling.generate(mixer, fixed, dtype, targets)
        reports = compiling.report(generated, targets, workers)
    data = compiling.as_json(reports)
    expected = explanation.explain(generated, reports, shape) if explained else []
    if explained:
        data |= explanation.as_json(expected, shape)
    if output is not None:
        write_whole(output, generated.source)
    elif not as_json and not explained:
        click.echo(generated.source, nl=False)
    answer(data, as_json, lambda _: write(console(stderr=output is None), reports))
    if explained and not as_json:
        explanation.write(console(), expected, shape)
    if any(kernel.error for kernel in reports):
        click.get_current_context().exit(1)


def write_whole(path: Path, text: str) -> None:
    """Write a file so that it is there whole or not at all."""
    aside = path.with_name(f".{path.name}.part")
    try:
        aside.write_text(text, encoding="utf-8")
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def write(console: Console, reports: Sequence[KernelReport]) -> None:
    """A row per kernel and target, what the compilers said below."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for heading in ("kernel", "target"):
        table.add_column(heading, no_wrap=True)
    numbers = ("registers", "spilled bytes", "shared bytes", "tensor-core ops", "async copies")
    for heading in numbers:
        table.add_column(heading, justify="right")
    for kernel in reports:
        found = (
            kernel.registers,
            kernel.spilled_bytes,
            kernel.shared_bytes,
            kernel.tensor_core_instructions,
            kernel.async_copies,
        )
        cells = ["-" if number is None else f"{number:,}" for number in found]
        table.add_row(kernel.name, kernel.target, *cells)
    console.print(table)
    for kernel in reports:
        for remark in filter(None, (kernel.error, kernel.note)):
            console.print(Text(f"{kernel.name} on {kernel.target}: {remark}"))
