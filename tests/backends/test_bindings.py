"""Whatever is bound stays inside its memory and gives what the reference does, or is refused.

Specs of the library at sizes that people use, with the default configuration, with any that a
search may choose, and with blocks that nobody would: run in the interpreter of tile programs, in
the form that is emitted. MIXC_EXAMPLES sets how many are drawn.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import prod

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from mixc.autotune.checking.proportions import Proportions, default_sizes
from mixc.autotune.checking.sampling import sample_inputs
from mixc.backends.cpu import configure as cpu
from mixc.backends.cpu.emit import final_form as cpu_form
from mixc.backends.cpu.run import CpuRunner
from mixc.backends.reference.evaluate import run
from mixc.backends.reference.tiles import run_plan
from mixc.backends.triton.emit import final_form as gpu_form
from mixc.compiler.language.find import library
from mixc.compiler.language.load import load_file
from mixc.compiler.pipeline import lower
from mixc.compiler.schedules.configurations import bind_configuration, knobs
from mixc.ir.errors import ArgumentError, PromiseError, VerificationError
from mixc.ir.mixer import Mixer
from mixc.ir.plan import Plan
from mixc.ir.promises import WholeBlocks
from mixc.ir.roles import feature_dims
from mixc.ir.targets import AVX2
from mixc.ir.tile import Load, Store, all_ops, made_by
from mixc.ir.verify_plan import verify_plan

EXAMPLES = int(os.environ.get("MIXC_EXAMPLES", "24"))
LIBRARY = {path.stem: path for path in library()}
FEATURES = st.sampled_from((16, 40, 64, 80, 96, 128, 192, 256))
STATES = st.sampled_from((16, 64, 128))
LENGTHS = st.sampled_from((1, 2, 16, 17))
FORMS = st.sampled_from(("cpu", "cpu by chunks", "gpu"))
DEVICES = {"cpu": cpu_form, "cpu by chunks": cpu_form, "gpu": gpu_form}
LARGEST_TILE = 1 << 17  # elements; more takes the interpreter seconds
few = settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)


def sizes_of(mixer: Mixer, features: tuple[int, ...], length: int) -> dict[str, int]:
    """Sizes by role; two query heads to a group, of which there is one.

    A table is never so short that a share of its rows is none, by which T5 and DeBERTa divide.
    """
    return default_sizes(mixer, Proportions((length,), features, 2, 1, (1, 2)))


def default_plan(mixer: Mixer, sizes: Mapping[str, int], form: str, shares: int = 1) -> Plan:
    """A mixer's kernels as a user gets them."""
    return bound_plan(mixer, sizes, form, {}, shares)


def bound_plan(
    mixer: Mixer, sizes: Mapping[str, int], form: str, chosen: Mapping[str, int], shares: int = 1
) -> Plan:
    """A mixer's kernels with a configuration."""
    if form == "gpu":
        fixed = {dim: sizes[dim] for dim in feature_dims(mixer)}
        return bind_configuration(lower(mixer, fixed, "bfloat16", shares), chosen)
    chosen = {**chosen, "by_rows": int(form == "cpu")}
    runner = CpuRunner(mixer, lower, chosen, target=AVX2)
    return runner._plan(mixer, sizes, torch.float32, shares)  # what a call builds


def choices_of(mixer: Mixer, sizes: Mapping[str, int], form: str) -> dict[str, tuple[int, ...]]:
    """What a search may set each knob to."""
    if form != "gpu":
        found = (*cpu.knobs(AVX2), *cpu.knobs_of_stages(mixer))
    else:
        found = knobs(default_plan(mixer, sizes, form))
    return {knob.name: knob.choices for knob in found if knob.name != "by_rows"}


def check(plan: Plan, tensors: Mapping[str, Tensor], sizes: Mapping[str, int]) -> None:
    """Interpreted, a plan gives what the reference does. Every access in it is checked.

    What has very large tiles is bound and verified, and not run.
    """
    tiles = [
        prod(k.program.tile(dim).block for dim in value.axes)
        for k in plan.kernels
        for op in all_ops(k.program.body)
        for value in made_by(op)
    ]
    if max(tiles, default=0) > LARGEST_TILE:  # a transform alone has no tiles
        return
    made, expected = run_plan(plan, tensors, sizes), run(plan.mixer, tensors)
    for name, wanted in expected.items():
        torch.testing.assert_close(
            made[name].double(), wanted.double(), rtol=1e-6, atol=1e-7, equal_nan=True
        )


