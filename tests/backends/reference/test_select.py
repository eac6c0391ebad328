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


def test_a_let_that_a_choice_reads_first_has_its_gradient():
    mixer = load_text("""
mixer: lets
inputs: {x: [I, N], v: [N]}
let: {s: x * x}
stages:
  - select: {over: N, score: s, keep: {top: 2}}
  - map: {o: "sum(s * v, N, where=selected)"}
outputs: {o: [I]}
""")
    x = torch.randn(3, 5, dtype=torch.float64, requires_grad=True)
    v = torch.randn(5, dtype=torch.float64)
    (found,) = torch.autograd.grad(run(mixer, {"x": x, "v": v})["o"].sum(), x)
    kept = torch.zeros(3, 5).scatter(1, x.square().topk(2).indices, 1.0)
    assert torch.equal(found, 2 * x * v * kept)
