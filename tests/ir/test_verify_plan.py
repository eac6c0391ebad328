"""A program or a plan that breaks a rule is named with the rule."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mixc.compiler.language.load import load_text
from mixc.compiler.pipeline import lower
from mixc.ir.errors import PromiseError, VerificationError
from mixc.ir.expression import Literal, Ref
from mixc.ir.node import Kind
from mixc.ir.plan import Buffer, Kernel, Plan
from mixc.ir.promises import WholeBlocks
from mixc.ir.task import AttentionTask
from mixc.ir.tile import (
    BufferArgument,
    Carried,
    Cast,
    Constant,
    Dot,
    DType,
    Elementwise,
    For,
    GridAxis,
    Load,
    Op,
    Program,
    Range,
    Reduce,
    Rename,
    SizeArgument,
    Store,
    Tile,
    Value,
)
from mixc.ir.verify_plan import verify_kernels, verify_lengths, verify_plan, verify_program

INT, REAL = DType.INT32, DType.FLOAT32
START, I_SIZE = Value("i_start", INT), Value("I", INT)
ROWS, KEYS = Value("i", INT, frozenset("I")), Value("j", INT, frozenset("J"))
D = Value("d", INT, frozenset("D"))
EXISTS = Value("i_exists", DType.BOOL, frozenset("I"))
X = Value("x_tile", REAL, frozenset("ID"))
Y = Value("y_tile", REAL, frozenset("JD"))
ROW = Value("row", REAL, frozenset("I"))
ZERO = Value("zero", INT)
HEAD: tuple[Op, ...] = (
    Range(ROWS, START),
    Elementwise(EXISTS, "lt", (ROWS, I_SIZE)),
    Range(D, None),
    Range(KEYS, None),
    Constant(ZERO, 0),
    Load(X, "x", (("I", ROWS), ("D", D)), EXISTS),
    Load(Y, "x", (("I", KEYS), ("D", D))),
    Reduce(ROW, "sum", X, "D"),
)


def program(*ops: Op, name: str = "p") -> Program:
    arguments = (
        BufferArgument("x", ("I", "D"), REAL),
        BufferArgument("y", ("I",), REAL, written=True),
        SizeArgument("I"),
    )
    tiles = (Tile("I", 4), Tile("J", 4), Tile("D", 16, True, 16))
    return Program(name, arguments, (GridAxis("I", START, True),), tiles, (*HEAD, *ops))


STORE = Store("y", (("I", ROWS),), ROW, EXISTS)


def test_a_sound_program_passes() -> None:
    score = Value("score", REAL, frozenset("IJ"))
    m, inner, out = (Value(n, REAL, frozenset("I")) for n in ("m", "m_inner", "m_out"))
    turn = Value("turn", INT)
    new = Value("new", REAL, frozenset("I"))
    loop = For(
        turn,
        ZERO,
        I_SIZE,
        1,
        (Carried(inner, m, out),),
        (Elementwise(new, "add", (inner, ROW)),),
        (new,),
    )
    dot = Dot(score, X, Y, "D")
    verify_program(program(dot, Constant(m, 0.0), loop, replace(STORE, value=out)))


def real(name: str, axes: str) -> Value:
    return Value(name, REAL, frozenset(axes))


def loop(yields: tuple[Value, ...], out: Value, body: tuple[Op, ...] = (), inner: str = "I") -> For:
    carried = (Carried(real("inner", inner), ROW, out),)
    return For(Value("turn", INT), ZERO, I_SIZE, 1, carried, body, yields)


BROKEN: dict[str, tuple[Op, str]] = {
    "made twice": (Cast(ROW, ROW), "row is made twice"),
    "an axis without a tile": (Constant(real("c", "K"), 0.0), "c: float32[K] has an axis"),
    "unknown": (
        Cast(real("c", ""), real("nobody", "")),
        "nobody: float32[] is read where it is not known",
    ),
    "of another type": (
        Cast(real("c", "I"), replace(ROW, dtype=DType.BFLOAT16)),
        "row: bfloat16[I] is read where it is not known",
    ),
    "reduced along no axis of it": (
        Reduce(real("c", "I"), "sum", ROW, "D"),
        "c: float32[I] is no reduction of row: float32[I] over D",
    ),
    "an axis left by a reduction": (Reduce(real("c", "ID"), "sum", X, "D"), "is no reduction of"),
    "elementwise with another's axes": (
        Elementwise(real("c", "IJ"), "exp", (ROW,)),
        "c: float32[I, J] does not have the axes of its arguments",
    ),
    "a read of a result": (Load(real("c", "I"), "y", (("I", ROWS),)), "y is no argument to read"),
    "a write to an input": (
        Store("x", (("I", ROWS), ("D", D)), X),
        "x is no argument to write",
    ),
    "a read of nothing": (Load(real("c", "I"), "z", (("I", ROWS),)), "z is no argument to read"),
    "dims in another order": (
        Load(real("c", "ID"), "x", (("D", D), ("I", ROWS))),
        "x has the dims ('I', 'D'), and is placed by",
    ),
    "a store without a place": (
        Store("y", (("I", ROWS),), X),
        "a store to y of x_tile: float32[D, I], whose axes have no place there",
    ),
    "a mask with axes of its own": (
        Store("y", (("I", START),), Value("zero", INT), EXISTS),
        "the mask i_exists: bool[I] of a store to y has axes of its own",
    ),
    "a dot that shares more than its axis": (
        Dot(real("c", "I"), X, X, "D"),
        "c: float32[I]: a dot",
    ),
    "a dot of a vector": (
        Dot(real("c", "I"), X, ROW, "D"),
        "a dot of x_tile: float32[D, I] and row",
    ),
    "a loop that hands over too little": (
        loop((), real("out", "I")),
        "the loop over turn: int32[] hands over 0 values",
    ),
    "a loop that changes a type": (
        loop((X,), real("out", "I")),
        "inner: float32[I] becomes x_tile: float32[D, I]",
    ),
    "a loop that starts from another type": (
        loop((ROW,), real("out", "ID")),
        "a loop carries row: float32[I] as inner: float32[I] and gives out: float32[D, I]",
    ),
    "a loop that hands over what it does not know": (
        loop((real("gone", "I"),), real("out", "I")),
        "gone: float32[I] is read where it is not known",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_each_rule_of_programs(name: str) -> None:
    op, message = BROKEN[name]
    verify_program(program(STORE))
    with pytest.raises(VerificationError) as caught:
        verify_program(program(op))
    assert str(caught.value).startswith("p: ")
    assert message in str(caught.value)


def test_a_dot_takes_one_type() -> None:
    narrow = Value("narrow", DType.BFLOAT16, frozenset("JD"))
    dot = Dot(real("c", "IJ"), X, narrow, "D")
    with pytest.raises(VerificationError, match="a dot of unlike types"):
        verify_program(program(Cast(narrow, Y), dot))


def test_a_loops_values_end_with_it() -> None:
    inside = real("inside", "I")
    body = (Elementwise(inside, "exp", (ROW,)),)
    walked = loop((inside,), real("out", "I"), body)
    verify_program(program(walked))
    with pytest.raises(VerificationError, match=r"inside: float32\[I\] is read where it is not"):
        verify_program(program(walked, Cast(real("late", "I"), inside)))


def test_each_rule_of_plans() -> None:
    mixer = load_text(
        "mixer: m\ninputs: {x: [I, D]}\nstages:\n  - map: {y: 'sum(x, D)'}\noutputs: {y: [I]}"
    )
    kernel = Kernel(program(STORE), "pointwise", ("y",), "an output")
    inputs = (Buffer("x", ("I", "D"), REAL, "input"), Buffer("y", ("I",), REAL, "output"))
    plan = Plan(mixer, (kernel,), inputs, (("D", 16),), (), REAL)
    verify_plan(plan)
    with pytest.raises(VerificationError, match="p reads x before it is made"):
        verify_plan(replace(plan, buffers=inputs[1:]))
    again = replace(kernel, program=replace(kernel.program, name="again"))
    with pytest.raises(VerificationError, match="again writes y a second time"):
        verify_plan(replace(plan, kernels=(kernel, again)))
    with pytest.raises(VerificationError, match="no kernel makes the output y"):
        verify_plan(replace(plan, kernels=()))
    asked = tuple(replace(output, dtype="float32") for output in mixer.outputs)
    verify_plan(replace(plan, mixer=replace(mixer, outputs=asked)))
    narrow = (inputs[0], replace(inputs[1], dtype=DType.BFLOAT16))
    with pytest.raises(VerificationError, match="the output y is to be float32"):
        verify_plan(replace(plan, mixer=replace(mixer, outputs=asked), buffers=narrow))
    broken = replace(kernel, program=program(Cast(ROW, ROW)))
    with pytest.raises(VerificationError, match="row is made twice"):
        verify_plan(replace(plan, kernels=(broken,)))


def test_lengths_that_a_plan_is_not_made_for_are_refused() -> None:
    mixer = load_text(
        "mixer: m\ninputs: {q: [I, H, D], k: [J, G, D]}\ndims: {I: T, J: T}\nheads: {G: H}\n"
        "attention: {over: J, score: 'sum(q * k, D)', output: {o: k}}\noutputs: {o: [I, H, D]}\n"
    )
    plan = Plan(mixer, (), (), (("D", 8),), (), REAL)
    sizes = {"I": 5, "J": 5, "T": 5, "H": 4, "G": 2, "D": 8}
    verify_lengths(plan, sizes)
    for changed, text in (
        ({"D": 9}, "m is made for D = 8, not 9"),
        ({"J": 6}, "m: J = 6 is not T = 5"),
        ({"G": 3}, "m: G = 3 does not divide H = 4"),
        ({"B": 2**31 - 1}, "m: B = 2147483647 is not within 0"),
    ):
        with pytest.raises(PromiseError, match=text):
            verify_lengths(plan, {**sizes, **changed})


def test_a_block_that_reaches_past_a_dim_without_bounds_is_refused() -> None:
    held = replace(program(STORE), promises=(WholeBlocks("I", 128),))
    for block, kept in ((4, True), (64, True), (128, True), (48, False), (256, False), (0, False)):
        made = replace(held, tiles=(Tile("I", block), *held.tiles[1:]))
        assert made.admits("I", block) == kept
        if kept:
            verify_program(made)
        elif block == 0:
            with pytest.raises(PromiseError, match="p: a block of 0 positions of I"):
                verify_program(made)
        else:
            with pytest.raises(PromiseError, match=f"p: blocks of I divide 128; {block} does not"):
                verify_program(made)


def test_tiles_that_are_to_match_are_checked() -> None:
    sound = program(STORE)
    short = replace(sound, tiles=(*sound.tiles[:2], Tile("D", 8, True, 16)))
    with pytest.raises(PromiseError, match="a block of 8 does not hold all 16 of D"):
        verify_program(short)
    unlike = replace(sound, tiles=(Tile("I", 4), Tile("J", 8, like="I"), sound.tiles[2]))
    with pytest.raises(PromiseError, match="J does not have the block of I"):
        verify_program(unlike)
    moved = program(Rename(real("moved", "J"), ROW, "I", "J"))
    verify_program(moved)
    tiles = (Tile("I", 4), Tile("J", 8), sound.tiles[2])
    with pytest.raises(PromiseError, match="I has blocks of 4, J of 8"):
        verify_program(replace(moved, tiles=tiles))


def test_each_rule_of_tasks() -> None:
    """What a task says of its buffers, and what its kernel then does with them."""
    plan = lower(load_text(SOFTMAX_ROWS), {"D": 16})
    (task,) = plan.tasks
    (kernel,) = plan.kernels
    assert isinstance(task, AttentionTask)
    verify_plan(replace(plan, kernels=()))

    def broken(**changes: object) -> Plan:
        return replace(plan, kernels=(), tasks=(replace(task, **changes),))  # type: ignore[arg-type]

    nobody = Ref("nobody", frozenset("J"), Kind.REAL)
    with pytest.raises(VerificationError, match="m_o reads nobody, which is no buffer"):
        verify_plan(broken(gain=nobody))
    flat = Ref("k", frozenset("J"), Kind.REAL)
    with pytest.raises(VerificationError, match=r"m_o reads k\[J\]; it has \[D, J\]"):
        verify_plan(broken(gain=flat))
    with pytest.raises(VerificationError, match="m_o writes elsewhere, which is no buffer"):
        verify_plan(broken(lse="elsewhere"))
    with pytest.raises(VerificationError, match="two kernels are called m_o"):
        verify_plan(replace(plan, kernels=(), tasks=(task, task)))
    with pytest.raises(VerificationError, match="1 tasks, but 2 kernels"):
        verify_kernels(replace(plan, kernels=(kernel, kernel)))
    other = replace(kernel, program=replace(kernel.program, name="other"))
    with pytest.raises(VerificationError, match="the kernel of m_o is called other"):
        verify_kernels(replace(plan, kernels=(other,)))
    without = replace(task, score=Literal(0.0))
    with pytest.raises(VerificationError, match="m_o reads k, of which its task says nothing"):
        verify_kernels(replace(plan, tasks=(without,)))
    fewer = tuple(
        replace(a, written=False) if isinstance(a, BufferArgument) and a.written else a
        for a in kernel.program.arguments
    )
    reads = replace(kernel, program=replace(kernel.program, arguments=fewer))
    with pytest.raises(VerificationError, match="m_o writes : not as its task"):
        verify_kernels(replace(plan, kernels=(reads,)))


SOFTMAX_ROWS = """
mixer: m
inputs: {q: [I, D], k: [J, D], v: [J, D]}
attention:
  over: J
  score: sum(q * k, D)
  normalize: softmax
  output: {o: v}
outputs: {o: [I, D]}
"""
