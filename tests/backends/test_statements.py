"""What is written down of what was prepared: what is read, and what that reads."""

from __future__ import annotations

from mixc.backends.python_text import call, infix, name
from mixc.backends.statements import Statement, assigned, without_unread, written


def test_what_nothing_reads_is_left_out_with_what_only_it_reads() -> None:
    def number(made: str, *reads: str) -> Statement:
        return assigned(made, call("int", *map(name, reads)))

    def returned(made: str) -> Statement:
        return written(name(made), 1, "return ")

    t, h, d, scale = number("T"), number("H"), number("D", "H"), number("scale", "D")
    for last, kept in (("T", [t]), ("scale", [h, d, scale]), ("Tail", [])):
        assert without_unread([t, h, d, scale, returned(last)]) == [*kept, returned(last)]


def test_a_name_counts_where_it_is_read_after() -> None:
    first, last = assigned("x", call("zeros")), assigned("x", call("stack"))
    loop = written(infix(name("x"), "+", name("y")), 2, "x = ")
    assert without_unread([first, loop, last]) == [first, loop]
    end = written(name("x"), 1, "return ")
    assert without_unread([first, loop, last, end]) == [first, loop, last, end]
    assert loop.lines == ("        x = x + y",)
