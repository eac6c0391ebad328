"""The select form against a loop over rows that sorts (score, position) pairs in Python."""

import itertools
import math

import pytest
import torch

from mixc.backends.plain.emit import reference_function
from mixc.backends.reference.evaluate import run
from mixc.compiler.language.load import load_text
from mixc.compiler.mixers.pack.pack_sequences import packing
from mixc.ir.text import write_mixer
from mixc.ir.verify_mixer import verify_mixer

SPEC = """
mixer: chosen
inputs:
  x: [B, I, N]
  a: {{dims: [I, N], dtype: bool}}
  f: {{dims: [N], dtype: bool}}
  c: {{dims: [I], dtype: int32}}
  u: [B, I]
dims: {{S: 4}}
select:
  over: N
  score: x
  {among}
  keep: {keep}
  {always}
  list: {{name: blocks, axis: S}}
outputs: {{selected: [B, I, N], blocks: [B, I, S]}}
"""
RULES = {"top": "{top: c}", "above": "{above: u}", "mass": "{mass: u}"}


def spec(rule, among=True, always=True):
    words = {"among": "among: a" if among else "", "always": "always: f" if always else ""}
    return load_text(SPEC.format(keep=RULES[rule], **words))


def tensors(batch=2, rows=5, places=9):
    torch.manual_seed(0)
    x = torch.randint(-2, 3, (batch, rows, places)).double()  # equal scores abound
    x[0, 0, 3], x[0, 1, 2] = math.nan, -math.inf
    a, f = torch.rand(rows, places) < 0.6, torch.rand(places) < 0.2
    a[2] = False  # nothing to choose from
    c, u = torch.tensor([0, 2, 3, 20, 1]), torch.rand(batch, rows).double()
    u[-1, -1] = 1.5
    return {"x": x, "a": a, "f": f, "c": c, "u": u}


def row(rule, scores, among, forced, count, number, slots=4):
    order = sorted((-s, n) for n, s in enumerate(scores) if among[n] and s == s)
    weights = [math.exp(-s + order[0][0]) for s, _ in order]
    kept = []
    for place, (s, n) in enumerate(order):
        before = sum(weights[:place]) / sum(weights)
        if {"top": place < count, "above": -s > number, "mass": before < number}[rule]:
            kept.append(n)
    listed = kept + [n for n in range(len(scores)) if forced[n] and n not in kept]
    return sorted(listed), (listed + [-1] * slots)[:slots]


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("conditions", [(True, True), (False, False)])
def test_every_row_is_chosen_as_sorting_says(rule, conditions):
    given = tensors()
    mixer = spec(rule, *conditions)
    read = {i.name for i in mixer.inputs}
    made = run(mixer, {n: t for n, t in given.items() if n in read})
    batch, rows, places = given["x"].shape
    for b in range(batch):
        for i in range(rows):
            among = given["a"][i] if conditions[0] else [True] * places
            forced = given["f"] if conditions[1] else [False] * places
            scores = given["x"][b, i].tolist()
            whole, listed = row(rule, scores, among, forced, given["c"][i], given["u"][b, i])
            assert made["selected"][b, i].nonzero().flatten().tolist() == whole
            assert made["blocks"][b, i].tolist() == listed


def test_the_text_form_reads_back_and_the_plain_function_chooses_alike():
    mixer = spec("top")
    again = load_text(write_mixer(mixer))
    verify_mixer(again)
    assert again.stages == mixer.stages
    given = tensors()
    emitted = reference_function(mixer)
    names = {"torch": torch, "math": math}
    for helper in (*emitted.helpers, emitted.text):
        exec(helper, names)
    plain = names["reference"](*(given[i.name] for i in mixer.inputs))
    for made, expected in zip(plain, run(mixer, given).values(), strict=True):
        assert torch.equal(made.to(expected.dtype), expected)


def test_several_axes_are_chosen_from_together():
    mixer = load_text("""
mixer: two
inputs: {x: [I, N, M]}
dims: {S: 3}
select: {over: [N, M], score: x, keep: {top: 3}, list: {name: at_, axis: S}}
outputs: {selected: [I, N, M], at_: [I, S]}
""")
    x = torch.randn(4, 3, 5, dtype=torch.float64)
    made = run(mixer, {"x": x})
    best = x.flatten(1).topk(3)
    assert torch.equal(made["at_"], best.indices)
    assert torch.equal(x[made["selected"]].sort().values, best.values.flatten().sort().values)
    assert load_text(write_mixer(mixer)).stages == mixer.stages


def test_documents_of_a_packed_row_choose_among_their_own():
    mixer = load_text("""
mixer: packed
inputs: {x: [I, J]}
dims: {I: T, J: T, S: 3}
select: {over: J, score: x, among: j <= i, keep: {top: 2}, always: j == 0, list: {name: l, axis: S}}
outputs: {selected: [I, J], l: [I, S]}
""")
    packed = packing(mixer)
    x, cuts = torch.randn(9, 9, dtype=torch.float64), [0, 4, 9]
    position = torch.arange(9)
    numbers = torch.bucketize(position, torch.tensor(cuts[1:]), right=True)
    edges = {"first": torch.tensor(cuts)[numbers], "end": torch.tensor(cuts)[numbers + 1]}
    more = {t.name: edges.get(t.what, numbers) for t in packed.tables}
    made = run(packed.mixer, {"x": x, **more})
    for low, high in itertools.pairwise(cuts):
        own = run(mixer, {"x": x[low:high, low:high]})
        assert torch.equal(made["selected"][low:high, low:high], own["selected"])
        assert torch.equal(made["l"][low:high], own["l"])


NSA = """
mixer: nsa
inputs:
  q: [B, T, G*R, D]
  k: [B, J, G, D]
  v: [B, J, G, E]
  g_cmp: [B, T, G*R]
  g_slc: [B, T, G*R]
  g_swa: [B, T, G*R]
params: {block: 64, keep: 16, window: 512, scale: D ** -0.5}
dims: {J: T, N: (T + block - 1) // block}
let:
  kc: mean(k, J, N=j // block)
  vc: mean(v, J, N=j // block)
  s: scale * sum(q * k, D)
  whole: (n + 1) * block - 1 <= t
  forced: n == 0 or n == t // block or n == t // block - 1
stages:
  - attention:
      over: N
      score: scale * sum(q * kc, D)
      mask: whole
      weights: p
      output: {cmp: vc}
  - select:
      over: N
      score: where(forced, 1, mean(p, R))
      among: whole or forced
      keep: {top: keep}
  - attention:
      over: J
      score: s
      mask: j <= t and at(selected, N=j // block)
      output: {slc: v}
  - attention: {over: J, score: s, mask: j <= t and t - j < window, output: {swa: v}}
  - map: {o: g_cmp * cmp + g_slc * slc + g_swa * swa}
outputs: {o: [B, T, G*R, E]}
"""


def test_native_sparse_attention_is_its_formula_row_by_row():
    rows, groups, ratio, block, keep, window = 27, 2, 3, 4, 3, 6
    torch.manual_seed(0)
    q = torch.randn(1, rows, groups * ratio, 8).double()
    k, v = (torch.randn(1, rows, groups, size).double() for size in (8, 5))
    gates = torch.rand(3, 1, rows, groups * ratio).double()
    given = {"q": q, "k": k, "v": v, **dict(zip(("g_cmp", "g_slc", "g_swa"), gates, strict=True))}
    params = {"block": block, "keep": keep, "window": window}
    o = run(load_text(NSA), given, params)["o"][0]
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
