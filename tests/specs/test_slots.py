"""Slots and prefixes: GSA, ABC, MesaNet, LightNet, JRT, Hydra, against what they are built of."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from .independent import assert_agrees, kept_in_float64, normal

B, T, H, D, E, M = 2, 13, 6, 5, 4, 3


@pytest.mark.parametrize("groups", [2, 6])
def test_gsa_matches_fla(groups: int) -> None:
    naive = pytest.importorskip("fla.ops.gsa.naive").naive_recurrent_gsa
    x = {
        "q": normal(B, T, H, D, grad=True),
        "k": normal(B, T, groups, D, grad=True),
        "v": normal(B, T, groups, E, grad=True),
        "s": normal(B, T, groups, M, grad=True),
        "g": functional.logsigmoid(normal(B, T, groups, M)).requires_grad_(),
        "K0": normal(B, groups, D, M, grad=True),
        "V0": normal(B, groups, M, E, grad=True),
    }
    with kept_in_float64():
        if groups == H:
            o, (K, V) = naive(
                *(x[n] for n in "qkvsg"),
                initial_state=(x["K0"], x["V0"]),
                output_final_state=True,
            )
            expected = {"o": o, "K": K, "V": V}
        else:  # it sums over the heads of a group in its state, and takes none of groups
            del x["K0"], x["V0"]
            expected = {"o": naive(*(x[n] for n in "qkvsg"))[0]}
    assert_agrees("gsa", x, expected)


def abc_inputs(groups: int = H) -> dict[str, Tensor]:
    return {
        "q": normal(B, H, T, D, grad=True),
        "k": normal(B, groups, T, D, grad=True),
        "v": normal(B, groups, T, E, grad=True),
        "s": normal(B, groups, T, M, grad=True),
    }


@pytest.mark.parametrize("groups", [2, 6])
def test_abc_matches_fla(groups: int) -> None:
    naive = pytest.importorskip("fla.ops.abc.naive").naive_recurrent_abc
    x = abc_inputs(groups)
    with kept_in_float64():
        o, (K, V) = naive(*(x[n] for n in "qkvs"), output_final_state=True)
    assert_agrees("abc", x, {"o": o, "K": K, "V": V})


def test_abc_is_attention_to_running_means() -> None:
    naive = pytest.importorskip("fla.ops.abc.naive").naive_cumsum_abc
    x = abc_inputs()
    with kept_in_float64():
        assert_agrees("abc", x, {"o": naive(*(x[n] for n in "qkvs"))[0]})


def unit(x: Tensor) -> Tensor:
    return x * torch.rsqrt(x.square().sum(-1, keepdim=True) + 1e-6)


def test_mesa_matches_fla() -> None:
    naive = pytest.importorskip("fla.ops.mesa_net.naive").naive_mesa_net_exact
    x = {
        "q": normal(B, T, H, D, grad=True),
        "k": normal(B, T, H, D, grad=True),
        "v": normal(B, T, H, D, grad=True),  # its states are square
        "a": normal(B, T, H, grad=True),
        "beta": normal(B, T, H, grad=True),
        "ridge": normal(H, D, grad=True),
    }
    gates = functional.logsigmoid(x["a"]), functional.softplus(x["ridge"]) + 0.25
    with kept_in_float64():
        o, KK, KV = naive(
            unit(x["q"]),
            unit(x["k"]),
            x["v"],
            *gates,
            torch.sigmoid(x["beta"]),
        )
    assert_agrees("mesa", x, {"o": o, "KK": KK, "KV": KV}, tolerance=1e-8)


def test_lightnet_is_gla_with_the_gates_of_a_running_softmax() -> None:
    naive = pytest.importorskip("fla.ops.gla.naive").naive_recurrent_gla
    x = {
        "q": normal(B, T, H, D, grad=True),
        "k": (3 * normal(B, T, H, D)).requires_grad_(),
        "v": normal(B, T, H, E, grad=True),
        "S0": normal(B, H, D, E, grad=True),
        "z0": normal(B, H, D, grad=True),
    }
    z = torch.cat([x["z0"][:, None], x["k"]], dim=1).logcumsumexp(1)
    with kept_in_float64():
        o, S = naive(
            x["q"],
            torch.exp(x["k"] - z[:, 1:]),
            x["v"],
            z[:, :-1] - z[:, 1:],
            initial_state=x["S0"],
            output_final_state=True,
        )
    assert_agrees("lightnet", x, {"o": o, "S": S, "z": z[:, -1]})


def test_lightnet_without_a_past_is_a_running_softmax() -> None:
    """Eq. 8 of the paper: every entry of q reads a softmax, over the tokens so far, of its own."""
    x = {"q": normal(B, T, H, D, grad=True), "v": normal(B, T, H, E, grad=True)}
    x["k"] = (30 * normal(B, T, H, D)).requires_grad_()
    seen = torch.ones(T, T, dtype=torch.bool).tril()[:, :, None, None]
    p = x["k"][:, None].masked_fill(~seen, -torch.inf).softmax(2)
    o = D**-0.5 * torch.einsum("bthd,btshd,bshe->bthe", x["q"], p, x["v"])
    assert_agrees("lightnet", x, {"o": o})


def test_jrt_is_cross_attention_to_the_prompt_and_causal_attention() -> None:
    x = {
        "q": normal(B, H, T, D).exp().requires_grad_(),
        "k": normal(B, H, T, D).exp().requires_grad_(),
        "v": normal(B, H, T, E, grad=True),
        "k_prompt": normal(B, H, 8, D).exp().requires_grad_(),
        "v_prompt": normal(B, H, 8, E, grad=True),
    }
    weights = torch.cat([x["q"] @ x["k_prompt"].mT, (x["q"] @ x["k"].mT).tril()], dim=-1)
    values = torch.cat([x["v_prompt"], x["v"]], dim=2)
    o = weights @ values / (weights.sum(-1, keepdim=True) + 1e-12)
    n = x["k"].sum(2) + x["k_prompt"].sum(2)
    assert_agrees("jrt", x, {"o": o, "n": n})


def semiseparable(dt: Tensor, a: Tensor, Bt: Tensor, Ct: Tensor) -> Tensor:
    """Mamba-2's mixing matrix [B, H, T, T]: C_i B_j dt_j times the decays after j up to i."""
    log_decay = (dt * a).transpose(1, 2).cumsum(-1)
    decay = (log_decay[..., :, None] - log_decay[..., None, :]).tril().exp().tril()
    products = torch.einsum("bihn,bjhn->bhij", Ct, Bt)
    return products * decay * dt.transpose(1, 2)[..., None, :]


