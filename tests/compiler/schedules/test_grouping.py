"""Rows of several heads as tile programs: bounds of masks, biases of heads, shares of the keys."""

from __future__ import annotations

import pytest
import torch

from mixc.autotune.checking.proportions import Proportions, default_sizes
from mixc.autotune.checking.sampling import sample_inputs
from mixc.compiler.language.find import find_spec
from mixc.compiler.language.load import load_file
from mixc.ir import grouping
from mixc.ir.grouping import QueryGroups
from mixc.runtime.overrides import override

from ..plans import assert_equal

# Params, query heads of a group, shares of the keys.
SPECS = {
    "cross": ({}, 8, 3),  # a mask of keys, and the logarithm of the sum
    "alibi": ({}, 3, 1),  # a slope for each head
    "sink": ({"window": 5}, 3, 3),  # a logit for each head, and a bound from below
    "sigmoid": ({}, 3, 2),
    "fox": ({}, 3, 1),  # a running sum for each head, read at both positions
    "streaming": ({"window": 4, "sink": 2}, 3, 1),
}


@pytest.mark.parametrize("name", SPECS)
def test_rows_of_a_group_share_the_keys(name, monkeypatch):
    monkeypatch.setattr(grouping, "_MANY_KEYS", 1)
    params, ratio, splits = SPECS[name]
    mixer = override(load_file(find_spec(name)), params)
    few = Proportions((13, 7), features=(6, 4), ratio=ratio, groups=1, batch=(1,))
    sizes = default_sizes(mixer, few)
    tensors = sample_inputs(mixer, sizes, torch.float64, seed=2)
    rows = QueryGroups(mixer).grouped(sizes)[0]
    assert rows is not mixer
    assert_equal(rows, tensors, splits=splits)
