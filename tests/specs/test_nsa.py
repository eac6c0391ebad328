"""Native sparse attention against its formula, row by row."""

import itertools

import torch

from .independent import reference


def test_is_its_formula_row_by_row():
    rows, groups, ratio, block, keep, window = 27, 2, 3, 4, 3, 6
    torch.manual_seed(0)
    q = torch.randn(1, rows, groups * ratio, 8).double()
    k, v = (torch.randn(1, rows, groups, size).double() for size in (8, 5))
    gates = torch.rand(3, 1, rows, groups * ratio).double()
    given = {"q": q, "k": k, "v": v, **dict(zip(("g_cmp", "g_slc", "g_swa"), gates, strict=True))}
    params = {"block": block, "keep": keep, "window": window}
    o = reference("nsa", given, params)["o"][0]
    blocks = range(-(-rows // block))
    for t, g in itertools.product(range(rows), range(groups)):
        keys, values = k[0, :, g], v[0, :, g]
        whole = [n for n in blocks if (n + 1) * block <= t + 1]
        short = [[x[n * block : (n + 1) * block].mean(0) for n in whole] for x in (keys, values)]
        heads = range(g * ratio, (g + 1) * ratio)
        shares = {h: _softmax(q[0, t, h], torch.stack(short[0])) for h in heads if whole}
        likes = {n: sum(shares[h][n] for h in heads) / ratio for n in whole}
        likes |= dict.fromkeys({0, t // block, t // block - 1} - {-1}, 1)
        best = sorted(likes, key=lambda n: (-float(likes[n]), n))[:keep]
        chosen = [j for j in range(t + 1) if j // block in best]
        near = list(range(max(0, t - window + 1), t + 1))
        for h in heads:
            parts = [_softmax(q[0, t, h], keys[js]) @ values[js] for js in (chosen, near)]
            first = shares[h] @ torch.stack(short[1]) if whole else torch.zeros(5).double()
            made = sum(gate[0, t, h] * x for gate, x in zip(gates, (first, *parts), strict=True))
            torch.testing.assert_close(o[t, h], made)


def _softmax(query, keys):
    """The weights of some keys for one query."""
    return torch.softmax(keys @ query * query.shape[-1] ** -0.5, 0)
