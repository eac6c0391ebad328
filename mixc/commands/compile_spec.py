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
    from collections.abc import Mapping, Sequence

    from rich.console import Console

    from ..backends.triton.binary_report import KernelReport
    from ..ir.mixer import Mixer


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
@click.option("--grad", is_flag=True, help="The kernels of the backward pass instead.")
@dtype_option(multiple=False, default="bf16", help="The working precision; bf16 if not given.")
@param_option
@size_option
@json_option
def command(
    spec: str,
    targets: tuple[str, ...],
    output: Path | None,
    explained: bool,
    grad: bool,
    dtype: str,
    params: tuple[str, ...],
    sizes: tuple[str, ...],
    as_json: bool,
) -> None:
    """Generate SPEC's kernels and compile them for a target.

    SPEC may also be a level of the IR that MIXC_DUMP=folder has written (.txt). No GPU is needed.
    The module goes to -o or to stdout, the report to stderr; with --json the report alone goes to
    stdout. With --explain a model's expectations go to stdout; its lines are those of the module.
    With --grad all of it is about the backward pass; sizes are those of SPEC.
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
    if dumped:
        _check_of_level(spec, params, explained, grad)
    mixer = None if dumped else load_spec(spec, params)
    with CompileWorkers() as workers:  # they import triton while the spec is lowered
        shape: dict[str, int] = {}
        if mixer is None:
            generated = compiling.generate_from(Path(spec), fixed, dtype, targets)
        else:
            mixer, fixed, shape = _asked(mixer, fixed, explained, grad)
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


def _check_of_level(spec: str, params: tuple[str, ...], explained: bool, grad: bool) -> None:
    """Refuse what a level of the IR can't be asked."""
    if params:
        raise click.UsageError(f"{spec} is no spec: its params are set, and --param is for specs.")
    if explained:
        raise click.UsageError("--explain takes a spec: a level of the IR says no lengths.")
    if grad:
        raise click.UsageError("--grad takes a spec: a level of the IR is of one pass already.")


def _asked(
    mixer: Mixer, given: Mapping[str, int], explained: bool, grad: bool
) -> tuple[Mixer, dict[str, int], dict[str, int]]:
    """The pass to compile, the sizes that its kernels are made for, and the shape to explain."""
    from ..autotune.checking.shapes import feature_sizes, known_sizes
    from ..runtime import compiling

    shape = explanation.explained_sizes(mixer, given) if explained else {}
    if grad:
        if not explained:  # a size that no pass has is wrong, one that the forward pass has is not
            compiling.check_feature_sizes(mixer, given)
        mixer = compiling.backward_pass(mixer)
        shape, given = known_sizes(mixer, shape), known_sizes(mixer, given)
    return mixer, feature_sizes(mixer, shape) if explained else dict(given), shape


def write_whole(path: Path, text: str) -> None:
    """Write a file so that it is there whole or not at all; a device or a pipe is written to."""
    if path.exists() and not path.is_file():
        path.write_text(text, encoding="utf-8")
        return
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
