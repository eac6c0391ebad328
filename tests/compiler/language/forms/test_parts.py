"""Attentions in parts: one softmax, or one sum, over all of them; and what the form refuses."""

from __future__ import annotations

from math import inf

import pytest
import torch
from torch import Tensor

from mixc.backends.reference.evaluate import run
from mixc.compiler.language.every_error import every_error
from mixc.compiler.language.load import load_text
from mixc.ir.errors import SpecError
from mixc.ir.mixer import Attention, Map
from mixc.ir.verify_mixer import verify_mixer

HEAD = """\
mixer: parted
inputs: {a: [I, M], b: [I, J], u: [M, E], v: [J, E], w: [I], z: [I]}
attention:
"""
PARTS = """\
  parts:
    - {over: M, score: a, mask: "a > 0", output: {o: u}, weights: p}
    - {over: J, score: b, mask: "b > 0", gain: w, output: {o: v, n: 2 * v}}
outputs: {o: [I, E], n: [I, E], p: [I, M]"""


def _outcome(head: str, more: str = "}\n", **given: Tensor) -> dict[str, Tensor]:
    return run(load_text(HEAD + head + PARTS + more), given)


@pytest.fixture
def given() -> dict[str, Tensor]:
    """Row 0 sees nothing, row 1 nothing along M, row 2 nothing along J."""
    torch.manual_seed(0)
    shapes = {"a": (6, 4), "b": (6, 5), "u": (4, 3), "v": (5, 3), "w": (6,), "z": (6,)}
    made = {name: torch.randn(*shape, dtype=torch.float64) for name, shape in shapes.items()}
    made["a"][:2], made["b"][0], made["b"][2] = -1, -1, -1
    made["z"][3] = -inf
    return {name: tensor.requires_grad_() for name, tensor in made.items()}


def _softmax(given: dict[str, Tensor], sink: bool) -> list[Tensor]:
    """The same by one softmax over both axes end to end."""
    scores = torch.cat((given["a"], given["b"]), 1)
    if sink:
        scores = torch.cat((scores, given["z"][:, None]), 1)
    seen = scores > 0
    if sink:
        seen = torch.cat((seen[:, :-1], torch.ones_like(seen[:, -1:])), 1)
    some = seen.any(1, keepdim=True)
    open_scores = torch.where(seen, scores, -inf)
    weights = torch.softmax(torch.where(some, open_scores, 0.0), 1).where(some, 0.0)
    p, r = weights[:, :4], weights[:, 4:9] * given["w"][:, None]
    lse = torch.logsumexp(torch.where(some, open_scores, 0.0), 1).where(some[:, 0], -inf)
    return [p @ given["u"] + r @ given["v"], r @ (2 * given["v"]), p, lse]


@pytest.mark.parametrize("sink", [False, True])
def test_one_softmax_over_all_parts(given: dict[str, Tensor], sink: bool) -> None:
    head = f"  lse: L\n  normalize: {'{softmax: {sink: z}}' if sink else 'softmax'}\n"
    made = _outcome(head, ", L: [I]}\n", **given)
    expected = _softmax(given, sink)
    for name, want in zip(("o", "n", "p", "L"), expected, strict=True):
        torch.testing.assert_close(made[name], want, rtol=1e-12, atol=1e-12)
    for finite in (made["o"].sum() + (made["p"] ** 2).sum(), expected[0].sum()):
        assert torch.isfinite(finite)


@pytest.mark.parametrize("sink", [False, True])
def test_its_gradients(given: dict[str, Tensor], sink: bool) -> None:
    """Of rows that see nothing too: 0, not NaN."""
    head = "  normalize: {softmax: {sink: z}}\n" if sink else ""
    made = _outcome(head, **given)
    o, n, p, _ = _softmax(given, sink)
    names = [name for name in given if sink or name != "z"]

    def gradients(o: Tensor, n: Tensor, p: Tensor) -> tuple[Tensor, ...]:
        loss = (o.sin() * 3 + n).sum() + (p**2).sum()
        return torch.autograd.grad(loss, [given[name] for name in names])

    ours, theirs = gradients(made["o"], made["n"], made["p"]), gradients(o, n, p)
    for name, a, b in zip(names, ours, theirs, strict=True):
        assert torch.isfinite(a).all(), name
        torch.testing.assert_close(a, torch.nan_to_num(b), rtol=1e-11, atol=1e-11)


