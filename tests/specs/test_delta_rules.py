"""Decay plus a rank-one correction: against fla's naive functions and transformers' torch ones."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

import mixc

from .independent import assert_agrees, kept_in_float64, normal

B, T, H, D, E = 2, 13, 6, 5, 7


def fla(module: str, function: str) -> Callable[..., Any]:
    """A function of flash-linear-attention, or the test is left out."""
    found: Callable[..., Any] = getattr(pytest.importorskip(f"fla.ops.{module}"), function)
    return found


def transformers(model: str, function: str) -> Callable[..., Any]:
    """transformers' own torch function; with fla installed the name alone means fla's kernel."""
    pytest.importorskip("transformers")
    module = importlib.import_module(f"transformers.models.{model}.modeling_{model}")
    found: Callable[..., Any] = inspect.unwrap(getattr(module, function))
    assert found.__module__ == module.__name__
    return found


def tensors(groups: int = H, rounds: int = 1) -> dict[str, Tensor]:
    """Queries, normalised keys, values, shares and a start."""
    key = functional.normalize(normal(B, T * rounds, groups, D), dim=-1)
    return {
        "q": normal(B, T, groups, D, grad=True),
        "k": key.requires_grad_(),
        "v": normal(B, T * rounds, H, E, grad=True),
        "beta": normal(B, T * rounds, H).sigmoid().requires_grad_(),
        "S0": normal(B, H, D, E, grad=True),
    }


def gate(*shape: int) -> Tensor:
    """A log-decay of each token, from almost 0 to strong."""
    return functional.logsigmoid(4 * normal(B, T, *shape)).requires_grad_()


def heads_first(*xs: Tensor) -> list[Tensor]:
    return [x.transpose(1, 2) for x in xs]


def test_delta_matches_fla() -> None:
    naive = fla("delta_rule.naive", "delta_rule_recurrence")
    x = tensors()
    with kept_in_float64():
        o, last = naive(*heads_first(x["q"], x["k"], x["v"], x["beta"]), x["S0"])
    assert_agrees("delta", x, {"o": o.transpose(1, 2), "S": last})


def test_gated_delta_matches_fla() -> None:
    naive = fla("gated_delta_rule.naive", "naive_recurrent_gated_delta_rule")
    x = tensors() | {"g": gate(H)}
    q, k, v, beta, start, g = x.values()
    with kept_in_float64():
        o, last = naive(q, k, v, beta, g, None, start, True)
    assert_agrees("gated_delta", x, {"o": o, "S": last})


@pytest.mark.parametrize("groups", [1, 2, 6])
def test_gated_delta_matches_qwen3_next(groups: int) -> None:
    own = transformers("qwen3_next", "torch_recurrent_gated_delta_rule")
    x = tensors(groups) | {"g": gate(H)}
    q, k, v, beta, start, g = x.values()
    with kept_in_float64():
        o, last = own(q, k, v, g, beta, initial_state=start, output_final_state=True)
    assert_agrees("gated_delta", x, {"o": o, "S": last})


@pytest.mark.parametrize("groups", [1, 2, 6])
def test_kda_matches_fla(groups: int) -> None:
    naive = fla("kda.naive", "naive_recurrent_kda")
    x = tensors(groups) | {"g": gate(H, D)}
    q, k, v, beta, start, g = x.values()
    with kept_in_float64():
        o, last = naive(q, k, v, g, beta, initial_state=start, output_final_state=True)
    assert_agrees("kda", x, {"o": o, "S": last})


def test_kda_matches_kimi_linear() -> None:
    own = transformers("kimi_linear", "recurrent_kimi_delta_attention")
    x = tensors() | {"g": gate(H, D)}
    q, k, v, beta, start, g = x.values()
    with kept_in_float64():
        o, last = own(q, k, v, g, beta, start, True)
    assert_agrees("kda", x, {"o": o, "S": last})


@pytest.mark.parametrize("gated", [True, False])
@pytest.mark.parametrize("rounds", [1, 3])
def test_delta_product_matches_fla(rounds: int, gated: bool) -> None:
    naive = fla("gated_delta_product.naive", "naive_recurrent_gated_delta_product")
    x = tensors(rounds=rounds) | ({"g": gate(H)} if gated else {})
    q, k, v, beta, start, *g = x.values()
    with kept_in_float64():
        o, last = naive(
            q,
            k,
            v,
            g[0] if gated else None,
            beta,
            D**-0.5,
            initial_state=start,
            num_householder=rounds,
        )
    assert_agrees("delta_product", x, {"o": o, "S": last})


def test_comba_matches_fla_in_chunks() -> None:
    """Its step-by-step function reads the decayed state; kernels and chunks read the one before."""
    naive = fla("comba.naive", "naive_chunk_comba")
    p = functional.normalize(normal(B, T, H, D), dim=-1).requires_grad_()
    x = tensors() | {"g": gate(H), "p": p}
    q, k, v, beta, start, g, _ = x.values()
    with kept_in_float64():
        o, last = naive(q, k, v, p, g, beta, 4, initial_state=start, output_final_state=True)
    assert_agrees("comba", x, {"o": o, "S": last})


def test_rwkv7_matches_fla() -> None:
    naive = fla("generalized_delta_rule.dplr.naive", "dplr_recurrence")
    x = tensors()
    rate = normal(B, T, H, D).sigmoid()
    x = {
        "r": x["q"],
        "w": gate(H, D),
        "k": normal(B, T, H, D, grad=True),
        "v": x["v"],
        "a": (-x["k"].detach()).requires_grad_(),
        "b": (x["k"].detach() * rate).requires_grad_(),
        "S0": x["S0"],
    }
    r, w, k, v, a, b, start = x.values()
    with kept_in_float64():  # it scales the queries, RWKV-7 doesn't
        r, k, v, a, b, w = heads_first(r * D**0.5, k, v, a, b, w)
        o, last = naive(r, k, v, a, b, w, start)
    assert_agrees("rwkv7", x, {"o": o.transpose(1, 2), "S": last})


def test_gates_that_close_leave_the_last_write() -> None:
    x = tensors() | {"g": torch.full((B, T, H, D), -torch.inf, dtype=torch.float64)}
    write = x["beta"][..., None] * x["v"]
    o = D**-0.5 * (x["q"] * x["k"]).sum(-1, keepdim=True) * write
    last = x["k"][:, -1, :, :, None] * write[:, -1, :, None]
    assert_agrees("kda", x, {"o": o, "S": last})


@pytest.mark.parametrize("backend", ["reference", "cpu", "interpreter"])
def test_no_token_tells_no_number_of_rounds_and_any_will_do(backend):
    q, k, v = (torch.zeros(1, 0, 2, n) for n in (16, 16, 32))
    start = torch.ones(1, 2, 16, 32)
    made = mixc.load("delta_product", backend=backend)(q, k, v, q[..., 0], q[..., 0], start)
    assert made.o.shape == (1, 0, 2, 32)
    torch.testing.assert_close(made.S, start)
