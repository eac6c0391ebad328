"""Diagonal decays and stabilised states: against fla, transformers, or the formula."""

from __future__ import annotations

import functools
import inspect

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from .independent import assert_agrees, kept_in_float64, normal, reference

B, T, H, D, E, C, N = 2, 13, 6, 5, 7, 12, 4


def tensors() -> dict[str, Tensor]:
    """q, k, v as flash-linear-attention lays them out, with gradients, and a start."""
    return {
        "q": normal(B, T, H, D, grad=True),
        "k": normal(B, T, H, D, grad=True),
        "v": normal(B, T, H, E, grad=True),
        "S0": normal(B, H, D, E, grad=True),
    }


def gate(*shape: int) -> Tensor:
    """Log-decays from almost 0 to strong."""
    return functional.logsigmoid(4 * normal(*shape)).requires_grad_()


def heads_first(*xs: Tensor) -> list[Tensor]:
    return [x.transpose(1, 2) for x in xs]


@pytest.mark.parametrize("groups", [1, 2, 6])
def test_mamba2_matches_transformers(groups: int) -> None:
    module = pytest.importorskip("transformers.models.mamba2.modeling_mamba2")
    chunk_scan = inspect.unwrap(module.mamba2_chunk_scan)
    x = {
        "x": normal(B, T, H, E, grad=True),
        "dt": normal(B, T, H, grad=True),
        "A": (-normal(H).exp()).requires_grad_(),
        "Bt": normal(B, T, groups, N, grad=True),
        "Ct": normal(B, T, groups, N, grad=True),
        "skip": normal(H, grad=True),
        "dt_bias": normal(H, grad=True),
        "S0": normal(B, H, E, N, grad=True),
    }
    u, dt, a, b, c, skip, bias, start = x.values()
    with kept_in_float64():
        y, last = chunk_scan(
            u, dt, a, b, c, 4, skip, bias, start, dt_softplus=True, return_final_states=True
        )
    assert_agrees("mamba2", x, {"y": y, "S": last})


def test_mamba2_with_less_matches_transformers() -> None:
    module = pytest.importorskip("transformers.models.mamba2.modeling_mamba2")
    chunk_scan = inspect.unwrap(module.mamba2_chunk_scan)
    x = {
        "x": normal(B, T, H, E, grad=True),
        "dt": normal(B, T, H, grad=True),
        "A": (-normal(H).exp()).requires_grad_(),
        "Bt": normal(B, T, 2, N, grad=True),
        "Ct": normal(B, T, 2, N, grad=True),
    }
    u, dt, a, b, c = x.values()
    with kept_in_float64():
        y = chunk_scan(u, dt, a, b, c, 4, dt_softplus=True)
    assert_agrees("mamba2", x, {"y": y})


def test_simple_gla_matches_fla() -> None:
    naive = pytest.importorskip("fla.ops.simple_gla.naive").naive_recurrent_simple_gla
    x = tensors() | {"g": gate(B, T, H)}
    q, k, v, start, g = x.values()
    with kept_in_float64():
        o, last = naive(q, k, v, g, initial_state=start)
    assert_agrees("simple_gla", x, {"o": o, "S": last})


def test_gla_matches_fla() -> None:
    naive = pytest.importorskip("fla.ops.gla.naive").naive_recurrent_gla
    x = tensors() | {"g": gate(B, T, H, D)}
    q, k, v, start, g = x.values()
    with kept_in_float64():
        o, last = naive(q, k, v, g, start, True)
    assert_agrees("gla", x, {"o": o, "S": last})


def test_hgrn2_matches_fla() -> None:
    naive = pytest.importorskip("fla.ops.gla.naive").naive_recurrent_gla
    x = tensors() | {"g": gate(B, T, H, D)}
    del x["k"]
    q, v, start, g = x.values()
    with kept_in_float64():
        o, last = naive(q, 1 - g.exp(), v, g, start, True)
    assert_agrees("hgrn2", x, {"o": o, "S": last})


def test_hgrn_matches_fla() -> None:
    """The step-by-step function; its chunk form resets the cumulated gate wrongly."""
    naive = pytest.importorskip("fla.ops.hgrn.naive").naive_recurrent_hgrn
    x = {
        "x": normal(B, T, C, grad=True),
        "g": gate(B, T, C),
        "h0": normal(B, C, grad=True),
    }
    with kept_in_float64():
        o, last = naive(*x.values(), True)
    assert_agrees("hgrn", x, {"o": o, "h": last})


