"""Copies and pickles of what a user keeps: mixers in models, results, states."""

from __future__ import annotations

import copy
import io
import pickle

import pytest
import torch

import mixc


class Model(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Linear(8, 8)
        self.mix = mixc.load("hgrn")

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.mix(self.weight(x), torch.nn.functional.logsigmoid(x))


@pytest.fixture(scope="module")
def x() -> torch.Tensor:
    return torch.linspace(-1, 1, 80).view(2, 5, 8)


@pytest.fixture(scope="module")
def model(x: torch.Tensor) -> Model:
    made = Model().requires_grad_(False)
    made(x)
    made.mix(x, x, return_state=True)
    return made


def through_torch(model: Model) -> Model:
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, through_torch])
def test_a_model_is_copied_after_calls(model: Model, x: torch.Tensor, again) -> None:
    made = again(model)
    assert made.mix.backend == "auto"
    assert made.mix.mixer == model.mix.mixer
    assert torch.equal(made(x).o, model(x).o)


def test_results_and_states_keep_their_names(model: Model, x: torch.Tensor) -> None:
    result, state = model.mix(x, x, return_state=True)
    for again in (copy.deepcopy, lambda value: pickle.loads(pickle.dumps(value))):
        found, after = again((result, state))
        assert type(found) is type(result)
        assert found._fields == result._fields == ("o", "h")
        assert torch.equal(found.h, result.h)
        assert torch.equal(after["h"], state["h"])
        model.mix.step(x[:, 0], x[:, 0], state=after)


def test_two_mixers_of_one_spec_return_one_type(model: Model, x: torch.Tensor) -> None:
    assert type(mixc.load("hgrn")(x, x)) is type(model(x))
