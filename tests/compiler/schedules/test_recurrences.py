"""Recurrences as tile programs, interpreted in float64, against the float64 reference."""

from __future__ import annotations

from dataclasses import replace
from math import prod

import pytest
import torch
from torch import Tensor

from mixc.backends.reference.evaluate import run
from mixc.backends.reference.tiles import run_plan
from mixc.compiler.language.load import load_text
from mixc.compiler.pipeline import lower
from mixc.compiler.schedules.configurations import knobs
from mixc.ir.binding import bind_sizes
from mixc.ir.mixer import Mixer
from mixc.ir.plan import Plan
from mixc.ir.roles import feature_dims
from mixc.ir.targets import EVERY_GPU, AnyTarget, parse_target
from mixc.ir.tile import For, Scan, all_ops

SIZES = {"B": 2, "H": 2, "G": 1, "D": 5, "E": 3, "C": 5, "N": 3, "P": 5}

MATRIX = """
mixer: matrix
inputs:
  q: [B, T, H, D]
  k: [B, T, G, D]
  v: [B, T, H, E]
  x: [B, T, H, E]
  g: [B, T, H]
  gd: [B, T, H, D]
  beta: [B, T, H]
  done: {dims: [B, T], dtype: bool}
  S0: [B, H, D, E]
  n0: [B, H, D]
heads: {G: H}
recurrence:
  over: T
  state: {S: [D, E], n: [D]}
  initial: {S: S0, n: n0}
  DIRECTION
  step:
STEP
outputs: {o: [B, T, H, OUT], S: [B, H, D, E], n: [B, H, D]}
"""
STEPS = {
    "no decay": "S = S + k * v; n = n + k; o = sum(q * S, D)",
    "scalar decay": "S = exp(g) * S + k * v; n = exp(g) * n + k; o = sum(q * S, D)",
    "normalised": "S = exp(g) * S + k * v; n = exp(g) * n + k; "
    "o = sum(q * S, D) / (1 + abs(sum(q * n, D)))",
    "decay of each entry": "S = exp(gd) * S + k * v; n = exp(gd) * n + k; o = sum(q * S, D)",
    "read before": "o = sum(q * (S + beta * k * v), D); S = exp(gd) * S + k * v; n = n",
    "delta rule": "S = S + beta * k * (v - sum(k * S, D)); n = n; o = sum(q * S, D)",
    "gated delta rule": "S = exp(g) * S; S = S + beta * k * (v - sum(k * S, D)); "
    "n = n; o = sum(q * S, D)",
    "error of the undecayed state": "S = exp(g) * S + beta * k * (v - sum(k * S, D)); n = n; "
    "o = sum(q * S, D)",
    "delta rule, decay of each entry": "S = exp(gd) * S; S = S + beta * k * (v - sum(k * S, D)); "
    "n = n; o = sum(q * S, D)",
    "correction apart from the write": "S = exp(gd) * S - q * sum(beta * k * S, D) + k * v; n = n; "
    "o = sum(q * S, D)",
    "two writes": "S = exp(g) * S + k * v + q * x; n = exp(g) * n + k - q; o = sum(q * S, D)",
    "decay that is a number": "S = beta * S + k * v; n = (1 - beta) * n + k; o = sum(q * S, D)",
    "decay that is constant": "S = 0.9 * S + k * v; n = 0.5 * n + k; o = sum(q * S, D)",
    "read along the values": "S = exp(gd) * S + k * v; n = n + k; o = sum(x * S, E)",
    "read along the values, one decay": "S = exp(g) * S + k * v; n = n + k; o = sum(x * S, E)",
}
BACKWARD = "direction: backward"
RESET = "reset: done"


def matrix(step: str, more: str = "") -> Mixer:
    """A mixer with a matrix state and a vector beside it."""
    lines = "".join(f"    - {line.strip()}\n" for line in step.split(";"))
    out = "D" if "o = sum(x * S, E)" in step else "E"
    text = MATRIX.replace("STEP\n", lines).replace("  DIRECTION\n", f"  {more}\n" if more else "")
    return load_text(text.replace("OUT", out))


