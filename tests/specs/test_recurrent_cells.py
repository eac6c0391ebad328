"""Recurrent cells: against torch.nn, and against their formulas where torch has none."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from .independent import assert_agrees, assert_matches, normal, reference

B, T, H, D = 3, 11, 2, 5


def cell_inputs(gates: int, heads: int = H) -> dict[str, Tensor]:
    return {
        "x": normal(B, T, gates, heads, D, grad=True),
        "R": normal(gates, heads, D, D, grad=True),
        "h0": normal(B, heads, D, grad=True),
    }


def by_torch(
    kind: type[nn.RNNBase], x: Tensor, R: Tensor, state: Any, bias: Tensor | None = None
) -> tuple[Tensor, Any]:
    """One head by torch.nn: x [B, T, K, D] goes in by the identity, R is [K, D, D]."""
    gates = R.shape[0]
    module = kind(gates * D, D, batch_first=True).double()
    weights = {
        "weight_ih_l0": torch.eye(gates * D, dtype=torch.float64),
        "weight_hh_l0": R.flatten(0, 1),
        "bias_ih_l0": torch.zeros(gates * D, dtype=torch.float64),
        "bias_hh_l0": torch.zeros(gates * D, dtype=torch.float64) if bias is None else bias,
    }
    results = torch.func.functional_call(module, weights, (x.flatten(2), state))
    assert isinstance(results, tuple)
    return results


def test_lstm_is_torchs_for_each_head() -> None:
    x = {**cell_inputs(4), "c0": normal(B, H, D, grad=True)}
    made = [
        by_torch(
            nn.LSTM, x["x"][:, :, :, n], x["R"][:, n], (x["h0"][None, :, n], x["c0"][None, :, n])
        )
        for n in range(H)
    ]
    expected = {
        "o": torch.stack([o for o, _ in made], dim=2),
        "h": torch.stack([h[0] for _, (h, _) in made], dim=1),
        "c": torch.stack([c[0] for _, (_, c) in made], dim=1),
    }
    assert_agrees("lstm", x, expected)


def test_gru_is_torchs_for_each_head() -> None:
    x = {**cell_inputs(3), "b": normal(H, D, grad=True)}
    nothing = torch.zeros(2 * D, dtype=torch.float64)
    made = [
        by_torch(
            nn.GRU,
            x["x"][:, :, :, n],
            x["R"][:, n],
            x["h0"][None, :, n],
            torch.cat([nothing, x["b"][n]]),
        )
        for n in range(H)
    ]
    expected = {
        "o": torch.stack([o for o, _ in made], dim=2),
        "h": torch.stack([h[0] for _, h in made], dim=1),
    }
    assert_agrees("gru", x, expected)


def test_elman_is_torchs_for_each_head() -> None:
    x = {
        "x": normal(B, T, H, D, grad=True),
        "R": normal(H, D, D, grad=True),
        "h0": normal(B, H, D, grad=True),
    }
    made = [
        by_torch(nn.RNN, x["x"][:, :, None, n], x["R"][n][None], x["h0"][None, :, n])
        for n in range(H)
    ]
    expected = {
        "o": torch.stack([o for o, _ in made], dim=2),
        "h": torch.stack([h[0] for _, h in made], dim=1),
    }
    assert_agrees("elman", x, expected)


def test_seq2seq_is_two_of_torchs_lstms() -> None:
    x = {
        "x": normal(B, 7, 4, D, grad=True),
        "y": normal(B, T, 4, D, grad=True),
        "R_x": normal(4, D, D, grad=True),
        "R_y": normal(4, D, D, grad=True),
    }
    nothing = torch.zeros(1, B, D, dtype=torch.float64)
    _, state = by_torch(nn.LSTM, x["x"].flip(1), x["R_x"], (nothing, nothing))
    o, _ = by_torch(nn.LSTM, x["y"], x["R_y"], state)
    assert_agrees("seq2seq", x, {"o": o})


def plain_slstm(x: Tensor, R: Tensor, h: Tensor) -> Tensor:
    """Eqs. 8 to 14 of the xLSTM paper, without the stabiliser."""
    c, n = torch.zeros_like(h), torch.zeros_like(h)
    rows = []
    for x_t in x.unbind(1):
        i, f, z, o = (x_t + torch.einsum("khdp,bhp->bkhd", R, h)).unbind(1)
        c = torch.sigmoid(f) * c + torch.exp(i) * torch.tanh(z)
        n = torch.sigmoid(f) * n + torch.exp(i)
        h = torch.sigmoid(o) * c / n
        rows.append(h)
    return torch.stack(rows, dim=1)


def test_slstm() -> None:
    x = cell_inputs(4)
    assert_agrees("slstm", x, {"o": plain_slstm(x["x"], x["R"], x["h0"])})


@pytest.mark.parametrize("offset", [-800.0, 800.0])
def test_slstm_is_stable_whatever_the_input_gates(offset: float) -> None:
    """All input gates shifted alike change nothing but the first, empty memory."""
    x = {name: value.detach() for name, value in cell_inputs(4).items()}
    plain = reference("slstm", x)["o"]
    shifted = x["x"].clone()
    shifted[:, :, 0] += offset
    assert_matches(reference("slstm", {**x, "x": shifted})["o"], plain, 1e-9)


class Spike(torch.autograd.Function):
    """A step whose gradient is a sigmoid's of slope 4, as spikingjelly's surrogate."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return (x >= 0).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        soft = torch.sigmoid(4 * x)
        return gradient * 4 * soft * (1 - soft)


def spikes(
    x: Tensor, v: Tensor, tau: float, threshold: float, rest: float
) -> tuple[Tensor, Tensor]:
    rows = []
    for x_t in x:
        v = v + (x_t - (v - rest)) / tau
        spike = Spike.apply(v - threshold)
        v = (1 - spike.detach()) * v + spike.detach() * rest
        rows.append(spike)
    return torch.stack(rows), v


@pytest.mark.parametrize(
    "params", [{}, {"tau": 1.5, "threshold": 0.5, "rest": 0.0}, {"rest": -0.5}]
)
def test_lif(params: dict[str, float]) -> None:
    x = {"x": (2 * normal(T, B, 7)).requires_grad_(), "v0": normal(B, 7, grad=True)}
    o, v = spikes(x["x"], x["v0"], **{"tau": 2.0, "threshold": 1.0, "rest": 0.0, **params})
    assert 0.05 < o.mean() < 0.7
    ours = reference("lif", x, params)
    assert set(ours["o"].unique().tolist()) == {0.0, 1.0}
    assert_agrees("lif", x, {"o": o, "v": v}, params)
