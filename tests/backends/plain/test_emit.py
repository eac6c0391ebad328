"""Mixers as plain torch code, against the reference that evaluates their equations."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from mixc.autotune.checking.sampling import default_sizes, sample_inputs
from mixc.backends.plain.emit import reference_function
from mixc.backends.reference.evaluate import run
from mixc.compiler.language.find import find_spec, library
from mixc.compiler.language.load import load_file, load_text
from mixc.ir.errors import UnsupportedError
from mixc.ir.expression import Kind
from mixc.ir.mixer import Mixer
from mixc.ir.optional import without_inputs

# The forms, and each kind of term: grouped heads, reads beyond tables, rounds, systems, resets.
SAMPLE = ("alibi_window", "bigbird", "t5", "lssa", "delta_product", "mesa", "s5")


def code_of(mixer: Mixer) -> str:
    made = reference_function(mixer)
    parts = ["import math\n\nimport torch", *made.helpers, made.text]
    return "\n\n\n".join(parts) + "\n"


def both_ways(mixer: Mixer) -> None:
    """Results and gradients of the code are those of the evaluator."""
    inputs = sample_inputs(mixer, default_sizes(mixer), torch.float64)
    names: dict[str, object] = {}
    exec(code_of(mixer), names)
    wanted = [i.name for i in mixer.inputs if i.kind is Kind.REAL and i.grad]
    for name in wanted:
        inputs[name].requires_grad_()
    made = names["reference"](*(inputs[i.name] for i in mixer.inputs))
    made = made if isinstance(made, tuple) else (made,)
    exact = run(mixer, inputs)
    for output, found in zip(mixer.outputs, made, strict=True):
        torch.testing.assert_close(found, exact[output.name], rtol=1e-9, atol=1e-9)
    leaves = [inputs[name] for name in wanted]
    sums = (sum(t.sin().sum() for t in results) for results in (made, exact.values()))
    for a, b in zip(
        *(torch.autograd.grad(s, leaves, allow_unused=True, materialize_grads=True) for s in sums),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("name", SAMPLE)
def test_code_is_what_the_equations_say(name):
    mixer = load_file(find_spec(name))
    both_ways(without_inputs(mixer, [i.name for i in mixer.inputs if i.default is not None]))


ODD = """
mixer: odd
inputs: {x: [B, T, D], w: [D], part: [B, T, D]}
params: {far: {default: 2.0, runtime: true}}
stages:
  - map:
      torch: far * x + prod(1 + tanh(part), D) + max(x, D, where=x < w)
      score: cumsum(torch, T, reverse=true, exclusive=true) + shift(torch, T, 3)
  - recurrence:
      over: T
      state: {h: [D]}
      direction: backward
      step:
        - h = 0.5 * h + where(t % 2 == 0, score, flip(x, D))
        - for = h * cumsum(x, T)
outputs: {for: [B, T, D], h: [B, D], score: [B, T, D]}
"""


def test_words_of_python_and_odd_terms_have_code_too():
    both_ways(load_text(ODD))


# A formatter breaks long chains of methods before each dot, and at a last call or subscript; ours
# at the first parentheses.
CHAINED = ("recycled", "routing", "sea", "titans_mag")


def test_nothing_is_left_out_that_is_read_and_nothing_kept_that_is_not(tmp_path):
    for path in library():
        try:
            code = code_of(load_file(path))
        except UnsupportedError:
            continue
        (tmp_path / f"{path.stem}.py").write_text(code, encoding="utf-8")
    assert len(list(tmp_path.iterdir())) > 50
    ruff = [sys.executable, "-m", "ruff", "check", "--isolated", "--no-cache"]
    rules = ["--select", "F821,F841", "--output-format", "concise"]
    done = subprocess.run([*ruff, *rules, str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    for name in CHAINED:
        (tmp_path / f"{name}.py").unlink()
    ruff[3] = "format"
    width = ["--line-length", "100", "--diff", "-q"]
    done = subprocess.run([*ruff, *width, str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_the_code_reads_as_written_by_hand():
    text = reference_function(load_file(find_spec("hgrn"))).text
    loop = text[text.index("    for") :]
    assert (
        loop
        == """\
    for t in torch.arange(T, device=device):
        h = torch.exp(g[:, t]) * h + x[:, t]
        o = h
        o_rows.append(o)
    o = torch.stack(o_rows, 1)
    return o, h"""
    )
