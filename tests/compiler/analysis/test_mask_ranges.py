"""Ranges derived from masks, against brute force over every position."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixc.compiler.analysis.mask_ranges import Trend, key_ranges, needs_block_table
from mixc.compiler.analysis.pointwise import Values
from mixc.compiler.analysis.range_meaning import evaluate_ranges
from mixc.ir.expression import Expr, Index, Kind, Literal, Read, Ref, Size, call

from . import masks
from .masks import BLOCK, FACTS, WINDOW, I, J, both, causal, either, window


def check(mask: Expr, values: Values, axis: str, block: str, limit: int = 4) -> None:
    """Visible pairs are in a loose range, all pairs in a full range are visible."""
    ranges = key_ranges(mask, axis, block, FACTS, limit)
    seen = masks.visible(mask, values)
    if axis == "I":
        seen = [list(column) for column in zip(*seen, strict=True)]
    assert len(ranges.disjuncts) <= limit
    rows, columns = values.sizes[block], values.sizes[axis]
    for first in range(rows):
        for last in (first, min(first + 2, rows - 1), rows - 1):
            found = evaluate_ranges(ranges, first, last, values, {"H": 0})
            loose = {j for one in found for j in range(one.lo, one.hi)}
            full = {j for one in found for j in range(one.full_lo, one.full_hi)}
            assert full <= loose <= set(range(columns))
            block_rows = seen[first : last + 1]
            some = {j for j in range(columns) if any(row[j] for row in block_rows)}
            every = {j for j in range(columns) if all(row[j] for row in block_rows)}
            assert some <= loose, (first, last, found)
            assert full <= every, (first, last, found)


@settings(max_examples=400, deadline=None)
@given(masks.masks(), masks.values(), st.sampled_from(["IJ", "JI"]), st.sampled_from([1, 2, 4]))
def test_ranges_hold_for_random_masks(mask: Expr, values: Values, roles: str, limit: int) -> None:
    check(mask, values, roles[0], roles[1], limit)
