"""Axes in registers are ordered so that nothing that lives there is transposed."""

from __future__ import annotations

from mixc.backends.triton.layout import choose_layout, dot_operands
from mixc.compiler.language.find import find_spec
from mixc.compiler.language.load import load_file
from mixc.compiler.pipeline import lower
from mixc.ir.targets import parse_target
from mixc.ir.tile import (
    BufferArgument,
    Combine,
    Constant,
    Dot,
    DType,
    Elementwise,
    GridAxis,
    Load,
    Op,
    Program,
    Range,
    Tile,
    Value,
)

REAL, INT = DType.FLOAT32, DType.INT32
START = Value("start", INT)


def tile(name: str, axes: str, dtype: DType = REAL) -> Value:
    return Value(name, dtype, frozenset(axes))


I, J, D, E = (tile(n.lower(), n, INT) for n in "IJDE")  # noqa: E741
Q, K, V = tile("q", "ID"), tile("k", "JD"), tile("v", "JE")
SCORE, WEIGHT, OUT = tile("score", "IJ"), tile("weight", "IJ"), tile("out", "IE")


def program(rows: str, *ops: Op) -> Program:
    keys = "J" if rows == "I" else "I"
    arguments = tuple(
        BufferArgument(name, tuple(axes), REAL)
        for name, axes in (("q", "ID"), ("k", "JD"), ("v", "JE"))
    )
    loads = (
        Load(Q, "q", (("I", I), ("D", D))),
        Load(K, "k", (("J", J), ("D", D))),
        Load(V, "v", (("J", J), ("E", E))),
    )
    ranges = tuple(Range(v, None) for v in (I, J, D, E))
    tiles = (Tile(rows, 16), Tile(keys, 16), Tile("D", 16, True, 16), Tile("E", 16, True, 16))
    return Program("p", arguments, (GridAxis(rows, START, True),), tiles, (*ranges, *loads, *ops))


ATTENTION = (
    Dot(SCORE, Q, K, "D"),
    Elementwise(WEIGHT, "exp", (SCORE,)),
    Dot(OUT, WEIGHT, V, "J"),
)


def test_forward_attention_reads_keys_the_other_way_round() -> None:
    layout = choose_layout(program("I", *ATTENTION))
    assert layout.of(SCORE) == layout.of(WEIGHT) == ("I", "J")
    assert layout.of(OUT) == ("I", "E")
    assert (layout.of(Q), layout.of(K), layout.of(V)) == (("I", "D"), ("D", "J"), ("J", "E"))


def test_a_backward_product_turns_the_scores() -> None:
    """dv[j, e] = sum over i of p[i, j] do[i, e] wants the scores as J x I."""
    grad = tile("grad", "IE")
    ops = (
        Load(grad, "v", (("J", I), ("E", E))),
        Dot(SCORE, Q, K, "D"),
        Elementwise(WEIGHT, "exp", (SCORE,)),
        Dot(tile("dv", "JE"), WEIGHT, grad, "I"),
    )
    layout = choose_layout(program("J", *ops))
    assert layout.of(WEIGHT) == ("J", "I")
    assert (layout.of(K), layout.of(Q), layout.of(grad)) == (("J", "D"), ("D", "I"), ("I", "E"))


def test_operands_stand_as_the_result_wants_them() -> None:
    dot = Dot(SCORE, Q, K, "D")
    assert dot_operands(dot, ("I", "J", "D")) == ((Q, ("I", "D")), (K, ("D", "J")))
    assert dot_operands(dot, ("J", "I", "D")) == ((K, ("J", "D")), (Q, ("D", "I")))


def test_a_tile_that_is_also_computed_with_keeps_its_order() -> None:
    norm = Elementwise(tile("squares", "JD"), "mul", (K, K))
    layout = choose_layout(program("I", *ATTENTION, norm))
    assert K.name not in layout.loads
    assert layout.of(K) == tuple(a for a in layout.order if a in "JD")


def test_without_a_dot_the_grid_comes_first() -> None:
    assert choose_layout(program("J", Constant(tile("c", "I"), 0.0))).order == ("J", "I", "D", "E")


def test_what_is_scanned_has_its_rows_first() -> None:
    """The last axes are dealt out to lanes: each then goes through the rows by itself."""
    left, right, both = (Value(name, REAL) for name in ("left", "right", "both"))
    body = (Elementwise(both, "add", (left, right)),)
    scan = Combine((WEIGHT,), (SCORE,), "J", (left,), (right,), body, (both,))
    layout = choose_layout(program("I", Elementwise(SCORE, "add", (I, J)), scan))
    assert layout.of(SCORE) == layout.of(WEIGHT) == ("J", "I")


def test_what_one_warp_has_a_part_of_goes_to_its_lanes() -> None:
    """Mamba's 16 places of a channel are summed in four lanes' registers, not in 16 lanes."""
    plan = lower(load_file(find_spec("mamba")), {"N": 16}, "bf16", target=parse_target("cuda:90"))
    (order,) = (choose_layout(kernel.program).order for kernel in plan.kernels)
    assert order == ("T", "N", "C")
