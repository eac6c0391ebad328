"""Whole mixers of every form, as the compiler lowers them, against the float64 reference."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from mixc.autotune.checking.sampling import sample_inputs
from mixc.autotune.checking.tolerances import error_of
from mixc.backends.reference.evaluate import run
from mixc.compiler.language.find import find_spec
from mixc.compiler.language.load import load_file
from mixc.compiler.pipeline import lower
from mixc.ir.binding import bind_sizes
from mixc.ir.plan import Plan
from mixc.ir.roles import feature_dims


@dataclass(frozen=True)
class Whole:
    """A spec's plan, inputs, and what comes of them; ``pytorch_errors`` are those of PyTorch."""

    plan: Plan
    tensors: Mapping[str, Tensor]
    sizes: Mapping[str, int]
    dtype: torch.dtype
    wanted: Mapping[str, Tensor]
    pytorch_errors: Mapping[str, float]


def whole(name: str, dtype: torch.dtype, **given: int) -> Whole:
    """A spec of the library at given sizes."""
    mixer = load_file(find_spec(name))
    tensors = sample_inputs(mixer, given, dtype, 0)
    sizes = bind_sizes(mixer, {n: tuple(t.shape) for n, t in tensors.items()}, {})
    fixed = {dim: sizes[dim] for dim in feature_dims(mixer)}
    wanted, plain = (run(mixer, tensors, {}, d) for d in (torch.float64, dtype))
    errors = {n: error_of(plain[n], wanted[n]) for n in wanted}
    plan = lower(mixer, fixed, str(dtype).removeprefix("torch."))
    return Whole(plan, tensors, sizes, dtype, wanted, errors)


_ROWS = {"T": 70, "I": 70, "J": 70}
_HEADS = {"B": 1, "H": 2, "G": 1, "D": 16, "E": 8}
PROGRAMS: Mapping[str, Callable[[], Whole]] = {
    "attention": partial(whole, "sink", torch.float32, **_ROWS, **_HEADS),
    "attention, fp16": partial(whole, "alibi_window", torch.float16, **_ROWS, **_HEADS),
    "chunks": partial(whole, "gated_delta", torch.float32, T=70, **_HEADS),
    "scan": partial(whole, "hgrn", torch.float32, B=2, T=39, C=5),
    "states side by side": partial(whole, "mamba", torch.float32, B=1, T=21, C=6, N=4),
    "cell": partial(whole, "lstm", torch.float32, B=3, T=6, H=1, D=16, P=16, K=4),
}