def inputs_of(mixer: Mixer, length: int, seed: int = 0) -> dict[str, Tensor]:
    """Random inputs; gates are logarithms of decays, now and then extreme."""
    random = torch.Generator().manual_seed(seed)
    made: dict[str, Tensor] = {}
    for one in mixer.inputs:
        lengths = {**SIZES, "T": length}
        shape = [prod(lengths[dim] for dim in axis) for axis in one.layout]
        if one.dtype == "bool":
            made[one.name] = torch.rand(shape, generator=random) < 0.2
            continue
        x = torch.randn(shape, generator=random, dtype=torch.float64)
        match one.name:
            case "g" | "gd":
                x = -x.abs()
                x[:, 3:9], x[:, 11:12], x[:, 14:15] = -30.0, 0.0, -torch.inf
            case "k":
                x = torch.nn.functional.normalize(x, dim=-1)
            case "beta":
                x = torch.sigmoid(x)
                x[:, 5:6] = 0.0
        made[one.name] = x
    return made


def with_block(plan: Plan, dim: str, block: int) -> Plan:
    """The plan with blocks of ``dim`` of another size."""
    kernels = []
    for kernel in plan.kernels:
        tiles = tuple(
            replace(t, block=block) if (t.like or t.dim) == dim else t for t in kernel.program.tiles
        )
        kernels.append(replace(kernel, program=replace(kernel.program, tiles=tiles)))
    return replace(plan, kernels=tuple(kernels))


def check(
    mixer: Mixer,
    length: int,
    schedule: str,
    recurrence: str = "chunk",
    splits: int = 1,
    dtype: str = "fp32",
    chunk_kernels: int = 0,
    target: AnyTarget = EVERY_GPU,
) -> Plan:
    """The plan by ``schedule`` gives what the reference gives, in blocks of 16 rows."""
    tensors = inputs_of(mixer, length)
    sizes = bind_sizes(mixer, {name: tuple(t.shape) for name, t in tensors.items()})
    expected = run(mixer, tensors)
    fixed = {dim: sizes[dim] for dim in feature_dims(mixer)}
    plan = lower(mixer, fixed, dtype, splits, recurrence, target, chunk_kernels)
    assert schedule in {kernel.schedule for kernel in plan.kernels}
    made = run_plan(with_block(plan, "T", 16), tensors, sizes)
    for name, value in expected.items():
        torch.testing.assert_close(made[name], value, rtol=1e-10, atol=1e-10)
    return plan


@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS)
def test_chunks(step: str) -> None:
    check(matrix(step), 37, "chunk")


@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS)
def test_chunks_from_the_end(step: str) -> None:
    check(matrix(step, BACKWARD), 19, "chunk")


@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS)
def test_row_by_row(step: str) -> None:
    check(matrix(step), 18, "loop", "loop")


@pytest.mark.parametrize("name", ["normalised", "gated delta rule", "decay of each entry"])
def test_chunks_with_resets(name: str) -> None:
    check(matrix(STEPS[name], RESET), 21, "chunk")
    check(matrix(STEPS[name], RESET), 21, "loop", "loop")


@pytest.mark.parametrize("length", [0, 1, 16, 17])
@pytest.mark.parametrize("name", ["gated delta rule", "decay of each entry"])
def test_short_sequences(name: str, length: int) -> None:
    check(matrix(STEPS[name]), length, "chunk")
    check(matrix(STEPS[name]), length, "loop", "loop")


# Their decays are scalars of which logarithms are known: 16-bit chunks take differences of sums.
LOGARITHMS = {
    **{name: STEPS[name] for name in STEPS if "scalar" in name or name == "gated delta rule"},
    "error of the undecayed state": STEPS["error of the undecayed state"],
    "normalised": STEPS["normalised"],
    "two writes": STEPS["two writes"],
    "read along the values, one decay": STEPS["read along the values, one decay"],
    "decay that is constant": STEPS["decay that is constant"],
    "sigmoid": "S = sigmoid(g) * S + k * v; n = (1 - sigmoid(-g)) * n + k; o = sum(q * S, D)",
    "read before, one decay": "o = sum(q * S, D); S = exp(g) * S + k * v; n = n",
}


