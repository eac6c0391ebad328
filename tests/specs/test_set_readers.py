"""Recurrences whose step reads a set or another sequence."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from .independent import assert_agrees, normal

B, D = 2, 5


@pytest.mark.parametrize("rounds", [1, 4])
@pytest.mark.parametrize("members", [1, 7])
def test_read_process_write_is_torchs_lstm_on_what_attention_finds(
    rounds: int, members: int
) -> None:
    x = {"x": normal(B, members, D, grad=True), "W": normal(4, D, D, grad=True)}
    x |= {"V": normal(4, D, D, grad=True), "b": normal(4, D, grad=True)}
    cell = nn.LSTMCell(2 * D, D).double()
    weights = {  # the query is among the inputs, and it is the cell's own state
        "weight_ih": torch.cat([torch.zeros(4, D, D, dtype=torch.float64), x["V"]], 2).flatten(
            0, 1
        ),
        "weight_hh": x["W"].flatten(0, 1),
        "bias_ih": x["b"].flatten(),
        "bias_hh": torch.zeros(4 * D, dtype=torch.float64),
    }
    found = h = c = torch.zeros(B, D, dtype=torch.float64)
    for _ in range(rounds):
        h, c = torch.func.functional_call(cell, weights, (torch.cat([h, found], 1), (h, c)))
        weight = torch.einsum("bjd,bd->bj", x["x"], h).softmax(1)
        found = torch.einsum("bj,bjd->bd", weight, x["x"])
    assert_agrees("set2set", x, {"h": h, "r": found}, {"rounds": rounds})
