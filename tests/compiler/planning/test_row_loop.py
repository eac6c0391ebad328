"""Recurrences whose step reads more than a kernel holds: kernels for each row, and their loop."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

import mixc
from mixc.backends.cpu.run import run_plan as run_natively
from mixc.backends.reference.evaluate import run
from mixc.backends.reference.tiles import run_plan
from mixc.compiler.language.find import find_spec
from mixc.compiler.language.load import load_file, load_text
from mixc.compiler.mixers.derivative.differentiate import differentiate
from mixc.compiler.pipeline import lower
from mixc.ir.binding import bind_sizes
from mixc.ir.errors import VerificationError
from mixc.ir.host import evaluate_host
from mixc.ir.mixer import Mixer
from mixc.ir.plan import Plan
from mixc.ir.plan_memory import bytes_made
from mixc.ir.roles import feature_dims
from mixc.ir.targets import PORTABLE
from mixc.ir.task import AttentionTask
from mixc.ir.tile_text import write_plan
from mixc.ir.verify_plan import verify_plan

TEXT = """
mixer: reader
inputs:
  x: [B, T, D]
  w: [B, T*G, D]
  k: [B, J, D]
  v: [B, J, E]
  h0: [B, D]
  done: {dims: [B, T], dtype: bool}
dims: {G: 2}
recurrence:
  over: T
  state: {h: [D], n: []}
  initial: {h: h0}
  MORE
  step:
STEP
outputs: {o: [B, T, E], h: [B, D], n: [B]}
"""
READ = "o[B, T, E] = sum(softmax(sum(k * h, D), J) * v, J)"
STEPS = {
    "attends": f"h = tanh(x + h); n = n + x[D=0]; {READ}",
    "attends first": f"{READ}; h = tanh(x + h + sum(o, E)); n = n + o[E=0]",
    "with a mask": "h = tanh(x + h); n = n + t * x[D=0]; "
    "o[B, T, E] = sum(softmax(sum(k * h, D), J, where=j <= t and j % 3 > 0) * v, J)",
    "sums twice": "z = sum(sigmoid(sum(k * h, D)) * v, J); m = max(sum(k * h, D), J); "
    "h = tanh(x + h) / (1 + abs(m)); n = m; o[B, T, E] = z * m",
    "other rows": f"h = tanh(x[T=t - 1] + h + cumsum(x, T)); n = n + sum(w, G, D); {READ}",
    "part of a line": "h = tanh(h + x); n = n + x[D=0]; "
    "o[B, T, E] = 1 + 2 * sum(softmax(n + sum(k * h, D), J) * v, J)",
}
CALL = {"x": (2, 5, 4), "w": (2, 10, 4), "k": (2, 37, 4), "v": (2, 37, 3), "h0": (2, 4)}


def reader(step: str, more: str = "direction: forward") -> Mixer:
    lines = "".join(f"    - {line.strip()}\n" for line in step.split(";"))
    return load_text(TEXT.replace("STEP\n", lines).replace("MORE", more))


def call(length: int = 5) -> dict[str, Tensor]:
    torch.manual_seed(0)
    shapes = {**CALL, "x": (2, length, 4), "w": (2, 2 * length, 4)}
    tensors = {name: torch.randn(shape, dtype=torch.float64) for name, shape in shapes.items()}
    return tensors | {"done": torch.rand(2, length) < 0.4}


def planned(mixer: Mixer, tensors: dict[str, Tensor]) -> Plan:
    sizes = bind_sizes(mixer, {name: tuple(t.shape) for name, t in tensors.items()})
    return lower(mixer, {dim: sizes[dim] for dim in feature_dims(mixer)}, "fp32")


def check(mixer: Mixer, tensors: dict[str, Tensor], natively: bool = True) -> Plan:
    """One plan gives what the reference gives, by the meaning of its programs and ``natively``."""
    expected, plan = run(mixer, tensors), planned(mixer, tensors)
    assert plan.loops
    sizes = bind_sizes(mixer, {name: tuple(t.shape) for name, t in tensors.items()})
    made = run_plan(plan, tensors, sizes)
    for name, value in expected.items():
        torch.testing.assert_close(made[name], value, rtol=1e-10, atol=1e-10)
    if not natively:
        return plan
    narrow = {n: t.float() if t.is_floating_point() else t for n, t in tensors.items()}
    native = run_natively(plan, narrow, sizes)
    for name, value in expected.items():
        torch.testing.assert_close(native[name].double(), value, rtol=1e-5, atol=1e-5)
    return plan


@pytest.mark.parametrize("length", [0, 1, 5])
@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS)
def test_rows_one_after_another(step: str, length: int) -> None:
    check(reader(step), call(length), natively=length != 1)


@pytest.mark.parametrize("more", ["direction: backward", "reset: done"])
@pytest.mark.parametrize("step", [STEPS["attends"], STEPS["attends first"]])
def test_rows_from_the_end_and_states_set_back(step: str, more: str) -> None:
    check(reader(step, more), call(), natively=step == STEPS["attends first"])


def test_a_state_along_the_other_sequence_is_handed_over_in_memory() -> None:
    text = """
