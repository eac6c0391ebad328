"""Tokens that are merged, sorted or clustered first: ToMe, Reformer, Routing, Sinkhorn."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from .independent import assert_agrees, assert_matches, normal, reference, sdpa

B, H, D, E = 2, 2, 4, 5


@pytest.mark.parametrize(("length", "merged"), [(12, 4), (13, 6), (9, 0)])
def test_tome_merges_the_most_alike_pairs(length: int, merged: int) -> None:
    x = {"x": normal(B, length, E, grad=True), "k": normal(B, length, D)}
    x["size"] = torch.randint(1, 4, (B, length)).double()
    unit = functional.normalize(x["k"], dim=-1)
    best, node = (unit[:, ::2] @ unit[:, 1::2].mT).max(-1)
    order = best.argsort(-1, descending=True)
    weighed = x["x"] * x["size"][..., None]
    rows, sizes = [], []
    for b in range(B):
        gone, stays = order[b, :merged], order[b, merged:]
        goes = node[b, gone]
        total = x["size"][b, 1::2].index_add(0, goes, x["size"][b, ::2][gone])
        odd = weighed[b, 1::2].index_add(0, goes, weighed[b, ::2][gone]) / total[:, None]
        rows.append(torch.cat([x["x"][b, ::2][stays], odd]))
        sizes.append(torch.cat([x["size"][b, ::2][stays], total]))
    assert_agrees("tome", x, {"y": torch.stack(rows)}, {"merged": merged})
    assert_matches(reference("tome", x, {"merged": merged})["sizes"], torch.stack(sizes))


@pytest.mark.parametrize(("near", "causal"), [(3, True), (5, False), (99, True)])
def test_routing_attends_inside_clusters(near: int, causal: bool) -> None:
    length, means, first = 11, 3, 2
    x = {"q": normal(B, H, length, D, grad=True), "k": normal(B, H, length, D, grad=True)}
    x |= {"v": normal(B, H, length, E, grad=True), "means": normal(H, means, D)}
    x["k_memory"] = normal(H, means, first, D, grad=True)
    x["v_memory"] = normal(H, means, first, E, grad=True)
    q, k = (functional.normalize(x[n].detach(), dim=-1) for n in "qk")
    total = torch.zeros(B, H, length, E, dtype=torch.float64)
    count = torch.zeros(B, H, length, 1, dtype=torch.float64)
    for m in range(means):
        asks, told = ((a @ x["means"][:, m, :, None])[..., 0] for a in (q, k))
        asks, told = (a.topk(min(near, length), -1).indices.sort(-1).values for a in (asks, told))
        at = [i[..., None].expand(-1, -1, -1, D) for i in (asks, told)]
        queries, keys = x["q"].gather(2, at[0]), x["k"].gather(2, at[1])
        values = x["v"].gather(2, told[..., None].expand(-1, -1, -1, E))
        seen = (told[:, :, None] <= asks[..., None]) | (not causal)
        seen = torch.cat([torch.ones(*seen.shape[:3], first, dtype=torch.bool), seen], -1)
        keys = torch.cat([x["k_memory"][:, m].expand(B, -1, -1, -1), keys], 2)
        values = torch.cat([x["v_memory"][:, m].expand(B, -1, -1, -1), values], 2)
        y = sdpa(queries, keys, values, seen)
        places = asks[..., None]
        total = total.scatter_add(2, places.expand(-1, -1, -1, E), y)
        count = count.scatter_add(2, places, torch.ones_like(count[:, :, : places.shape[2]]))
    assert_agrees("routing", x, {"o": total / (count + 1e-5)}, {"near": near, "causal": causal})


def hashed(q: Tensor, v: Tensor, turn: Tensor, chunk: int, causal: bool) -> tuple[Tensor, Tensor]:
    """One round for one head: [T, E] and log-sums [T], chunk by chunk of the sorted row."""
    length = len(q)
    side = q.detach() @ turn
    bucket = torch.cat([side, -side], -1).argmax(-1)
    order = (bucket * length + torch.arange(length)).argsort()
    chunks = order.split(chunk)
    key = q * (q.square().mean(-1, keepdim=True) + 1e-6).rsqrt() / q.shape[-1] ** 0.5
    o, lse = torch.zeros_like(v), torch.zeros(length, dtype=v.dtype)
    for n, own in enumerate(chunks):
        others = torch.cat([chunks[n - 1], own]) if len(chunks) > 1 else own
        score = q[own] @ key[others].T
        score = torch.where(own[:, None] == others, -1e5, score)
        score = score.masked_fill(own[:, None] < others, -math.inf) if causal else score
        o = o.index_copy(0, own, score.softmax(-1) @ v[others])
        lse = lse.index_copy(0, own, score.logsumexp(-1))
    return o, lse


@pytest.mark.parametrize(("length", "causal"), [(12, True), (12, False), (15, True), (3, True)])
def test_reformer_attends_among_neighbours_of_the_sorted_row(length: int, causal: bool) -> None:
    rounds, chunk = 3, 4
    x = {"q": normal(B, H, length, D, grad=True), "v": normal(B, H, length, E, grad=True)}
    x["turn"] = normal(H, rounds, D, 3)
    heads = []
    for b in range(B):
        for h in range(H):
            made = [hashed(x["q"][b, h], x["v"][b, h], t, chunk, causal) for t in x["turn"][h]]
            o, lse = (torch.stack(parts) for parts in zip(*made, strict=True))
            heads.append((lse.softmax(0)[..., None] * o).sum(0))
    o = torch.stack(heads).view(B, H, length, E)
    assert_agrees("reformer", x, {"o": o}, {"chunk": chunk, "causal": causal})


@pytest.mark.parametrize(
    ("blocks", "rounds", "block"), [(3, 7, 4), (1, 2, 5), (5, 0, 1), (4, 20, 3)]
)
def test_sinkhorn_mixes_blocks_by_a_doubly_stochastic_matrix(
    blocks: int, rounds: int, block: int
) -> None:
    """By factors of rows and columns (Sinkhorn and Knopp), where the spec takes logarithms."""
    x = {name: normal(B, H, blocks * block, D, grad=True) for name in "qk"}
    x |= {"v": normal(B, H, blocks * block, E, grad=True)}
    x["noise"] = normal(B, H, blocks, blocks)
    q, k, v = (x[n].unflatten(2, (blocks, block)) for n in "qkv")
    alike = torch.einsum("bhmd,bhnd->bhmn", q.mean(3), k.mean(3)) / math.sqrt(D)
    given = ((alike.relu() + 1e-6) * x["noise"].exp()) ** (1 / 0.75)
    rows = columns = torch.ones(B, H, blocks, dtype=torch.float64)
    for _ in range(rounds):
        rows = 1 / (given @ columns[..., None])[..., 0]
        columns = 1 / (given.mT @ rows[..., None])[..., 0]
    mixed = rows[..., None] * given * columns[..., None, :]
    keys, values = (
        torch.cat([torch.einsum("bhmn,bhnld->bhmld", mixed, y), y], 3).flatten(1, 2) for y in (k, v)
    )
    o = sdpa(q.flatten(1, 2), keys, values).view(B, H, blocks * block, E)
    assert_agrees("sinkhorn", x, {"o": o}, {"rounds": rounds, "block": block})
