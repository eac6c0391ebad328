"""What loaded steps compute, against the same loops written in torch, in float64."""

import pytest
import torch

from mixc.backends.reference.evaluate import run
from mixc.compiler.language.load import load_text

B, T, C, N, D, E, R = 2, 5, 3, 4, 3, 2, 3


def random(*shape: int) -> torch.Tensor:
    return torch.randn(
        shape, dtype=torch.float64, generator=torch.Generator().manual_seed(sum(shape))
    )


def close(found: torch.Tensor, wanted: torch.Tensor) -> None:
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-13)


COMPLEX = """
mixer: complex_states
inputs: {x: [B, T, C], nu: [N], th: [N], Br: [N, C], Bi: [N, C]}
let:
  lam: exp(complex(-exp(nu), th))
recurrence:
  over: T
  state: {h: [N]}
  step:
    - u = sum(complex(Br, Bi) * x, C) / (1 + lam)
    - h = lam * h + where(u[N=0] == 0, 0, u)
    - z = conj(h) * h[N=n - 1] - cumsum(2 * h, N) / complex(2, 1) + 3
    - size = abs(z)
    - y = real(z)
    - w = imag(-detach(z) + exp(0.1 * z))
outputs: {y: [B, T, N], w: [B, T, N], size: [B, T, N], h_re: [B, N], h_im: [B, N]}
""".replace("where(u[N=0] == 0, 0, u)", "where(real(u) > 100, 0, u)")


def test_complex_numbers():
    x, nu, th = random(B, T, C), random(N), random(N) + 1
    b_re, b_im = random(N, C), random(C, N).T
    found = run(load_text(COMPLEX), {"x": x, "nu": nu, "th": th, "Br": b_re, "Bi": b_im})
    lam = torch.exp(torch.complex(-nu.exp(), th))
    h, rows = torch.zeros(B, N, dtype=torch.complex128), []
    for t in range(T):
        h = lam * h + torch.einsum("nc,bc->bn", torch.complex(b_re, b_im), x[:, t] + 0j) / (1 + lam)
        earlier = torch.cat([torch.zeros(B, 1), h[:, :-1]], 1)
        rows.append(h.conj() * earlier - (2 * h).cumsum(1) / (2 + 1j) + 3)
    z = torch.stack(rows, 1)
    close(found["y"], z.real)
    close(found["w"], (-z + (0.1 * z).exp()).imag)
    close(found["size"], z.abs())
    close(found["h_re"], h.real)
    close(found["h_im"], h.imag)


TRAINED = """
mixer: trained
inputs: {k: [B, T, D], v: [B, T, E], U: [E, F], W0: [B, D, E], c0: {dims: [B, E], default: 0}}
dims: {F: (E)}
params: {rate: 0.1}
recurrence:
  over: T
  state: {W: [D, E], c: [E]}
  initial: {W: W0, c: c0}
  step:
    - factor = 2
    - hidden = tanh(sum(k * W, D) + c) * factor
    - factor = 3
    - p = sum(hidden * U, E)
    - W_before = W
    - c = c + 0.01
    - loss = sum((p - v[E=f]) ** 2, F) * factor + sum(W * W, D, E)
    - W = W - rate * grad(loss, W)
    - slope = grad(loss, hidden)
    - o = p
outputs: {o: [B, T, F], W: [B, D, E], slope: [B, T, E], W_before: [B, T, D, E]}
"""


def test_gradients_by_states_and_names():
    k, v, weights, start = random(B, T, D), random(B, T, E), random(E, E), random(B, D, E)
    found = run(load_text(TRAINED), {"k": k, "v": v, "U": weights, "W0": start})
    w, c = start, torch.zeros(B, E, dtype=torch.float64)
    outs, slopes, befores = [], [], []
    for t in range(T):
        w = w.detach().requires_grad_()
        hidden = torch.tanh(torch.einsum("bd,bde->be", k[:, t], w) + c) * 2
        p = hidden @ weights
        loss = ((p - v[:, t]) ** 2).sum() * 3 + (w * w).sum()
        by_w, by_hidden = torch.autograd.grad(loss, [w, hidden])
        befores.append(w)
        w, c = w - 0.1 * by_w, c + 0.01
        outs.append(p)
        slopes.append(by_hidden)
    close(found["W"], w)
    close(found["o"], torch.stack(outs, 1).detach())
    close(found["slope"], torch.stack(slopes, 1))
    close(found["W_before"], torch.stack(befores, 1).detach())


