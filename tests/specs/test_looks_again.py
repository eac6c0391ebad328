"""Attentions whose scores know more than a query and a key: gates, edges, a share cut."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from .independent import assert_agrees, assert_matches, normal, positions, reference, sdpa

B, H, G, T, J, D, E = 2, 4, 2, 13, 12, 6, 5


@pytest.mark.parametrize("drop", [0.0, 0.25, 1.0])
def test_adem_leaves_out_the_lowest_share_of_a_row(drop: float) -> None:
    x = {"x": normal(B, T, D, grad=True), "v": normal(B, J, D, grad=True)}
    x |= {"e_score": normal(D, grad=True), "e_value": normal(D, grad=True)}
    s = F.silu(x["x"]) @ F.silu(x["v"] + x["e_score"]).mT
    lowest = s.topk(int(drop * J), -1, largest=False).indices
    o = s.scatter(-1, lowest, 0.0) @ (x["v"] + x["e_value"])
    assert_agrees("adem", x, {"o": o}, {"drop": drop})


@pytest.mark.parametrize("off_by_one", [True, False])
def test_delete_gate_is_a_bias_on_keys(off_by_one: bool) -> None:
    x = {"q": normal(B, H, T, D, grad=True), "k": normal(B, G, T, D, grad=True)}
    x |= {"v": normal(B, G, T, E, grad=True), "x": normal(B, T, 3, grad=True)}
    x |= {"w": normal(3, grad=True), "bias": normal(H, 2 * T, grad=True)}
    i, j = positions(T)
    mask = x["bias"][:, i - j + T] - 30 * torch.sigmoid(-(x["x"] @ x["w"]))[:, None, None]
    k, v = x["k"], x["v"]
    if off_by_one:  # one more key, with score 0 and value 0
        mask, k, v = F.pad(mask, (1, 0)), F.pad(k, (0, 0, 1, 0)), F.pad(v, (0, 0, 1, 0))
    o = sdpa(x["q"], k, v, mask, scale=1.0)
    assert_agrees("delete_gate", x, {"o": o}, {"off_by_one": off_by_one})


def test_tokens_whose_gate_is_shut_are_as_good_as_removed() -> None:
    x = {"q": normal(B, H, T, D), "k": normal(B, G, T, D), "v": normal(B, G, T, E)}
    x |= {"x": torch.tensor([1.0, -1.0]).double()[torch.arange(T) % 2].expand(B, T)[..., None]}
    x |= {"w": torch.tensor([40.0]).double(), "bias": torch.zeros(H, 3).double()}
    kept = slice(None, None, 2)
    o = sdpa(x["q"], x["k"][:, :, kept], x["v"][:, :, kept], scale=1.0)
    assert_matches(reference("delete_gate", x, {"off_by_one": False, "least": -1000})["o"], o)


def test_edges_are_a_softmax_over_each_nodes_own_list() -> None:
    nodes, edges = 7, 15
    x = {"q": normal(B, nodes, H, D, grad=True), "k": normal(B, J, H, D, grad=True)}
    x |= {"v": normal(B, J, H, E, grad=True)}
    x["from"] = torch.randint(J, (B, edges), dtype=torch.int32)
    x["to"] = torch.randint(nodes - 1, (B, edges), dtype=torch.int32).sort(-1).values
    x["to"][:, -2:] = nodes  # past the end
    o = torch.zeros(B, nodes, H, E, dtype=torch.float64)
    for b in range(B):
        for node in range(nodes):
            sources = x["from"][b][x["to"][b] == node].long()
            s = torch.einsum("hd,jhd->hj", x["q"][b, node], x["k"][b, sources]) / D**0.5
            o[b, node] = torch.einsum("hj,jhe->he", s.softmax(-1), x["v"][b, sources])
    assert_agrees("edges", x, {"o": o})
