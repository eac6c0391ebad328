"""Native kernels as they are called: steps of training, and inputs that are hard."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from random import Random

import torch
from torch import Tensor

from mixc.autotune.checking.checking import failed, verify
from mixc.autotune.checking.gradients import gradients_of
from mixc.autotune.checking.sampling import VerificationCase
from mixc.backends.cpu import build
from mixc.backends.reference.evaluate import run
from mixc.ir.mixer import Attention, Mixer
from mixc.verifying.worker import default_runner

from .quick_builds import quick_flags

# Of the largest of all gradients: one may be a sum of such that come to nothing.
_TOLERANCE = {torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 5e-2}
_LUCK = 4.0


def gradients_differ(
    mixer: Mixer, inputs: Mapping[str, Tensor], dtype: torch.dtype, seed: int
) -> tuple[str, str]:
    """(outcome, message) of a step of training by native kernels, beside autograd in float64."""
    measure = gradients_of(mixer, dtype, seed)
    exact = measure(lambda given: run(mixer, given, dtype=torch.float64), inputs)
    plain = measure(lambda given: run(mixer, given, dtype=dtype), inputs)
    try:
        with _quick_builds():
            made = measure(lambda given: default_runner("cpu")(mixer, given, {}), inputs)
    except Exception as error:
        found = failed(error)
        return found.status, found.message
    sizes = [float(g.abs().max()) for g in exact.values() if g.numel()]
    if not math.isfinite(sum(sizes)) or not all(g.isfinite().all() for g in plain.values()):
        return "diverges", "a gradient is not finite"
    for name, wanted in exact.items():
        if not wanted.numel():
            continue
        errors = [(g[name].double() - wanted).abs().max() for g in (made, plain)]
        ours, theirs = (float(error.nan_to_num(nan=math.inf)) for error in errors)
        limit = _LUCK * theirs + _TOLERANCE[dtype] * (1 + max(sizes))
        if ours > limit:
            return "wrong", f"{name}: error {ours:.3g}, limit {limit:.3g}"
    return "right", ""


def hard_inputs_differ(
    mixer: Mixer, sizes: Mapping[str, int], dtype: torch.dtype, seed: int, salt: str
) -> tuple[str, str]:
    """(outcome, message) where inputs are left out, strided, large, or not finite where hidden."""
    random = Random(f"{salt}{seed}")
    attentions = sum(isinstance(stage, Attention) for stage in mixer.stages)
    optional = [i.name for i in mixer.inputs if i.default is not None]
    trial = VerificationCase(
        "fuzzed",
        sizes,
        absent=frozenset(name for name in optional if random.random() < 0.5),
        strided=random.random() < 0.4,
        scale=random.choice((1.0, 1.0, 0.1, 30.0)),
        strong=random.random() < 0.2,
        garbage=attentions == 1 and random.random() < 0.4,  # else another may see what is hidden
        seed=seed,
    )
    with _quick_builds():
        (found,) = verify(mixer, {"cpu": default_runner("cpu")}, [dtype], cases=[trial])
    how = f"strided={trial.strided} scale={trial.scale} strong={trial.strong}"
    message = f"{found.message} ({how} garbage={trial.garbage} absent={sorted(trial.absent)})"
    if found.status == "wrong" and found.error <= _LUCK * found.limit:
        return "right", f"by luck: {message}"
    return found.status, message if found.message else ""


@contextmanager
def _quick_builds() -> Iterator[None]:
    kept = build.FLAGS
    build.FLAGS = (*kept, *quick_flags())
    try:
        yield
    finally:
        build.FLAGS = kept
