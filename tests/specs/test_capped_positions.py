"""Sinks, windows and shared positions under rope: lm_infinite, streaming, set_prompting."""

from __future__ import annotations

import torch
from torch import Tensor

from .independent import assert_matches, assert_same_gradients, normal, reference, rotate, sdpa

B, H, G, T, D, E = 2, 6, 2, 17, 8, 5
SHARED = H // G


def query_key_value(grad: bool = False) -> dict[str, Tensor]:
    return {
        "q": normal(B, H, T, D, grad=grad),
        "k": normal(B, G, T, D, grad=grad),
        "v": normal(B, G, T, E, grad=grad),
    }


def by_capped_distance(q: Tensor, k: Tensor, v: Tensor, sink: int, window: int) -> Tensor:
    """Equation by equation: each query is turned by the distance to each key, at most window."""
    k, v = (x.repeat_interleave(SHARED, 1) for x in (k, v))
    rows = []
    for i in range(T):
        keys = [j for j in range(i + 1) if j < sink or i - j < window]
        distance = torch.tensor([min(i - j, window) for j in keys])
        turned = rotate(q[:, :, i, None], distance)
        weights = ((turned * k[:, :, keys]).sum(-1) / D**0.5).softmax(-1)
        rows.append((weights[..., None] * v[:, :, keys]).sum(-2))
    return torch.stack(rows, dim=2)


def test_lm_infinite_matches_the_formula() -> None:
    tensors = query_key_value(grad=True)
    ours = reference("lm_infinite", tensors, {"sink": 3, "window": 5})["o"]
    theirs = by_capped_distance(**tensors, sink=3, window=5)
    assert_matches(ours, theirs)
    assert_same_gradients(ours, theirs, tensors)


def test_lm_infinite_below_the_window_is_rope() -> None:
    tensors = query_key_value()
    o = reference("lm_infinite", tensors, {"sink": 3, "window": T})["o"]
    q, k = (rotate(tensors[name], torch.arange(T)) for name in "qk")
    causal = torch.ones(T, T, dtype=torch.bool).tril()
    assert_matches(o, sdpa(q, k, tensors["v"], mask=causal))


def by_rolling_cache(q: Tensor, k: Tensor, v: Tensor, sink: int, window: int) -> Tensor:
    """Decode token by token with a cache of sinks and recent tokens; positions are cache slots."""
    rows = []
    cached: list[int] = []
    for i in range(T):
        cached = [*cached, i]
        if len(cached) > sink + window:
            del cached[sink]
        slots = torch.arange(len(cached))
        query = rotate(q[:, :, i : i + 1], slots[-1:])
        rows.append(sdpa(query, rotate(k[:, :, cached], slots), v[:, :, cached]))
    return torch.cat(rows, dim=2)


def test_streaming_matches_a_rolling_cache() -> None:
    tensors = query_key_value(grad=True)
    ours = reference("streaming", tensors, {"sink": 2, "window": 4})["o"]
    theirs = by_rolling_cache(**tensors, sink=2, window=4)
    assert_matches(ours, theirs)
    assert_same_gradients(ours, theirs, tensors)


# Two tokens of text; a set of three parts (3, 2 and 4 tokens); text; a set of two; text.
SETS = [0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 2, 3, 3, 3, 4, 4]
PARTS = [0, 0, 0, 0, 0, 1, 1, 2, 2, 2, 2, 0, 0, 1, 1, 0, 0]
POSITIONS = [0, 1, 2, 3, 4, 2, 3, 2, 3, 4, 5, 6, 7, 7, 8, 9, 10]


def set_inputs() -> dict[str, Tensor]:
    values = {"set": SETS, "part": PARTS, "position": POSITIONS}
    return {name: torch.tensor(row, dtype=torch.int32).expand(B, T) for name, row in values.items()}


def test_set_prompting_matches_sdpa_with_the_mask() -> None:
    tensors = query_key_value()
    o = reference("set_prompting", {**tensors, **set_inputs()})["o"]
    visible = torch.ones(T, T, dtype=torch.bool).tril()
    for part in (range(2, 5), range(5, 7), range(7, 11), range(12, 13), range(13, 15)):
        siblings = range(2, 11) if part.start < 11 else range(12, 15)
        for j in siblings:
            visible[part.start : part.stop, j] &= j in part
    q, k = (rotate(tensors[name], torch.tensor(POSITIONS)) for name in "qk")
    assert_matches(o, sdpa(q, k, tensors["v"], mask=visible))


def test_set_prompting_does_not_depend_on_the_order_of_parts() -> None:
    """What the paper proves: the parts of a set may be swapped, and their rows swap with them."""
    swapped = torch.tensor([0, 1, *range(7, 11), *range(5, 7), *range(2, 5), *range(11, T)])
    tensors, sets = query_key_value(), set_inputs()
    before = reference("set_prompting", {**tensors, **sets})["o"]
    moved = {name: x.index_select(2, swapped) for name, x in tensors.items()}
    moved_sets = {name: x.index_select(1, swapped) for name, x in sets.items()}
    after = reference("set_prompting", {**moved, **moved_sets})["o"]
    assert_matches(after, before.index_select(2, swapped))
