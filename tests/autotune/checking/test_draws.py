"""What an input is, from where it stands in a recurrence; names say nothing here on purpose."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mixc.autotune.checking.drawing import draw_tensor
from mixc.autotune.checking.draws import Draw, Law, draws
from mixc.autotune.checking.intervals import Bounds
from mixc.autotune.checking.proportions import Proportions, default_sizes
from mixc.autotune.checking.sampling import sample_inputs
from mixc.backends.reference.evaluate import run
from mixc.compiler.analysis.intervals import Interval
from mixc.compiler.language.find import library
from mixc.compiler.language.load import load_file, load_text
from mixc.ir.binding import param_values
from mixc.ir.expression import Index, Literal, Size, call
from mixc.ir.mixer import Input, Mixer, Recurrence, State


def found(step: str, inputs: str, state: str = "{S: [D, E]}", more: str = "") -> dict[str, Draw]:
    lines = "\n".join(f"    - {line}" for line in step.strip().splitlines())
    mixer = load_text(f"""
mixer: tried
inputs: {inputs}
recurrence:
  over: T
  state: {state}
  {more}
  step:
{lines}
    - o = sum(x, D)
outputs: {{o: [T]}}
""")
    sizes = default_sizes(mixer)
    return draws(mixer, sizes, param_values(mixer, sizes))


MATRIX = "{x: [T, D], y: [T, D], z: [T, E], a: [T], b: [T, D], c: [D], P: [D, M]}"


def law(step: str, name: str, **more: str) -> Law:
    return found(step, MATRIX, **more).get(name, Draw()).law


@pytest.mark.parametrize(
    ("step", "name", "wanted"),
    [
        ("S = exp(a) * S + y * z", "a", Law.NEGATIVE),
        ("S = exp(b) * S + y * z", "b", Law.NEGATIVE),
        ("S = exp2(-a) * S + y * z", "a", Law.LITTLE),
        ("S = a * S + y * z", "a", Law.MUCH),
        ("S = (1 - a) * S + y * z", "a", Law.LITTLE),
        ("S = S * exp(c * softplus(b)) + y * z", "c", Law.NEGATIVE),
        ("S = S * exp(c * softplus(b)) + y * z", "b", Law.NORMAL),
        ("S = sigmoid(a) * S + y * z", "a", Law.NORMAL),
        ("S = exp(-exp(b)) * S + y * z", "b", Law.NORMAL),
        ("keep = exp(a)\nS = keep * S + y * z", "a", Law.NEGATIVE),
        ("S = S + y * z", "a", Law.NORMAL),
        ("S = S + a * y * (z - sum(y * S, D))", "a", Law.SHARE),
        ("held = sum(y * S, D)\nS = S + a * y * (z - held)", "a", Law.SHARE),
        ("S = S + y * z / (a + 0 * sum(S, D))", "a", Law.POSITIVE),
    ],
)
def test_what_multiplies_a_state(step: str, name: str, wanted: Law) -> None:
    assert law(step, name) is wanted


def test_what_a_state_is_contracted_with_is_short() -> None:
    made = found("S = exp(a) * S + b * sum(y * S, D) + b * z", MATRIX)
    assert made["y"].unit == made["b"].unit == ("D",)
    assert "z" not in made
    other = found("S = S + y * (z - sum(z * S, E) * 1)", MATRIX)
    assert other["z"].unit == ("E",)


def test_weights_of_a_state_are_shorter_than_1() -> None:
    made = found("h = tanh(x + sum(P * h[D=m], M))", MATRIX, state="{h: [D]}")
    assert made["P"] == Draw(unit=("M",), scale=0.7)


def test_divisors_keep_one_sign_through_the_states() -> None:
    step = "S = S + y * z\nn = n + y\nr = sum(x * S, D) / (sum(x * n, D) + 1)"
    made = found(step, MATRIX, state="{S: [D, E], n: [D]}")
    assert {name for name, draw in made.items() if draw.law is Law.POSITIVE} == {"x", "y"}


def test_gates_vary_by_rows() -> None:
    made = found("S = exp(a) * sigmoid(c) * S + y * z", MATRIX)
    assert made["a"].rows == "T"
    assert made.get("c", Draw()).rows is None
    assert not made["a"].signed
    assert found("S = a * S + y * z", MATRIX)["a"].signed


def test_strong_gates_hold_for_long_stretches() -> None:
    generator = torch.Generator().manual_seed(0)
    declared = Input("g", (("T",), ("D",)))
    sizes = {"T": 400, "D": 6}
    gate = draw_tensor(Draw(Law.NEGATIVE, rows="T"), declared, sizes, generator, strong=True)
    assert bool((gate <= 0).all())
    for value in (0.0, -30.0):
        assert 0.1 < float((gate == value).double().mean()) < 0.6
        held = (gate == value).double()
        stays = float((held[1:] * held[:-1]).sum() / held[:-1].sum())
        assert stays > 0.85
    plain = draw_tensor(Draw(Law.NEGATIVE, rows="T"), declared, sizes, generator)
    assert not bool((plain == 0).any())
    signed = Draw(Law.MUCH, rows="T", signed=True)
    assert bool((draw_tensor(signed, declared, sizes, generator, strong=True) == -0.5).any())


def test_states_are_made_known_by_intervals() -> None:
    """A sum of squares, and a mean of what lies between bounds."""
    n = State("n", frozenset(), Literal(0.0))
    mixer = Mixer("m", (), (), (Recurrence("T", (n,), ()),))
    bounds = Bounds(mixer, {"T": 5}, {}, {})
    decay, share = call("exp", call("neg", Index("T"))), call("div", Literal(1.0), Size("T"))
    assert bounds.of(decay).within(0, 1)
    assert bounds.of(share) == Interval(0.2, 0.2)
    assert bounds.names["n"] == Interval(0.0, 0.0)


RECURRENT = [
    path
    for path in library()
    if any(isinstance(stage, Recurrence) for stage in load_file(path).stages)
]


@pytest.mark.parametrize("strong", [False, True])
@pytest.mark.parametrize("path", RECURRENT, ids=lambda path: path.stem)
def test_states_of_the_library_stay_small(path: Path, strong: bool) -> None:
    mixer = load_file(path)
    sizes = default_sizes(mixer, Proportions((100,), (12, 10, 8), 1, 1, (1, 1)))
    inputs = sample_inputs(mixer, sizes, torch.float64, strong=strong)
    with torch.no_grad():
        results = run(mixer, inputs)
    for result in results.values():
        assert float(result.double().abs().max()) < 3000.0
