"""``mixc export``: one file with kernels, gradients and a self-test, without mixc."""

from __future__ import annotations

from pathlib import Path

import click

from ..show.written import console
from .compile_spec import write, write_whole
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


@click.command("export")
@spec_argument
@click.option(
    "-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="Write the file here."
)
@click.option(
    "--target",
    "targets",
    multiple=True,
    help="Also compile the kernels for it and say what they cost: cuda:90, …; several are allowed.",
)
@click.option("--no-grad", is_flag=True, help="Forward only.")
@click.option(
    "--with",
    "optional",
    multiple=True,
    metavar="INPUT",
    help="An input with a default that the function takes; without, it is its default.",
)
@dtype_option(multiple=False, default="bf16", help="The working precision; bf16 if not given.")
@param_option
@size_option
@json_option
def command(
    spec: str,
    output: Path | None,
    targets: tuple[str, ...],
    no_grad: bool,
    optional: tuple[str, ...],
    dtype: str,
    params: tuple[str, ...],
    sizes: tuple[str, ...],
    as_json: bool,
) -> None:
    """Write SPEC as one Python file that needs torch and triton only.

    It holds the kernels of both passes, the function to call with its autograd function, and a
    self-test against plain torch: `python FILE`, with TRITON_INTERPRET=1 where there is no GPU.
    The file goes to -o or to stdout, what there is to say to stderr; with --json that goes to
    stdout.
    """
    from ..backends.triton.cross_compile import cross_compile
    from ..export.exporting import export
    from ..ir.targets import parse_target
    from ..runtime import compiling

    devices = [parse_target(target) for target in targets]
    if output is not None and not output.parent.is_dir():
        raise click.UsageError(f"there is no folder {output.parent} for {output.name}.")
    mixer = load_spec(spec, params)
    made = export(mixer, dim_sizes(sizes), dtype, gradients=not no_grad, optional=optional)
    reports = cross_compile(made.source, made.signatures(), devices) if devices else []
    if output is not None:
        write_whole(output, made.source)
    elif not as_json:
        click.echo(made.source, nl=False)
    if made.without_gradient is not None and not no_grad:
        click.echo(f"{mixer.name}: forward only: {made.without_gradient}", err=True)
    for said in made.left_out:
        click.echo(f"not in the tuned table: {said}", err=True)
    data = {**compiling.as_json(reports), "without_gradient": made.without_gradient}
    data |= {"tuned": made.tuned, "left_out": list(made.left_out)}
    if reports or as_json:
        answer(data, as_json, lambda _: write(console(stderr=output is None), reports))
    if any(kernel.error for kernel in reports):
        click.get_current_context().exit(1)