mixer: moving
inputs: {x: [B, T, J], k: [B, J, D]}
recurrence:
  over: T
  state: {a: [J]}
  step:
    - a = softmax(x + a, J)
    - o = sum(a * k, J)
outputs: {o: [B, T, D], a: [B, J]}
"""
    tensors = {"x": torch.randn(2, 3, 600).double(), "k": torch.randn(2, 600, 4).double()}
    plan = check(load_text(text), tensors)
    assert not any(kernel.schedule == "loop" for kernel in plan.kernels)


def test_a_step_that_no_gpu_holds_is_kernels_for_each_row() -> None:
    mixer = load_file(find_spec("ttm"))
    dims = {"B": 1, "T": 2, "P": 196, "M": 256, "R": 16, "D": 128, "E": 128, "F": 32}
    torch.manual_seed(0)
    tensors = {
        i.name: torch.randn([dims[d] for d in i.dims], dtype=torch.float64) / 8
        for i in mixer.inputs
    }
    plan = check(mixer, tensors, natively=False)
    assert len(plan.loops) == 1
    assert sum(isinstance(task, AttentionTask) for task in plan.tasks) == 2
    dims |= {"U": 452, "V": 468}
    small = lower(mixer, {**dims, "D": 16, "E": 16, "P": 4, "M": 8, "U": 12, "V": 20}, "fp32")
    assert not small.loops
    assert not lower(mixer, dims, "fp32", target=PORTABLE).loops  # which has memory enough


def test_gradients_are_rows_of_the_same_kind() -> None:
    mixer, tensors = reader(STEPS["attends first"]), call()
    derivative = differentiate(mixer)
    given = {**tensors, "done": tensors["done"]}
    forward = run(derivative.forward, given)
    cotangents = {
        i.name: forward[i.name] if i.name in forward else given.get(i.name)
        for i in derivative.backward.inputs
    }
    shapes = {"d_o": (2, 5, 3), "d_h": (2, 4), "d_n": (2,)}
    more = {n: torch.randn(s, dtype=torch.float64) for n, s in shapes.items()}
    filled = {n: more[n] if t is None else t for n, t in cotangents.items()}
    plan = check(derivative.backward, filled)
    assert any(loop.reverse for loop in plan.loops)


def test_an_attention_in_a_step_goes_by_its_own_schedule() -> None:
    plan = planned(reader(STEPS["attends"]), call())
    (task,) = [task for task in plan.tasks if isinstance(task, AttentionTask)]
    ((_, inside),) = plan.stretches
    assert plan.tasks.index(task) in inside
    assert task.over == "J"
    assert task.mask is None


@pytest.mark.parametrize("backend", ["cpu", "interpreter"])
def test_how_many_rows_there_are_is_known_at_the_call(backend: str, tmp_path: Path) -> None:
    path = tmp_path / "rounds.yaml"
    path.write_text(
        """
mixer: rounds
inputs: {x: [B, J, D], h0: [B, D]}
params: {rounds: {default: 6, runtime: true}}
dims: {R: rounds}
recurrence:
  over: R
  state: {h: [D]}
  initial: {h: h0}
  step:
    - h[B, D] = 0.5 * h + sum(softmax(sum(x * h, D), J) * x, J)