@pytest.mark.parametrize("step", LOGARITHMS.values(), ids=LOGARITHMS)
def test_chunks_by_logarithms(step: str) -> None:
    for more, length in (("", 37), (BACKWARD, 19), ("", 1), ("", 16)):
        plan = check(matrix(step, more), length, "chunk", dtype="bf16")
        scans = {op.op for k in plan.kernels for op in all_ops(k.program.body) if type(op) is Scan}
        assert scans == {"sum"}


@pytest.mark.parametrize("strong", [-80.0, -104.0, -1e4, -torch.inf])
def test_logarithms_after_strong_gates_are_exact_enough_for_16_bits(strong: float) -> None:
    mixer = matrix(STEPS["scalar decay"])
    tensors = inputs_of(mixer, 64)
    tensors["g"][:, :60], tensors["g"][:, 60:] = strong, -0.01
    sizes = bind_sizes(mixer, {name: tuple(t.shape) for name, t in tensors.items()})
    plan = lower(mixer, {dim: sizes[dim] for dim in feature_dims(mixer)}, "fp16")
    single = {n: t.float() if t.is_floating_point() else t for n, t in tensors.items()}
    made = run_plan(with_block(plan, "T", 64), single, sizes, dtype=torch.float32)
    for name, value in run(mixer, tensors).items():
        largest = float(value.abs().max())
        torch.testing.assert_close(made[name].double(), value, rtol=0, atol=2**-11 * largest)


def test_decays_that_may_be_0_or_negative_are_multiplied_in_16_bits_too() -> None:
    for name, more in (("decay that is a number", ""), ("normalised", RESET)):
        plan = check(matrix(STEPS[name], more), 21, "chunk", dtype="bf16")
        scans = {op.op for k in plan.kernels for op in all_ops(k.program.body) if type(op) is Scan}
        assert "prod" in scans


# Theirs are logarithms for each entry of the keys: on tensor cores they go half by half.
HALVES = [
    "decay of each entry",
    "read before",
    "delta rule, decay of each entry",
    "correction apart from the write",
    "read along the values",
]


@pytest.mark.parametrize("name", HALVES)
def test_decays_of_each_entry_go_half_by_half_in_16_bits(name: str) -> None:
    for more, length in (("", 37), (BACKWARD, 19), ("", 1)):
        plan = check(matrix(STEPS[name], more), length, "chunk", dtype="bf16")
        ops = [op for kernel in plan.kernels for op in all_ops(kernel.program.body)]
        assert not any(isinstance(op, Scan) for op in ops)
        walks = [op.body for op in ops if isinstance(op, For)]  # from chunk to chunk, none inside
        assert not any(isinstance(op, For) for body in walks for op in body)


@pytest.mark.parametrize("strong", [-1e-3, -20.0, -104.0, -1e4, -torch.inf])
@pytest.mark.parametrize("name", ["decay of each entry", "delta rule, decay of each entry"])
def test_half_by_half_is_exact_enough_for_16_bits(name: str, strong: float) -> None:
    """Whatever a gate does: it shuts for most rows, for single entries, and is open for others."""
    mixer = replace(matrix(STEPS[name]), tiling=(("block_t", (64,)),))
    tensors = inputs_of(mixer, 70)
    tensors["gd"][:, :40], tensors["gd"][:, 40:] = strong, -0.01
    tensors["gd"][..., 0], tensors["gd"][:, 50:, :, 1] = 0.0, strong
    sizes = bind_sizes(mixer, {name: tuple(t.shape) for name, t in tensors.items()})
    plan = lower(mixer, {dim: sizes[dim] for dim in feature_dims(mixer)}, "fp16")
    single = {n: t.float() if t.is_floating_point() else t for n, t in tensors.items()}
    made = run_plan(plan, single, sizes, dtype=torch.float32)
    for result, value in run(mixer, tensors).items():
        largest = float(value.abs().max())
        torch.testing.assert_close(made[result].double(), value, rtol=0, atol=2**-9 * largest)


def test_chunks_are_halved_until_single_rows_are_left() -> None:
    plan = lower(matrix(STEPS["decay of each entry"]), {}, "bf16")
    *_, kernel = (k for k in plan.kernels if k.schedule == "chunk")
    assert [n for n in range(66) if kernel.program.admits("T", n)] == [1, 2, 4, 8, 16]
    name = f"{kernel.program.name}.chunk"
    (chunk,) = (knob for knob in knobs(plan) if knob.name == name)
    assert chunk.choices == (16,)


