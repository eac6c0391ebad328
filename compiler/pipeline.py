"""All of lowering on one page: from a mixer to checked tile programs.

Before it come the rewrites of mixers that a call asks for: absent inputs are their defaults
(``without_inputs``), documents are packed (``mixers/pack``), a segment goes on from another
(``mixers/resume``), gradients (``mixers/derivative``). After it a configuration is bound
(``schedules/configurations``), and a backend writes the programs in its own language.

``MIXC_DUMP=folder`` writes each level's text, for people and exactly; ``lower_on`` goes on from
such a text.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from ..ir.data_text import read_data, write_data
from ..ir.errors import ArgumentError, UnsupportedError
from ..ir.mixer import Mixer
from ..ir.plan import Plan
from ..ir.targets import EVERY_GPU, AnyTarget
from ..ir.text import write_mixer
from ..ir.tile import DType
from ..ir.tile_text import write_plan
from ..ir.verify_mixer import verify_mixer
from ..ir.verify_plan import verify_plan
from .passes.load_ahead import load_ahead
from .passes.merge_maps import merge_maps
from .passes.merge_sweeps import merge_sweeps
from .passes.merge_transforms import merge_transforms
from .passes.row_sums import store_row_sums
from .passes.rows_in_walks import rows_in_walks
from .passes.segment_rows import segment_rows
from .passes.split_walks import split_walks
from .passes.walk_in_runs import walk_in_runs
from .passes.widen_choices import widen_choices
from .planning.convolution import LAGS
from .planning.mixer import plan_mixer
from .planning.transform import TERMS
from .schedules.schedule import schedule_tasks

Level = TypeVar("Level", Mixer, Plan)

_DTYPES: Mapping[str, DType] = {
    "fp32": DType.FLOAT32,
    "fp16": DType.FLOAT16,
    "bf16": DType.BFLOAT16,
    "float32": DType.FLOAT32,
    "float16": DType.FLOAT16,
    "bfloat16": DType.BFLOAT16,
}


@dataclass(frozen=True, slots=True)
class Pass:
    """A rewrite of plans, and why it is there; ``verify_plan`` holds before it and after it."""

    name: str
    run: Callable[[Plan], Plan]
    reason: str


PASSES: tuple[Pass, ...] = (
    Pass("widen_choices", widen_choices, "what is ranked is not rounded: a choice may hang on it"),
    Pass("segment_rows", segment_rows, "few heads and many rows: segments of rows at once"),
    Pass("merge_sweeps", merge_sweeps, "gradients of both sides of a pair by one look at it"),
    Pass("store_row_sums", store_row_sums, "numbers of a row that each block would sum up again"),
    Pass("rows_in_walks", rows_in_walks, "what is made of a walk's row is made while it is there"),
    Pass("merge_maps", merge_maps, "values of the same places, which read the same, in one kernel"),
    Pass("merge_transforms", merge_transforms, "transforms along two axes are one call"),
    Pass("schedule_tasks", schedule_tasks, "a tile program for each task"),
    Pass("split_walks", split_walks, "what all chunks can do at once is apart from the walk"),
    Pass("walk_in_runs", walk_in_runs, "blocks that a condition leaves out go without its work"),
    Pass("load_ahead", load_ahead, "no turn of a walk waits for the memory to give numbers"),
)


def lower(
    mixer: Mixer,
    sizes: Mapping[str, int],
    dtype: str = "bfloat16",
    splits: int = 1,
    recurrence: str = "chunk",
    target: AnyTarget = EVERY_GPU,
    chunk_kernels: int = 0,
    one_sweep: bool = False,
    fft_lags: int = LAGS,
    fft_terms: int = TERMS,
) -> Plan:
    """The plan for a mixer: kernels as tile programs, and the buffers between them.

    Args:
        sizes: lengths of the dims that kernels are compiled for (``feature_dims``); 64 for those
            that are not given. Lengths of sequences have no influence.
        dtype: the working precision, ``bfloat16``, ``float16`` or ``float32``.
        splits: shares that the keys of an attention are dealt out in, for few queries and many
            keys; a kernel of its own merges them.
        recurrence: the schedule of recurrences that several fit: ``chunk``, or ``loop`` for calls
            of few rows.
        target: what the kernels have to fit; by default each GPU that is sold.
        chunk_kernels: kernels that the work of a recurrence in chunks is dealt out to, up to 3; 0
            for what the target runs best.
        one_sweep: attentions over the same pairs as one, where a CPU has heads enough to be busy.
        fft_lags: from so many lags on a sum over them is a kernel of its own, on a CPU.
        fft_terms: from so many positions on a Fourier sum over them is one.

    Raises:
        UnsupportedError: a term that no schedule computes.
        ArgumentError: a dtype that kernels do not have.
    """
    if dtype not in _DTYPES:
        known = ", ".join(_DTYPES)
        raise ArgumentError(f"dtype: expected one of {known}, got {dtype!r}")
    verify_mixer(mixer)
    _dump(mixer, "01_mixer", mixer, write_mixer)
    try:
        plan = plan_mixer(
            mixer, sizes, _DTYPES[dtype], splits, recurrence, target, fft_lags, fft_terms
        )
        plan = replace(plan, chunk_kernels=chunk_kernels, one_sweep=one_sweep)
        return run_passes(plan)
    except UnsupportedError as error:
        raise error.located(mixer.path, mixer.text) from error


def run_passes(plan: Plan, passes: tuple[Pass, ...] = PASSES) -> Plan:
    """The plan after ``passes``, verified and dumped before the first and after each."""
    _dump(plan.mixer, "02_plan", plan, write_plan)
    verify_plan(plan)
    for number, one in enumerate(passes, 3):
        made = one.run(plan)
        _dump(made.mixer, f"{number:02}_{one.name}", made, write_plan)
        if made is not plan:  # what a pass leaves alone has been seen already
            verify_plan(made)
        plan = made
    return plan


def lower_on(
    text: str,
    sizes: Mapping[str, int] = {},
    dtype: str = "bfloat16",
    target: AnyTarget = EVERY_GPU,
) -> Plan:
    """The lowered plan of a dumped level: of a mixer, or of a plan after any of the passes.

    ``sizes``, ``dtype`` and ``target`` are for a mixer, as in ``lower``; a plan has its own.

    Raises ArgumentError with its line where the text is none of ours, or where there are sizes for
    a plan, and VerificationError where what it says is not sound.
    """
    level = read_data(text)
    match level:
        case Mixer():
            return lower(level, sizes, dtype, target=target)
        case Plan() if sizes:
            has = ", ".join(f"{dim} = {size}" for dim, size in level.sizes)
            raise ArgumentError(f"the plan is made for {has or 'any size'}: sizes are for a mixer")
        case Plan(kernels=()):
            verify_mixer(level.mixer)
            return run_passes(level)
        case Plan():
            verify_plan(level)
            return level
    raise ArgumentError(f"expected a mixer or a plan, found a {type(level).__name__}")


def _dump(mixer: Mixer, name: str, level: Level, remarks: Callable[[Level], str]) -> None:
    """With ``MIXC_DUMP=folder``, what a level looks like, for whoever works on the compiler."""
    folder = os.environ.get("MIXC_DUMP")
    if folder:
        text = write_data(level, remarks(level))
        Path(folder).mkdir(parents=True, exist_ok=True)
        (Path(folder) / f"{mixer.name}_{name}.txt").write_text(text, encoding="utf-8")
