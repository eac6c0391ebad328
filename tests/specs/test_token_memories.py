"""Memories beside attention, segment by segment: Titans as context, token Turing machines."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from .independent import assert_agrees, normal, sdpa

B, H, D = 2, 3, 4


@pytest.mark.parametrize(("segments", "size", "first"), [(1, 1, 1), (4, 5, 2)])
def test_titans_memory_as_context(segments: int, size: int, first: int) -> None:
    x = {n: normal(B, segments * size, H, D, grad=True) for n in "qkv"}
    x |= {f"{n}_first": normal(H, first, D, grad=True) for n in "kv"}
    x |= {n: normal(B, segments, H, grad=True) for n in ("theta", "alpha", "eta")}
    q, k, v = (x[n].unflatten(1, (segments, size)).movedim(3, 1) for n in "qkv")  # [B, H, N, L, D]
    firsts = [x[f"{n}_first"].expand(B, H, first, D) for n in "kv"]
    memory = momentum = torch.zeros(B, H, D, D, dtype=torch.float64)
    mask = torch.ones(size, first + 2 * size, dtype=torch.bool)
    mask[:, first + size :] = torch.ones(size, size, dtype=torch.bool).tril()
    rows = []
    for n in range(segments):
        told = q[:, :, n] @ memory
        keys, values = (
            torch.cat([f, told, z[:, :, n]], 2) for f, z in zip(firsts, (k, v), strict=True)
        )
        y = sdpa(q[:, :, n], keys, values, mask)

        def loss(at: Tensor, key: Tensor = k[:, :, n], value: Tensor = y) -> Tensor:
            return 0.5 * (key @ at - value).square().sum()

        slope = torch.autograd.functional.vjp(loss, memory, create_graph=True)[1]
        eta, theta, alpha = (x[w][:, n, :, None, None].sigmoid() for w in ("eta", "theta", "alpha"))
        momentum = eta * momentum - theta * slope
        memory = (1 - alpha) * memory + momentum
        rows.append(y * (y @ memory))
    o = torch.stack(rows, 2).movedim(1, 3).flatten(1, 2)
    assert_agrees("titans_mac", x, {"o": o, "W": memory})


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
