"""BigBird against transformers (in train mode: in eval mode its random blocks are all block 0)."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from .independent import assert_matches, assert_same_gradients, normal, positions, reference, sdpa

B, H, T, D, BLOCK, RANDOM = 2, 3, 64, 4, 4, 2
N = T // BLOCK


def by_heads(projected: Tensor) -> Tensor:
    return projected.unflatten(-1, (H, D)).transpose(1, 2)


def seen_blocks(table: Tensor, blocks: int) -> Tensor:
    """[H, blocks, blocks]: edges, neighbours, and what the table lists."""
    m, n = positions(blocks)
    ends = torch.tensor([0, blocks - 1])
    fixed = torch.isin(m, ends) | torch.isin(n, ends) | ((m - n).abs() < 2)
    listed = torch.zeros(table.shape[0], blocks, blocks + 1, dtype=torch.bool)
    listed.scatter_(2, table.long() % (blocks + 1), True)  # -1 goes to a column of its own
    return fixed | listed[..., :blocks]


def padded_table(random_attention: Tensor) -> Tensor:
    """[H, M, R] for all blocks of queries, from transformers' list for all but first and last."""
    table = torch.full((H, N, RANDOM), -1, dtype=torch.int32)
    table[:, 1:-1] = random_attention.int()
    return table


def test_matches_transformers(monkeypatch: pytest.MonkeyPatch) -> None:
    big_bird = pytest.importorskip("transformers.models.big_bird.modeling_big_bird")
    config = big_bird.BigBirdConfig(
        hidden_size=H * D,
        num_attention_heads=H,
        block_size=BLOCK,
        num_random_blocks=RANDOM,
        max_position_embeddings=T,
        attention_probs_dropout_prob=0.0,
    )
    layer = big_bird.BigBirdBlockSparseAttention(config, seed=3).double().train()
    drawn: list[Tensor] = []
    gather = layer._create_rand_mask_from_inputs
    monkeypatch.setattr(
        layer, "_create_rand_mask_from_inputs", lambda *a: drawn.append(a[2]) or gather(*a)
    )
    kept = torch.arange(T) < torch.tensor([[T], [T - 11]])
    blocked, band, rows, columns = big_bird.BigBirdModel.create_masks_for_block_sparse_attn(
        kept.double(), BLOCK
    )
    x = normal(B, T, H * D, grad=True)
    o, _ = layer(x, band, rows, columns, blocked, blocked)
    expected = by_heads(o)

    table = padded_table(drawn[0][0])
    names = {"q": "query", "k": "key", "v": "value"}
    tensors = {name: by_heads(getattr(layer, long)(x)) for name, long in names.items()}
    ours = reference("bigbird", {**tensors, "random": table, "kept": kept}, {"block": BLOCK})["o"]
    assert_matches(ours[kept[:, None].expand(B, H, T)], expected[kept[:, None].expand(B, H, T)])
    assert (ours[1, :, T - 11 :] == 0).all()
    assert_same_gradients(ours[0], expected[0], {"x": x})


def test_grouped_heads_and_a_ragged_last_block_match_sdpa() -> None:
    heads, groups, length, blocks = 6, 2, 27, 7
    table = torch.randint(-1, blocks, (heads, blocks, 2), dtype=torch.int32)
    q, k, v = (
        normal(B, heads, length, D),
        normal(B, groups, length, D),
        normal(B, groups, length, 5),
    )
    o = reference("bigbird", {"q": q, "k": k, "v": v, "random": table}, {"block": 4})["o"]
    of = torch.arange(length) // 4
    assert_matches(o, sdpa(q, k, v, mask=seen_blocks(table, blocks)[:, of][:, :, of]))
