"""Kernels found by classes of sizes are those that the definitions name for the sizes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixc.backends.launches import Launches
from mixc.compiler.language.find import find_spec
from mixc.compiler.language.load import load_file
from mixc.compiler.pipeline import lower
from mixc.ir.errors import PromiseError
from mixc.ir.grouping import QueryGroups
from mixc.ir.mixer import Mixer
from mixc.ir.roles import shares_of_keys
from mixc.ir.verify_plan import LONGEST

CROSS = load_file(find_spec("cross"))
DIMS = ("B", "H", "G", "I", "J", "D", "E")
PLAN = lower(CROSS, {"D": 8, "E": 8}, "float32")
Built = tuple[Mixer, int]


def launches(built: list[Built]) -> Launches[Built]:
    def build(mixer, sizes, shares):
        built.append((mixer, shares))
        return built[-1], PLAN

    return Launches(CROSS, DIMS, build)


@given(
    st.lists(
        st.tuples(
            st.integers(1, 4),
            st.sampled_from([1, 3, 8]),
            st.sampled_from([1, 17, 200]) | st.integers(1, 40),
            st.sampled_from([127, 128, 129]) | st.integers(0, 10000),
            st.sampled_from([1, 2, 64]),
        ),
        min_size=1,
        max_size=8,
    )
)
def test_sizes_mixers_and_shares_are_those_of_the_definitions(calls) -> None:
    found = launches(built := [])
    grouping = QueryGroups(CROSS)
    for groups, ratio, queries, keys, units in calls:
        sizes = (1, groups * ratio, groups, queries, keys, 8, 8)
        (mixer, shares), own = found.find(sizes, units)
        wanted, more = grouping.grouped(dict(zip(DIMS, sizes, strict=True)))
        assert own == tuple(more.values())
        assert mixer == wanted
        assert shares == shares_of_keys(wanted, more, units, rows=64)
    assert len(built) <= len(calls)


def test_lengths_of_one_class_share_their_kernels() -> None:
    found = launches(built := [])
    for keys in range(1025, 2049):
        found.find((1, 4, 2, 1, keys, 8, 8), 1)
    assert len(built) == 2  # 2048 is a class of its own


def test_no_length_is_beyond_what_a_plan_is_made_for() -> None:
    found = launches([])
    found.find((1, 1, 1, 1, LONGEST, 8, 8), 1)
    with pytest.raises(PromiseError, match="J = 1073741825 is not within"):
        found.find((1, 1, 1, 1, LONGEST + 1, 8, 8), 1)


@pytest.mark.parametrize(
    ("heads", "beside", "shares"), [(96, 1, 1), (96, 2, 1), (16, 1, 4), (16, 2, 8), (4, 2, 8)]
)
def test_segments_are_as_many_as_programs_that_a_multiprocessor_has_room_for(
    heads: int, beside: int, shares: int
) -> None:
    """8192 rows, a state of 128 columns a head, on 132 multiprocessors."""
    mixer = load_file(find_spec("simple_gla"))
    dims = ("B", "T", "H", "G", "D", "E")
    sizes = (1, 8192, heads, heads, 128, 128)

    def build(mixer, sizes, shares):
        return shares, lower(mixer, {"D": 128, "E": 128}, "bfloat16", splits=shares)

    found = Launches(mixer, dims, build, beside=beside)
    assert found.find(sizes, 132)[0] == shares
    named = dict(zip(dims, sizes, strict=True))
    assert shares_of_keys(mixer, named, 132, 64, beside=beside) == shares
