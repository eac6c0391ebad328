"""All of lowering on one page: from a mixer to checked tile programs.

1. ``without_inputs`` (the caller's): an absent input is its default.
2. ``fold_constants``: flags are known, and what they make trivial goes.
3. the planner: names are written out, or get a buffer and a kernel of their own.
4. the schedules: each kernel becomes a tile program.
5. ``verify_plan``: every program is checked before a backend sees it.

``MIXC_DUMP=folder`` writes the mixer and the plan as text.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from ..ir.errors import ArgumentError, UnsupportedError
from ..ir.mixer import Mixer
from ..ir.plan import Plan
from ..ir.text import write_mixer
from ..ir.tile import DType
from ..ir.tile_text import write_plan
from ..ir.verify_mixer import verify_mixer
from ..ir.verify_plan import verify_plan
from .planning.mixer import plan_mixer
from .schedules.estimates import WEIGHTS_LIMIT_BYTES

_DTYPES: Mapping[str, DType] = {
    "fp32": DType.FLOAT32,
    "fp16": DType.FLOAT16,
    "bf16": DType.BFLOAT16,
    "float32": DType.FLOAT32,
    "float16": DType.FLOAT16,
    "bfloat16": DType.BFLOAT16,
}


def lower(
    mixer: Mixer,
    sizes: Mapping[str, int],
    dtype: str = "bfloat16",
    splits: int = 1,
    recurrence: str = "chunk",
    weight_bytes: int = WEIGHTS_LIMIT_BYTES,
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
        weight_bytes: of the weights of a recurrent cell, what a program may keep from row to row;
            with more of them it takes no block of the batch, but one position.

    Raises:
        UnsupportedError: a term that no schedule computes.
        ArgumentError: a dtype that kernels do not have.
    """
    if dtype not in _DTYPES:
        known = ", ".join(_DTYPES)
        raise ArgumentError(f"dtype: expected one of {known}, got {dtype!r}")
    verify_mixer(mixer)
    _dump(mixer, "1_mixer", write_mixer(mixer))
    try:
        plan = plan_mixer(mixer, sizes, _DTYPES[dtype], splits, recurrence, weight_bytes)
    except UnsupportedError as error:
        raise error.located(mixer.path, mixer.text) from error
    _dump(mixer, "2_plan", write_plan(plan))
    verify_plan(plan)
    return plan


def _dump(mixer: Mixer, level: str, text: str) -> None:
    """With ``MIXC_DUMP=folder``, what a level looks like, for whoever works on the compiler."""
    folder = os.environ.get("MIXC_DUMP")
    if folder:
        Path(folder).mkdir(parents=True, exist_ok=True)
        (Path(folder) / f"{mixer.name}_{level}.txt").write_text(text, encoding="utf-8")
