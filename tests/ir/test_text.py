"""What the writer prints, the language reads back as the same expression."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixc.compiler.language.find import library
from mixc.compiler.language.load import load_file, load_text
from mixc.ir.expression import (
    Call,
    Cumsum,
    Expr,
    Index,
    Kind,
    Literal,
    Read,
    Reduce,
    Ref,
    Scalar,
    Size,
    call,
)
from mixc.ir.text import write_expression, write_layout, write_mixer

SPEC = """
mixer: text
inputs:
  x: [A, B]
  y: [B, C]
  m: {dims: [A], dtype: int32}
  yes: {dims: [B], dtype: bool}
  a: [C]
dims: {N: A // 2 + 1}
params: {rate: 0.5, width: 3, flag: true, speed: {default: 2.0, runtime: true}}
map: {o: x}
outputs: {o: [A, B]}
let:
  e: >
    EXPRESSION
"""
REALS = [
    Ref("x", frozenset("AB"), Kind.REAL),
    Ref("y", frozenset("BC"), Kind.REAL),
    Ref("a", frozenset("C"), Kind.REAL),  # hides the index of A
    Scalar("rate", Kind.REAL),
    Scalar("speed", Kind.REAL, True),
]
INTEGERS = [
    Ref("m", frozenset("A"), Kind.INT),
    Scalar("width", Kind.INT),
    *map(Index, "ABCN"),
    *map(Size, "ABCN"),
]
TRUTHS = [Ref("yes", frozenset("B"), Kind.BOOL), Scalar("flag", Kind.BOOL)]

literal_reals = st.floats(allow_nan=False).map(Literal)
literal_integers = st.integers(-99, 99).map(Literal)


def read_back(text: str) -> Expr:
    return load_text(SPEC.replace("EXPRESSION", text)).lets[0].value


@st.composite
def grown(draw, inner, integers, truths):
    """A value one level above ``inner``; real or integer."""
    x = draw(inner)
    match draw(st.sampled_from(["call", "binary", "where", "reduce", "read", "cumsum", "max"])):
        case "call":
            return call(draw(st.sampled_from(["neg", "abs", "exp", "relu", "floor"])), x)
        case "binary":
            return call(draw(st.sampled_from(["add", "sub", "mul", "div", "pow"])), x, draw(inner))
        case "where":
            return call("where", draw(truths), x, draw(inner))
        case "reduce" if x.axes:
            return draw(reduced(x, integers, truths))
        case "read" if x.axes:
            dims = draw(st.lists(st.sampled_from(sorted(x.axes)), min_size=1, unique=True))
            at = tuple((dim, draw(integers)) for dim in dims)
            return Read(x, at, draw(st.sampled_from([0.0, 1.0, -0.5, float("-inf")])))
        case "cumsum" if x.axes:
            dim = draw(st.sampled_from(sorted(x.axes)))
            return Cumsum(x, dim, draw(st.booleans()), draw(st.booleans()))
        case _:
            return call("max", x, draw(inner))


@st.composite
def reduced(draw, x, integers, truths):
    over = tuple(draw(st.lists(st.sampled_from(sorted(x.axes)), min_size=1, unique=True)))
    where = draw(st.none() | truths)
    group = ()
    axes = x.axes | (where.axes if where is not None else frozenset())
    if "N" not in axes and draw(st.booleans()):
        index = draw(integers)
        group = (("N", index),) if "N" not in index.axes else ()
    return Reduce(draw(st.sampled_from(["sum", "max", "prod"])), x, over, where, group)


@st.composite
def compared(draw, numbers):
    op = draw(st.sampled_from(["lt", "le", "gt", "ge", "eq", "ne"]))
    return call(op, draw(numbers), draw(numbers))


integers = st.recursive(
    st.sampled_from(INTEGERS) | literal_integers,
    lambda inner: (
        st.builds(
            lambda fn, a, b: call(fn, a, b),
            st.sampled_from(["add", "sub", "mul", "min"]),
            inner,
            inner,
        )
        | st.builds(
            lambda fn, a, b: call(fn, a, b),
            st.sampled_from(["floordiv", "mod"]),
            inner,
            st.integers(1, 9).map(Literal),
        )
    ),
    max_leaves=4,
)
truths = st.recursive(
    st.sampled_from(TRUTHS) | compared(integers),
    lambda inner: (
        st.builds(
            lambda fn, a, b: call(fn, a, b), st.sampled_from(["and", "or", "eq"]), inner, inner
        )
        | inner.map(lambda a: call("not", a))
    ),
    max_leaves=4,
)
numbers = st.recursive(
    st.sampled_from(REALS) | literal_reals | integers,
    lambda inner: grown(inner, integers, truths),
    max_leaves=6,
)


def loads(expr: Expr) -> bool:
    """The loader refuses powers that it can tell to be absurd, and divisions by 0."""
    match expr:
        case Call("pow", (_, power)):
            fine = isinstance(power, Ref | Scalar | Index | Size)
        case _:
            fine = True
    return fine and all(map(loads, expr.children))


@settings(max_examples=80, deadline=None)
@given((numbers | truths).filter(loads))
def test_written_text_reads_back_as_the_same_expression(expr):
    assert read_back(write_expression(expr, names={"a"})) == expr


def test_parentheses_are_the_fewest():
    for text in (
        "1 - (2 - 3) * -x ** -2",
        "(-1) ** 2 - -1",
        "m // (m // 2) % 3",
        "not (flag or yes) and m < b",
        "(m < b) == flag",
        "(x + 1)[A=m]",
        "x[A=m, B=b - 1]",
        "at(x, A=m, fill=-inf)",
        "max(x, (B))",
        "max(x, B)",
        "-(1) + -(-1)",
        "2 ** 3 ** x",
        "(2 ** x) ** 3",
        "sum(x * y, A, B, where=yes, N=m)",
        "index(A) + b",
        "cumsum(x, A, reverse=true, exclusive=true)",
    ):
        assert write_expression(read_back(text), names={"a"}) == text


def test_a_name_elsewhere_hides_an_index_too():
    assert write_expression(Index("B")) == "b"
    assert write_expression(Index("B"), names={"b"}) == "index(B)"


def test_layout():
    assert write_layout((("B",), (), ("T", "R"))) == "[B, 1, T*R]"


def test_dump_of_a_mixer():
    mixer = load_text(
        """
        mixer: dump
        inputs:
          q: [B, H, I, D]
          k: [B, G, J, D]
          b: {dims: [J], dtype: int32, sorted: true, grad: false, default: 0}
        dims: {I: T, J: T, N: (T + 1) // 2}
        heads: {G: H}
        params: {slope: {dims: [H], values: [1, 2]}, rate: {default: 1.0, runtime: true}}
        let: {c: k * rate}
        attention:
          over: J
          score: sum(q * c, D) + slope
          mask: b[j] <= i
          output: {o: k}
          lse: l
        outputs: {o: [B, H, I, D]}
        """
    )
    assert write_mixer(mixer) == (
        "mixer: dump\n"
        "inputs:\n"
        "  q: [B, H, I, D]\n"
        "  k: [B, G, J, D]\n"
        "  b: {dims: [J], dtype: int32, sorted: true, grad: false, default: 0}\n"
        "dims:\n"
        "  I: T\n"
        "  J: T\n"
        "  N: (T + 1) // 2\n"
        "heads:\n"
        "  G: H\n"
        "params:\n"
        "  rate:\n"
        "    default: 1.0\n"
        "    runtime: true\n"
        "  slope:\n"
        "    dims: [H]\n"
        "    values: [1, 2]\n"
        "let:\n"
        "  c[B, D, G, J]: k * rate\n"
        "stages:\n"
        "  - attention:\n"
        "      over: J  # for each of [B, H, I]\n"
        "      score[B, H, I, J]: sum(q * c[G=h // (H // G)], D) + slope\n"
        "      mask[I, J]: b[J=j] <= i  # bool\n"
        "      normalize: softmax\n"
        "      output:\n"
        "        o: k[G=h // (H // G)]  # [B, D, H, J]\n"
        "      lse: l\n"
        "outputs:\n"
        "  o: [B, H, I, D]\n"
    )
    assert load_text(write_mixer(mixer)) == mixer


@pytest.mark.parametrize("path", library(), ids=lambda path: path.stem)
def test_a_dump_reads_back_as_the_same_mixer(path):
    mixer = load_file(path)
    positions = dict(mixer.sequences)  # which say the size of a further position, too
    sizes = tuple((dim, size) for dim, size in mixer.sizes if dim not in positions)
    assert load_text(write_mixer(mixer)) == replace(mixer, sizes=sizes)


def test_every_part_of_a_dump_reads_back():
    mixer = load_text(
        """
        mixer: parts
        about: it's "quoted"
        inputs: {x: [B, S, R], y: [B, J], z: {dims: [B], dtype: bool, default: true}}
        dims: {J: T, K: (B), S: 2}
        params:
          t: {dims: [S, R], values: [[1, 2.5], [-inf, 1e-9]]}
          on: {dims: [S], values: [true, false]}
          eps: -1
        stages:
          - name: first
            let: {x: y * 2, j: J + 1}
            attention:
              over: J
              score: x * index(J) + j
              mask: z
              normalize: {softmax: {sink: eps}}
              gain: y
              output: {o: 'y[J=index(J) - 1]', p: 1}
              weights: w
          - attention: {over: J, score: y, normalize: none, output: {q: y}}
          - map: {r: "x * t + where(on, o, eps)", c: eps * 2}
        outputs: {r: [B, S, R], w: [B, J], c: []}
        tiling: {block_j: [16, 32], warps: 4}
        check: {J: 33}
        bench: [{J: 128, B: 1}]
        """
    )
    assert load_text(write_mixer(mixer)) == mixer
