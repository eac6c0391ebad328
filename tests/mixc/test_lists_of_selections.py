"""Lists of what is chosen, and choices by mass, by kernels: against the definition."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path

import pytest
import torch

import mixc
from mixc.backends.cpu.run import CpuRunner
from mixc.backends.reference.evaluate import run
from mixc.compiler.language.load import load_text
from mixc.compiler.pipeline import lower
from mixc.ir.selection_tasks import ChoiceTask
from mixc.ir.targets import AVX512, EVERY_GPU
from mixc.runtime.backends import kernel_runner

from .test_small_specs import _own_cache

__all__ = ["_own_cache"]

SPEC = """
mixer: chosen
inputs:
  x: [B, I, J]
  a: {{dims: [I, J], dtype: bool}}
  f: {{dims: [J], dtype: bool}}
  c: {{dims: [I], dtype: int32}}
  u: [B, I]
dims: {{I: T, J: T, S: 6}}
select:
  over: J
  score: x
  among: a and j <= i + 3
  keep: {keep}
  {always}
  list: {{name: places, axis: S}}
outputs: {{{outputs}}}
"""
RULES = {"top": "{top: c}", "above": "{above: u}", "mass": "{mass: u}"}
BOTH = "selected: [B, I, J], places: [B, I, S]"
RUNNERS = {
    "cpu": partial(CpuRunner, lower=lower, flags=("-O1",)),
    "interpreter": partial(kernel_runner, chosen="interpreter"),
}


def _mixer(rule: str, always: bool = True, outputs: str = BOTH):
    words = "always: f" if always else ""
    return load_text(SPEC.format(keep=RULES[rule], always=words, outputs=outputs))


def _given(rows: int, dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    """Few different numbers, infinite ones and such as are none, rows without candidates.

    No row has a part of its mass so near to what is asked for that rounding decides.
    """
    torch.manual_seed(rows)
    x = torch.randint(-2, 3, (2, rows, rows)).to(dtype)
    if rows > 4:
        x[0, 0, 3], x[0, 1, 2], x[1, 3] = math.nan, -math.inf, -math.inf
        x[1, 4, :2], x[1, 2, 1] = math.inf, math.nan
    a, f = torch.rand(rows, rows) < 0.6, torch.rand(rows) < 0.2
    a[2:3] = False
    c = torch.randint(-1, 9, (rows,)).int()
    u = torch.rand(2, rows).mul(1000).floor().add(0.5).div(1000).to(dtype)
    u[-1:, -1:], u[:1, -1:] = 1.5, 0.0
    return {"x": x, "a": a, "f": f, "c": c, "u": u}


def _check(backend: str, mixer, rows: int, dtype: torch.dtype = torch.float32) -> None:
    given = _given(rows, dtype)
    given = {i.name: given[i.name] for i in mixer.inputs}
    exact = {n: t.double() if t.is_floating_point() else t for n, t in given.items()}
    made, expected = RUNNERS[backend](mixer)(given, {}), run(mixer, exact)
    for name, value in expected.items():
        assert torch.equal(made[name].to(value.dtype), value), name


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("always", [True, False])
def test_on_a_cpu(rule: str, always: bool) -> None:
    mixer = _mixer(rule, always)
    for rows in (0, 1, 4, 17, 200):
        _check("cpu", mixer, rows)


@pytest.mark.parametrize("rule", RULES)
def test_by_the_interpreter(rule: str) -> None:
    for rows in (1, 37):
        _check("interpreter", _mixer(rule), rows)


@pytest.mark.parametrize("outputs", ["places: [I, S, B]", "selected: [J, B, I]"])
def test_one_of_both_in_half_precision(outputs: str) -> None:
    _check("cpu", _mixer("top", outputs=outputs), 50, torch.bfloat16)


def test_what_nothing_reads_is_not_made() -> None:
    """A list alone needs no truth value for each pair."""
    for target in (AVX512, EVERY_GPU):
        plan = lower(_mixer("top", outputs="places: [B, I, S]"), {}, "float32", target=target)
        (task,) = plan.tasks
        assert isinstance(task, ChoiceTask)
        assert task.computes == ("places",)
        assert {buffer.name for buffer in plan.buffers if buffer.role == "temporary"} == set()


READ = """
mixer: listed
inputs: {q: [B, I, D], k: [B, J, D], v: [B, J, E], qi: [B, I, C], ki: [B, N, C]}
dims: {I: T, J: T, N: (T + 7) // 8, S: 3, L: 8}
stages:
  - select:
      over: N
      score: sum(qi * ki, C)
      among: n <= i // 8
      keep: {top: 3}
      list: {name: blocks, axis: S}
  - attention:
      over: [S, L]
      score: D ** -0.5 * sum(q * k[J=blocks * 8 + l], D)
      mask: blocks >= 0 and blocks * 8 + l <= i
      output: {o: "v[J=blocks * 8 + l]"}
outputs: {o: [B, I, E]}
"""


@pytest.mark.parametrize("backend", RUNNERS)
def test_an_attention_goes_over_a_list(backend: str) -> None:
    mixer = load_text(READ)
    torch.manual_seed(0)
    rows, blocks = 45, 6
    shapes = {"q": (rows, 4), "k": (rows, 4), "v": (rows, 5), "qi": (rows, 8), "ki": (blocks, 8)}
    given = {name: torch.randn(2, *shape) for name, shape in shapes.items()}
    made = RUNNERS[backend](mixer)(given, {})["o"]
    expected = run(mixer, {n: t.double() for n, t in given.items()})["o"]
    torch.testing.assert_close(made.double(), expected, rtol=1e-5, atol=1e-5)


SEVERAL = """
mixer: several
inputs: {{x: [I, N, M], y: [I, C], z: [N, M, C], f: {{dims: [N, M], dtype: bool}}}}
dims: {{S: 7}}
select:
  over: [{over}]
  score: x + sum(y * z, C)
  among: n + m <= i
  keep: {keep}
  always: f
  list: {{name: places, axis: S}}
outputs: {{{outputs}}}
"""


@pytest.mark.parametrize("backend", RUNNERS)
@pytest.mark.parametrize(
    ("over", "keep", "outputs"),
    [
        ("N, M", "{top: 5}", "selected: [M, I, N], places: [I, S]"),
        ("M, N", "{above: 1.5}", "selected: [I, N, M], places: [I, S]"),
        ("N, M", "{top: 40}", "selected: [I, N, M]"),
        ("N, M", "{top: 40}", "places: [S, I]"),
    ],
)
def test_several_axes_are_chosen_from_together(
    backend: str, over: str, keep: str, outputs: str
) -> None:
    mixer = load_text(SEVERAL.format(over=over, keep=keep, outputs=outputs))
    torch.manual_seed(0)

    def some(*shape: int) -> torch.Tensor:
        return torch.randint(-2, 3, shape).float()

    f = torch.rand(5, 9) < 0.1
    given = {"x": some(20, 5, 9), "y": some(20, 4), "z": some(5, 9, 4), "f": f}
    made = RUNNERS[backend](mixer)(given, {})
    exact = {n: t.double() if t.is_floating_point() else t for n, t in given.items()}
    for name, value in run(mixer, exact).items():
        assert torch.equal(made[name].to(value.dtype), value), name


GRADED = """
mixer: graded
inputs: {{q: [B, I, H, D], k: [B, J, G, D], v: [B, J, G, E], {given}}}
heads: {{G: H}}
dims: {{I: T, J: T, L: 8{dims}}}
stages:
{stages}
  - attention:
      over: [S, L]
      score: D ** -0.5 * sum(q * k[J=blocks * 8 + l], D)
      mask: {mask}
      output: {{o: "v[J=blocks * 8 + l]"}}
outputs: {{o: [B, I, H, E]}}
"""
CHOSEN = """
  - select:
      over: N
      score: sum(qi * ki, C)
      among: n <= i // 8 and i % 3 > 0
      keep: {top: 3}
      list: {name: blocks, axis: S}"""
BY_SCORE = GRADED.format(
    given="qi: [B, I, C], ki: [B, N, C]",
    dims=", N: (T + 7) // 8, S: 3",
    stages=CHOSEN,
    mask="blocks >= 0 and blocks * 8 + l <= i",
)


def _by_list(dims: str) -> str:
    """The lists are the caller's: some name a block twice, or one past the end."""
    given = f"blocks: {{dims: [{dims}], dtype: int32}}"
    mask = "blocks >= 0 and blocks * 8 + l < J"
    return GRADED.format(given=given, dims="", stages="", mask=mask)


@pytest.mark.parametrize(
    ("text", "backend", "rows", "size", "dtype"),
    [
        (BY_SCORE, "cpu", 100, 64, torch.float32),
        (BY_SCORE, "cpu", 45, 128, torch.bfloat16),
        (BY_SCORE, "interpreter", 9, 16, torch.float32),
        (_by_list("B, I, S"), "cpu", 100, 64, torch.float32),
        (_by_list("I, H, S"), "cpu", 45, 128, torch.bfloat16),
        (_by_list("S"), "cpu", 33, 64, torch.float32),
    ],
)
def test_gradients_go_through_a_list(
    text: str, backend: str, rows: int, size: int, dtype: torch.dtype, tmp_path: Path
) -> None:
    path = tmp_path / "graded.yaml"
    path.write_text(text)
    torch.manual_seed(0)
    blocks = (rows + 7) // 8
    sizes = {"B": 2, "I": rows, "J": rows, "H": 4, "G": 2, "D": size, "E": size, "C": 5}
    sizes |= {"N": blocks, "S": 5}
    mixer = mixc.load(path, backend=backend)
    shapes = {i.name: [sizes[d] for d in i.dims] for i in mixer.mixer.inputs}
    given = {
        n: torch.randint(-1, blocks + 1, shape).int()
        if n == "blocks"
        else torch.randn(shape).to(dtype)
        for n, shape in shapes.items()
    }
    weight = torch.randn(2, rows, 4, size).to(dtype)

    def gradients(backend: str, wide: bool = False) -> dict[str, torch.Tensor]:
        real = {n: t.double() if wide else t for n, t in given.items() if n in "qkv"}
        leaves = {n: t.clone().requires_grad_() for n, t in real.items()}
        others = {n: t.double() if wide and n != "blocks" else t for n, t in given.items()}
        made = mixc.load(path, backend=backend)(**{**others, **leaves})
        found = torch.autograd.grad(made, list(leaves.values()), weight.to(made.dtype))
        return dict(zip("oqkv", (made.detach(), *found), strict=True))

    found, again = gradients(backend), gradients(backend)
    limit = 1e-5 if dtype is torch.float32 else 0.02
    for name, right in gradients("reference", wide=True).items():
        assert torch.equal(found[name], again[name]), name
        error = float((found[name].double() - right).abs().max())
        assert error < limit * float(right.abs().max()), name
