"""Specs that differ from causal attention by a mask: against SDPA with the mask pair by pair.

Each case writes who sees whom as a plain Python predicate of (batch, head, query, key).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor
from torch.nn.attention.flex_attention import create_block_mask, flex_attention
from torch.nn.functional import scaled_dot_product_attention

from .independent import assert_matches, assert_same_gradients, normal, reference, sdpa

B, H, G, T, D, E = 2, 6, 2, 13, 5, 7
Sees = Callable[[int, int, int, int], bool]


@dataclass(frozen=True)
class Case:
    """A spec with its inputs beside q, k, v, its params, and who sees whom."""

    name: str
    sees: Sees
    inputs: Mapping[str, Tensor] = field(default_factory=dict)
    params: Mapping[str, float] = field(default_factory=dict)
    label: str = ""

    def __str__(self) -> str:
        return f"{self.name}{'-' if self.label else ''}{self.label}"


def int32(values: object) -> Tensor:
    return torch.tensor(values, dtype=torch.int32)


DOCUMENTS = [[0] * 4 + [1] + [2] * 8, [3] * 6 + [5] * 7]
PREFIX = [5, 0]
VISUAL = [[True] * 3 + [False] * 2 + [True] * 4 + [False] * 4, [False] * 13]
BLOCKS = torch.rand(H, 4, 4, generator=torch.Generator().manual_seed(1)) < 0.5
ALPHA, BETA = [1.0, 2.0, 0.5, 3.0, 0.0, 20.0], [0.1, 0.2, 0.0, 0.25, 0.5, 0.0]
RETRIEVAL = [True, False]
KEPT = [[True, False, True] * 4 + [True], [False] * 13]


def packed_sees(causal: bool, lengths: list[int]) -> Sees:
    def sees(b: int, h: int, i: int, j: int) -> bool:
        together = DOCUMENTS[b][i] == DOCUMENTS[b][j] and max(i, j) < lengths[b]
        return together and (j <= i or not causal)

    return sees


CASES = [
    Case("dense", lambda b, h, i, j: True),
    Case("causal", lambda b, h, i, j: i >= j),
    Case("cross", lambda b, h, i, j: True, label="defaults"),
    Case("cross", lambda b, h, i, j: KEPT[b][j], {"kept": torch.tensor(KEPT)}),
    Case(
        "block_sparse",
        lambda b, h, i, j: bool(BLOCKS[h, i // 4, j // 4]),
        {"visible": BLOCKS},
        {"block": 4},
    ),
    Case("masformer", lambda b, h, i, j: 0 <= i - j <= 3, params={"window": 4}),
    Case("masformer", lambda b, h, i, j: i >= j, params={"window": 4, "full": True}, label="full"),
    Case(
        "moa",
        lambda b, h, i, j: i >= j and (j < 2 or i - j < ALPHA[h] + BETA[h] * T),
        {"alpha": torch.tensor(ALPHA).double(), "beta": torch.tensor(BETA).double()},
        {"sink": 2},
    ),
    Case(
        "duo_attention",
        lambda b, h, i, j: i >= j and (RETRIEVAL[h // 3] or j in (0, 1) or i - j in (0, 1, 2)),
        {"retrieval": torch.tensor(RETRIEVAL)},
        {"sink": 2, "recent": 3},
    ),
    Case(
        "anchor",
        lambda b, h, i, j: i >= j and (j == 0 or DOCUMENTS[b][i] == DOCUMENTS[b][j]),
        {"document": int32(DOCUMENTS)},
    ),
    Case("packed", packed_sees(True, [T, T]), {"document": int32(DOCUMENTS)}),
    Case(
        "packed",
        packed_sees(False, [10, 13]),
        {"document": int32(DOCUMENTS), "length": int32([10, 13])},
        {"causal": False},
        label="padded",
    ),
    Case(
        "prefix_lm",
        lambda b, h, i, j: i >= j or max(i, j) < PREFIX[b] or j < PREFIX[b] <= i,
        {"prefix": int32(PREFIX)},
    ),
    Case(
        "composite",
        lambda b, h, i, j: i >= j and not (VISUAL[b][i] and VISUAL[b][j]),
        {"visual": torch.tensor(VISUAL)},
    ),
    Case(
        "sparse_strided",
        lambda b, h, i, j: i >= j and (i - j <= 3 or i - j in (4, 8, 12)),
        params={"stride": 4},
    ),
    Case(
        "sparse_strided",
        lambda b, h, i, j: i >= j and (i - j in (0, 4, 8, 12) if h % 2 else i - j <= 3),
        params={"stride": 4, "together": False},
        label="apart",
    ),
    Case(
        "sparse_fixed",
        lambda b, h, i, j: i >= j and (j >= i // 5 * 5 or j % 5 in ((3, 4), (1, 2))[h % 2]),
        params={"block": 5, "summary": 2},
    ),
]


def mask_of(sees: Sees) -> Tensor:
    """[B, H, T, T], pair by pair."""
    rows = [
        [[[sees(b, h, i, j) for j in range(T)] for i in range(T)] for h in range(H)]
        for b in range(B)
    ]
    return torch.tensor(rows)


def query_key_value(grad: bool = False) -> dict[str, Tensor]:
    return {
        "q": normal(B, H, T, D, grad=grad),
        "k": normal(B, G, T, D, grad=grad),
        "v": normal(B, G, T, E, grad=grad),
    }


@pytest.mark.parametrize("case", CASES, ids=str)
def test_matches_sdpa_with_the_mask(case: Case) -> None:
    tensors = query_key_value()
    o = reference(case.name, {**tensors, **case.inputs}, case.params)["o"]
    expected = sdpa(*tensors.values(), mask=mask_of(case.sees))
    assert_matches(o, expected)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_rows_that_see_nothing_give_0(case: Case) -> None:
    """Also where they should give a gradient: that is 0, not NaN."""
    tensors = query_key_value(grad=True)
    blind = ~mask_of(case.sees).any(-1)
    results = reference(case.name, {**tensors, **case.inputs}, case.params)
    assert torch.isfinite(results["o"]).all()
    assert (results["o"][blind] == 0).all()
    results["o"].square().sum().backward()
    assert all(torch.isfinite(x.grad).all() for x in tensors.values())
    assert (tensors["q"].grad[blind] == 0).all()


@pytest.mark.parametrize(
    "case", [c for c in CASES if c.name in ("causal", "moa", "packed", "composite")], ids=str
)
def test_gradients_match_sdpa(case: Case) -> None:
    tensors = query_key_value(grad=True)
    ours = reference(case.name, {**tensors, **case.inputs}, case.params)["o"]
    theirs = sdpa(*tensors.values(), mask=mask_of(case.sees))
    assert_same_gradients(ours, theirs, tensors)


def test_cross_takes_unequal_lengths_and_gives_the_lse() -> None:
    q, k, v = normal(B, H, 3, D), normal(B, G, 9, D), normal(B, G, 9, E)
    kept = torch.tensor([[True] * 4 + [False] * 5, [False] * 9])
    results = reference("cross", {"q": q, "k": k, "v": v, "kept": kept})
    assert_matches(results["o"], sdpa(q, k, v, mask=kept[:, None, None].expand(B, H, 3, 9)))
    scores = q @ k.repeat_interleave(H // G, 1).transpose(-1, -2) / D**0.5
    lse = scores.masked_fill(~kept[:, None, None], -torch.inf).logsumexp(-1)
    assert (results["lse"][1] == -torch.inf).all()
    assert_matches(results["lse"][0], lse[0])


def test_lse_merges_two_halves_of_the_keys() -> None:
    q, k, v = normal(B, H, 3, D), normal(B, G, 9, D), normal(B, G, 9, E)
    halves = [
        reference("cross", {"q": q, "k": k[:, :, part], "v": v[:, :, part]})
        for part in (slice(0, 4), slice(4, 9))
    ]
    share = torch.stack([half["lse"] for half in halves]).softmax(0)
    merged = share[0][..., None] * halves[0]["o"] + share[1][..., None] * halves[1]["o"]
    assert_matches(merged, sdpa(q, k, v))


def test_slots_of_a_word_pool_its_bytes() -> None:
    slots, words = 2, 5
    q, k, v = normal(B, H, slots * words, D), normal(B, G, T, D), normal(B, G, T, E)
    word = int32([[0] * 4 + [1] + [3] * 8, [2] * 6 + [4] * 7])
    tensors = {"q": q, "k": k, "v": v, "word": word}
    o = reference("word_pool", tensors, {"slots": slots})["o"]
    for b, ids in enumerate(word):
        for w in range(words):
            own = (ids == w).nonzero()[:, 0]
            mine = slice(slots * w, slots * (w + 1))
            expected = sdpa(q[b : b + 1, :, mine], *(x[b : b + 1, :, own] for x in (k, v)))
            assert_matches(
                o[b : b + 1, :, mine], expected if len(own) else torch.zeros_like(expected)
            )


def test_packed_matches_sdpa_document_by_document() -> None:
    tensors = query_key_value()
    o = reference("packed", {**tensors, "document": int32(DOCUMENTS)})["o"]
    for b, ids in enumerate(int32(DOCUMENTS)):
        for document in ids.unique():
            rows = (ids == document).nonzero()[:, 0]
            alone = [x[b : b + 1, :, rows] for x in tensors.values()]
            expected = scaled_dot_product_attention(*alone, is_causal=True, enable_gqa=True)
            assert_matches(o[b : b + 1, :, rows], expected)


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("name", ["causal", "packed", "prefix_lm", "masformer"])
def test_matches_flex_attention(name: str) -> None:
    document, prefix = int32(DOCUMENTS), int32(PREFIX)
    mask_mods = {
        "causal": lambda b, h, i, j: j <= i,
        "packed": lambda b, h, i, j: (j <= i) & (document[b, i] == document[b, j]),
        "prefix_lm": lambda b, h, i, j: (j <= i) | (j < prefix[b]),
        "masformer": lambda b, h, i, j: (j <= i) & (i - j < 4),
    }
    extra = {"packed": {"document": document}, "prefix_lm": {"prefix": prefix}}
    tensors = query_key_value()
    block_mask = create_block_mask(mask_mods[name], B, None, T, T, device="cpu", BLOCK_SIZE=16)
    expected = flex_attention(*tensors.values(), block_mask=block_mask, enable_gqa=True)
    params = {"window": 4} if name == "masformer" else {}
    o = reference(name, {**tensors, **extra.get(name, {})}, params)["o"]
    assert_matches(o, expected)


PARENTS = [5, 5, 0, 1, 0, 8, 3, 2, -1, 1, 1, 4, 6]  # the root is node 8; tokens in no order


def intervals(parents: list[int]) -> tuple[list[int], list[int]]:
    """The count of nodes entered before each node on a walk of the tree, and after its subtree."""
    enter, leave, clock = [0] * len(parents), [0] * len(parents), 0

    def walk(node: int) -> None:
        nonlocal clock
        enter[node], clock = clock, clock + 1
        for child in (c for c, parent in enumerate(parents) if parent == node):
            walk(child)
        leave[node] = clock

    walk(parents.index(-1))
    return enter, leave


def test_tree_sees_ancestors() -> None:
    chain = list(range(-1, T - 1))
    visible = torch.zeros(B, H, T, T, dtype=torch.bool)
    walks = [intervals(parents) for parents in (PARENTS, chain)]
    for b, parents in enumerate((PARENTS, chain)):
        for node in range(T):
            ancestor = node
            while ancestor >= 0:
                visible[b, :, node, ancestor] = True
                ancestor = parents[ancestor]
    enter, leave = (int32([walk[side] for walk in walks]) for side in (0, 1))
    tensors = query_key_value()
    o = reference("tree", {**tensors, "enter": enter, "leave": leave})["o"]
    assert_matches(o, sdpa(*tensors.values(), mask=visible))