@dataclass(frozen=True)
class Case:
    """A spec, sizes that it admits, and what its kernels are made for."""

    mixer: Mixer = field(repr=False)
    spec: str
    sizes: dict[str, int]
    form: str

    def tensors(self) -> dict[str, Tensor]:
        """Inputs of these sizes."""
        return sample_inputs(self.mixer, self.sizes, torch.float64)


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """One of the library at sizes that people use."""
    spec = draw(st.sampled_from(sorted(LIBRARY)))
    mixer = load_file(LIBRARY[spec])
    sizes = sizes_of(mixer, (draw(FEATURES), draw(FEATURES), draw(STATES)), draw(LENGTHS))
    return Case(mixer, spec, sizes, draw(FORMS))


@few
@given(case=cases(), shares=st.sampled_from((1, 1, 3)), data=st.data())
def test_configurations_that_may_be_chosen(case: Case, shares: int, data: st.DataObject) -> None:
    mixer, sizes, form = case.mixer, case.sizes, case.form
    chosen = {}
    if data.draw(st.booleans(), "tuned"):
        for knob, choices in choices_of(mixer, sizes, form).items():
            chosen[knob] = data.draw(st.sampled_from(choices), knob)
    check(DEVICES[form](bound_plan(mixer, sizes, form, chosen, shares)), case.tensors(), sizes)


@few
@given(case=cases(), data=st.data())
def test_blocks_that_nobody_would_choose(case: Case, data: st.DataObject) -> None:
    """What lowering relies on is all in the promises: blocks that keep them are right."""
    plan = default_plan(case.mixer, case.sizes, case.form)
    kernels = []
    for kernel in plan.kernels:
        blocks = {
            tile.dim: data.draw(st.sampled_from((16, 24, 32, 48, 64, 100)), tile.symbol)
            for tile in kernel.program.blocks
            if not tile.whole
        }
        kernels.append(replace(kernel, program=kernel.program.with_blocks(blocks)))
    changed = replace(plan, kernels=tuple(kernels)).with_common_blocks()
    try:
        verify_plan(changed)
    except PromiseError:
        return
    check(changed, case.tensors(), case.sizes)


@few
@given(
    spec=st.sampled_from(("gla", "causal", "lstm", "bigbird")),
    form=FORMS,
    value=st.one_of(st.integers(-70, 300), st.sampled_from((2**31, -(2**31)))),
    data=st.data(),
)
def test_damaged_values_are_refused(spec: str, form: str, value: int, data: st.DataObject) -> None:
    mixer = load_file(LIBRARY[spec])
    sizes = sizes_of(mixer, (128, 64, 16), 17)
    choices = choices_of(mixer, sizes, form)
    knob = data.draw(st.sampled_from(sorted(choices)))
    if value in choices[knob]:
        DEVICES[form](bound_plan(mixer, sizes, form, {knob: value}))
    else:
        with pytest.raises(ArgumentError, match=f"{knob}: expected .*, got {value}"):
            bound_plan(mixer, sizes, form, {knob: value})


# ----------------------------------------------------------------------------- planted faults


def planted(plan: Plan, dim: str, block: int) -> Plan:
    """The plan with another block, and nothing that forbids it."""
    kernels = []
    for kernel in plan.kernels:
        program = kernel.program
        kept = tuple(p for p in program.promises if not isinstance(p, WholeBlocks))
        program = replace(program.with_blocks({dim: block}), promises=kept)
        kernels.append(replace(kernel, program=program))
    return replace(plan, kernels=tuple(kernels))


def unbounded(plan: Plan) -> Plan:
    """The plan with no mask on what its first kernel reads and writes at its top."""
    (kernel, *rest) = plan.kernels
    body = tuple(
        replace(op, mask=None) if isinstance(op, Load | Store) else op for op in kernel.program.body
    )
    kernel = replace(kernel, program=replace(kernel.program, body=body))
    return replace(plan, kernels=(kernel, *rest))


def test_the_net_catches_a_block_that_does_not_divide() -> None:
    """The fault that wrote past the end: blocks of 48 in 128 channels."""
    mixer = load_file(LIBRARY["gla"])
    sizes = sizes_of(mixer, (128, 128), 5)
    tensors = sample_inputs(mixer, sizes, torch.float64)
    plan = default_plan(mixer, sizes, "cpu")
    check(plan, tensors, sizes)
    with pytest.raises(VerificationError, match="outside: E = 128 with 128 positions"):
        check(planted(plan, "E", 48), tensors, sizes)


def test_the_net_catches_a_bound_that_is_left_out() -> None:
    mixer = load_file(LIBRARY["causal"])
    sizes = sizes_of(mixer, (64, 40), 17)
    tensors = sample_inputs(mixer, sizes, torch.float64)
    plan = default_plan(mixer, sizes, "gpu")
    check(plan, tensors, sizes)
    with pytest.raises(VerificationError, match="outside"):
        check(unbounded(plan), tensors, sizes)
