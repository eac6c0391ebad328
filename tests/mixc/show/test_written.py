"""The plan of a mixer in words."""

from __future__ import annotations

from mixc.compiler.language.find import find_spec
from mixc.compiler.language.load import load_file
from mixc.compiler.mixers.derivative.differentiate import differentiate
from mixc.runtime.lowering import lowering
from mixc.show.written import plan_lines


def outline(lines: list[str]) -> list[tuple[int, str]]:
    """The lines that open something, with how far in they stand."""
    opens = [line for line in lines if "(" in line.split(":")[0] or line.startswith("for each row")]
    return [(len(line) - len(line.lstrip()), line.lstrip(" 0123456789.")) for line in opens]


def test_kernels_that_run_once_for_each_row_stand_under_a_line_that_says_so() -> None:
    found = outline(list(plan_lines(lowering(load_file(find_spec("set2set"))))))
    assert found[0] == (0, "set2set_h_start (pointwise): h_start, c_start, r_start")
    assert found[1] == (0, "for each row along R")
    assert {edge for edge, _ in found[2:-1]} == {3}
    assert found[-1] == (0, "set2set_h (pointwise): h, r")


def test_rows_from_the_end_say_so() -> None:
    backward = differentiate(load_file(find_spec("set2set"))).backward
    lines = list(plan_lines(lowering(backward)))
    assert "for each row along R, the last first" in lines
    assert "for each row along R" in lines