outputs: {h: [B, D]}
"""
    )
    made, meant = (mixc.load(str(path), backend=name) for name in (backend, "reference"))
    for rounds, length in ((6, 20), (2, 20), (0, 20), (3, 33)):
        x, h0 = torch.randn(2, length, 16), torch.randn(2, 16)
        expected = meant(x.double(), h0.double(), rounds=rounds)
        torch.testing.assert_close(
            made(x, h0, rounds=rounds).double(), expected, rtol=1e-5, atol=1e-5
        )


def test_what_no_state_goes_into_is_made_once_for_all_rows() -> None:
    step = f"h = tanh(x + h); n = n + sum(v * v, J, E); {READ}"
    plan = planned(reader(step), call())
    ((_, inside),) = plan.stretches
    before = {name for task in plan.tasks[: inside.start] for name in task.writes}
    assert any("v_made" in name for name in before)


def test_memory_is_counted_once_for_a_state_and_not_for_rows() -> None:
    plan = planned(reader(STEPS["attends"]), call())
    views = {b.name: replace(b, role="temporary") for b in plan.buffers if b.role == "view"}
    counted = replace(plan, buffers=tuple(views.get(b.name, b) for b in plan.buffers))
    sizes = {"B": 2, "T": 5, "J": 37, "D": 4, "E": 3, "G": 2, **dict(plan.sizes), "One": 1}
    less, more = (evaluate_host(bytes_made(p), sizes) for p in (plan, counted))
    assert less < more


def test_the_text_says_what_rows_see() -> None:
    text = write_plan(planned(reader(STEPS["attends"]), call()))
    assert "  for each row along T: " in text
    assert "    x_row: a row of x\n" in text
    assert "    h_before: h_start, then h_after of the row before; at last h_end\n" in text


def broken(plan: Plan, **changes: object) -> Plan:
    (loop,) = plan.loops
    return replace(plan, loops=(replace(loop, **changes),))  # type: ignore[arg-type]


def test_a_loop_that_is_not_sound_is_refused() -> None:
    plan = planned(reader(STEPS["attends"]), call())
    (loop,) = plan.loops
    first, second = loop.states
    rows = tuple((view, "h0" if view == "x_row" else whole) for view, whole in loop.rows)
    with pytest.raises(VerificationError, match="x_row is no row of h0 along T"):
        verify_plan(broken(plan, rows=rows))
    mixed = (replace(first, after=second.after), second)
    with pytest.raises(VerificationError, match="are not of one kind"):
        verify_plan(broken(plan, states=mixed))
    with pytest.raises(VerificationError, match="reads h_before before it is made"):
        verify_plan(broken(plan, states=(second,)))
    inside = dict(plan.stretches)[loop]
    late = (*plan.tasks[: inside.stop - 1], *plan.tasks[inside.stop :], plan.tasks[inside.stop - 1])
    with pytest.raises(VerificationError, match="do not stand together"):
        verify_plan(replace(plan, tasks=late, kernels=()))
    early = (*plan.tasks[1 : inside.stop], plan.tasks[0], *plan.tasks[inside.stop :])
    with pytest.raises(VerificationError, match="rows along T read h_start before it is made"):
        verify_plan(replace(plan, tasks=early, kernels=()))


def test_what_costs_and_no_state_goes_into_is_made_once_with_its_function() -> None:
    """A matrix of pairs is stored as the rows want it, its sums beside it, and nothing else is."""
    text = """
mixer: walk
inputs: {q: [B, I, D], k: [B, J, D], a0: [B, J]}
params: {rounds: 3}
dims: {J: I + 1, R: rounds}
let:
  next[B, I, J]: softmax(sum(q * k, D), J)
recurrence:
  over: R
  state: {a: [J]}
  initial: {a: a0}
  step:
    - a[B, J] = sum(a[J=i] * next, I) + where(j == I, a, 0)
outputs: {a: [B, J]}
"""
    shapes = {"q": (2, 70, 4), "k": (2, 71, 4), "a0": (2, 71)}
    plan = check(load_text(text), {n: torch.randn(s).double() for n, s in shapes.items()})
    pairs = [b.name for b in plan.buffers if {"I", "J"} <= {*b.dims}]
    assert pairs == ["next"]
    ((_, inside),) = plan.stretches
    assert len(inside) == 1


def test_a_result_that_nothing_else_reads_is_made_where_it_stays() -> None:
    plan = planned(
        reader("h = tanh(x + h); n = n + x[D=0]; o[B, T, E] = sum(tanh(h * k) * v, J, D)"), call()
    )
    ((_, inside),) = plan.stretches
    writes = [name for place in inside for name in plan.kernels[place].writes]
    assert "o_row" in writes
    assert "o_now" not in {b.name for b in plan.buffers}


def test_what_a_row_makes_of_heads_and_of_their_groups_is_by_head() -> None:
    text = """
mixer: groups
inputs: {q: [B, H, D], k: [B, G, J, D]}
heads: {G: H}
params: {rounds: 2}
dims: {R: rounds}
recurrence:
  over: R
  state: {h: [D]}
  initial: {h: q}
  step:
    - likes[B, H, R] = max(sum(k * h, D), J)
    - h = tanh(likes) * sum(sigmoid(sum(k * h, D)) * k, J)
outputs: {h: [B, H, D]}
"""
    tensors = {"q": torch.randn(2, 6, 4).double(), "k": torch.randn(2, 3, 40, 4).double()}
    plan = check(load_text(text), tensors)
    assert not [b.name for b in plan.buffers if {"G", "H"} <= {*b.dims}]
