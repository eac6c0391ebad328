"""Attention by levels: Combiner's logarithmic and axial forms, StructFormer, FIT."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from torch.nn import functional

from .independent import assert_agrees, normal, sdpa

B, H, D, E = 2, 3, 4, 5


@pytest.mark.parametrize("length", [1, 2, 21])
def test_combiner_reads_blocks_of_powers_of_two(length: int) -> None:
    x = {n: normal(B, H, length, s, grad=True) for n, s in zip("qkv", (D, D, E), strict=True)}
    q, k, v = (x[n] for n in "qkv")
    scale, rows = D**-0.5, []
    for i in range(length):
        keys, values, end = [k[:, :, i]], [v[:, :, i]], i
        while end:  # blocks as large as they come, backwards from the row
            begin = end & (end - 1)
            asks = scale * q[:, :, begin:end].amax(2)
            own = torch.einsum("bhd,bhjd->bhj", asks, k[:, :, begin:end]).softmax(-1)
            keys.append(k[:, :, begin:end].amax(2))
            values.append(torch.einsum("bhj,bhje->bhe", own, v[:, :, begin:end]))
            end = begin
        p = (scale * torch.einsum("bhd,nbhd->nbh", q[:, :, i], torch.stack(keys))).softmax(0)
        rows.append(torch.einsum("nbh,nbhe->bhe", p, torch.stack(values)))
    assert_agrees("combiner_log", x, {"o": torch.stack(rows, 2)}, {"levels": 6})


def _running_least(x: torch.Tensor, reverse: bool) -> torch.Tensor:
    x = x.flip(-1) if reverse else x
    least = x.cummin(-1).values
    return least.flip(-1) if reverse else least


@pytest.mark.parametrize(("length", "steep", "sharp"), [(1, 1.0, 1.0), (9, 2.0, 0.5)])
def test_structformer_attends_along_its_own_parse(length: int, steep: float, sharp: float) -> None:
    x = {n: normal(B, H, length, s, grad=True) for n, s in zip("qkv", (D, D, E), strict=True)}
    x |= {n: normal(B, length, grad=True) for n in ("height", "distance")}
    x["relation"] = normal(H, 2, grad=True)
    height, distance = x["height"], x["distance"]
    # As the authors' code: ranges (i, l, r), and the head of each range, whole.
    gamma = (-(distance[:, None] - height[:, :, None]) * steep).sigmoid()
    ones = torch.ones_like(gamma)
    before = _running_least(gamma.tril(-1) + ones.triu(), True)
    left = (before - functional.pad(before[..., :-1], (1, 0))).tril()
    on = _running_least(gamma.triu() + ones.tril(-1), False)
    after = torch.cat([ones[..., :1], on[..., :-1]], -1)  # exclusive
    right = (after - functional.pad(after[..., 1:], (0, 1))).triu()
    at = torch.arange(length)
    inside = (at[:, None, None] <= at) & (at <= at[:, None])  # (l, r, k)
    ranges = inside & (at[:, None] <= at)[..., None]
    logits = (height * sharp)[:, None, None].expand(B, length, length, length)
    head_of = logits.masked_fill(~ranges, -1e9).softmax(-1)
    heads = torch.einsum("bil,bir,blrk->bik", left, right, head_of)
    heads = heads.masked_fill(torch.eye(length, dtype=torch.bool), 0)
    told = x["relation"].softmax(-1)
    dep = torch.einsum("hr,brij->bhij", told, torch.stack([heads, heads.mT], 1))
    o = ((x["q"] @ x["k"].mT / math.sqrt(D)).sigmoid() * dep) @ x["v"]
    assert_agrees("structformer", x, {"o": o}, {"steep": steep, "sharp": sharp})


@pytest.mark.parametrize(("groups", "size", "latents"), [(1, 1, 1), (4, 5, 2)])
def test_fit_is_four_attentions_by_groups(groups: int, size: int, latents: int) -> None:
    channels, eps = 6, 1e-5
    x = {"x": normal(B, groups * size, channels, grad=True)}
    x["z"] = normal(B, groups * latents, channels, grad=True)
    x |= {
        f"W{n}": normal(4, channels, H, s, grad=True) for n, s in zip("qkv", (D, D, E), strict=True)
    }
    x["Wo"] = normal(4, H, E, channels, grad=True)

    def added(
        asks: torch.Tensor, told: torch.Tensor, s: int, mask: torch.Tensor | None
    ) -> torch.Tensor:
        norm = partial(functional.layer_norm, normalized_shape=(channels,), eps=eps)
        q = torch.einsum("...tc,chd->...htd", norm(asks), x["Wq"][s])
        k, v = (torch.einsum("...tc,chd->...htd", norm(told), x[n][s]) for n in ("Wk", "Wv"))
        return asks + torch.einsum("...hte,hec->...tc", sdpa(q, k, v, mask), x["Wo"][s])

    tokens = x["x"].unflatten(1, (groups, size))
    latent = x["z"].unflatten(1, (groups, latents))
    tokens = added(tokens, tokens, 0, torch.ones(size, size, dtype=torch.bool).tril())
    latent = added(latent, tokens, 1, None).flatten(1, 2)
    so_far = torch.arange(groups).repeat_interleave(latents)
    latent = added(latent, latent, 2, so_far[:, None] >= so_far)
    before = latent.unflatten(1, (groups, latents))[:, :-1]
    o = torch.cat([tokens[:, :1], added(tokens[:, 1:], before, 3, None)], 1).flatten(1, 2)
    params = {"group": size, "latents": latents, "eps": eps}
    assert_agrees("fit", x, {"o": o, "latent": latent}, params)


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (1, 4), (5, 1), (4, 6)])
def test_combiner_reads_its_column_its_row_and_what_sums_up_the_others(
    rows: int, columns: int
) -> None:
    sizes = zip("qkv", (D, D, E), strict=True)
    x = {n: normal(B, H, rows, columns, s, grad=True) for n, s in sizes}
    q, k, v = (x[n] for n in "qkv")
    scale = D**-0.5

    def told(asks: torch.Tensor, at: tuple[slice | int, slice | int]) -> tuple[torch.Tensor, ...]:
        """A line of tokens by its largest keys, and by what its largest query reads of it."""
        keys, values = k[:, :, *at], v[:, :, *at]
        own = torch.einsum("bhd,bhnd->bhn", scale * asks[:, :, *at].amax(2), keys).softmax(-1)
        return keys.amax(2), torch.einsum("bhn,bhne->bhe", own, values)

    made = []
    for y in range(rows):
        for c in range(columns):
            seen = [(k[:, :, r, c], v[:, :, r, c]) for r in range(y)]
            seen += [(k[:, :, y, n], v[:, :, y, n]) for n in range(c + 1)]
            seen += [told(q, (slice(y), n)) for n in range(columns) if n != c and y]
            seen += [told(q, (r, slice(c))) for r in range(y) if c]
            seen += [told(q, (r, slice(c + 1, None))) for r in range(y) if c + 1 < columns]
            keys, values = (torch.stack(part, 2) for part in zip(*seen, strict=True))
            p = (scale * torch.einsum("bhd,bhnd->bhn", q[:, :, y, c], keys)).softmax(-1)
            made.append(torch.einsum("bhn,bhne->bhe", p, values))
    o = torch.stack(made, 2).unflatten(2, (rows, columns))
    assert_agrees("combiner_axial", x, {"o": o})
