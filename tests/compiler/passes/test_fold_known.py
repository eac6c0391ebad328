"""What follows from numbers that are known in a run of a walk."""

from __future__ import annotations

from mixc.compiler.passes.fold_known import Known
from mixc.ir.tile import Cast, Constant, Dot, DType, Elementwise, Op, Value, made_by

REAL, NARROW, TRUTH = DType.FLOAT32, DType.BFLOAT16, DType.BOOL
ONE, ZERO, NEAR = Value("one", REAL), Value("zero", REAL), Value("near", TRUTH)
SAME, CHOSEN = (Value(name, TRUTH, frozenset("TJ")) for name in ("same", "chosen"))
PICKED = Value("picked", REAL, frozenset("TJ"))
THIN = Value("thin", NARROW, frozenset("TJ"))
KEY = Value("key", NARROW, frozenset("DT"))
BEFORE, AFTER = (Value(name, REAL, frozenset("DJ")) for name in ("before", "after"))
USED = Value("used", REAL, frozenset("DJ"))
BODY: tuple[Op, ...] = (
    Elementwise(CHOSEN, "and", (SAME, NEAR)),
    Elementwise(PICKED, "where", (CHOSEN, ONE, ZERO)),
    Cast(THIN, PICKED),
    Dot(AFTER, KEY, THIN, "T", BEFORE, masked=True),
    Elementwise(USED, "mul", (AFTER, ONE)),
)
NUMBERS = {"one": 1.0, "zero": 0.0}


def folded(**more: float | bool) -> tuple[Known, dict[str, Op]]:
    known = Known({**NUMBERS, **more})
    ops = known.fold(BODY)
    return known, {value.name: op for op in ops for value in made_by(op)}


def test_a_false_condition_leaves_out_what_it_hides() -> None:
    known, ops = folded(near=False)
    assert ops["picked"] == Constant(PICKED, 0.0)
    assert ops["thin"] == Constant(THIN, 0.0)
    assert known.value(AFTER) == BEFORE
    assert "after" not in ops
    assert ops["used"] == Elementwise(USED, "mul", (BEFORE, ONE))


def test_a_true_one_is_what_stands_beside_it() -> None:
    known, ops = folded(near=True)
    assert known.value(CHOSEN) == SAME
    assert ops["picked"] == Elementwise(PICKED, "where", (SAME, ONE, ZERO))
    assert ops["after"] == BODY[3]


def test_a_state_of_zeros_that_nothing_is_written_to_stays_one() -> None:
    known, ops = folded(near=False, before=0.0)
    assert known.number(AFTER) == 0
    assert ops["used"] == Constant(USED, 0.0)


def test_nothing_known_changes_nothing() -> None:
    known = Known({})
    assert known.fold(BODY) == BODY
    assert not known.same