def test_one_sum_over_all_parts(given: dict[str, Tensor]) -> None:
    head = "  normalize: {weight: score ** 2, denominator: total + sqrt(total) * w}\n"
    made = _outcome(head, **given)
    a, b = (torch.where(given[x] > 0, given[x] ** 2, 0) for x in "ab")
    total = a.sum(1) + b.sum(1)
    divisor = (total + total.sqrt() * given["w"])[:, None]
    p, r = (x / torch.where(divisor == 0, 1, divisor) for x in (a, b * given["w"][:, None]))
    torch.testing.assert_close(made["o"], p @ given["u"] + r @ given["v"])
    torch.testing.assert_close(made["p"], p)


def test_no_normaliser(given: dict[str, Tensor]) -> None:
    made = _outcome("  normalize: none\n", **given)
    a, b = (given[x].clamp(min=0) for x in "ab")
    expected = a @ given["u"] + (b * given["w"][:, None]) @ given["v"]
    torch.testing.assert_close(made["o"], expected)


def test_a_part_is_an_attention_of_its_own() -> None:
    stages = load_text(HEAD + PARTS + "}\n").stages
    assert [type(stage) for stage in stages] == [Attention, Attention, Map]


def test_no_sum_of_weights_where_nothing_divides() -> None:
    *parts, _ = load_text(HEAD + "  normalize: none\n" + PARTS + "}\n").stages
    assert [[ref.name for ref in part.results] for part in parts] == [
        ["o_1", "p_1"],
        ["o_2", "n_2"],
    ]


WRONG = {
    "normaliser of a part": ("output: {o: u}", "normalize: none, output: {o: u}", "share one"),
    "lse of a part": ("output: {o: u}", "lse: L, output: {o: u}", "`lse` in a part"),
    "twice in a part": ("weights: p", "weights: o", "a part makes one name twice"),
    "nothing made": ("output: {o: u}, weights: p", "gain: w", "the attention makes nothing"),
    "over beside parts": ("  parts:", "  over: J\n  parts:", "unknown key `over`"),
    "lse of a sum": ("  parts:", "  normalize: none\n  lse: L\n  parts:", "without a softmax"),
    "name of an input": ("{o: u}", "{w: u}", "`w` is declared already"),
    "score of one part": (
        "  parts:",
        "  normalize: {weight: score ** 2, denominator: total + sum(score, M)}\n  parts:",
        "score",
    ),
    "unknown name": ("score: b", "score: bb", "unknown name `bb`"),
}


@pytest.mark.parametrize("case", WRONG)
def test_an_error_says_where_and_what(case: str) -> None:
    old, new, words = WRONG[case]
    text = HEAD + PARTS + "}\n"
    assert text.count(old) == 1
    with pytest.raises(SpecError) as error:
        load_text(text.replace(old, new))
    assert words in str(error.value)
    assert str(error.value).startswith("<text>:")


@pytest.mark.parametrize(("parts", "words"), [("[]", "`parts` is empty"), ("3", "a list")])
def test_no_parts(parts: str, words: str) -> None:
    with pytest.raises(SpecError, match=words):
        load_text(HEAD + f"  parts: {parts}\noutputs: {{o: [I, E]}}\n")


def test_every_error_of_the_parts() -> None:
    text = (HEAD + PARTS + "}\n").replace("score: a", "score: aa").replace("gain: w", "gain: ww")
    assert [str(e).split("unknown name ")[1][:4] for e in every_error(text)] == ["`aa`", "`ww`"]


def test_a_sink_may_have_axes_that_no_part_has() -> None:
    text = """
mixer: parted
inputs: {a: [I, M], b: [I, J], u: [M, E], v: [J, E], z: [H]}
attention:
  normalize: {softmax: {sink: z}}
  parts:
    - {over: M, score: a, output: {o: u}}
    - {over: J, score: b, output: {o: v}}
outputs: {o: [H, I, E]}
"""
    mixer = load_text(text)
    verify_mixer(mixer)
    shapes = (3, 4), (3, 2), (4, 5), (2, 5), (2,)
    a, b, u, v, z = (torch.randn(*shape, dtype=torch.float64) for shape in shapes)
    logits = torch.cat((a, b), 1).expand(2, 3, 6)
    whole = torch.cat((logits, z[:, None, None].expand(2, 3, 1)), 2).softmax(2)[..., :6]
    found = run(mixer, {"a": a, "b": b, "u": u, "v": v, "z": z})["o"]
    torch.testing.assert_close(found, whole @ torch.cat((u, v)), rtol=1e-12, atol=1e-12)
