"""Gradients are held to the rounding of their own equations; wrong equations gain nothing by it."""

from dataclasses import replace
from functools import partial

import pytest
import torch

from mixc.autotune.checking import rounding
from mixc.autotune.checking.checking import verify
from mixc.autotune.checking.gradients import gradients_of
from mixc.autotune.checking.one_thread import one_thread
from mixc.autotune.checking.sampling import VerificationCase, sample_inputs
from mixc.compiler.language.load import load_text

MIXER = load_text("""
mixer: m
inputs: {q: [B, T, D], k: [B, T, D], v: [B, T, E], a: {dims: [D], range: [3, 5]}}
recurrence:
  over: T
  state: {S: [D, E]}
  step: [S = exp(-a) * S + k * v, "o = sum(q * S, D)"]
outputs: {o: [B, T, E]}
""")
SIZES = {"B": 1, "T": 60, "D": 4, "E": 3}
TRIAL = VerificationCase("mine", SIZES, seed=3)


def verified(change=lambda gradient: gradient):
    """The verdict on float32 execution of the backward pass, its gradient of ``a`` changed."""

    class Changed(torch.autograd.Function):
        @staticmethod
        def forward(ctx, tensor):
            return tensor.clone()

        @staticmethod
        def backward(ctx, above):
            return change(above)

    def runner(mixer, tensors, params):
        altered = {**tensors, "a": Changed.apply(tensors["a"])}
        return rounding.by_derivative(mixer, altered, params, torch.float32)

    measured = partial(gradients_of, MIXER, seed=TRIAL.seed)
    (case,) = verify(MIXER, {"mine": runner}, [torch.float32], cases=[TRIAL], measured=measured)
    return case


def test_a_gradient_is_held_to_what_rounding_does_to_its_own_equations(monkeypatch):
    assert verified().ok
    monkeypatch.setattr("mixc.autotune.checking.checking.rounding_errors", lambda *_: {})
    assert verified().message.startswith("gradient of a: error")  # the telescoped sum


@pytest.mark.parametrize("change", [lambda g: g * 1.01, lambda g: g.roll(1)])
def test_a_wrong_gradient_of_a_decay_is_wrong_still(change):
    assert verified(change).message.startswith("gradient of a: error")


def test_wrong_equations_gain_nothing(monkeypatch):
    """They are as wrong in float64."""
    right = rounding.differentiate

    def wrong(mixer, wanted):
        made = right(mixer, wanted)
        return replace(made, gradients={**made.gradients, "q": made.gradients["k"]})

    monkeypatch.setattr(rounding, "differentiate", wrong)
    assert verified().message.startswith("gradient of q: error")


ATTENTION = load_text("""
mixer: m
inputs: {q: [B, I, D], k: [B, J, D], v: [B, J, E]}
dims: {I: T, J: T}
attention: {over: J, score: "sum(q * k, D)", mask: j <= i, normalize: softmax, output: {o: v}}
outputs: {o: [B, I, E]}
""")


def test_what_is_kept_may_be_a_rounding_off(monkeypatch):
    """Large scores: one stands out, and the log of their total is it, to the bit, by luck."""

    def runner(mixer, tensors, params):
        return rounding.by_derivative(mixer, tensors, params, torch.float32, draw=9)

    sizes = {"B": 2, "T": 40, "I": 40, "J": 40, "D": 16, "E": 8}
    trial = VerificationCase("large scores", sizes, scale=30.0, seed=2)
    given = ATTENTION, {"mine": runner}, [torch.float32]
    measured = partial(gradients_of, ATTENTION, seed=2)
    assert verify(*given, cases=[trial], measured=measured)[0].ok
    monkeypatch.setattr("mixc.autotune.checking.checking.rounding_errors", lambda *_: {})
    assert not verify(*given, cases=[trial], measured=measured)[0].ok


def test_only_rounding_is_counted():
    inputs = sample_inputs(MIXER, SIZES, torch.float32, 0)
    measure = gradients_of(MIXER, torch.float32, 0)
    errors = rounding.rounding_errors(MIXER, inputs, {}, torch.float32, measure, 1)
    assert set(errors) == {f"gradient of {name}" for name in "qkva"}
    assert max(errors.values()) == errors["gradient of a"] < 1e-2


def test_the_reference_takes_one_thread_and_gives_the_others_back():
    before = torch.get_num_threads()
    with one_thread():
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == before