@pytest.mark.parametrize("target", ["cuda:80", "cuda:90"])
def test_large_triangles_go_by_halves(target: str) -> None:
    mixer = matrix(STEPS["delta rule, decay of each entry"])
    plan = lower(mixer, {"D": 128, "E": 128}, "bf16", target=parse_target(target))
    loops = [op for k in plan.kernels for op in all_ops(k.program.body) if isinstance(op, For)]
    assert all(loop.step != 1 for loop in loops)


SEGMENTED = ["no decay", "normalised", "decay of each entry", "read before", "two writes"]


@pytest.mark.parametrize("name", SEGMENTED)
def test_segments_of_rows(name: str) -> None:
    for splits in (2, 3):
        check(matrix(STEPS[name]), 37, "loop", splits=splits)
    check(matrix(STEPS[name], BACKWARD), 70, "loop", splits=4)
    check(matrix(STEPS[name]), 5, "loop", splits=2)  # the second segment has no rows


STABILISED = """
mixer: stabilised
inputs:
  q: [B, H, T, D]
  k: [B, H, T, D]
  v: [B, H, T, E]
  i: [B, H, T]
  f: [B, H, T]
  m0: [B, H]
recurrence:
  over: T
  state: {m: [], S: [D, E]}
  initial: {m: m0}
  step:
    - m1 = max(f + m, i)
    - S = exp(f + m - m1) * S + exp(i - m1) * k * v
    - m = m1
    - o = sum(q * S, D) * exp(-abs(m))
outputs: {o: [B, H, T, E], m: [B, H]}
"""


def test_a_stabiliser_goes_before_the_chunks() -> None:
    mixer = load_text(STABILISED)
    check(mixer, 37, "chunk")
    check(mixer, 37, "scan")
    check(mixer, 20, "loop", "loop")


SCANS = {
    "elementwise": """
  state: {h: [C]}
  initial: {h: h0}
  step:
    - h = exp(a) * h + b
    - o = h * c
""",
    "of each state": """
  state: {h: [C, N]}
  step:
    - h = exp(a * w) * h + b * c * w
    - o = sum(w * h, N) + h0
""",
    "before and after": """
  state: {h: [C]}
  initial: {h: h0}
  step:
    - o = h
    - h = a * h + b
    - y = h - o
    - o = o * y
""",
    "coupled": """
  state: {p: [C], h: [C]}
  initial: {h: h0}
  step:
    - p = sigmoid(a) * p + b
    - h = sigmoid(c) * h - p
    - o = h + 2 * p
""",
    "rotating": """
  state: {x: [C], y: [C]}
  initial: {x: h0, y: 1}
  step:
    - turned = cos(a) * x - sin(a) * y + b
    - y = sin(a) * x + cos(a) * y
    - x = turned
    - o = x * y
""",
    "largest so far": """
  state: {m: [C]}
  initial: {m: -inf}
  step:
    - m = max(m + a, b)
    - o = m
""",
    "smallest so far": """
  state: {m: [C]}
  initial: {m: inf}
  step:
    - m = min(m + a, b)
    - o = m
""",
    "running softmax": """
  state: {m: [C], n: [C], s: [C]}
  initial: {m: -inf}
  step:
    - m1 = max(m, a)
    - n = exp(m - m1) * n + exp(a - m1)
    - s = exp(m - m1) * s + exp(a - m1) * b
    - m = m1
    - o = s / n
""",
    "running logsumexp": """
  state: {z: [C]}
  initial: {z: -inf}
  step:
    - z = logaddexp(z, a)
    - o = b - z
""",
}


def scanned(body: str, more: str = "") -> Mixer:
    """A mixer with elementwise states."""
    inputs = "a: [B, T, C], b: [B, T, C], c: [B, T, C], w: [C, N], h0: [B, C]"
    inputs = f"{{{inputs}, done: {{dims: [B, T], dtype: bool}}}}"
    recurrence = f"recurrence:\n  over: T{body}" + (f"  {more}\n" if more else "")
    return load_text(f"mixer: scanned\ninputs: {inputs}\n{recurrence}outputs: {{o: [B, T, C]}}\n")


