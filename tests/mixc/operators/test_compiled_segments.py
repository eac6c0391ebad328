"""States under ``torch.compile``: prefill, steps and truncated back-propagation in one graph."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend
from torch.utils import _pytree as pytree

import mixc
import mixc.nn
from mixc.api import LoadedMixer
from mixc.compiler.language.load import load_file
from mixc.compiler.mixers.resume.continue_sequence import continue_sequence

from ..stepping.test_step import LIBRARY, inputs_of, own, rows_of, small


@pytest.fixture(autouse=True)
def fresh_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging.getLogger("torch.__trace"), "disabled", True)  # pytest keeps it all
    torch._dynamo.reset()


def compiled(function: Callable[..., Any]) -> tuple[Callable[..., Any], CompileCounterWithBackend]:
    counter = CompileCounterWithBackend("aot_eager")
    return torch.compile(function, fullgraph=True, backend=counter, dynamic=True), counter


def assert_same(found: Any, wanted: Any) -> None:
    for one, right in zip(pytree.tree_leaves(found), pytree.tree_leaves(wanted), strict=True):
        torch.testing.assert_close(one, right)


class Model(torch.nn.Module):
    """A layer with a state, whose mixer has weights."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.project = torch.nn.Linear(8, 32)
        self.mix = mixc.nn.Mixer("lstm", sizes={"H": 1, "D": 8, "P": 8})

    def parts(self, x: Tensor) -> Tensor:
        return self.project(x).unflatten(-1, (4, 1, 8))

    def forward(self, x: Tensor, state: Any = None) -> Any:
        made, state = self.mix(self.parts(x), state=state, return_state=True)
        return made.o.squeeze(-2), state

    def step(self, x: Tensor, state: Any = None) -> Any:
        made, state = self.mix.step(self.parts(x), state=state)
        return made.o.squeeze(-2), state


def test_a_model_is_filled_and_decoded_by_two_programs() -> None:
    model = Model()
    fill, fills = compiled(model.forward)
    step, steps = compiled(model.step)
    with torch.no_grad():
        for rows in (7, 12, 19):
            x = torch.randn(2, rows, 8)
            (found, state), (wanted, plain) = fill(x), model(x)
            for _ in range(3):
                row = torch.randn(2, 8)
                assert_same((found, state), (wanted, plain))
                (found, state), (wanted, plain) = step(row, state), model.step(row, plain)
            assert repr(state) == repr(plain)
            assert_same(model.step(row, state), model.step(row, plain))
    assert (fills.frame_count, steps.frame_count) == (1, 1)


def test_two_stretches_in_one_program_have_gradients() -> None:
    model = Model()

    def loss(first: Tensor, second: Tensor) -> Tensor:
        made, state = model(first)
        more, state = model(second, state)
        return made.square().mean() + more.square().mean() + state["h"].sum()

    run, counter = compiled(loss)
    for rows in (5, 9, 13):
        x = torch.randn(2, rows, 8), torch.randn(2, rows + 1, 8)
        found, wanted = (torch.autograd.grad(f(*x), [*model.parameters()]) for f in (run, loss))
        assert_same(found, wanted)
    assert counter.frame_count == 1


def test_truncated_back_propagation() -> None:
    model = Model()
    run, counter = compiled(model.forward)
    state = plain = None
    for rows in (6, 8, 10, 12):
        x = torch.randn(2, rows, 8)
        (found, state), (wanted, plain) = run(x, state), model(x, plain)
        assert_same(
            *(torch.autograd.grad(y.square().sum(), [*model.parameters()]) for y in (found, wanted))
        )
        state, plain = state.detach(), plain.detach()
    assert state.t == 36
    assert counter.frame_count == 2  # without a state, and with one


def test_keys_grow_and_have_gradients() -> None:
    mixer = mixc.load("causal")

    def run(q: Tensor, k: Tensor, v: Tensor, more: Tensor) -> Any:
        first, state = mixer(q, k, v, return_state=True)
        second, state = mixer(more, more, more, state=state, return_state=True)
        third, state = mixer.step(*(more[:, :, -1] for _ in "qkv"), state=state)
        return first.sum() + second.square().sum() + third.square().sum(), state

    program, counter = compiled(run)
    for rows in (6, 9, 11):
        x = [torch.randn(1, 2, n, 16, requires_grad=True) for n in (rows, rows, rows, 5)]
        (found, state), (wanted, plain) = program(*x), run(*x)
        assert_same((found, state), (wanted, plain))
        assert_same(torch.autograd.grad(found, x), torch.autograd.grad(wanted, x))
    assert counter.frame_count == 1
    _, state = mixer.step(*(torch.randn(1, 2, 16) for _ in "qkv"), state=state.detach())
    assert state.t == rows + 7


OF_THE_LIBRARY = ["alibi_window", "mamba", "rwkv6", "rope", "abc"]
STEPPED = [*(path for name in OF_THE_LIBRARY for path in LIBRARY.rglob(f"{name}.yaml"))]
OWN = ["short convolution before the recurrence", "later stages read earlier rows"]


def check_compiled(loaded: LoadedMixer) -> None:
    """A stretch, a later one and a step in one program, against the same called plainly."""
    continued = continue_sequence(loaded.mixer)
    inputs = inputs_of(loaded.mixer, continued, torch.float32)
    ends = [(0, 3), (3, 6), (6, 7)]
    cut = [rows_of(loaded.mixer, continued, inputs, a, b, a == 0) for a, b in ends]

    def run(*parts: dict[str, Tensor]) -> Any:
        first, state = loaded(**parts[0], return_state=True)
        second, state = loaded(**parts[1], state=state, return_state=True)
        third, state = loaded.step(**parts[2], state=state)
        return first, second, third, state

    assert_same(torch.compile(run, fullgraph=True, backend="eager")(*cut), run(*cut))


@pytest.mark.parametrize("path", STEPPED, ids=lambda path: path.stem)
def test_the_library(path: Path) -> None:
    check_compiled(LoadedMixer(small(load_file(path)), "reference"))


@pytest.mark.parametrize("name", OWN)
def test_rows_and_sums_that_are_handed_over(name: str) -> None:
    check_compiled(LoadedMixer(own(name), "reference"))


def test_what_does_not_fit_is_said() -> None:
    causal, other = mixc.load("causal"), mixc.load("alibi_window")
    x = torch.randn(1, 2, 4, 16)
    _, state = causal(x, x, x, return_state=True)

    def run(x: Tensor, state: Any) -> Any:
        return other(x, x, x, torch.ones(2), state=state)

    with pytest.raises(Exception, match="expected a state of alibi_window, got a state of causal"):
        torch.compile(run, fullgraph=True, backend="eager")(x, state)
    with pytest.raises(Exception, match="cu_seqlens: what lengths documents have is not known"):
        torch.compile(
            lambda x: causal(x, x, x, cu_seqlens=torch.tensor([0, 4]), return_state=True),
            fullgraph=True,
            backend="eager",
        )(x)
