"""State spaces: Mamba against transformers; the constant ones against their convolution."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from .independent import assert_agrees, kept_in_float64, normal, reference

B, T, C, N = 2, 11, 6, 4


def mamba_inputs() -> dict[str, Tensor]:
    return {
        "x": normal(B, C, T, grad=True),
        "dt": normal(B, C, T, grad=True),
        "A_log": normal(C, N, grad=True),
        "Bt": normal(B, N, T, grad=True),
        "Ct": normal(B, N, T, grad=True),
        "skip": normal(C, grad=True),
        "bias": normal(C, grad=True),
    }


def test_mamba_matches_transformers() -> None:
    scan = pytest.importorskip("transformers.models.mamba.modeling_mamba").mamba_selective_scan
    x = mamba_inputs()
    with kept_in_float64():
        o, h = scan(
            x["x"],
            x["dt"],
            -torch.exp(x["A_log"]),
            x["Bt"],
            x["Ct"],
            D=x["skip"],
            delta_bias=x["bias"],
            delta_softplus=True,
            return_last_state=True,
        )
    assert_agrees("mamba", x, {"o": o, "h": h})


def s4d_inputs() -> dict[str, Tensor]:
    return {
        "x": normal(B, C, T, grad=True),
        "log_dt": normal(C, grad=True),
        "log_A_real": normal(C, N, grad=True),
        "A_imag": normal(C, N, grad=True),
        "C_real": normal(C, N, grad=True),
        "C_imag": normal(C, N, grad=True),
        "skip": normal(C, grad=True),
    }


def s4d_kernel(x: dict[str, Tensor]) -> Tensor:
    """Eq. 2 of the S4D paper with conjugate pairs: 2 Re sum of C (e^(dt A) - 1) / A e^(dt A l)."""
    A = torch.complex(-torch.exp(x["log_A_real"]), x["A_imag"])
    turn = torch.exp(x["log_dt"])[:, None] * A
    weight = torch.complex(x["C_real"], x["C_imag"]) * (torch.exp(turn) - 1) / A
    powers = torch.exp(turn[..., None] * torch.arange(T))
    return 2 * torch.einsum("cn,cnl->cl", weight, powers).real


def test_s4d_is_a_long_convolution() -> None:
    x = s4d_inputs()
    spectrum = torch.fft.rfft(s4d_kernel(x), n=2 * T) * torch.fft.rfft(x["x"], n=2 * T)
    o = torch.fft.irfft(spectrum, n=2 * T)[..., :T] + x["x"] * x["skip"][:, None]
    assert_agrees("s4d", x, {"o": o})


def s5_inputs() -> dict[str, Tensor]:
    return {
        "x": normal(B, T, C, grad=True),
        "A_real": (-normal(N).abs()).requires_grad_(),
        "A_imag": normal(N, grad=True),
        "B_real": normal(N, C, grad=True),
        "B_imag": normal(N, C, grad=True),
        "C_real": normal(C, N, grad=True),
        "C_imag": normal(C, N, grad=True),
        "log_dt": normal(N, grad=True),
        "skip": normal(C, grad=True),
        "h0_real": normal(B, N, grad=True),
        "h0_imag": normal(B, N, grad=True),
    }


def s5_states(x: dict[str, Tensor], done: Tensor) -> Tensor:
    """h_t in closed form: the powers of the decay times what came in since the last reset."""
    A = torch.complex(x["A_real"], x["A_imag"])
    turn = torch.exp(x["log_dt"]) * A
    entry = ((torch.exp(turn) - 1) / A)[:, None] * torch.complex(x["B_real"], x["B_imag"])
    u = torch.einsum("nc,btc->btn", entry, x["x"].to(entry.dtype))
    times, episode = torch.arange(T), done.long().cumsum(1)
    ago = (times[:, None] - times[None]).clamp(min=0)
    seen = (times[:, None] >= times[None]) & (episode[:, :, None] == episode[:, None])
    h = torch.einsum("bts,tsn,bsn->btn", seen.to(u.dtype), torch.exp(ago[..., None] * turn), u)
    h0 = torch.complex(x["h0_real"], x["h0_imag"])[:, None] * torch.exp((times[:, None] + 1) * turn)
    return h + h0 * (episode == 0)[..., None]


@pytest.mark.parametrize("resets", [False, True])
def test_s5_is_its_closed_form(resets: bool) -> None:
    x = s5_inputs()
    done = torch.rand(B, T) < (0.3 if resets else 0.0)
    h = s5_states(x, done)
    C_ = torch.complex(x["C_real"], x["C_imag"])
    o = torch.einsum("cn,btn->btc", C_, h).real + x["skip"] * x["x"]
    given = {**x, "done": done} if resets else x
    assert_agrees("s5", given, {"o": o, "h_re": h[:, -1].real, "h_im": h[:, -1].imag})


def test_s5_clips_eigenvalues_that_would_grow() -> None:
    x = {name: value.detach() for name, value in s5_inputs().items()}
    grows = reference("s5", {**x, "A_real": torch.ones(N, dtype=torch.float64)})["o"]
    clipped = reference("s5", {**x, "A_real": torch.full((N,), -1e-4, dtype=torch.float64)})["o"]
    torch.testing.assert_close(grows, clipped, rtol=0, atol=0)


def test_lru_is_its_closed_form() -> None:
    x = {
        "x": normal(B, T, C, grad=True),
        "nu_log": normal(N, grad=True),
        "theta_log": normal(N, grad=True),
        "gamma_log": normal(N, grad=True),
        "B_real": normal(N, C, grad=True),
        "B_imag": normal(N, C, grad=True),
        "C_real": normal(5, N, grad=True),
        "C_imag": normal(5, N, grad=True),
        "W": normal(5, C, grad=True),
    }
    decay = torch.polar(torch.exp(-torch.exp(x["nu_log"])), torch.exp(x["theta_log"]))
    entry = torch.exp(x["gamma_log"])[:, None] * torch.complex(x["B_real"], x["B_imag"])
    h, rows = torch.zeros(B, N, dtype=torch.complex128), []
    for x_t in x["x"].unbind(1):
        h = decay * h + x_t.to(entry.dtype) @ entry.T
        rows.append(h)
    states = torch.stack(rows, dim=1)
    o = (states @ torch.complex(x["C_real"], x["C_imag"]).T).real + x["x"] @ x["W"].T
    assert_agrees("lru", x, {"o": o, "h_re": h.real, "h_im": h.imag})


def legendre(order: int, theta: float) -> tuple[Tensor, Tensor]:
    """The Legendre delay system of the LMU paper (eq. 2), held constant over a step of 1."""
    n = torch.arange(order, dtype=torch.float64)
    i, j = n[:, None], n[None]
    A = (2 * i + 1) / theta * torch.where(i < j, -1.0, (-1.0) ** (i - j + 1))
    b = (2 * n + 1) / theta * (-1.0) ** n
    system = torch.zeros(order + 1, order + 1, dtype=torch.float64)
    system[:order, :order], system[:order, order] = A, b
    held = torch.linalg.matrix_exp(system)
    return held[:order, :order].clone(), held[:order, order].clone()


def test_lmu() -> None:
    A, b = legendre(N, theta=9.0)
    x = {
        "x": normal(B, T, C, grad=True),
        "A": A.requires_grad_(),
        "b": b.requires_grad_(),
        "e_x": normal(C, grad=True),
        "e_h": normal(5, grad=True),
        "e_m": normal(N, grad=True),
        "W_x": normal(5, C, grad=True),
        "W_h": normal(5, 5, grad=True),
        "W_m": normal(5, N, grad=True),
        "h0": normal(B, 5, grad=True),
        "m0": normal(B, N, grad=True),
    }
    h, m, rows = x["h0"], x["m0"], []
    for x_t in x["x"].unbind(1):
        u = x_t @ x["e_x"] + h @ x["e_h"] + m @ x["e_m"]
        m = m @ x["A"].T + u[:, None] * x["b"]
        h = torch.tanh(x_t @ x["W_x"].T + h @ x["W_h"].T + m @ x["W_m"].T)
        rows.append(h)
    assert_agrees("lmu", x, {"o": torch.stack(rows, dim=1), "h": h, "m": m})


def test_lmuformer_is_a_convolution_with_the_impulse_response() -> None:
    A, b = legendre(N, theta=9.0)
    x = {
        "x": normal(B, T, C, grad=True),
        "A": A.requires_grad_(),
        "b": b.requires_grad_(),
        "W_u": normal(C, grad=True),
        "b_u": normal(1, grad=True)[0],
        "W_m": normal(5, N, grad=True),
        "W_x": normal(5, C, grad=True),
        "b_h": normal(5, grad=True),
    }
    impulse = torch.stack([torch.linalg.matrix_power(x["A"], n) @ x["b"] for n in range(T)])
    u = torch.relu(x["x"] @ x["W_u"] + x["b_u"])
    spectrum = torch.fft.rfft(impulse, n=2 * T, dim=0) * torch.fft.rfft(u, n=2 * T)[..., None]
    m = torch.fft.irfft(spectrum, n=2 * T, dim=1)[:, :T]
    joined = torch.cat([m, x["x"]], dim=-1) @ torch.cat([x["W_m"], x["W_x"]], dim=1).T
    assert_agrees("lmuformer", x, {"o": torch.relu(joined + x["b_h"]), "m": m[:, -1]})
