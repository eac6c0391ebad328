"""Inputs to time with that are as a user has them."""

from __future__ import annotations

import pytest
import torch

from mixc.autotune.bench.timed_inputs import timed_inputs
from mixc.autotune.checking.shapes import CPU_PROPORTIONS, timed_sizes
from mixc.compiler.language.find import find_spec
from mixc.compiler.language.load import load_file


@pytest.mark.parametrize(
    ("spec", "name", "share"),
    [("longformer", "is_global", 1 / 64), ("composite", "visual", None)],
)
def test_tokens_that_all_rows_see_are_few(spec: str, name: str, share: float | None) -> None:
    """A mark that only joins others to a condition stays a coin."""
    mixer = load_file(find_spec(spec))
    sizes = timed_sizes(mixer, CPU_PROPORTIONS, {"T": 1024, "D": 4, "E": 4})
    marked = timed_inputs(mixer, sizes, torch.float32)[name]
    if share is None:
        assert 0.4 < marked.double().mean() < 0.6
    else:
        assert marked.double().mean() == share
        assert marked[..., :16].all()


@pytest.mark.parametrize("changed", [{"D": 256}, {"P": 256}])
def test_axes_of_the_same_positions_change_together(changed: dict[str, int]) -> None:
    """An LSTM's state is read along P and written along D."""
    sizes = timed_sizes(load_file(find_spec("lstm")), CPU_PROPORTIONS, changed)
    assert (sizes["D"], sizes["P"]) == (256, 256)