def wkv(size: float = 1.0) -> dict[str, Tensor]:
    return {
        "w": normal(C, grad=True),
        "u": normal(C, grad=True),
        "k": (size * normal(B, T, C)).requires_grad_(),
        "v": normal(B, T, C, grad=True),
    }


@pytest.mark.parametrize("size", [1.0, 300.0])
def test_rwkv4_matches_transformers(size: float) -> None:
    module = pytest.importorskip("transformers.models.rwkv.modeling_rwkv")
    x = wkv(size)
    with kept_in_float64():
        o, (num, den, top) = module.rwkv_linear_attention_cpu(*x.values(), return_state=True)
    assert_agrees("rwkv4", x, {"o": o, "num": num, "den": den, "m": top})


def test_rwkv4_goes_on_from_a_state_as_transformers_does() -> None:
    module = pytest.importorskip("transformers.models.rwkv.modeling_rwkv")
    x = wkv()
    first = reference("rwkv4", x)
    start = [first[name].detach() for name in ("num", "den", "m")]
    with kept_in_float64():
        o, (num, den, top) = module.rwkv_linear_attention_cpu(*x.values(), start)
    x |= dict(zip(("num0", "den0", "m0"), start, strict=True))
    assert_agrees("rwkv4", x, {"o": o, "num": num, "den": den, "m": top})


def test_rwkv6_matches_fla() -> None:
    naive = pytest.importorskip("fla.ops.rwkv6.recurrent_naive").naive_recurrent_rwkv6
    x = tensors() | {"w": gate(B, T, H, D), "u": normal(H, D, grad=True)}
    x = {"r" if name == "q" else name: value for name, value in x.items()}
    r, k, v, start, w, u = x.values()
    with kept_in_float64():
        o, last = naive(*heads_first(r, k, v, w), u, 1.0, start, True)
    assert_agrees("rwkv6", x, {"o": o.transpose(1, 2), "S": last})


def test_rwkv5_matches_fla_with_a_constant_decay() -> None:
    naive = pytest.importorskip("fla.ops.rwkv6.recurrent_naive").naive_recurrent_rwkv6
    x = tensors() | {"w": normal(H, D, grad=True), "u": normal(H, D, grad=True)}
    x = {"r" if name == "q" else name: value for name, value in x.items()}
    r, k, v, start, w, u = x.values()
    with kept_in_float64():
        decay = -w.exp()[:, None].expand(B, H, T, D)
        o, last = naive(*heads_first(r, k, v), decay, u, 1.0, start, True)
    assert_agrees("rwkv5", x, {"o": o.transpose(1, 2), "S": last})


