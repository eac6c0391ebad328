"""Tile programs as data and as text."""

from __future__ import annotations

import pytest

from mixc.compiler.language.load import load_text
from mixc.compiler.pipeline import lower
from mixc.ir.sign import keeps_nonnegative
from mixc.ir.tile import (
    Carried,
    Cast,
    Combine,
    Comment,
    Constant,
    Dot,
    DType,
    Elementwise,
    For,
    Load,
    Op,
    Range,
    Reduce,
    Rename,
    Scan,
    Search,
    Solve,
    Store,
    Substitute,
    Tile,
    Value,
    all_ops,
    made_by,
    operands,
)
from mixc.ir.tile_text import write_op, write_plan, write_program

INT, REAL = DType.INT32, DType.FLOAT32


def value(name: str, axes: str = "", dtype: DType = REAL) -> Value:
    return Value(name, dtype, frozenset(axes))


X, Y, N = value("x", "IJ"), value("y", "JD"), value("n", dtype=INT)
MASK = value("seen", "I", DType.BOOL)
OUT = value("out", "I")
PLACES = (("I", value("i", "I", INT)), ("J", N))
OPS: list[tuple[Op, tuple[str, ...], str]] = [
    (Constant(OUT, 0.5), (), "out: float32[I] = 0.5"),
    (Range(value("i", "I", INT), None), (), "i: int32[I] = range from 0"),
    (Range(value("i", "I", INT), N), ("n",), "i: int32[I] = range from n"),
    (Elementwise(OUT, "add", (X, N)), ("x", "n"), "out: float32[I] = add(x, n)"),
    (Cast(OUT, X), ("x",), "out: float32[I] = cast x"),
    (Load(OUT, "t", PLACES), ("i", "n"), "out: float32[I] = load t[i, n]"),
    (
        Load(OUT, "t", PLACES, MASK, 1),
        ("i", "n", "seen"),
        "out: float32[I] = load t[i, n] where seen else 1",
    ),
    (Store("t", PLACES, OUT, MASK), ("i", "n", "out", "seen"), "store t[i, n] = out where seen"),
    (
        Dot(value("d", "ID"), X, Y, "J", value("a", "ID")),
        ("x", "y", "a"),
        "d: float32[D, I] = dot(x, y) over J + a",
    ),
    (Reduce(OUT, "max", X, "J"), ("x",), "out: float32[I] = max x over J"),
    (Scan(X, X, "J", True), ("x",), "x: float32[I, J] = running sum x over J from the end"),
    (Scan(X, X, "J", op="prod"), ("x",), "x: float32[I, J] = running prod x over J"),
    (Rename(Y, X, "I", "D"), ("x",), "y: float32[D, J] = x with D for I"),
    (
        Substitute(OUT, X, value("b", "I"), "I", "J"),
        ("x", "b"),
        "out: float32[I] = substitute x over J into b down I",
    ),
    (
        Solve(value("s", "J"), X, OUT, "I", "J"),
        ("x", "out"),
        "s: float32[J] = solve x[I, J] for out",
    ),
    (
        Search(N, "t", PLACES[:1], "J", value("J", dtype=INT), N, "right"),
        ("i", "J", "n"),
        "n: int32[] = search t[i] along J for n, right",
    ),
    (Comment("a line"), (), "# a line"),
]


@pytest.mark.parametrize(("op", "reads", "text"), OPS, ids=[type(o).__name__ for o, _, _ in OPS])
def test_what_an_op_reads_and_how_it_is_written(op: Op, reads: tuple[str, ...], text: str) -> None:
    assert tuple(v.name for v in operands(op)) == reads
    assert write_op(op) == [text]


def test_a_combination() -> None:
    left, right, total = value("l", "IJ"), value("r", "IJ"), value("total", "IJ")
    body = (Elementwise(total, "add", (left, right)),)
    combine = Combine((Y,), (X,), "J", (left,), (right,), body, (total,), reverse=True)
    assert operands(combine) == (X,)
    assert made_by(combine) == (Y,)
    assert write_op(combine) == [
        "y: float32[D, J] = combine x over J from the end by (l), (r):",
        "  total: float32[I, J] = add(l, r)",
        "  -> total",
    ]


def test_a_loop() -> None:
    turn, inner, out = value("turn", dtype=INT), value("m_in", "I"), value("m_out", "I")
    body = (Elementwise(OUT, "exp", (inner,)),)
    loop = For(turn, N, N, "BLOCK_J", (Carried(inner, value("m", "I"), out),), body, (OUT,))
    assert [v.name for v in operands(loop)] == ["n", "n", "m"]
    assert list(all_ops((loop,))) == [loop, *body]
    assert write_op(loop) == [
        "for turn in n .. n by BLOCK_J carrying m_in: float32[I] = m:",
        "  out: float32[I] = exp(m_in)",
        "  yield out",
        "  -> m_out",
    ]


@pytest.mark.parametrize("dtype", DType)
def test_dtypes(dtype: DType) -> None:
    assert dtype.is_float is dtype.value.startswith(("float", "bfloat"))
    assert dtype.is_narrow is (dtype.is_float and dtype.size_bytes == 2)
    assert dtype.size_bytes == (1 if dtype is DType.BOOL else int(dtype.value[-2:]) // 8)


def test_tiles() -> None:
    assert Tile("J_2", 64).symbol == "BLOCK_J_2"


SIGNS: list[tuple[str, tuple[bool, ...], float | None, bool]] = [
    ("add", (True, True), None, True),
    ("add", (True, False), None, False),
    ("sub", (True, True), 1, False),
    ("mul", (True, True), 3, True),
    ("min", (True, False), None, False),
    ("max", (False, True), None, True),
    ("mod", (False, True), 3, True),
    ("floordiv", (False, True), 3, False),
    ("where", (False, True, True), None, True),
    ("abs", (False,), None, True),
    ("neg", (True,), None, False),
]


@pytest.mark.parametrize(("fn", "nonnegative", "number", "expected"), SIGNS)
def test_signs(
    fn: str, nonnegative: tuple[bool, ...], number: float | None, expected: bool
) -> None:
    args = tuple(value(f"v{n}", dtype=INT) for n in range(len(nonnegative)))
    assert keeps_nonnegative(fn, args, nonnegative, number) is expected
    reals = tuple(value(f"v{n}") for n in range(len(nonnegative)))
    assert not keeps_nonnegative(fn, reals, nonnegative, number)


def test_plans_as_text() -> None:
    text = "mixer: m\ninputs: {x: [T, D]}\nstages:\n  - map: {y: 'sum(x, D)'}\noutputs: {y: [T]}"
    plan = lower(load_text(text), {"D": 16}, "float32")
    assert write_plan(plan).startswith(
        "plan of m in float32\n"
        "  D = 16\n"
        "  input x: float32[T, D]\n"
        "  output y: float32[T]\n"
        "  m_y (pointwise): x -> y\n"
        "    because an output of the mixer\n"
    )
    assert write_program(plan.kernels[0].program).splitlines()[:4] == [
        "m_y(out y: float32[T], x: float32[T, D], size T)",
        "  grid t_start over T by BLOCK_T",
        "  tile BLOCK_T = 64",
        "  tile BLOCK_D = 16, all 16 positions",
    ]