IN_ROUNDS = """
mixer: in_rounds
inputs: {k: [B, T, R, D], v: [B, T, R, E], lr: [R]}
recurrence:
  over: T
  state: {W: [D, E]}
  step:
    - over: R
      step:
        - loss = sum((sum(k * W, D) - v) ** 2, E)
        - W = W - lr * grad(loss, W)
        - e = loss
    - total = sum(e, R)
outputs: {W: [B, D, E], total: [B, T]}
"""


def test_gradients_in_an_inner_loop():
    k, v, lr = random(B, T, R, D), random(B, T, R, E), random(R).abs() * 0.1
    found = run(load_text(IN_ROUNDS), {"k": k, "v": v, "lr": lr})
    w, totals = torch.zeros(B, D, E, dtype=torch.float64), []
    for t in range(T):
        total = torch.zeros(B, dtype=torch.float64)
        for r in range(R):
            error = torch.einsum("bd,bde->be", k[:, t, r], w) - v[:, t, r]
            total = total + (error**2).sum(-1)
            w = w - lr[r] * 2 * k[:, t, r, :, None] * error[:, None, :]
        totals.append(total)
    close(found["W"], w)
    close(found["total"], torch.stack(totals, 1))


FREE_START = """
mixer: free_start
inputs: {k: [B, T, D], v: [B, T]}
recurrence:
  over: T
  state: {w: [D]}
  step:
    - loss = (sum(k * w, D) - v) ** 2
    - w = w - 0.1 * grad(loss, w)
outputs: {w: [B, D]}
"""


def test_each_batch_trains_a_state_of_its_own():
    k, v = random(B, T, D), random(B, T)
    w = torch.zeros(B, D, dtype=torch.float64)
    for t in range(T):
        w = w - 0.1 * 2 * ((k[:, t] * w).sum(-1) - v[:, t])[:, None] * k[:, t]
    close(run(load_text(FREE_START), {"k": k, "v": v})["w"], w)


COUNTER = """
mixer: counter
inputs: {x: [B, T, C], doc: {dims: [B, T], dtype: int32}}
recurrence:
  over: T
  state: {n: [], alive: [], h: [C]}
  initial: {n: 5, alive: true}
  reset: doc != doc[T=t - 1]
  step:
    - n = n + 1
    - alive = alive or any(x > 0, C)
    - h = where(alive, h + x / n, h)
    - o = h
outputs: {o: [B, T, C], n: [B]}
"""


@pytest.mark.parametrize("backward", [False, True])
def test_resets_and_directions(backward):
    x, doc = random(B, T, C), torch.tensor([[0, 0, 1, 1, 2], [0, 1, 1, 1, 1]], dtype=torch.int32)
    way = "direction: backward\n  step:" if backward else "step:"
    found = run(load_text(COUNTER.replace("step:", way)), {"x": x, "doc": doc})
    out = torch.empty(B, T, C, dtype=torch.float64)
    for b in range(B):
        n, alive, h = 5, True, torch.zeros(C, dtype=torch.float64)
        for t in reversed(range(T)) if backward else range(T):
            if doc[b, t] != (doc[b, t - 1] if t else 0):
                n, alive, h = 0, False, torch.zeros(C, dtype=torch.float64)
            n, alive = n + 1, alive or bool((x[b, t] > 0).any())
            h = h + x[b, t] / n if alive else h
            out[b, t] = h
        assert found["n"][b] == n
    close(found["o"], out)


ROWS = """
mixer: rows
inputs: {x: [B, T, C], w: [L, C]}
stages:
  - map: {z: x * 2}
  - recurrence:
      over: T
      state: {h: [C]}
      step:
        - u = sum(x[T=t - l] * w, L)
        - h = h + u * shift(z, T, 1)
        - y = h
  - map: {last_h: last(h), third: "y[T=2]"}
outputs: {y: [B, T, C], last_h: [B, C], third: [B, C]}
"""


def test_other_rows_of_what_is_outside():
    x, w = random(B, T, C), random(2, C)
    found = run(load_text(ROWS), {"x": x, "w": w})
    padded = torch.cat([torch.zeros(B, 1, C, dtype=torch.float64), x], 1)
    u = x * w[0] + padded[:, :-1] * w[1]
    wanted = (u * 2 * padded[:, :-1]).cumsum(1)
    close(found["y"], wanted)
    close(found["last_h"], wanted[:, -1])
    close(found["third"], wanted[:, 2])


