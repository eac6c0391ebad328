"""What ``mixc show`` says of a step, in the spec's names."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mixc.compiler.analysis.recurrence.classify import classify
from mixc.compiler.analysis.recurrence.describe import describe
from mixc.compiler.analysis.recurrence.flatten import flatten

from .published import loops, parallel

CASES = {case.name: case for case in (*parallel(), *loops())}
SHOWN = {
    "kda": """\
S: chunks of T, decay per entry of D, 1 correction of rank one
  S[t] = exp(g) * S[t-1] + beta * k * (v - sum(k * exp(g) * S[t-1], D))
  read after the row's write in o: sum(q * S[t], D)""",
    "rwkv6": """\
S: chunks of T, decay per entry of D
  S[t] = exp(-exp(w)) * S[t-1] + k * v
  read before the row in o: sum(q * S[t-1], D)""",
    "titans linear": """\
S, M: chunks of T, coupled by scalars of the row
  S[t] = (1 - alpha) * S[t-1] + eta * M[t-1] + theta * k * (v - sum(k * S[t-1], D))
  M[t] = eta * M[t-1] + theta * k * (v - sum(k * S[t-1], D))
  read after the row's write in o: sum(q * S[t], D)""",
    "running max": """\
m: a scan over T, affine in (max, +)
  m[t] = max(m[t-1] + g, x)""",
    "ema": """\
h: a scan over T, affine in (+, *), with the same coefficients in each row
  h[t] = (1 - p * a) * h[t-1] + p * x""",
    "lmu": """\
s: row by row, one product with a matrix, the same in each row
  s[t] = sum(A * s[t-1][N=p], P) + W * x""",
    "elman": """\
h: row by row, states mixed by weights that stay the same
  in the way: tanh(x + sum(R * h[t-1][C=p], P)) (not linear in the state)""",
    "lif": """\
u: row by row, each entry by itself
  in the way: u > 1 (not linear in the state)""",
    "inner loop": """\
S: row by row, with products inside
  in the way (an inner loop)""",
    "delta rule kept whole": """\
S: row by row, with products inside
  in the way: S[t] (the whole state is used)""",
}


@pytest.mark.parametrize("name", SHOWN)
def test_lines(name: str) -> None:
    step = CASES[name].recurrence()
    assert "\n".join(describe(classify(step), step)) == SHOWN[name]


def test_backward() -> None:
    step = replace(CASES["hgrn"].recurrence(), reverse=True)
    assert describe(classify(step), step)[1].startswith("  h[t] = sigmoid(f) * h[t+1] +")


def test_inner_loop_laid_out() -> None:
    flat = flatten(CASES["inner loop"].recurrence())
    assert flat is not None
    first, update, read = describe(classify(flat.recurrence), flat.recurrence, flat)
    assert first == "S: chunks of TR, one decay for each row, 1 correction of rank one"
    decay = "where(r == 0, exp(g), 1)"
    assert update == f"  S[tr] = {decay} * S[tr-1] + k * (v - sum(k * {decay} * S[tr-1], D))"
    assert read == "  read after the row's write in o: sum(q * S[tr], D)"