@pytest.mark.parametrize("groups", [1, 3, 6])
def test_hydra_is_its_quasi_separable_matrix(groups: int) -> None:
    """Definition 2.3 of the paper: shifted lower and upper semiseparable parts, and a diagonal."""
    x = {
        "x": normal(B, T, H, E, grad=True),
        "A_log": normal(H, grad=True),
        "skip": normal(B, T, H, grad=True),
        "bias": normal(H, grad=True),
    }
    for suffix in ("", "_r"):
        x["dt" + suffix] = normal(B, T, H, grad=True)
        x["Bt" + suffix] = normal(B, T, groups, M, grad=True)
        x["Ct" + suffix] = normal(B, T, groups, M, grad=True)

    def one_way(suffix: str, turn: bool) -> Tensor:
        parts = [functional.softplus(x["dt" + suffix] + x["bias"])]
        parts += [x[n + suffix].repeat_interleave(H // groups, 2) for n in ("Bt", "Ct")]
        dt, Bt, Ct = (part.flip(1) if turn else part for part in parts)
        matrix = semiseparable(dt, -x["A_log"].exp(), Bt, Ct)
        shifted = functional.pad(matrix, (0, 0, 1, 0))[:, :, :-1]
        return shifted.flip(2, 3) if turn else shifted

    diagonal = torch.diag_embed(x["skip"].transpose(1, 2))
    matrix = one_way("", False) + one_way("_r", True) + diagonal
    assert_agrees("hydra", x, {"o": torch.einsum("bhij,bjhe->bihe", matrix, x["x"])})
