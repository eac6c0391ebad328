"""Values computed from earlier results, against a loop over positions."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mixc.backends.reference.evaluate import run
from mixc.compiler.language.load import load_text
from mixc.ir.errors import SpecError

SPEC = """\
mixer: fed
inputs: {a: [H, I, J], v: [J, E], b: [H, T], w: [I], k: [J, E]}
dims: {I: T, J: T}
attention:
  over: J
  score: a
  mask: j < i
  output: {y: u, n: k}
  feedback: {u: v * b + y * (1 - b) * 3}
outputs: {y: [H, I, E], u: [H, J, E], n: [H, I, E]}
"""
H, T, E = 2, 6, 3


@pytest.fixture
def given() -> dict[str, Tensor]:
    torch.manual_seed(0)
    shapes = {"a": (H, T, T), "v": (T, E), "b": (H, T), "w": (T,), "k": (T, E)}
    return {n: torch.randn(*s, dtype=torch.float64).requires_grad_() for n, s in shapes.items()}


def by_loop(given: dict[str, Tensor], gain: bool, sink: bool) -> dict[str, Tensor]:
    u: list[Tensor] = []
    y, n = [], []
    for t in range(T):
        scores = given["a"][:, t, :t]
        if sink:
            scores = torch.cat((scores, given["w"][t].expand(H, 1)), 1)
        shares = scores.softmax(1)[:, :t]
        if gain:
            shares = shares * given["w"][t]
        earlier = torch.stack(u, 1) if u else torch.zeros(H, 0, E, dtype=torch.float64)
        y.append((shares[..., None] * earlier).sum(1))
        n.append((shares[..., None] * given["k"][:t]).sum(1))
        b = given["b"][:, t, None]
        u.append(given["v"][t] * b + y[-1] * (1 - b) * 3)
    return {name: torch.stack(rows, 1) for name, rows in (("y", y), ("u", u), ("n", n))}


@pytest.mark.parametrize("gain", [False, True])
@pytest.mark.parametrize("sink", [False, True])
def test_each_position_reads_what_came_before(
    given: dict[str, Tensor], gain: bool, sink: bool
) -> None:
    text = SPEC.replace("  mask", "  gain: w\n  mask" if gain else "  mask")
    text = text.replace("  mask", "  normalize: {softmax: {sink: w}}\n  mask" if sink else "  mask")
    found, expected = run(load_text(text), given), by_loop(given, gain, sink)
    for name, want in expected.items():
        torch.testing.assert_close(found[name], want, rtol=1e-11, atol=1e-11)
    above = torch.randn_like(expected["y"])
    names = ["a", "v", "b"]
    slopes = (
        torch.autograd.grad(made["y"], [given[n] for n in names], above)
        for made in (found, expected)
    )
    for slope, want in zip(*slopes, strict=True):
        torch.testing.assert_close(slope, want, rtol=1e-9, atol=1e-10)


ERRORS = {
    "itself": ("j < i", "j <= i", "the mask shows it to itself", "add `j < i` to the mask"),
    "no mask": ("  mask: j < i\n", "", "the mask shows it to itself", "add `j < i` to the mask"),
    "bent": ("* 3}", "* y}", "`u` is no number plus a factor times `y`", "`a + b * y` with any"),
    "inside": ("y * (1 - b) * 3", "tanh(y)", "no number plus a factor times `y`", "a recurrence"),
    "unread": ("+ y * (1 - b) * 3", "", "`u` is no number plus a factor times `y`", "`a + b * y`"),
    "no output": ("{y: u, n: k}", "{y: v, n: k}", "no output of the attention sums `u`", "y: u"),
    "two": ("feedback: {", "feedback: {k: y, ", "`feedback` of several values", "one value"),
    "several axes": ("over: J", "over: [J, E]", "`feedback` with several key axes", "use one"),
    "carry": ("  mask", "  carry: {k: k + b}\n  mask", "`carry` beside `feedback`", "two"),
    "declared": ("u, n", "k, n", "", "`k` is declared already"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_what_it_refuses(name: str) -> None:
    old, new, found, do = ERRORS[name]
    text = SPEC.replace("feedback: {u", "feedback: {k") if name == "declared" else SPEC
    with pytest.raises(SpecError) as error:
        load_text(text.replace(old, new, 1))
    assert found in str(error.value), str(error.value)
    assert do in str(error.value), str(error.value)
