"""Memories trained on the fly: Titans and TTT, against flash-linear-attention and autograd."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from .independent import assert_agrees, assert_matches, kept_in_float64, normal, reference

B, T, H, D, E = 2, 11, 2, 4, 3


def unit(x: Tensor) -> Tensor:
    return x * torch.rsqrt(x.square().sum(-1, keepdim=True) + 1e-6)


def titans_inputs(values: int = E) -> dict[str, Tensor]:
    return {
        "q": normal(B, T, H, D, grad=True),
        "k": normal(B, T, H, D, grad=True),
        "v": normal(B, T, H, values, grad=True),
        "theta": normal(B, T, H, grad=True),
        "eta": normal(B, T, H, grad=True),
        "alpha": normal(B, T, H, grad=True),
        "W0": normal(B, H, D, values, grad=True),
    }


def test_titans_is_flas_momentum_delta_rule() -> None:
    module = pytest.importorskip("fla.ops.momentum_delta_rule.naive")
    x = {**titans_inputs(), "S0": normal(B, H, D, E, grad=True)}
    with kept_in_float64():
        o, last = module.recurrent_momentum_delta_rule_ref(
            unit(x["q"]),
            unit(x["k"]),
            x["v"],
            log_alpha=functional.logsigmoid(-x["alpha"]),
            log_mu=functional.logsigmoid(x["eta"]),
            p=unit(x["k"]),
            beta=torch.ones(B, T, H),
            eta=2 * torch.sigmoid(x["theta"]),
            scale=1.0,
            initial_S=x["W0"],
            initial_M=-x["S0"],
            output_final_state=True,
        )
    assert_agrees("titans", x, {"o": o, "W": last[0], "S": -last[1]})


def test_titans_steps_down_the_gradient_of_its_loss() -> None:
    """Eqs. 12 to 14 of the paper, the gradient of |k W - v|^2 by autograd."""
    x = titans_inputs()
    W, S, rows = x["W0"], torch.zeros_like(x["W0"]), []
    for t in range(T):
        loss = (torch.einsum("bhd,bhde->bhe", unit(x["k"][:, t]), W) - x["v"][:, t]).square().sum()
        (slope,) = torch.autograd.grad(loss, W, create_graph=True)
        theta, eta, alpha = (
            torch.sigmoid(x[n][:, t])[..., None, None] for n in "theta eta alpha".split()
        )
        S = eta * S - theta * slope
        W = (1 - alpha) * W + S
        rows.append(torch.einsum("bhd,bhde->bhe", unit(x["q"][:, t]), W))
    assert_agrees("titans", x, {"o": torch.stack(rows, dim=1), "W": W})


def normed(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
    """Layer norm over the last axis; w and b per head."""
    return functional.layer_norm(x, x.shape[-1:], eps=1e-6) * w + b


@pytest.mark.parametrize("chunk", [1, 4])
def test_titans_chunked_takes_gradients_where_the_chunk_began(chunk: int) -> None:
    x = {**titans_inputs(D), "w": normal(H, D, grad=True), "b": normal(H, D, grad=True)}
    W, S, rows = x["W0"], torch.zeros_like(x["W0"]), []
    start = W
    for t in range(T):
        q, k, v = x["q"][:, t], x["k"][:, t], x["v"][:, t]
        predicted = normed(torch.einsum("bhd,bhde->bhe", k, start), x["w"], x["b"])
        (slope,) = torch.autograd.grad(
            (predicted - (v - k)).square().sum(), start, create_graph=True
        )
        theta, eta, alpha = (
            torch.sigmoid(x[n][:, t])[..., None, None] for n in "theta eta alpha".split()
        )
        S = eta * S - theta * slope
        W = (1 - alpha) * W + S
        if (t + 1) % chunk == 0:
            start = W
        y = torch.einsum("bhd,bhde->bhe", q, W)
        rows.append(y + normed(y, x["w"], x["b"]))
    o = torch.stack(rows, dim=1)
    assert_agrees("titans_chunked", x, {"o": o, "W": W}, {"chunk": chunk}, tolerance=1e-7)


def ttt_inputs(length: int) -> dict[str, Tensor]:
    return {
        "q": normal(B, length, H, D, grad=True),
        "k": normal(B, length, H, D, grad=True),
        "v": normal(B, length, H, D, grad=True),
        "w": normal(H, D, grad=True),
        "b": normal(H, D, grad=True),
        "rate": (0.1 * torch.rand(B, length, H, dtype=torch.float64)).requires_grad_(),
        "W0": normal(B, H, D, D, grad=True),
        "b0": normal(B, H, D, grad=True),
    }


def test_ttt_with_the_residual_on_the_output_is_flas() -> None:
    module = pytest.importorskip("fla.ops.ttt.naive")
    x = ttt_inputs(8)
    with kept_in_float64():
        o, W, c = module.chunk_ttt_linear_ref(
            x["q"].clone(),
            x["k"],
            x["v"],
            x["w"],
            x["b"],
            x["rate"][..., None],
            scale=D**-0.5,
            mini_batch_size=4,
            initial_state=x["W0"],
            initial_state_bias=x["b0"][:, :, None],
            output_final_state=True,
        )
    params = {"chunk": 4, "scale": D**-0.5, "query_residual": False}
    assert_agrees("ttt", x, {"o": o, "W": W, "c": c[:, :, 0]}, params, tolerance=1e-7)


def official_ttt(x: dict[str, Tensor], chunk: int) -> tuple[Tensor, Tensor, Tensor]:
    """The dual form (eqs. 6 to 9 of the paper): rate[t] lr[s] between rows of a mini-batch."""
    W, c, rows = x["W0"], x["b0"], []
    q, k, v, rate, lr = (x[name].transpose(1, 2) for name in ("q", "k", "v", "rate", "lr"))
    w, b = x["w"][:, None], x["b"][:, None]
    for n in range(0, T, chunk):
        at = slice(n, n + chunk)
        z = k[:, :, at] @ W + c[:, :, None]
        loss = 0.5 * (normed(z, w, b) - (v - k)[:, :, at]).square().sum()
        (slope,) = torch.autograd.grad(loss, z, create_graph=True)
        eta = (rate[:, :, at, None] * lr[:, :, None, at]).tril()
        products = (q[:, :, at] @ k[:, :, at].mT) * eta
        y = q[:, :, at] @ W - products @ slope + c[:, :, None] - eta @ slope
        rows.append(q[:, :, at] + normed(y, w, b))
        if n + chunk <= T:
            W = W - (eta[:, :, -1, :, None] * k[:, :, at]).mT @ slope
            c = c - (eta[:, :, -1, None] @ slope)[:, :, 0]
    return torch.cat(rows, dim=2).transpose(1, 2), W, c


@pytest.mark.parametrize("chunk", [4, 32])
def test_ttt_is_the_official_dual_form(chunk: int) -> None:
    x = {**ttt_inputs(T), "lr": torch.rand(B, T, H, dtype=torch.float64).requires_grad_()}
    o, W, c = official_ttt(x, chunk)
    assert_agrees("ttt", x, {"o": o, "W": W, "c": c}, {"chunk": chunk}, tolerance=1e-7)


def test_ttt_goes_on_where_a_mini_batch_ended() -> None:
    x = {name: value.detach() for name, value in ttt_inputs(24).items()}
    whole = reference("ttt", x, {"chunk": 8})
    rows = ("q", "k", "v", "rate")
    first = reference("ttt", {n: v[:, :16] if n in rows else v for n, v in x.items()}, {"chunk": 8})
    rest = {n: v[:, 16:] if n in rows else v for n, v in x.items()}
    second = reference("ttt", {**rest, "W0": first["W"], "b0": first["c"]}, {"chunk": 8})
    assert_matches(torch.cat([first["o"], second["o"]], dim=1), whole["o"])
    assert_matches(second["W"], whole["W"])
