"""States under ``torch.compile``: prefill, steps and truncated back-propagation in one graph."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend
from torch.func import functional_call
from torch.utils import _pytree as pytree
from torch.utils.checkpoint import checkpoint

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


class Filling(torch.nn.Module):
    """What exporters take: the model's call, with a state out."""

    def __init__(self) -> None:
        super().__init__()
        self.model = Model()

    def forward(self, x: Tensor) -> Any:
        return self.model(x)


class Decoding(Filling):
    """One row, with a state in and out."""

    def forward(self, x: Tensor, state: Any) -> Any:
        return self.model.step(x, state)


def saved(program: torch.export.ExportedProgram) -> torch.nn.Module:
    file = io.BytesIO()
    torch.export.save(program, file)
    file.seek(0)
    return torch.export.load(file).module()


@pytest.mark.parametrize("strict", [False, True])
def test_programs_with_states_are_exported_and_saved(strict: bool) -> None:
    fill, decode, x = Filling(), Decoding(), torch.randn(2, 12, 8)
    rows = {1: torch.export.Dim("rows", min=2, max=64)}
    with torch.no_grad():
        filled = torch.export.export(fill, (x,), dynamic_shapes=(rows,), strict=strict)
        _, state = fill(x)
        given = (x[:, 0], state)
        shapes = ({}, [torch.export.Dim.DYNAMIC, {}, {}])
        decoded = torch.export.export(decode, given, dynamic_shapes=shapes, strict=strict)
        longer = torch.randn(2, 20, 8)
        found, state = saved(filled)(longer)
        wanted, plain = fill(longer)
        for _ in range(2):
            assert_same((found, state), (wanted, plain))
            (found, state), (wanted, plain) = (
                saved(decoded)(longer[:, 0], state),
                decode(longer[:, 0], plain),
            )
        assert state.t == 22


def test_a_program_with_a_state_is_compiled_ahead_of_time(tmp_path: Path) -> None:
    fill, rows = Filling(), {1: torch.export.Dim("rows", min=2, max=64)}
    with torch.no_grad():
        program = torch.export.export(fill, (torch.randn(2, 12, 8),), dynamic_shapes=(rows,))
        path = torch._inductor.aoti_compile_and_package(
            program, package_path=f"{tmp_path}/fill.pt2"
        )
        longer = torch.randn(2, 20, 8)
        found, state = torch._inductor.aoti_load_package(path)(longer)
        assert_same((found, state), fill(longer))
        assert repr(state) == repr(fill(longer)[1])


def stretches(model: Model, x: Tensor) -> Tensor:
    first, state = model(x[:, :5])
    second, _ = model(x[:, 5:], state)
    return torch.cat([first, second], 1)


def test_stretches_are_checkpointed_and_go_through_transforms() -> None:
    model, x = Model(), torch.randn(2, 12, 8)
    weights = dict(model.named_parameters())
    wanted = torch.autograd.grad(stretches(model, x).square().sum(), [*weights.values()])
    again = checkpoint(stretches, model, x, use_reentrant=False)
    assert_same(torch.autograd.grad(again.square().sum(), [*weights.values()]), wanted)

    def loss(weights: dict[str, Tensor], x: Tensor) -> Tensor:
        first, state = functional_call(model, weights, (x[:, :5],))
        second, _ = functional_call(model, weights, (x[:, 5:], state))
        return first.square().sum() + second.square().sum()

    found = torch.func.grad(loss)(weights, x)
    assert_same([*found.values()], wanted)
    several = torch.stack([x, 2 * x])
    mapped = torch.vmap(torch.func.grad(loss), (None, 0))(weights, several)
    assert_same(
        mapped,
        pytree.tree_map(
            lambda *g: torch.stack(g), *(torch.func.grad(loss)(weights, one) for one in several)
        ),
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_stretches_in_autocast(dtype: torch.dtype) -> None:
    model, x = Model(), torch.randn(2, 12, 8)
    with torch.autocast("cpu", dtype):
        wanted = stretches(model, x)
        found = torch.compile(stretches, fullgraph=True, backend="aot_eager")(model, x)
    assert found.dtype is dtype
    assert torch.equal(found, wanted)


def test_a_number_given_as_a_tensor_compiles(tmp_path: Path) -> None:
    spec = tmp_path / "warm.yaml"
    spec.write_text(
        "mixer: warm\n"
        "inputs: {x: [B, T, C]}\n"
        "params: {warmth: {default: 1.0, runtime: true}}\n"
        "recurrence:\n  over: T\n  state: {s: [C]}\n  step: [s = warmth * s + x, o = s]\n"
        "outputs: {o: [B, T, C]}\n"
    )
    mixer, x = mixc.load(spec), torch.randn(1, 9, 8)

    def run(x: Tensor, warmth: Tensor) -> Tensor:
        first, state = mixer(x[:, :5], warmth=warmth, return_state=True)
        return (
            first.sum()
            + mixer(x[:, 5:], warmth=warmth, state=state).sum()
            + mixer(x, warmth=warmth).sum()
        )

    warmth = torch.tensor(0.5, requires_grad=True)
    program = torch.compile(run, fullgraph=True, backend="aot_eager")
    assert_same(*(torch.autograd.grad(f(x, warmth), warmth) for f in (program, run)))
