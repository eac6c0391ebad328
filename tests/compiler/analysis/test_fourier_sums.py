"""What is a Fourier sum is decided by its angle: whole turns along all of an axis."""

from __future__ import annotations

import pytest

from mixc.compiler.analysis.angles import Lengths, angle_expression, turns
from mixc.compiler.analysis.fourier_sums import fourier_sums, one_axis_after_another
from mixc.compiler.language.load import load_text
from mixc.ir.expression import Call, Expr, Literal, Reduce, Size, call
from mixc.ir.mixer import Map
from mixc.ir.rewriting import walk

SPEC = """
mixer: sums
inputs: {{x: [B, T, U], w: [B, S], g: [B, T], h: {{dims: [R], dtype: int32}}}}
dims: {{S: T}}
define:
  turn(a, b, n): 2 * pi * (a * b % n) / n
map:
  y: "{sum}"
outputs: {{y: [{dims}]}}
"""
LENGTHS = Lengths({}, {"S": "T"}, {})


def summed(sum: str, dims: str = "B, S, U") -> Reduce:
    mixer = load_text(SPEC.format(sum=sum, dims=dims), "sums.yaml")
    (stage,) = mixer.stages
    assert isinstance(stage, Map)
    value = stage.equations[0].value
    assert isinstance(value, Reduce)
    return value


@pytest.mark.parametrize(
    "angle",
    [
        "2 * pi * t * s / T",
        "turn(t, s, T)",
        "turn(s, t, T)",
        "t * s * pi / (T / 2)",
        "2 * pi * (t * s % T) / T",
        "2 * pi * ((t * s % (3 * T)) / T - t)",
        "2 * pi * (s * (t + T) / T + 5)",
        "pi * ((2 * t + 2 * T) * s) / T",
    ],
)
@pytest.mark.parametrize("fn", ["cos", "sin"])
def test_angles_that_are_whole_turns(angle: str, fn: str) -> None:
    found = fourier_sums(summed(f"sum(x * {fn}({angle}), T)"), LENGTHS)
    assert found is not None
    (one,) = found
    assert (one.sign, one.fn, one.over, one.row, one.place) == (1, fn, "T", "S", None)
    assert (str(one.x), one.factor) == ("x", Literal(1.0))


@pytest.mark.parametrize(
    ("angle", "dims"),
    [
        ("pi * t * s / T", "B, S, U"),  # half turns: a cosine transform
        ("2 * pi * t * s / (T + 1)", "B, S, U"),
        ("2 * pi * t * s / U", "B, S, U"),
        ("2 * pi * t * t * s / T", "B, S, U"),
        ("2 * pi * t * s / T * 0.5", "B, S, U"),
        ("2 * pi * (t * s % (T + 1)) / T", "B, S, U"),
        ("2 * pi * t * 3 / T", "B, U"),  # one frequency
        ("t * s / T", "B, S, U"),
        ("2 * pi * t * s * g / T", "B, S, U"),
    ],
)
def test_angles_that_are_not(angle: str, dims: str) -> None:
    assert fourier_sums(summed(f"sum(x * cos({angle}), T)", dims), LENGTHS) is None


@pytest.mark.parametrize(
    "sum",
    [
        "sum(x * w * g * cos(turn(t, s, T)) * s, T)",
        "sum(x * (w * (g * (-cos(turn(t, s, T)))) * -1) * s, T)",
        "sum(cos(turn(t, s, T)) * s * x * g / (1 / w), T)",
    ],
)
def test_what_lacks_the_axis_is_a_factor(sum: str) -> None:
    found = fourier_sums(summed(sum), LENGTHS)
    assert found is not None
    (one,) = found
    assert one.sign == 1
    assert one.x.axes == {"B", "T", "U"}
    assert one.factor.axes == {"B", "S"}


def test_a_factor_along_both_axes_is_in_the_way() -> None:
    assert fourier_sums(summed("sum(x * exp(t * s / T) * cos(turn(t, s, T)), T)"), LENGTHS) is None


def test_sums_of_waves_are_taken_apart() -> None:
    found = fourier_sums(
        summed("sum(x * (cos(turn(t, s, T)) - g * sin(turn(t, -s, T))), T)"), LENGTHS
    )
    assert found is not None
    assert [(one.sign, one.fn, str(one.x)) for one in found] == [
        (1, "cos", "x"),
        (1, "sin", "x * g"),  # - sin(-a) = sin(a)
    ]


def test_what_is_added_to_the_angle_comes_out() -> None:
    found = fourier_sums(summed("sum(x * cos(turn(t + 1, s, T) + 0.5), T)"), LENGTHS)
    assert found is not None
    assert [(one.sign, one.fn) for one in found] == [(1, "cos"), (-1, "sin")]
    assert {frozenset(one.factor.axes) for one in found} == {frozenset("S")}


@pytest.mark.parametrize(
    ("angle", "dims", "place"),
    [
        ("turn(t, s + 1, T)", "B, S, U", "(s + 1) % T"),
        ("turn(t, h, T)", "B, R, U", "h % T"),
        ("turn(t, 2 * s, T)", "B, S, U", "2 * s % T"),
        ("turn(t, T // 2 - s, T)", "B, S, U", "(T // 2 - s) % T"),
    ],
)
def test_other_frequencies_are_read_from_all_of_them(angle: str, dims: str, place: str) -> None:
    found = fourier_sums(summed(f"sum(x * cos({angle}), T)", dims), LENGTHS)
    assert found is not None
    (one,) = found
    assert (one.row, str(one.place)) == ("T", place)


def test_several_axes_go_one_after_another() -> None:
    both = "sum(x * g * cos(turn(t, s, T)) * sin(turn(u, index(R), U)), T, U)"
    nested = one_axis_after_another(summed(both, "B, S, R"), Lengths({}, {"S": "T", "R": "U"}, {}))
    assert nested is not None
    assert nested.over == ("U",)
    (inner,) = (n for n in nested.x.children if isinstance(n, Reduce))
    assert inner.over == ("T",)
    assert one_axis_after_another(summed("sum(x * g, T, U)", "B"), LENGTHS) is None


def test_a_length_may_be_a_number_or_a_formula() -> None:
    fixed = Lengths({"T": 12}, {"S": "T"}, {})
    assert fourier_sums(summed("sum(x * cos(pi * t * s / 6), T)"), fixed) is not None
    assert fourier_sums(summed("sum(x * cos(pi * t * s / 5), T)"), fixed) is None
    formulas = Lengths({}, {"S": "T"}, {"T": call("mul", 2, Size("U"))})
    assert fourier_sums(summed("sum(x * cos(pi * t * s / U), T)"), formulas) is not None


def test_angles_are_made_small_before_they_are_real() -> None:
    wave = next(n for n in walk(summed("sum(x * cos(turn(t, s, T)), T)")) if is_cosine(n))
    assert str(angle_expression(turns(wave.children[0], LENGTHS))).count("% T") == 1


def is_cosine(node: Expr) -> bool:
    return isinstance(node, Call) and node.fn == "cos"
