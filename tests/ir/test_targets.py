"""Targets by name, and what a name that is none of them is told."""

from __future__ import annotations

import pytest

from mixc.ir.errors import ArgumentError
from mixc.ir.targets import TARGETS, Target, parse_target


def test_names_are_read_back() -> None:
    assert [str(target) for target in TARGETS] == [
        "cuda:80",
        "cuda:90",
        "cuda:100",
        "cuda:120",
        "hip:gfx942",
    ]
    assert all(parse_target(str(target)) == target for target in TARGETS)
    assert parse_target(" CUDA:90 ").name == "cuda:90"


def test_a_target_says_what_a_kernel_may_use() -> None:
    assert parse_target("cuda:120") == Target("cuda:120", "cuda", "120", 32, 99 * 1024, 255)
    assert parse_target("hip:gfx942") == Target("hip:gfx942", "hip", "gfx942", 64, 65536, 512)
    assert parse_target("cuda:90").shared_memory_bytes == 232448


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("cuda:9", "cuda:90"),
        ("cuda90", "cuda:90"),
        ("sm_90a", "cuda:90"),
        ("sm_120", "cuda:120"),
        ("100", "cuda:100"),
        ("gfx942", "hip:gfx942"),
        ("rocm:gfx942", "hip:gfx942"),
    ],
)
def test_an_unknown_name_is_told_what_was_meant(text: str, meant: str) -> None:
    with pytest.raises(ArgumentError) as raised:
        parse_target(text)
    assert str(raised.value) == (
        f"unknown target {text!r}: expected one of cuda:80, cuda:90, cuda:100, cuda:120, "
        f"hip:gfx942; did you mean {meant!r}?"
    )


def test_a_name_like_none_of_them_gets_the_list_alone() -> None:
    with pytest.raises(ArgumentError, match=r"hip:gfx942$"):
        parse_target("tpu")