@pytest.mark.parametrize("body", SCANS.values(), ids=SCANS)
def test_scans(body: str) -> None:
    check(scanned(body), 37, "scan")
    check(scanned(body), 18, "loop", "loop")


@pytest.mark.parametrize("name", ["elementwise", "before and after", "running softmax"])
def test_scans_from_the_end_and_with_resets(name: str) -> None:
    check(scanned(SCANS[name], BACKWARD), 37, "scan")
    if name != "running softmax":  # reset to a maximum of 0, which is not the softmax's
        check(scanned(SCANS[name], RESET), 37, "scan")


CELL = """
mixer: cell
inputs: {x: [B, T, D], R: [D, P], b: [D]}
recurrence:
  over: T
  state: {h: [D], c: [D]}
  step:
    - a = x + sum(R * h[D=p], P) + b
    - c = sigmoid(a) * c + tanh(a)
    - h = tanh(c) * sigmoid(a)
    - o = h + h[D=0]
outputs: {o: [B, T, D], c: [B, D]}
"""


def test_a_cell_that_mixes_its_state() -> None:
    check(load_text(CELL), 18, "loop")


SHIFTED = """
mixer: shifted
inputs: {x: [B, T, H], w: [D]}
recurrence:
  over: T
  state: {h: [D]}
  step:
    - h = where(d == 0, x, h[D=d - 1])
    - o = sum(w * h, D)
outputs: {o: [B, T, H]}
"""


def test_a_state_read_at_computed_positions() -> None:
    check(load_text(SHIFTED), 12, "loop")


ROUNDS = """
mixer: rounds
inputs: {q: [B, T, H, D], k: [B, T*N, H, D], v: [B, T*N, H, E], beta: [B, T*N, H], g: [B, T, H]}
recurrence:
  over: T
  state: {S: [D, E]}
  step:
    - S = exp(g) * S
    - over: N
      step:
        - S = S + beta * k * (v - sum(k * S, D))
    - o = sum(q * S, D)
outputs: {o: [B, T, H, E], S: [B, H, D, E]}
"""


@pytest.mark.parametrize("more", ["", BACKWARD])
def test_an_inner_loop(more: str) -> None:
    mixer = load_text(ROUNDS.replace("  step:\n    - S = exp", f"  {more}\n  step:\n    - S = exp"))
    check(mixer, 13, "chunk")
    check(mixer, 7, "loop", "loop")


MOMENTUM = """
mixer: momentum
inputs:
  q: [B, T, H, D]
  k: [B, T, H, D]
  v: [B, T, H, E]
  g: [B, T, H]
  beta: [B, T, H]
  S0: [B, H, D, E]
  n0: [B, H, D, E]
recurrence:
  over: T
  state: {W: [D, E], M: [D, E]}
  initial: {W: S0, M: n0}
  step:
STEP
outputs: {o: [B, T, H, E], W: [B, H, D, E], M: [B, H, D, E]}
"""
MOMENTA = {
    "of a delta rule": "error = sum(k * W, D) - v; M = exp(g) * M - beta * k * error; "
    "W = (1 - beta / 2) * W + M; o = sum(q * W, D)",
    "without a correction": "M = exp(g) * M + k * v; W = beta * W + M; o = sum(q * W, D)",
    "read before, both": "o = sum(q * W, D) + sum(q * M, D); M = exp(g) * M - k * sum(k * W, D); "
    "W = exp(g) * W + M + q * v",
    "both ways": "N = 0.5 * M + 0.1 * W + k * v; W = exp(g) * W - 0.2 * M; M = N; "
    "o = sum(q * W, D)",
}


@pytest.mark.parametrize("more", ["", BACKWARD])
@pytest.mark.parametrize("step", MOMENTA.values(), ids=MOMENTA)
def test_states_that_mix_by_scalars(step: str, more: str) -> None:
    lines = "".join(f"    - {line.strip()}\n" for line in step.split(";"))
    text = MOMENTUM.replace("STEP\n", lines)
    mixer = load_text(text.replace("  step:\n", f"  {more}\n  step:\n" if more else "  step:\n"))
    check(mixer, 21, "chunk")
