"""Sizes that kernels are compiled for fit each other, told or not."""

from __future__ import annotations

import pytest

from mixc.compiler.language.find import find_spec
from mixc.compiler.language.load import load_file
from mixc.export.exporting import export
from mixc.ir.errors import ArgumentError
from mixc.runtime.compiling import generate

CLASH = r"M = .* is 4161 at these sizes, and kernels would be made for M = 64: .* --size D=16"


def test_a_size_that_follows_from_others_is_no_default() -> None:
    """A file for M = 64 and D = 64 would run, and leave most of M = 1 + D + D * D out."""
    based = load_file(find_spec("based"))
    for sizes in ({}, {"D": 64}):
        with pytest.raises(ArgumentError, match=CLASH):
            generate(based, sizes, "float32")
        with pytest.raises(ArgumentError, match=CLASH):
            export(based, sizes, "float32")
    assert dict(generate(based, {"D": 16}, "float32").plan.sizes)["M"] == 273


def test_small_sizes_follow() -> None:
    sizes = dict(generate(load_file(find_spec("ttm")), {"M": 20}, "float32").plan.sizes)
    assert (sizes["U"], sizes["V"]) == (20 + 64, 20 + 64 + 64)
