"""Memories of tokens that a step reads and writes: token Turing machines."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from .independent import assert_agrees, normal

B, H, D = 2, 3, 4


@pytest.mark.parametrize("steps", [1, 4])
def test_a_token_turing_machine_reads_works_and_writes(steps: int) -> None:
    given, held, read, inner = 5, 3, 2, 7
    x = {"x": normal(B, steps, given, D, grad=True), "M0": normal(B, held, D, grad=True)}
    x |= {"ask_read": normal(read, D, grad=True), "ask_write": normal(held, D, grad=True)}
    x |= {"W1": normal(D, inner, grad=True), "W2": normal(inner, D, grad=True)}

    def summed_up(tokens: Tensor, asks: Tensor) -> Tensor:
        return (tokens @ asks.mT).mT.softmax(-1) @ tokens

    memory, rows = x["M0"], []
    for t in range(steps):
        told = torch.cat([memory, x["x"][:, t]], 1)
        y = functional.gelu(summed_up(told, x["ask_read"]) @ x["W1"]) @ x["W2"]
        memory = summed_up(torch.cat([told, y], 1), x["ask_write"])
        rows.append(y)
    assert_agrees("ttm", x, {"y": torch.stack(rows, 1), "mem": memory})
