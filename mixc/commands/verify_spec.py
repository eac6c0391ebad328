"""``mixc verify``: kernels against the float64 reading of the spec's equations."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import click

from ..show.written import console
from .options import (
    answer,
    assignments,
    dim_sizes,
    dtype_option,
    json_option,
    load_spec,
    param_option,
    size_option,
)

if TYPE_CHECKING:
    from ..autotune.checking.checking import Case
    from ..ir.mixer import Mixer
    from ..runtime.backends import Chosen
    from ..verifying.checks import DType
    from ..verifying.verification import Effort


@click.command("verify")
@click.argument("specs", metavar="SPEC...", nargs=-1)
@click.option("--all", "every", is_flag=True, help="Every spec of the library.")
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
@click.option("--grad", is_flag=True, help="Check gradients, against float64 autograd.")
@click.option(
    "--quick", "effort", flag_value="quick", help="Small sizes only; so with --all --grad anyway."
)
@click.option("--usual", "effort", flag_value="usual", help="Sizes that people use too.")
@click.option("--thorough", "effort", flag_value="thorough", help="More sizes and configurations.")
@click.option("--cases", type=click.IntRange(1), help="Only this many, the most telling first.")
@click.option(
    "--time-limit", "limit_s", type=click.FloatRange(min=1), default=120.0, show_default=True,
    metavar="SECONDS", help="For one case.",
)  # fmt: skip
@param_option
@size_option
@json_option
def command(
    specs: tuple[str, ...],
    every: bool,
    backends: tuple[str, ...],
    dtypes: tuple[str, ...],
    grad: bool,
    effort: str | None,
    cases: int | None,
    limit_s: float,
    params: tuple[str, ...],
    sizes: tuple[str, ...],
    as_json: bool,
) -> None:
    """Check the kernels of specs against float64, at awkward sizes and at those that people use.

    Kernels run in a process of their own: a crash or a hang is a failed case. Exit code 1: a
    check failed, or a backend can't; 3: a kernel did not compile, or crashed.
    """
    if every == bool(specs):
        raise click.UsageError("Name a SPEC, or --all for the library.")
    from ..verifying.verification import Verifier, left_out, planned_checks
    from . import verify_table

    mixers = _library() if every else [load_spec(spec) for spec in specs]
    values, fixed = assignments(params, "-p"), dim_sizes(sizes)
    plans = [
        planned_checks(
            mixer,
            cast("tuple[Chosen, ...]", backends),
            cast("tuple[DType, ...]", dtypes),
            values,
            fixed,
            cases,
            cast("Effort", effort or ("quick" if every and grad else "usual")),
            grad,
        )
        for mixer in mixers
    ]
    found: list[tuple[Mixer, list[Case]]] = []
    checks = [check for plan in plans for check in plan]
    note = left_out(checks, cast("tuple[Chosen, ...]", backends))
    several = len(mixers) > 1
    with (
        Verifier(limit_s) as verifier,
        verify_table.Progress(console(stderr=True), len(checks), as_json) as progress,
    ):
        for mixer, plan in zip(mixers, plans, strict=True):
            found.append((mixer, verifier.run(plan, progress.of(mixer, len(plan)))))
            if several and not as_json:
                progress.pause(lambda: verify_table.write_line(console(), *found[-1]))
    data = verify_table.as_json(found)
    write = verify_table.write_summary if several else verify_table.write_all
    answer({**data, **({"note": note} if note else {})}, as_json, lambda out: write(out, found))
    if note and not as_json:
        console().print(note, markup=False, highlight=False, soft_wrap=True)
    click.get_current_context().exit(
        verify_table.exit_code(case for _, made in found for case in made)
    )


def _library() -> list[Mixer]:
    from ..compiler.language.find import library
    from ..compiler.language.load import load_file

    return [load_file(path) for path in library()]
