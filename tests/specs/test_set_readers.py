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


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(("length", "characters"), [(6, 5), (1, 3), (9, 20)])
def test_a_neighbour_decoder_goes_from_each_character_to_the_next(
    length: int, characters: int, training: bool
) -> None:
    x = {"start": normal(B, D, grad=True), "q": normal(B, length, D, grad=True)}
    x |= {"W": normal(D, D, grad=True)}
    x |= {"k": normal(B, length + 1, D, grad=True), "x": normal(B, length + 1, 3, grad=True)}
    x["visible"] = torch.arange(length) < torch.tensor([[length], [max(length - 2, 1)]])
    scores = torch.einsum("bid,df,bjf->bij", x["q"], x["W"], x["k"]) / D**0.5
    first = (x["k"] @ x["start"][..., None])[..., 0] / D**0.5
    seen = torch.cat([x["visible"], torch.ones(B, 1, dtype=torch.bool)], 1)
    end = torch.eye(length + 1, dtype=torch.float64)[-1:].expand(B, 1, -1)
    following = scores.masked_fill(~seen[:, None], -torch.inf).softmax(-1)
    following = torch.cat([following, end], 1)
    where = first.masked_fill(~seen, -torch.inf).softmax(-1)
    open_, rows = torch.ones(B, dtype=torch.float64), []
    for character in range(characters):
        rows.append(open_[:, None] * torch.einsum("bj,bjd->bd", where, x["x"]))
        open_ = open_ * (where[:, -1] <= 0.6)
        if not training:
            where = (min(1 + 2 * character, 16) * where).exp() - 1
            where = where / where.sum(-1, keepdim=True)
        where = torch.einsum("bi,bij->bj", where, following)
    params = {"characters": characters, "training": training}
    assert_agrees("neighbor", x, {"y": torch.stack(rows, 1), "a": where}, params)
