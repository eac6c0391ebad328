"""What is written down of what was prepared: what is read, and what that reads."""

from __future__ import annotations

from mixc.backends.statements import Spellings, Statement, without_unread


def test_what_nothing_reads_is_left_out_with_what_only_it_reads() -> None:
    def number(name: str, *reads: str) -> Statement:
        return Statement((f"{name} = ...",), frozenset(reads), name)

    t, h, d, scale = number("T"), number("H"), number("D", "H"), number("scale", "D")
    assert without_unread([t, h, d, scale], {"T"}) == [t]
    assert without_unread([t, h, d, scale], {"scale"}) == [h, d, scale]
    assert without_unread([t, h], {"Tail", "q"}) == []  # a name, not a part of another


def test_a_name_counts_where_it_is_read_after() -> None:
    first, loop, last = (
        Statement(("x = 0",), name="x"),
        Statement(("for",), frozenset("x")),
        (Statement(("x = stack",), name="x")),
    )
    assert without_unread([first, loop, last]) == [first, loop]
    assert without_unread([first, loop, last], "x") == [first, loop, last]


def test_a_name_that_is_spelled_was_asked_for() -> None:
    names = Spellings({"D": "64"})
    assert (names.get("D", "D"), names.get("T", "T")) == ("64", "T")
    assert names.asked() == {"D", "T"}
    assert names.asked() == frozenset()
