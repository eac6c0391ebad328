"""Gradients as what is compared: a wrong backward pass is found, whatever is wrong in it."""

import math
from functools import partial

import pytest
import torch

from mixc.autotune.checking.checking import verify
from mixc.autotune.checking.gradients import gradients_of
from mixc.autotune.checking.sampling import VerificationCase
from mixc.backends.reference.evaluate import run
from mixc.compiler.language.load import load_text

MIXER = load_text("""
mixer: m
inputs:
  q: [B, H, I, D]
  k: [B, H, J, D]
  v: [B, H, J, E]
  shift: {dims: [J], grad: false}
dims: {I: T, J: T}
attention:
  over: J
  score: sum(q * k, D) + shift
  mask: j < i
  normalize: softmax
  output: {o: v}
  lse: l
outputs: {o: [B, H, I, E], l: [B, H, I]}
""")
SIZES = {"B": 1, "H": 2, "T": 9, "I": 9, "J": 9, "D": 4, "E": 3}
TRIAL = VerificationCase("mine", SIZES, seed=5)


class Changed(torch.autograd.Function):
    """The identity, whose gradient goes through a function."""

    @staticmethod
    def forward(ctx, tensor, change):
        ctx.change = change
        return tensor.clone()

    @staticmethod
    def backward(ctx, above):
        return ctx.change(above), None


def verified(change, dtype=torch.float32):
    def runner(mixer, tensors, params):
        altered = {**tensors, "v": Changed.apply(tensors["v"], change)}
        return run(mixer, altered, params, torch.float32)

    measured = partial(gradients_of, MIXER, seed=TRIAL.seed)
    (case,) = verify(MIXER, {"mine": runner}, [dtype], cases=[TRIAL], measured=measured)
    return case


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_right_gradients_pass(dtype):
    assert verified(lambda above: above, dtype).ok


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda above: 1.01 * above, "gradient of v: error"),
        (lambda above: above.roll(1, 2), "gradient of v: error"),
        (lambda above: above + math.nan, "gradient of v: nan instead of"),
        (torch.empty_like, "gradient of v: nan instead of"),  # a kernel that writes nothing
    ],
)
def test_wrong_gradients_are_found(change, message):
    case = verified(change)
    assert (case.status, message in case.message) == ("wrong", True), case.message


def test_gradients_are_those_of_the_weighted_outputs():
    inputs = {n: torch.randn(1, 2, 9, w) for n, w in (("q", 4), ("k", 4), ("v", 3))}
    inputs["shift"] = torch.randn(9)
    measure = gradients_of(MIXER, torch.float32, 0)
    found = measure(lambda given: run(MIXER, given), inputs)
    assert list(found) == ["gradient of q", "gradient of k", "gradient of v"]
    twice = measure(lambda given: {n: 2 * o for n, o in run(MIXER, given).items()}, inputs)
    for name, gradient in found.items():
        assert not gradient.isnan().any()  # the first row sees nothing
        torch.testing.assert_close(twice[name], 2 * gradient)


BIASED = load_text("""
mixer: biased
inputs: {q: [B, I, D], k: [B, J, D], v: [B, J, E], b: [B, I]}
dims: {I: T, J: T}
attention:
  over: J
  score: sum(q * k, D) + b  # of all keys of a row alike: no weight depends on it
  mask: j <= i
  normalize: softmax
  output: {o: v}
outputs: {o: [B, I, E]}
""")


def test_what_rounding_leaves_of_a_gradient_that_cancels_is_no_error():
    def runner(mixer, tensors, params):
        return run(mixer, {**tensors, "b": Changed.apply(tensors["b"], change)}, params, single)

    sizes, single = {"B": 1, "T": 9, "I": 9, "J": 9, "D": 4, "E": 3}, torch.float32
    trial = VerificationCase("mine", sizes, seed=1)
    measured = partial(gradients_of, BIASED, seed=1)
    found = []
    for left in (1e-6, 1e-3):
        change = partial(torch.add, other=left)
        found += verify(BIASED, {"mine": runner}, [single], cases=[trial], measured=measured)
    assert found[0].ok, found[0].message
    assert found[0].error < 1e-6  # not relative to 0, or to 1e-17
    assert found[1].message.startswith("gradient of b: error")
