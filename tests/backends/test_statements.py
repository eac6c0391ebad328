"""What is written down of what was prepared: what is read, and what that reads."""

from __future__ import annotations

from mixc.backends.statements import Assignment, Spellings, without_unread


def test_what_nothing_reads_is_left_out_with_what_only_it_reads() -> None:
    t, h = Assignment("T", "q.shape[1]"), Assignment("H", "q.shape[2]")
    d = Assignment("D", "q.shape[3] // H", frozenset({"H"}))
    scale = Assignment("scale", "D ** -0.5", frozenset({"D"}))
    assert without_unread([t, h, d, scale], {"T"}) == [t]
    assert without_unread([t, h, d, scale], {"scale"}) == [h, d, scale]
    assert without_unread([t, h], {"Tail", "q"}) == []  # a name, not a part of another


def test_a_name_that_is_spelled_was_asked_for() -> None:
    names = Spellings({"D": "64"})
    assert (names.get("D", "D"), names.get("T", "T")) == ("64", "T")
    assert names.asked() == {"D", "T"}
    assert names.asked() == frozenset()
