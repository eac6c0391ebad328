"""Which dims kernels are compiled for, which they walk over, and which are batch."""

import pytest

from mixc.compiler.language.load import load_text
from mixc.ir.mixer import Attention, Recurrence
from mixc.ir.roles import (
    LARGEST_WHOLE,
    batch_dims,
    dim_roles,
    feature_dims,
    other_sequences,
    query_axis,
    sets_read,
)

SPECS = {
    "delta": (
        "inputs: {k: [B, T, H, D], v: [B, T, H, E], g: [B, T, H], S0: [B, H, D, E]}\n"
        "recurrence:\n  over: T\n  state: {S: [D, E]}\n  initial: {S: S0}\n  step:\n"
        "    - S = g * S + k * v\n    - o = sum(S * k, D)\n"
        "outputs: {o: [B, T, H, E]}",
        ("DE", "BH", "T"),
    ),
    "gates": (
        "inputs: {x: [B, T, K, D], R: [K, D, P]}\ndims: {K: 2}\n"
        "recurrence:\n  over: T\n  state: {h: [D]}\n  step:\n"
        "    - a = x + sum(R * h[D=p], P)\n    - h = sigmoid(a[K=0]) * tanh(a[K=1])\n"
        "outputs: {h: [B, D]}",
        ("DKP", "B", "T"),
    ),
    "groups": (
        "inputs: {q: [B, T, H, D], k: [B, T, G, D]}\nheads: {G: H}\n"
        "recurrence:\n  over: T\n  state: {S: [D]}\n  step:\n"
        "    - S = S + k\n    - o = sum(S * q, D)\n"
        "outputs: {o: [B, T, H]}",
        ("D", "BG", "T"),
    ),
    "rounds": (
        "inputs: {k: [B, T, H, D], b: [B, T, H, R]}\n"
        "recurrence:\n  over: T\n  state: {S: [D]}\n  step:\n"
        "    - over: R\n      step: [S = S + b * k]\n"
        "outputs: {S: [B, H, D]}",
        ("D", "BH", "T"),
    ),
    "channels": (
        "inputs: {x: [B, T, C], A: [C, N], h0: [B, C]}\n"
        "recurrence:\n  over: T\n  state: {h: [C, N]}\n  initial: {h: h0}\n  step:\n"
        "    - h = A * h + x\n    - y = sum(h, N)\n"
        "outputs: {y: [B, T, C]}",
        ("CN", "B", "T"),
    ),
}


@pytest.mark.parametrize("name", SPECS)
def test_the_dims_of_a_recurrence(name):
    text, (features, batch, long) = SPECS[name]
    mixer = load_text(f"mixer: m\n{text}")
    assert "".join(sorted(feature_dims(mixer))) == features
    assert "".join(sorted(batch_dims(mixer))) == batch
    assert "T" in dim_roles(mixer, {}).long
    assert not dim_roles(mixer, {}).long & {*features, *batch}
    assert set(long) <= dim_roles(mixer, {}).long


SEGMENTS = """
mixer: m
inputs: {{q: {q}, k: {k}, first: [P, D]}}
dims: {{M: L}}
recurrence:
  over: N
  state: {{h: [D]}}
  step:
    - both = concat(U, first, P, k + h, M)
    - h = h + sum(softmax(sum(both * h, D), U) * both, U)
    - o = sum(q * h, D)
outputs: {{o: {o}}}
"""


def test_a_segment_is_a_part_of_its_row_and_a_set_beside_the_rows_is_not():
    mixer = load_text(SEGMENTS.format(q="[B, N*L, D]", k="[B, N*M, D]", o="[B, N*L]"))
    (stage,) = mixer.stages
    assert isinstance(stage, Recurrence)
    assert sets_read(mixer, stage) == {"U"}
    assert other_sequences(mixer, stage) == set()
    assert feature_dims(mixer) == {"D", "L", "M", "P", "U"}
    mixer = load_text(SEGMENTS.format(q="[B, N, L, D]", k="[B, N, M, D]", o="[B, N, L]"))
    (stage,) = mixer.stages
    assert isinstance(stage, Recurrence)
    assert other_sequences(mixer, stage) == {"U"}
    assert feature_dims(mixer) == {"D"}


def test_many_channels_are_not_held_whole():
    mixer = load_text(f"mixer: m\n{SPECS['channels'][0]}")
    roles = dim_roles(mixer, {"C": LARGEST_WHOLE + 1, "N": 16})
    assert roles.features == {"N"}


def test_queries_are_the_axis_that_keys_lack_also_where_keys_are_looked_up():
    mixer = load_text("""
mixer: m
inputs:
  q: [B, I, H, D]
  k: [B, J, H, D]
  v: [B, J, H, E]
  from: {dims: [B, N], dtype: int32}
attention: {over: N, score: "sum(q * k[J=from], D)", output: {o: "v[J=from]"}}
outputs: {o: [B, I, H, E]}
""")
    (stage,) = mixer.stages
    assert isinstance(stage, Attention)
    assert query_axis(mixer, stage) == "I"
