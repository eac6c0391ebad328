"""Where an op lands, what is shared, and integers as a person would write them."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixc.compiler.tiles.builder import Builder
from mixc.ir.expression import Index, Kind, Ref, Scalar, Size, call
from mixc.ir.tile import (
    BufferArgument,
    Constant,
    DType,
    Elementwise,
    For,
    GridAxis,
    HostArgument,
    Load,
    ParamArgument,
    SizeArgument,
    Tile,
    Value,
)

INT, REAL = DType.INT32, DType.FLOAT32


def builder() -> Builder:
    made = Builder("p")
    made.tiles["J"] = Tile("J", 16)
    made.buffer(BufferArgument("x", ("J",), REAL))
    return made


def number(made: Builder, value: int) -> Value:
    return made.constant(value, INT)


def test_what_does_not_change_in_a_loop_is_made_before_it() -> None:
    made = builder()
    size = made.scalar(SizeArgument("J"))
    with made.loop("turn", number(made, 0), size, 1, []) as loop:
        inside = made.elementwise("add", loop.variable, size, dtype=INT)
        outside = made.elementwise("mul", size, size, dtype=INT)
        last = made.elementwise("mul", inside, outside, dtype=INT)
    top = made.scopes[0].ops
    (walked,) = (op for op in top if isinstance(op, For))
    assert [op.out for op in walked.body] == [inside, last]  # type: ignore[union-attr]
    assert outside in [op.out for op in top if isinstance(op, Elementwise)]


def test_a_load_moves_out_with_its_index_and_mask() -> None:
    made = builder()
    size = made.scalar(SizeArgument("J"))
    j = made.range("J", None, "j")
    exists = made.elementwise("lt", j, size, dtype=DType.BOOL)
    with made.loop("turn", number(made, 0), size, "BLOCK_J", []) as loop:
        fixed = made.load("x", [("J", j)], exists)
        moving = made.load("x", [("J", made.range("J", loop.variable, "j"))])
    top = made.scopes[0].ops
    assert [op.out for op in top if isinstance(op, Load)] == [fixed]
    (walked,) = (op for op in top if isinstance(op, For))
    assert [op.out for op in walked.body if isinstance(op, Load)] == [moving]


def test_equal_ops_are_made_once_but_not_across_loops() -> None:
    made = builder()
    size = made.scalar(SizeArgument("J"))
    first = made.elementwise("exp", made.cast(size, REAL), dtype=REAL)
    assert made.elementwise("exp", made.cast(size, REAL), dtype=REAL) == first
    values = []
    for _ in range(2):
        with made.loop("turn", number(made, 0), size, 1, []) as loop:
            assert made.elementwise("exp", made.cast(size, REAL), dtype=REAL) == first
            values.append(made.elementwise("add", loop.variable, size, dtype=INT))
    assert values[0] != values[1]
    assert len({v.name for v in values}) == 2


def test_a_loop_hides_what_outer_positions_gave() -> None:
    made = builder()
    known = call("add", Index("J"), 1)
    outer = made.range("J", None, "j")
    made.place("J", outer)
    made.bind(known, outer)
    assert made.lookup(known) == outer
    with made.loop("turn", number(made, 0), made.scalar(SizeArgument("J")), "BLOCK_J", []) as loop:
        assert made.lookup(known) == outer
        made.place("J", made.range("J", loop.variable, "j"))
        assert made.lookup(known) is None
    assert made.lookup(known) == outer


def test_arguments_are_declared_once_in_groups() -> None:
    made = builder()
    half = call("floordiv", Size("J"), 2)
    assert made.host_argument("half", INT, half) == made.host_argument("other", INT, half)
    made.scalar(ParamArgument("scale", REAL))
    made.scalar(SizeArgument("J"))
    made.scalar(SizeArgument("J"))
    kinds = [type(a) for a in made.finish().arguments]
    assert kinds == [BufferArgument, SizeArgument, HostArgument, ParamArgument]


def test_a_loop_hands_over_what_it_carries() -> None:
    made = builder()
    start = made.constant(0.0, REAL)

    def forgetful() -> None:
        with made.loop("turn", number(made, 0), number(made, 1), 1, [("m", start)]):
            pass

    with pytest.raises(AssertionError, match="hands over what it carries"):
        forgetful()


# ----------------------------------------------------------------------------- integers


def test_integers_take_as_few_ops_as_can_be() -> None:
    made = builder()
    n = made.scalar(SizeArgument("J"))
    start = made.grid_position("J", "j_start")

    def op(fn: str, a: Value, b: Value) -> Value:
        return made.elementwise(fn, a, b, dtype=INT)

    zero, one, three = (number(made, v) for v in (0, 1, 3))
    assert op("add", n, zero) == n
    assert op("add", zero, n) == n
    assert op("sub", n, zero) == n
    assert op("mul", n, one) == n
    assert op("max", n, zero) == n  # a size is not negative
    assert op("max", zero, start) == start
    assert op("min", n, n) == op("max", n, n) == n
    assert op("sub", op("add", n, three), three) == n
    assert op("sub", op("add", n, three), one) == op("add", n, number(made, 2))
    assert op("add", op("sub", n, three), one) == op("sub", n, number(made, 2))
    assert made.constant_of(op("mul", three, three)) == 9
    unknown = made.elementwise("sub", start, n, dtype=INT)
    assert op("max", unknown, zero) != unknown


def test_a_sign_stands_in_the_op() -> None:
    """x + -1 --> x - 1 and the like, whichever way it came about."""
    made = builder()
    x, y = (made.scalar(ParamArgument(name, REAL, runtime=True)) for name in "xy")
    minus = made.constant(-1.0, REAL)
    opposite = made.elementwise("mul", y, minus, dtype=REAL)
    assert made.elementwise("neg", y, dtype=REAL) == opposite
    apart = made.elementwise("sub", x, y, dtype=REAL)
    assert made.elementwise("add", x, opposite, dtype=REAL) == apart
    assert made.elementwise("add", opposite, x, dtype=REAL) == apart
    together = made.elementwise("add", x, y, dtype=REAL)
    assert made.elementwise("sub", x, opposite, dtype=REAL) == together
    j = made.range("J", None, "j")
    before = made.elementwise("add", j, number(made, -1), dtype=INT)
    assert made.elementwise("sub", j, number(made, 1), dtype=INT) == before
    lowest = made.elementwise("add", j, number(made, -(1 << 31)), dtype=INT)
    made_by = {op.out: op for op in made.scopes[0].ops if isinstance(op, Elementwise)}
    assert made_by[before].fn == "sub"
    assert made_by[lowest].fn == "add"


def test_signs_are_followed() -> None:
    made = builder()
    made.grid.append(GridAxis("J", made.grid_position("J", "j_start"), True))
    start, size = made.grid[0].position, made.scalar(SizeArgument("J"))
    nonnegative = made.elementwise("add", start, made.block("J"), dtype=INT)
    below = made.elementwise("sub", nonnegative, size, dtype=INT)
    assert made.is_nonnegative(nonnegative)
    assert not made.is_nonnegative(below)
    assert made.is_nonnegative(made.elementwise("mod", below, size, dtype=INT))
    assert made.is_nonnegative(made.elementwise("max", below, start, dtype=INT))
    assert made.is_nonnegative(made.range("J", start, "j"))
    assert not made.is_nonnegative(made.range("J", below, "j"))
    assert made.is_nonnegative(made.elementwise("sub", made.block("J"), number(made, 1), dtype=INT))


OPS = ("add", "sub", "mul", "max", "min")
TREES = st.recursive(
    st.one_of(st.integers(-4, 4), st.sampled_from(["J", "start"])),
    lambda inner: st.tuples(st.sampled_from(OPS), inner, inner),
    max_leaves=8,
)


@settings(max_examples=150, deadline=None)
@given(TREES, st.integers(0, 5), st.integers(0, 5))
def test_simplified_integers_are_equal(tree: object, size: int, start: int) -> None:
    made = builder()
    leaves = {"J": made.scalar(SizeArgument("J")), "start": made.grid_position("J", "start")}

    def build(node: object) -> Value:
        if isinstance(node, tuple):
            return made.elementwise(node[0], build(node[1]), build(node[2]), dtype=INT)
        return number(made, node) if isinstance(node, int) else leaves[str(node)]

    def meaning(node: object) -> int:
        if isinstance(node, tuple):
            a, b = meaning(node[1]), meaning(node[2])
            return {"add": a + b, "sub": a - b, "mul": a * b, "max": max(a, b), "min": min(a, b)}[
                node[0]
            ]
        return node if isinstance(node, int) else {"J": size, "start": start}[str(node)]

    result = build(tree)
    known = {"J": size, leaves["start"].name: start}
    for op in made.scopes[0].ops:
        if isinstance(op, Constant):
            known[op.out.name] = int(op.value)
        elif isinstance(op, Elementwise):
            a, b = (known[v.name] for v in (*op.args, op.args[0])[:2])
            known[op.out.name] = {
                "neg": -a,
                "add": a + b,
                "sub": a - b,
                "mul": a * b,
                "max": max(a, b),
                "min": min(a, b),
            }[op.fn]
    assert known[result.name] == meaning(tree)
    assert not made.is_nonnegative(result) or known[result.name] >= 0


def test_names_are_as_near_to_the_hint_as_can_be() -> None:
    made = builder()
    assert [made.fresh("score") for _ in range(3)] == ["score", "score_2", "score_3"]
    assert made.fresh("x") == "x_2"  # a buffer has it
    scalar = Scalar("scale", Kind.REAL)
    made.bind(scalar, made.scalar(ParamArgument("scale", REAL)))
    assert made.lookup(scalar) == Value("scale", REAL)
    assert made.lookup(Ref("scale", frozenset(), Kind.REAL)) is None


def test_results_are_called_after_what_they_are_made_of() -> None:
    made = builder()
    for name, dtype in (("k", DType.BFLOAT16), ("beta", REAL)):
        made.buffer(BufferArgument(name, ("J",), dtype))
    j = made.range("J", None, "j")
    mask = made.elementwise("lt", j, made.scalar(SizeArgument("J")), dtype=DType.BOOL)
    k = made.cast(made.load("k", [("J", j)]), REAL)
    beta = made.load("beta", [("J", j)])
    exp = made.elementwise("exp", beta, dtype=REAL)
    assert exp.name == "exp_beta"
    both = made.elementwise("mul", beta, k, dtype=REAL)
    assert both.name == "beta_k"
    assert made.elementwise("mul", both, exp, dtype=REAL).name == "product"  # names stay short
    zero = made.constant(0.0, REAL)
    seen = made.elementwise("where", mask, both, zero, dtype=REAL)
    assert seen.name == "beta_k_masked"
    assert made.cast(seen, DType.BFLOAT16).name == "beta_k_masked_narrow"
    assert made.elementwise("where", mask, seen, zero, dtype=REAL).name == "beta_k_masked_2"


def test_what_is_computed_of_a_renamed_axis_is_computed_before() -> None:
    made = builder()
    made.tiles["J_2"] = Tile("J_2", 16, like="J")
    size = made.scalar(SizeArgument("J"))
    j = made.range("J", None, "j")
    again = made.rename(j, "J", "J_2")
    assert made.is_nonnegative(again)
    exists, too = (made.elementwise("lt", x, size, dtype=DType.BOOL) for x in (j, again))
    x = made.load("x", [("J", j)], exists)
    assert made.load("x", [("J", again)], too) == made.rename(x, "J", "J_2")
    running = made.scan(made.load("x", [("J", again)], too), "J_2")
    assert running == made.rename(made.scan(x, "J"), "J", "J_2")
    assert made.reduce("sum", running, "J_2") == made.reduce("sum", made.scan(x, "J"), "J")
    pairs = made.elementwise("sub", x, running, dtype=REAL)  # of both axes: nothing to share
    assert pairs.axes == {"J", "J_2"}
    assert len([op for op in made.scopes[0].ops if isinstance(op, Load)]) == 1
