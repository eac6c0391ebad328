"""Integer expressions of any size, as programs, against Python's integers."""

from __future__ import annotations

import pytest
import torch
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from mixc.backends.reference.tiles import run_plan
from mixc.backends.triton.emit import emit_module
from mixc.compiler.analysis.integer_range import IntegerRanges
from mixc.compiler.language.load import load_text
from mixc.compiler.pipeline import lower
from mixc.ir.errors import ArgumentError
from mixc.ir.mixer import Map
from mixc.ir.verify_plan import verify_lengths

SPEC = """
mixer: integers
inputs: {{n: {{dims: [T], dtype: int32}}, x: [S, D]}}
params: {{c: 100003}}
map: {{o: "{}"}}
outputs: {{o: [T]}}
"""
LENGTH = 8
N = torch.tensor([-(2**31), 2**31 - 1, -1, 0, 1, 7, 65537, -46341], dtype=torch.int32)
LEAVES = ("n", "t", "(S)", "c", "3", "-7", "1000000007")
Made = tuple[str, list[int]]  # its text, and its value at each position


def leaf(name: str) -> Made:
    values = {
        "n": N.tolist(),
        "t": list(range(LENGTH)),
        "(S)": [3] * LENGTH,
        "c": [100003] * LENGTH,
    }
    return name, values.get(name) or [int(name)] * LENGTH


@st.composite
def integers(draw: st.DrawFn, depth: int = 3) -> Made:
    if depth == 0 or draw(st.integers(0, 3)) == 0:
        return leaf(draw(st.sampled_from(LEAVES)))
    fn = draw(st.sampled_from(["+", "-", "*", "//", "%", "**", "min", "max", "abs", "where"]))
    a, of_a = draw(integers(depth - 1))
    b, of_b = draw(integers(depth - 1))
    assume(all(abs(v) < 2**31 for v in (*of_a, *of_b)))  # so that nothing passes 64 bits
    match fn:
        case "//" | "%":
            assume(all(of_b))
            both = zip(of_a, of_b, strict=True)
            return f"({a} {fn} {b})", [p // q if fn == "//" else p % q for p, q in both]
        case "**":
            power = draw(st.sampled_from([1, 2]))
            return f"({a}) ** {power}", [p**power for p in of_a]
        case "+" | "-" | "*":
            pairs = list(zip(of_a, of_b, strict=True))
            made = {"+": [p + q for p, q in pairs], "-": [p - q for p, q in pairs]}
            return f"({a} {fn} {b})", made.get(fn, [p * q for p, q in pairs])
        case "min" | "max":
            pick = min if fn == "min" else max
            return f"{fn}({a}, {b})", [pick(p, q) for p, q in zip(of_a, of_b, strict=True)]
        case "abs":
            return f"abs({a})", [abs(p) for p in of_a]
        case _:
            pairs = list(zip(of_a, of_b, strict=True))
            return f"where({a} < {b}, {a}, {b})", [p if p < q else q for p, q in pairs]


@settings(max_examples=60, deadline=None)
@given(integers())
@example(("n * n % 7", [n * n % 7 for n in N.tolist()]))
@example(("(n - 1000000007) // 2", [(n - 1000000007) // 2 for n in N.tolist()]))
@example(("where(n + n > t, 1, 0)", [int(2 * n > t) for t, n in enumerate(N.tolist())]))
def test_values_are_pythons_and_lie_in_their_ranges(made: Made) -> None:
    """The interpreter of tile programs refuses a value that its type does not hold."""
    text, wanted = made
    mixer = load_text(SPEC.format(f"({text}) + 0 * n"))
    stage = mixer.stages[0]
    assert isinstance(stage, Map)
    found = IntegerRanges({}, {"c": 100003}).of(stage.equations[0].value)
    assert found.low <= min(wanted), found
    assert max(wanted) <= found.high, found
    tensors = {"n": N, "x": torch.zeros(3, 2)}
    plan = lower(mixer, {"D": 2}, "float32")
    values = run_plan(plan, tensors, {"T": LENGTH, "S": 3, "D": 2}, {})["o"]
    assert values.tolist() == wanted


@pytest.mark.parametrize(
    ("text", "longest"),
    [
        ("t ** 3 % 5", round((2**63) ** (1 / 3))),
        ("(t + (S)) ** 3 % 5 + n", 2**20),
        ("2 ** t % 7", 63),
        ("cumsum(t ** 2, T)", round((2**63) ** (1 / 3))),
        ("(t % 5) ** 20 + n * t * t", None),
        ("t ** 2 + n * n", None),
    ],
)
def test_lengths_beyond_which_64_bits_do_not_suffice_are_refused(
    text: str, longest: int | None
) -> None:
    plan = lower(load_text(SPEC.format(text)), {"D": 2}, "float32")
    if longest is None:
        assert not plan.limits
        return
    verify_lengths(plan, {"T": longest, "S": 3, "D": 2})
    with pytest.raises(ArgumentError, match=f"integers: expected T of at most {longest}, got"):
        verify_lengths(plan, {"T": longest + 1, "S": 3, "D": 2})
    assert f"if T > {longest}:" in emit_module(plan)