def test_rg_lru_matches_recurrent_gemma() -> None:
    gemma = pytest.importorskip("transformers.models.recurrent_gemma.modeling_recurrent_gemma")
    config = gemma.RecurrentGemmaConfig(lru_width=C, num_attention_heads=3, hidden_size=C)
    x = normal(B, T, C, grad=True)
    position = torch.cat([torch.arange(5), torch.arange(T - 5)]).expand(B, T).clone()
    position[1] += 2  # the second row goes on with what came before, and starts anew nowhere
    start = normal(B, C, grad=True)
    with kept_in_float64():
        layer = gemma.RecurrentGemmaRglru(config)
        for parameter in layer.parameters():
            torch.nn.init.normal_(parameter)
        layer.recurrent_states = start
        layer._rnn_scan = functools.partial(layer._rnn_scan, acc_dtype=torch.float64)
        h = layer(x, position)
        last = layer.recurrent_states
        blocks = x.reshape(B, T, 3, C // 3)
        gates = {
            f"{name}_gate": torch.einsum("bthi,hij->bthj", blocks, weight).add(bias).flatten(2)
            for name, weight, bias in (
                ("i", layer.input_gate_weight, layer.input_gate_bias),
                ("r", layer.recurrent_gate_weight, layer.recurrent_gate_bias),
            )
        }
    inputs = {"x": x, "decay": layer.recurrent_param, "position": position, "h0": start}
    leaves = {name: inputs[name] for name in ("x", "decay", "h0")}
    ours = reference("rg_lru", inputs | gates)
    for actual, expected in ((ours["o"], h), (ours["h"], last)):
        torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-10)
        cotangent = torch.randn_like(expected)
        mine, theirs = (
            torch.autograd.grad(r, list(leaves.values()), cotangent, retain_graph=True)
            for r in (actual, expected)
        )
        for a, b in zip(mine, theirs, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


def test_rg_lru_without_positions_is_the_paper() -> None:
    x = {
        "x": normal(B, T, C, grad=True),
        "i_gate": normal(B, T, C, grad=True),
        "r_gate": normal(B, T, C, grad=True),
        "decay": normal(C, grad=True),
    }
    log_a = -8 * x["r_gate"].sigmoid() * functional.softplus(x["decay"])
    h, rows = torch.zeros(B, C, dtype=torch.float64), []
    for t in range(T):
        a = log_a[:, t].exp()
        h = a * h + (1 - a**2).sqrt() * x["i_gate"][:, t].sigmoid() * x["x"][:, t]
        rows.append(h)
    assert_agrees("rg_lru", x, {"o": torch.stack(rows, 1), "h": h})


def test_ema_matches_the_convolution() -> None:
    """MEGA's code computes the kernel of the whole length and convolves by Fourier transforms."""
    x = {name: normal(C, N, grad=True) for name in ("delta", "alpha", "beta", "gamma")}
    x |= {"x": normal(T, B, C, grad=True), "omega": normal(C, grad=True)}
    p = x["delta"].sigmoid()
    log_q = torch.log(1 - p * x["alpha"].sigmoid())
    powers = torch.exp(torch.arange(T)[:, None, None] * log_q)
    kernel = torch.einsum("tcn,cn->tc", powers * p * x["beta"], x["gamma"]) / N**0.5
    spectrum = torch.fft.rfft(x["x"], 2 * T, dim=0) * torch.fft.rfft(kernel, 2 * T, dim=0)[:, None]
    y = torch.fft.irfft(spectrum, 2 * T, dim=0)[:T]
    assert_agrees("ema", x, {"o": functional.silu(y + x["omega"] * x["x"])})


@pytest.mark.parametrize("size", [1.0, 60.0])
def test_mlstm_matches_transformers(size: float) -> None:
    module = pytest.importorskip("transformers.models.xlstm.modeling_xlstm")
    x = {
        "q": normal(B, H, T, D, grad=True),
        "k": normal(B, H, T, D, grad=True),
        "v": normal(B, H, T, E, grad=True),
        "i_gate": (size * normal(B, H, T)).requires_grad_(),
        "f_gate": (size * normal(B, H, T)).requires_grad_(),
        "C0": normal(B, H, D, E, grad=True),
        "n0": normal(B, H, D, grad=True),
        "m0": normal(B, H, grad=True),
    }
    q, k, v, i, f, c0, n0, m0 = x.values()
    o, (c, n, m) = module.mlstm_recurrent_sequence_native(
        q, k, v, i, f, c0, n0, m0[..., None], True, dtype_state=torch.float64
    )
    assert_agrees("mlstm", x, {"o": o, "C": c, "n": n, "m": m[..., 0]}, tolerance=1e-8)


def test_mlstm_matches_its_quadratic_form() -> None:
    """Without eps the stabiliser cancels: max(|n q|, 1) of plain sums."""
    x = {
        "q": normal(B, H, T, D, grad=True),
        "k": normal(B, H, T, D, grad=True),
        "v": normal(B, H, T, E, grad=True),
        "i_gate": normal(B, H, T, grad=True),
        "f_gate": normal(B, H, T, grad=True),
    }
    decay = functional.logsigmoid(x["f_gate"]).cumsum(-1)
    log_weight = decay[..., None] - decay[..., None, :] + x["i_gate"][..., None, :]
    weight = (x["q"] @ x["k"].mT * D**-0.5 * log_weight.exp()).tril()
    o = weight @ x["v"] / weight.sum(-1, keepdim=True).abs().clamp(min=1)
    assert_agrees("mlstm", x, {"o": o}, {"eps": 0.0})
