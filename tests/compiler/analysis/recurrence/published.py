"""Published steps, as their papers write them, each with what its algebra must show."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from mixc.ir.mixer import Recurrence
from mixc.ir.recurrence_forms import Affine, Classified, Coupled, Dense, Form, Matrix

from .meaning import Value
from .steps import dims, recurrence

SIZES = {"B": 2, "T": 6, "D": 3, "E": 4, "C": 3, "N": 2, "P": 3, "H": 2, "R": 3, "M": 2}


@dataclass(frozen=True)
class Case:
    """A step; ``shown`` is the class of each component as ``shape`` words it."""

    name: str
    inputs: str
    states: str
    step: str
    shown: tuple[str, ...]
    batch: str = "B"
    reset: str | None = None

    def recurrence(self) -> Recurrence:
        """The step as the loader would give it."""
        return recurrence(
            axes(self.inputs), axes(self.states), self.step, batch=self.batch, reset=self.reset
        )

    def values(self, seed: int = 0) -> dict[str, Value]:
        """Random inputs; those that end in _pos are positive."""
        random = np.random.default_rng(seed)
        given: dict[str, Value] = {}
        for name, text in axes(self.inputs).items():
            own = tuple(sorted(dims(text)))
            data = random.normal(size=[SIZES[a] for a in own]) * 0.5
            given[name] = Value(own, np.abs(data) if name.endswith("_pos") else data)
        return given


def axes(text: str) -> Mapping[str, str]:
    """``q:B T D, k:B T D`` by name."""
    parts = (part.split(":") for part in text.split(",") if part.strip())
    return {name.strip(): own for name, own in parts}


def shape(classified: Classified) -> tuple[str, ...]:
    """What two spellings of a step must share."""
    return tuple(_shape(form) for form in classified.components)


def _shape(form: Form) -> str:
    match form:
        case Matrix():
            decay = "log" if form.log_decay is not None else "decay"
            entries = "entry" if form.key_axis in form.decay.axes else "scalar"
            rank = len(form.corrections)
            return f"{form.state.name}: matrix {form.key_axis} {entries} {decay} rank {rank}"
        case Affine():
            names = " ".join(sorted(s.name for s in form.states))
            constant = " constant" if form.constant else ""
            return f"{names}: affine {form.plus} {form.times}{constant}"
        case Coupled():
            names = " ".join(sorted(s.name for s in form.states))
            ranks = sum(len(c) for c in form.corrections)
            return f"{names}: coupled {form.key_axis} rank {ranks}"
        case Dense():
            return f"{form.state.name}: dense {form.axis}{' constant' if form.constant else ''}"
        case _:
            return f"{' '.join(sorted(s.name for s in form.states))}: loop {form.kind}"


_QKV = "q:B T D, k:B T D, v:B T E"
_S = "S:D E"
_READ = "\no = sum(q * S, D)"


def parallel() -> Iterator[Case]:
    """Steps that have a parallel form."""
    scalar, one = "S: matrix D scalar log rank 0", "S: matrix D scalar log rank 1"
    yield Case("linear attention", _QKV, _S, "S = S + k * v" + _READ, (scalar,))
    yield Case(
        "retention", f"{_QKV}, slope:H", _S, "S = exp(-slope) * S + k * v" + _READ, (scalar,), "B H"
    )
    yield Case(
        "gla",
        f"{_QKV}, g:B T D",
        _S,
        "S = exp(g) * S + k * v" + _READ,
        ("S: matrix D entry log rank 0",),
    )
    yield Case(
        "mamba2",
        "x:B T P, dt:B T, A:H, Bt:B T N, Ct:B T N, skip:H",
        "S:P N",
        "S = exp(dt * A) * S + dt * Bt * x\ny = sum(Ct * S, N) + skip * x",
        ("S: matrix N scalar log rank 0",),
        "B H",
    )
    yield Case(
        "mlstm",
        f"{_QKV}, i_gate:B T, f:B T",
        "m:,C:D E,n:D",
        """
        m1 = max(logsigmoid(f) + m, i_gate)
        C = exp(logsigmoid(f) + m - m1) * C + exp(i_gate - m1) * k * v
        n = exp(logsigmoid(f) + m - m1) * n + exp(i_gate - m1) * k
        m = m1
        o = sum(q * C, D) / max(abs(sum(q * n, D)), exp(-m))
        """,
        (
            "m: affine max add",
            "C: matrix D scalar log rank 0",
            "n: matrix D scalar log rank 0",
        ),
    )
    yield Case(
        "delta", f"{_QKV}, beta:B T", _S, "S = S + beta * k * (v - sum(k * S, D))" + _READ, (one,)
    )
    yield Case(
        "gated delta",
        f"{_QKV}, g:B T, beta:B T",
        _S,
        "S = exp(g) * S\nS = S + beta * k * (v - sum(k * S, D))" + _READ,
        (one,),
    )
    yield Case(
        "kda",
        f"{_QKV}, g:B T D, beta:B T",
        _S,
        "S = exp(g) * S\nS = S + beta * k * (v - sum(k * S, D))" + _READ,
        ("S: matrix D entry log rank 1",),
    )
    yield Case(
        "comba",
        f"{_QKV}, p:B T D, g:B T, beta:B T",
        _S,
        "error = v - sum(p * S, D)\nS = exp(g) * S + beta * k * error" + _READ,
        (one,),
    )
    yield Case(
        "rwkv6",
        f"{_QKV}, w:B T D, u:D",
        _S,
        "o = sum(q * (S + u * k * v), D)\nS = exp(-exp(w)) * S + k * v",
        ("S: matrix D entry log rank 0",),
    )
    yield Case(
        "rwkv7",
        f"{_QKV}, w:B T D, a:B T D, b:B T D",
        "S:E D",
        "S = S * exp(-exp(w)) + sum(S * a, D) * b + v * k" + _READ,
        ("S: matrix D entry log rank 1",),
    )
    yield Case(
        "hgrn",
        "i:B T C, f:B T C, g:B T C",
        "h:C",
        "h = sigmoid(f) * h + (1 - sigmoid(f)) * i\no = g * h",
        ("h: affine add mul",),
    )
    yield Case(
        "rg_lru",
        "x:B T C, r:B T C, i:B T C, Lambda:C, new:B T",
        "h:C",
        """
        log_a = -8 * softplus(Lambda) * sigmoid(r)
        a = where(new > 0, 0, exp(log_a))
        h = a * h + where(new > 0, 1, sqrt(1 - exp(2 * log_a))) * sigmoid(i) * x
        o = h
        """,
        ("h: affine add mul",),
    )
    yield Case(
        "mamba",
        "x:B T C, dt:B T C, A:C N, Bt:B T N, Ct:B T N, skip:C",
        "h:C N",
        "h = exp(dt * A) * h + dt * Bt * x\ny = sum(Ct * h, N) + skip * x",
        ("h: affine add mul",),
    )
    yield Case(
        "s5",
        "x:B T C, a_re:N, a_im:N, b_re:N C, b_im:N C, c_re:C N, c_im:C N",
        "h_re:N,h_im:N",
        """
        before = h_re
        h_re = a_re * h_re - a_im * h_im + sum(b_re * x, C)
        h_im = a_re * h_im + a_im * before + sum(b_im * x, C)
        y = sum(c_re * h_re - c_im * h_im, N)
        """,
        ("h_im h_re: affine add mul constant",),
    )
    yield Case(
        "ema",
        "x:B T C, p:C N, a:C N, eta:C N",
        "h:C N",
        "h = (1 - p * a) * h + p * x\ny = sum(eta * h, N)",
        ("h: affine add mul constant",),
    )
    yield Case(
        "momentum delta rule",
        f"{_QKV}, eta:B T, theta:B T",
        "S:D E, M:D E",
        "M = exp(eta) * M - theta * k * (sum(k * S, D) - v)\nS = S + M" + _READ,
        ("M S: coupled D rank 2",),
    )
    yield Case(
        "titans linear",
        f"{_QKV}, eta:B T, theta:B T, alpha:B T",
        "S:D E, M:D E",
        """
        M = eta * M - theta * k * (sum(k * S, D) - v)
        S = (1 - alpha) * S + M
        o = sum(q * S, D)
        """,
        ("M S: coupled D rank 2",),
    )
    yield Case(
        "momentum without feedback",
        f"{_QKV}, eta:B T",
        "M:D E, S:D E",
        "M = eta * M + k * v\nS = S + M" + _READ,
        ("M S: coupled D rank 0",),
    )
    yield Case(
        "oja",
        f"{_QKV}, beta:B T",
        _S,
        "S = S + beta * v * (k - sum(v * S, E))" + _READ,
        ("S: matrix E scalar log rank 1",),
    )
    yield Case(
        "running max",
        "x:B T C, g:B T C",
        "m:C",
        "m = max(m + g, x)\no = m",
        ("m: affine max add",),
    )
    yield Case(
        "running logsumexp",
        "x:B T C",
        "z:C",
        "z = log(exp(z) + exp(x))\no = z",
        ("z: affine logaddexp add constant",),
    )
    yield Case(
        "aaren",
        "s:B T, v:B T E",
        "m:,c:E,n:",
        """
        m1 = max(m, s)
        c = exp(m - m1) * c + exp(s - m1) * v
        n = exp(m - m1) * n + exp(s - m1)
        m = m1
        o = c / n
        """,
        ("m: affine max add constant", "c: affine add mul", "n: affine add mul"),
    )
    yield Case(
        "gated slots",
        "q:B T D, k:B T D, v:B T E, s:B T M, g:B T M",
        "K:D M, V:M E",
        """
        K = exp(g) * K + k * s
        p = exp(sum(q * K, D))
        V = exp(g) * V + s * v
        o = sum(p / sum(p, M) * V, M)
        """,
        ("K: matrix M entry log rank 0", "V: matrix M entry log rank 0"),
    )
    yield Case(
        "two corrections",
        f"{_QKV}, k2:B T D, v2:B T E, beta:B T, g:B T D",
        _S,
        """
        S = exp(g) * S
        S = S + beta * k * (v - sum(k * S, D))
        S = S + beta * k2 * (v2 - sum(k2 * S, D))
        o = sum(q * S, D)
        """,
        ("S: matrix D entry log rank 2",),
    )
    yield Case(
        "reset",
        f"{_QKV}, g:B T D, new:B T",
        _S,
        "S = exp(g) * S + k * v" + _READ,
        ("S: matrix D entry decay rank 0",),
        reset="new > 0.4",
    )
    yield Case(
        "lmu",
        "x:B T, A:N P, W:N",
        "s:N",
        "s = sum(A * at(s, N=p), P) + W * x\no = s",
        ("s: dense N constant",),
    )
    yield Case(
        "heads listed",
        "q:B T H D, k:B T H D, v:B T H E, g:B T H",
        "S:H D E",
        "S = exp(g) * S + k * v" + _READ,
        (scalar,),
    )
    yield Case(
        "kept whole", f"{_QKV}, g:B T", _S, "S = exp(g) * S + k * v\no = S", ("S: affine add mul",)
    )


def loops() -> Iterator[Case]:
    """Steps that have none."""
    yield Case(
        "elman",
        "x:B T C, R:C P",
        "h:C",
        "h = tanh(x + sum(R * at(h, C=p), P))\no = h",
        ("h: loop mixing",),
    )
    yield Case(
        "gru",
        "x:B T C, xz:B T C, xr:B T C, R:C P, Z:C P, W:C P",
        "h:C",
        """
        r = sigmoid(xr + sum(W * at(h, C=p), P))
        z = sigmoid(xz + sum(Z * at(h, C=p), P))
        n = tanh(x + sum(R * at(r * h, C=p), P))
        h = (1 - z) * n + z * h
        """,
        ("h: loop mixing",),
    )
    yield Case(
        "lif",
        "x:B T C",
        "u:C",
        "u = 0.9 * u + x\ns = where(u > 1, 1, 0)\nu = u - s",
        ("u: loop elementwise",),
    )
    yield Case(
        "normalised memory",
        f"{_QKV}, beta:B T",
        _S,
        "S = S + beta * k * (v - tanh(sum(k * S, D)))" + _READ,
        ("S: loop dots",),
    )
    yield Case(
        "gate reads the state",
        f"{_QKV}",
        _S,
        "S = sigmoid(sum(v * sum(q * S, D), E)) * S + k * v",
        ("S: loop dots",),
    )
    yield Case(
        "delta rule kept whole",
        f"{_QKV}, beta:B T",
        _S,
        "S = S + beta * k * (v - sum(k * S, D))\no = S",
        ("S: loop dots",),
    )
    yield Case(
        "inner loop",
        "q:B T D, k:B T R D, v:B T R E, g:B T",
        _S,
        """
        S = exp(g) * S
        for R:
            S = S + k * (v - sum(k * S, D))
        o = sum(q * S, D)
        """,
        ("S: loop dots",),
    )
