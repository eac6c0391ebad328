"""Every spec of the library as tile programs, executed exactly, against the reference."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mixc.autotune.checking.proportions import resized
from mixc.autotune.checking.sampling import VerificationCase, sample_inputs, verification_cases
from mixc.compiler.language.find import library
from mixc.compiler.language.load import load_file
from mixc.ir.binding import Number
from mixc.ir.expression import Kind, Literal
from mixc.ir.mixer import Mixer
from mixc.ir.optional import without_inputs
from mixc.runtime.overrides import override

from ..plans import assert_equal

# Lengths that no block divides, and short: a program instance is interpreted op by op.
SHORT = {77: 13, 45: 9, 21: 6, 35: 13, 50: 9, 19: 6, 40: 12, 24: 10, 20: 10, 26: 9, 38: 13}
CASES = ("one head per group", "one token", "empty batch", "absent inputs", "nothing kept", "no J")


def small_params(mixer: Mixer) -> dict[str, Number]:
    """Windows, blocks and the like of 8 at most, all divided by one power of two."""
    given = {
        p.name: p.value.value
        for p in mixer.params
        if p.kind is Kind.INT and isinstance(p.value, Literal) and 1 < p.value.value <= 4096
    }
    factor = 2 ** max(0, math.ceil(math.log2(max(given.values(), default=1) / 8)))
    return {name: max(1, int(value) // factor) for name, value in given.items()}


def cases(mixer: Mixer) -> list[VerificationCase]:
    """Trials with their lengths cut down."""
    params = small_params(mixer)
    found = {c.name: c for c in verification_cases(mixer, params)}
    sizes = found["one head per group"].sizes if "one head per group" in found else None
    chosen = []
    for case in found.values():
        if case.name in CASES or case.name.endswith("turned"):
            own = case.name in ("one token", "empty batch", "no J")
            chosen.append(replace(case, sizes=case.sizes if own or sizes is None else sizes))
    return [replace(c, sizes=shortened(mixer, c.sizes, c.params)) for c in chosen]


def shortened(
    mixer: Mixer, sizes: Mapping[str, int], params: Mapping[str, Number]
) -> dict[str, int]:
    short = {d: SHORT[n] for d, n in sizes.items() if n in SHORT}
    return resized(mixer, sizes, short, params)


@pytest.mark.parametrize("path", library(), ids=lambda path: path.stem)
def test_plans_do_what_the_reference_does(path: Path) -> None:
    mixer = load_file(path)
    for case in cases(mixer):
        runtime = {p.name: p.value for p in mixer.params if p.runtime}
        given = {n: v for n, v in case.params.items() if n in runtime}
        fixed = {n: v for n, v in case.params.items() if n not in runtime}
        trial = without_inputs(override(mixer, fixed), case.absent)
        tensors = sample_inputs(
            trial,
            case.sizes,
            torch.float64,
            case.seed,
            nothing=case.nothing,
            params=case.params,
        )
        assert_equal(trial, tensors, given, block=8)