GROUPED = """
mixer: grouped
inputs: {q: [B, T, H, D], k: [B, T, G, D], v: [B, T, G, E], g: [B, T, H]}
heads: {G: H}
recurrence:
  over: T
  state: {S: [D, E], P: [D, E]}
  step:
    - S = S + k * v
    - P = P + k * v
    - P = exp(g) * P
    - o = sum(q * S, D) + sum(q * P, D)
outputs: {o: [B, T, H, E], S: [B, G, D, E], P: [B, H, D, E]}
"""


def test_head_groups():
    q, k, v, g = random(B, T, 4, D), random(B, T, 2, D), random(B, T, 2, E), -random(B, T, 4).abs()
    found = run(load_text(GROUPED), {"q": q, "k": k, "v": v, "g": g})
    s = torch.zeros(B, 2, D, E, dtype=torch.float64)
    p, rows = torch.zeros(B, 4, D, E, dtype=torch.float64), []
    for t in range(T):
        s = s + k[:, t, :, :, None] * v[:, t, :, None]
        write = (k[:, t, :, :, None] * v[:, t, :, None]).repeat_interleave(2, 1)
        p = g[:, t, :, None, None].exp() * (p + write)
        rows.append(torch.einsum("bhd,bhde->bhe", q[:, t], s.repeat_interleave(2, 1) + p))
    close(found["o"], torch.stack(rows, 1))
    close(found["S"], s)
    close(found["P"], p)


ITERATED = """
mixer: iterated
inputs: {x: [B, N], A: [N, M]}
dims: {R: rounds, M: (N)}
params: {rounds: 3}
recurrence:
  over: R
  state: {y: [N]}
  initial: {y: x}
  step:
    - y = y + 0.1 * sum(A * y[N=m], M)
    - o = y
outputs: {y: [B, N], o: [R, B, N]}
"""


@pytest.mark.parametrize("rounds", [0, 3])
def test_rounds_that_no_input_has(rounds):
    x, a = random(B, N), random(N, N)
    found = run(load_text(ITERATED), {"x": x, "A": a}, {"rounds": rounds})
    y = x
    for r in range(rounds):
        y = y + 0.1 * y @ a.T
        close(found["o"][r], y)
    close(found["y"], y)
    assert found["o"].shape == (rounds, B, N)


def test_solve():
    text = """
mixer: solved
inputs: {A: [B, D, P], b: [B, T, D]}
map: {x: "solve(A, b, D=P)"}
outputs: {x: [B, T, P]}
"""
    a, b = random(B, D, D), random(B, T, D)
    found = run(load_text(text), {"A": a, "b": b})["x"]
    close(torch.einsum("bdp,btp->btd", a, found), b)


CONJUGATE = """
mixer: conjugate_gradients
inputs: {A: [B, T, D, P], b: [B, T, D]}
dims: {P: (D), N: steps}
params: {steps: 4}
recurrence:
  over: T
  state: {x: [D], r: [D], w: [D], n: []}
  step:
    - x = 0 * b
    - r = b
    - w = b
    - over: N
      step:
        - Aw = sum((A + A[D=p, P=d]) * w[D=p], P)
        - a = sum(r * r, D) / sum(w * Aw, D)
        - x = x + a * w
        - r1 = r - a * Aw
        - w = r1 + sum(r1 * r1, D) / sum(r * r, D) * w
        - r = r1
        - n = n + index(N)
    - y = x
outputs: {y: [B, T, D], n: []}
"""


def test_rounds_inside_a_step_with_states_that_start_anew():
    a, b = random(B, T, 4, 4), random(B, T, 4)
    a = a @ a.mT + 4 * torch.eye(4)
    found = run(load_text(CONJUGATE), {"A": a, "b": b})
    torch.testing.assert_close(torch.einsum("btdp,btp->btd", 2 * a, found["y"]), b)
    assert found["n"] == T * (0 + 1 + 2 + 3)


def test_no_rows_leave_the_state_as_it_was():
    start = random(B, D)
    empty = {"k": torch.empty(B, 0, D).double(), "v": torch.empty(B, 0).double(), "w0": start}
    text = FREE_START.replace("v: [B, T]", "v: [B, T], w0: [B, D]")
    text = text.replace("  step:", "  initial: {w: w0}\n  step:")
    close(run(load_text(text), empty)["w"], start)
