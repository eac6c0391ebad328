"""Derivatives of random specs: the backward pass in float64 against autograd through the reference.

No kernel is built, so that many are tried: the backward pass is a mixer, which the reference
executes, and its tile programs are executed op by op.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from mixc.autotune.checking.gradients import cotangents, gradients_of
from mixc.backends.reference.evaluate import run
from mixc.backends.reference.tiles import Watch, run_plan
from mixc.compiler.mixers.derivative.differentiate import Derivative, differentiate
from mixc.compiler.pipeline import lower
from mixc.ir.binding import bind_sizes
from mixc.ir.expression import Kind
from mixc.ir.mixer import Mixer
from mixc.ir.roles import feature_dims
from mixc.ir.verify_mixer import verify_mixer

# Sums in another order, and what a division by a small number makes of that.
EXACT = 1e-7


def derivative_differs(
    mixer: Mixer, inputs: Mapping[str, Tensor], seed: int, watch: Watch | None = None
) -> str:
    """What differs between the gradients of a backward pass and of autograd; empty where nothing.

    Real inputs are taken in float64. With ``watch`` the backward pass is lowered, and each value
    of its programs is shown to that; else the reference executes it.
    """
    if not any(i.kind is Kind.REAL and i.grad for i in mixer.inputs):
        return ""
    wide = {n: t.double() if t.is_floating_point() else t for n, t in inputs.items()}
    derivative = differentiate(mixer)
    verify_mixer(derivative.forward)
    verify_mixer(derivative.backward)
    by_autograd = gradients_of(mixer, torch.float64, seed)(lambda given: run(mixer, given), wide)
    with torch.no_grad():
        kept = run(derivative.forward, wide)
        drawn = cotangents({n: kept[n] for n in _outputs(mixer)}, torch.float64, seed)
        above = {name: drawn[output] for output, name in derivative.cotangents.items()}
        known = {**wide, **kept, **above}
        given = {i.name: known[i.name] for i in derivative.backward.inputs if i.name in known}
        made = _by_tiles(derivative, given, watch) if watch else run(derivative.backward, given)
    for name, wanted in by_autograd.items():
        found = made.get(derivative.gradients.get(name.removeprefix("gradient of "), ""))
        if message := _difference(found, wanted):
            return f"{name}: {message}"
    return ""


def _outputs(mixer: Mixer) -> list[str]:
    return [output.name for output in mixer.outputs]


def _by_tiles(
    derivative: Derivative, given: Mapping[str, Tensor], watch: Watch
) -> Mapping[str, Tensor]:
    mixer = derivative.backward
    sizes = bind_sizes(mixer, {name: tuple(t.shape) for name, t in given.items()})
    fixed = {dim: sizes[dim] for dim in feature_dims(mixer)}
    return run_plan(lower(mixer, fixed, "float32"), given, sizes, watch=watch)


def _difference(found: Tensor | None, wanted: Tensor) -> str:
    found = torch.zeros_like(wanted) if found is None else found.double()
    if found.shape != wanted.shape:
        return f"shape {list(found.shape)} instead of {list(wanted.shape)}"
    if not wanted.isfinite().all():
        return ""  # nothing to compare with
    error = (found - wanted).abs().nan_to_num(nan=math.inf)
    scale = float(wanted.abs().max()) if wanted.numel() else 0.0
    if error.numel() and float(error.max()) > EXACT * (1 + scale):
        return f"error {float(error.max()):.3g} of {scale:.3g} in exact arithmetic"
    return ""
