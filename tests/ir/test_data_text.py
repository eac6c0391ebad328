"""Every level of the IR as text that reads back equal."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mixc.compiler.language.find import library
from mixc.compiler.language.load import load_file
from mixc.compiler.mixers.derivative.differentiate import differentiate
from mixc.compiler.pipeline import lower
from mixc.compiler.planning.mixer import plan_mixer
from mixc.ir.data_text import read_data, write_data
from mixc.ir.errors import ArgumentError
from mixc.ir.expression import Call, Expr, Index, Literal, Read, Ref, Size
from mixc.ir.node import Kind
from mixc.ir.tile import DType

SMALL = ("causal", "bigbird", "mamba", "lstm", "delta_product", "gated_delta")


@pytest.mark.parametrize("path", library(), ids=lambda path: path.stem)
def test_mixers_and_plans_of_the_library_read_back(path: Path) -> None:
    mixer = load_file(path)
    assert read_data(write_data(mixer, "about\nit")) == mixer
    planned = plan_mixer(mixer, {}, DType.BFLOAT16)
    assert read_data(write_data(planned)) == planned
    lowered = lower(mixer, {}, splits=4)
    text = write_data(lowered)
    assert read_data(text) == lowered
    assert write_data(read_data(text)) == text


@pytest.mark.parametrize("name", SMALL)
def test_backward_passes_read_back(name: str) -> None:
    (path,) = [path for path in library() if path.stem == name]
    backward = differentiate(load_file(path)).backward
    assert read_data(write_data(backward)) == backward


LEAVES = st.one_of(
    st.floats(allow_nan=False).map(Literal),
    st.integers().map(Literal),
    st.booleans().map(Literal),
    st.sampled_from(["I", "J"]).map(Index),
    st.sampled_from(["I", "J"]).map(Size),
    st.builds(Ref, st.text(min_size=1), st.frozensets(st.sampled_from("IJ")), st.just(Kind.REAL)),
)
TREES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.builds(lambda a, b: Call("add", (a, b)), inner, inner),
        st.builds(lambda a, b: Read(a, (("I", b),), 0.5), inner, inner),
    ),
)


# The strategy is built at the first draw, which takes seconds on a busy machine.
@settings(suppress_health_check=[HealthCheck.too_slow])
@given(TREES)
def test_random_expressions_read_back(tree: Expr) -> None:
    twice = Call("mul", (tree, tree))  # what occurs twice gets a name
    assert read_data(write_data(twice)) == twice


def test_numbers_keep_their_kind() -> None:
    values = (0, 0.0, -0.0, False, math.inf, -math.inf, 10**40, 0.1)
    read = read_data(write_data(values))
    assert [repr(value) for value in read] == [repr(value) for value in values]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1: expected a value, found nothing"),
        ("# only remarks\n", "line 1: expected a value"),
        ("Literal(1", "line 1: not the text of a mixer"),
        ("a = Literal(1)\n__import__('os')", "line 2: no class of the IR is called __import__"),
        ("Literal(1)\nLiteral(2)", "line 1: expected `name = value`"),
        ("Index('I', 'J', 'K')", "line 1: "),
        ("Kind.OTHER", "line 1: unknown: Kind.OTHER"),
        ("Literal(-True)", "line 1: expected a number"),
        ("[1, 2]", "line 1: unknown"),
        ("Literal(lambda: 1)", "line 1: unknown"),
        ("Index(a)", "line 1: unknown: a"),
        ("Kind(1)", "line 1: Kind is not made by a call"),
        ("(" * 400 + ")" * 400, "line 1: "),
    ],
)
def test_other_text_is_refused_with_its_line(text: str, message: str) -> None:
    with pytest.raises(ArgumentError) as raised:
        read_data(text)
    assert str(raised.value).startswith(message)


def test_places_are_no_part_of_a_value() -> None:
    (path,) = [path for path in library() if path.stem == "causal"]
    mixer = load_file(path)
    assert mixer.text
    assert read_data(write_data(mixer)).text == ""
    assert write_data(replace(mixer, text="")) == write_data(mixer)
