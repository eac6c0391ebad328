"""Verification finds wrong backends, and says how they are wrong."""

import math

import pytest
import torch

from mixc.autotune.checking import checking
from mixc.autotune.checking.checking import Case, verify
from mixc.autotune.checking.sampling import VerificationCase, sample_inputs, verification_cases
from mixc.backends.reference.evaluate import run
from mixc.compiler.language.load import load_text
from mixc.ir.errors import UnsupportedError

SPEC = """
mixer: windowed
inputs:
  q: [B, H, I, D]
  k: [B, G, J, D]
  v: [B, G, J, E]
  kept: {dims: [B, J], dtype: bool}
dims: {I: T, J: T}
heads: {G: H}
params:
  window: 64
  scale: D ** -0.5
attention:
  over: J
  score: scale * sum(q * k, D)
  mask: j <= i and i - j < window and kept
  normalize: softmax
  output: {o: v}
  lse: lse
outputs: {o: [B, H, I, E], lse: [B, H, I]}
"""
MIXER = load_text(SPEC)


def reference(mixer, tensors, params):
    dtype = next(t.dtype for t in tensors.values() if t.is_floating_point())
    return run(mixer, tensors, params, dtype=dtype)


def changed(alter):
    """A backend that is right but for what ``alter`` does to the outputs."""
    return lambda m, t, p: alter(reference(m, t, p), t)


def cases(*names):
    return [c for c in verification_cases(MIXER) if c.name in names]


def test_the_reference_passes_everywhere():
    found = verify(MIXER, {"torch": reference}, [torch.float32, torch.bfloat16])
    assert all(case.ok for case in found)
    assert {case.dtype for case in found} == {"float32", "bfloat16"}
    assert len(found) == 2 * len(verification_cases(MIXER))
    assert all(case.error <= case.limit for case in found)
    assert found[0].backend == "torch"
    assert found[0].sizes["I"] == 77


def test_single_precision_passes_for_double_by_no_means():
    wrong = {
        "single": lambda m, t, p: {n: o.double() for n, o in run(m, t, p, torch.float32).items()}
    }
    (case,) = verify(MIXER, wrong, [torch.float64], cases=cases("strided"))
    assert not case.ok
    assert case.limit < 1e-13 < case.error


def rescale(outputs, _):
    return {**outputs, "o": outputs["o"] * 1.02}


def off_by_one_row(outputs, _):
    return {**outputs, "o": outputs["o"].roll(1, 2)}


def nan_in_masked_rows(outputs, _):
    lse = outputs["lse"]
    empty = torch.where(lse.isinf(), math.nan, 0.0)[..., None]
    return {**outputs, "o": outputs["o"] + empty}


def finite_lse(outputs, _):
    return {**outputs, "lse": outputs["lse"].clamp(min=-1e30)}


@pytest.mark.parametrize(
    ("alter", "message"),
    [
        (rescale, "o: error"),
        (off_by_one_row, "o: "),
        (nan_in_masked_rows, "nan instead of 0 at ["),
        (finite_lse, "-1e+30 instead of -inf at ["),
        (lambda o, _: {"o": o["o"]}, "outputs ['o'] instead of ['lse', 'o']"),
        (lambda o, _: {**o, "o": o["o"].mT}, "shape [2, 6, 24, 77] instead of [2, 6, 77, 24]"),
        (lambda o, _: {**o, "o": o["o"].half()}, "dtype float16 instead of float32"),
    ],
)
def test_what_is_wrong_is_said(alter, message):
    (case,) = verify(MIXER, {"bad": changed(alter)}, cases=cases("standard"))
    assert not case.ok
    assert message in case.message


def test_every_row_may_be_masked():
    (case,) = cases("nothing kept")

    def watch(mixer, tensors, params):
        assert not tensors["kept"].any()
        outputs = reference(mixer, tensors, params)
        assert (outputs["lse"] == -math.inf).all()
        return outputs

    assert all(c.ok for c in verify(MIXER, {"torch": watch}, cases=[case]))
    (found,) = verify(MIXER, {"bad": changed(nan_in_masked_rows)}, cases=[case])
    assert not found.ok


def test_a_backend_that_forgets_strides_fails_there_alone():
    def forgetful(mixer, tensors, params):
        flat = {
            n: torch.as_strided(t, t.shape, t.contiguous().stride()) for n, t in tensors.items()
        }
        return reference(mixer, flat, params)

    found = verify(MIXER, {"flat": forgetful}, cases=cases("standard", "strided"))
    assert [case.ok for case in found] == [True, False]


def test_a_backend_that_raises_has_failed_with_its_message():
    def refuse(mixer, tensors, params):
        raise UnsupportedError("no lowering for erf")

    found = verify(MIXER, {"poor": refuse, "torch": reference}, cases=cases("one token"))
    assert [case.ok for case in found] == [False, True]
    assert (found[0].status, found[0].message) == ("unsupported", "no lowering for erf")
    assert found[0].error == math.inf


def test_params_reach_backend_and_reference_alike():
    seen = []

    def watch(mixer, tensors, params):
        seen.append(params["window"])
        return reference(mixer, tensors, params)

    assert all(c.ok for c in verify(MIXER, {"torch": watch}, params={"window": 9}))
    assert set(seen) == {9}


def test_a_case_of_ones_own():
    sizes = {"B": 1, "H": 2, "G": 1, "I": 9, "J": 9, "T": 9, "D": 3, "E": 5}
    trial = VerificationCase("mine", sizes, {"window": 4})
    (case,) = verify(MIXER, {"torch": reference}, cases=[trial])
    assert case == Case("torch", "float32", sizes, case.error, case.limit, "", "mine")


@pytest.mark.parametrize(("by", "ok"), [(0.9, True), (1.8, True), (2.2, False)])
def test_torch_may_have_been_lucky_but_not_by_more_than_twice(monkeypatch, by, ok):
    """Other draws widen a limit to twice what it is, however far off plain PyTorch is there."""
    (trial,) = cases("standard")
    (found,) = verify(MIXER, {"torch": reference}, cases=[trial])
    exact = run(MIXER, sample_inputs(MIXER, trial.sizes, torch.float32, trial.seed))
    off = by * found.limit * float(exact["o"].abs().max())
    outputs = {"o": exact["o"].clone(), "lse": exact["lse"]}
    outputs["o"].view(-1)[5] += off
    narrowed = {name: tensor.double() for name, tensor in outputs.items()}
    monkeypatch.setattr(checking, "error_limits", lambda *_, **__: {"o": found.limit, "lse": 1.0})
    monkeypatch.setattr(checking, "usual_errors", lambda *_: {"o": 100 * found.limit})
    (again,) = verify(MIXER, {"mine": lambda *_: narrowed}, cases=[trial])
    assert again.ok == ok, again.message
