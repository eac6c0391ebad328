"""Turns of the loops of a kernel's text, and which loop of the machine code is which."""

from itertools import count

import pytest

from mixc.autotune.gpu_model.instructions import read_instructions
from mixc.autotune.gpu_model.matching import match_loops
from mixc.autotune.gpu_model.paths import Paths
from mixc.autotune.gpu_model.turns import KernelText, source_loops

SOURCE = """\
@triton.jit
def _solve(a, SIZE: tl.constexpr):
    for n in range(SIZE):
        a += n
    for n in tl.static_range(SIZE):
        a += n


@triton.jit
def kernel(x, bounds, x_stride_T, T, BLOCK_T: tl.constexpr):
    program = tl.program_id(0)
    t_start = (tl.cdiv(T, BLOCK_T) - 1 - program) * BLOCK_T
    stop = tl.minimum(t_start + BLOCK_T, T)
    for s_start in tl.range(0, stop, BLOCK_T, num_stages=2):
        tile = tl.load(x + s_start)
        for row in range(0, tl.minimum(s_start, 64)):
            tile += row
        _solve(tile, 16)
    first = tl.load(bounds + program)
    for s_start in range(first, T, BLOCK_T):
        tile = tl.load(x + s_start)
"""


def test_turns_depend_on_sizes_and_on_the_program():
    text = KernelText(SOURCE, "kernel")
    found = [text.turns({"T": 1000, "BLOCK_T": 64}, n, 500) for n in (0, 15)]
    assert [one.turns[14] for one in found] == [16, 1]
    assert found[0].turns[16] == pytest.approx((0 + 64 + 64) / 3)
    assert found[0].turns[3] == 16
    assert 5 not in found[0].turns


SEGMENTS = """\
@triton.jit
def _floor_divide(a, b):
    q = a // b
    return tl.where((q * b != a) & ((a < 0) != (b < 0)), q - 1, q)


@triton.jit
def kernel(T, T_segments, BLOCK_T: tl.constexpr):
    rows = _floor_divide(tl.cdiv(T, BLOCK_T) + T_segments - 1, T_segments) * BLOCK_T
    first = tl.program_id(0) * rows
    for t_start in range(first, tl.minimum(first + rows, T), BLOCK_T):
        pass
"""


def test_bounds_come_from_functions_of_the_module_too():
    text = KernelText(SEGMENTS, "kernel")
    arguments = {"T": 1000, "T_segments": 8, "BLOCK_T": 32}
    found = [text.turns(arguments, program, 500) for program in (0, 7)]
    assert [one.turns[11] for one in found] == [4, 4]
    assert not found[0].guessed
    arguments["T"] = 900
    assert text.turns(arguments, 7, 500).turns[11] == 1


def test_what_depends_on_data_is_a_guess_that_is_told():
    found = KernelText(SOURCE, "kernel").turns({"T": 1000, "BLOCK_T": 64}, 0, 500)
    assert found.guessed == {20}
    assert found.turns[20] == 8


def test_loops_of_a_text_know_what_is_around_them():
    loops = {loop.first: loop for loop in source_loops(SOURCE)}
    assert set(loops) == {3, 14, 16, 20}
    assert loops[16].lineage == (loops[14], loops[16])


NO_SCOREBOARD = 7 << 8 | 7 << 5 | 1  # none set, none waited for, the next after a cycle


def machine_code(*rows):
    """Instructions as nvdisasm prints them: a line of the source and a text each, or a label."""
    lines, address = [], count(0, 16)
    for row in rows:
        if isinstance(row, str):
            lines.append(f"{row}:")
            continue
        line, text = row
        lines.append(f'\t//## File "/tmp/kernel.py", line {line}')
        lines.append(f"        /*{next(address):04x}*/ {text} ; /* 0x{0:016x} */")
        lines.append(f"        /* 0x{NO_SCOREBOARD << 41:016x} */")
    return read_instructions("\n".join(lines))


def test_an_unrolled_loop_and_what_is_left_of_it_are_one_loop():
    body = [(15, "FADD R1, R1, R2")] * 8
    code = machine_code(
        (14, "MOV R1, R2"),
        ".L_x_0", *body, (14, "@P0 BRA `(.L_x_0)"),
        ".L_x_1", *body[:1], (14, "@P0 BRA `(.L_x_1)"),
        (21, "EXIT"),
    )  # fmt: skip
    first, second = match_loops(Paths(code), source_loops(SOURCE))
    assert (first.loop.first, first.unrolled, first.remainder) == (14, 8, False)
    assert (second.loop.first, second.remainder) == (14, True)
    assert [one.turns({14: 19.0}) for one in (first, second)] == [2, 3]


def test_a_loop_in_a_loop_is_that_of_the_text():
    code = machine_code(
        ".L_x_0", (15, "FADD R1, R1, R2"),
        ".L_x_1", *[(17, "FADD R1, R1, R2")] * 9, (16, "@P0 BRA `(.L_x_1)"),
        (14, "@P1 BRA `(.L_x_0)"),
        (21, "EXIT"),
    )  # fmt: skip
    outer, inner = match_loops(Paths(code), source_loops(SOURCE))
    assert (outer.loop.first, inner.loop.first) == (14, 16)


def test_code_out_of_line_that_goes_back_is_no_loop():
    code = machine_code(
        (15, "MOV R1, R2"), (15, "@P0 BRA `(.L_x_2)"),
        ".L_x_1", (15, "FADD R1, R1, R2"), (21, "EXIT"),
        ".L_x_2", (15, "NOP"), (15, "BRA `(.L_x_1)"),
    )  # fmt: skip
    assert Paths(code).loops == {}
