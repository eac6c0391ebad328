"""The attention form against a loop over queries that knows visible keys only, and torch's SDPA."""

import itertools
import math

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from mixc.backends.reference.evaluate import run
from mixc.compiler.language.load import load_text

B, H, T, D, E = 2, 3, 6, 4, 5


def spec(normalize="softmax", mask="mask: j <= i", more="", inputs="", outputs="", value="v"):
    return load_text(f"""
mixer: tried
inputs:
  q: [B, H, I, D]
  k: [B, H, J, D]
  v: [B, H, J, E]
{inputs}
dims: {{I: T, J: T}}
params: {{scale: D ** -0.5}}
attention:
  over: J
  score: scale * sum(q * k, D)
  {mask}
  normalize: {normalize}
  {more}
  output:
    o: {value}
  lse: lse
  weights: p
outputs:
  o: [B, H, I, E]
  lse: [B, H, I]
  p: [B, H, I, J]
{outputs}
""")


def tensors(grad=False, scale=1.0):
    shapes = {"q": (B, H, T, D), "k": (B, H, T, D), "v": (B, H, T, E)}
    made = {n: torch.randn(s, dtype=torch.float64) for n, s in shapes.items()}
    made["q"] *= scale
    return {n: t.requires_grad_(grad) for n, t in made.items()}


def by_rows(given, weigh, visible):
    """Each row by itself, from its visible keys: ``weigh(scores)`` gives weights and log(total)."""
    q, k, v = (given[n].detach() for n in "qkv")
    o = torch.zeros(B, H, T, E, dtype=torch.float64)
    p = torch.zeros(B, H, T, T, dtype=torch.float64)
    lse = torch.full((B, H, T), -math.inf, dtype=torch.float64)
    for b, h, i in itertools.product(range(B), range(H), range(T)):
        keys = [j for j in range(T) if visible(i, j)]
        if keys:
            scores = (k[b, h, keys] @ q[b, h, i]) * D**-0.5
            p[b, h, i, keys], lse[b, h, i] = weigh(scores)
            o[b, h, i] = p[b, h, i] @ v[b, h]
    return {"o": o, "p": p, "lse": lse}


def weigh_softmax(scores):
    return torch.softmax(scores, 0), torch.logsumexp(scores, 0)


def weigh(weight, denominator=lambda total: total):
    def of(scores):
        w = weight(scores)
        return w / denominator(w.sum()), torch.log(w.sum())

    return of


CAUSAL = ("mask: j <= i", lambda i, j: j <= i)
STRICT = ("mask: j < i and i != 4", lambda i, j: j < i and i != 4)
NORMALISERS = {
    "softmax": weigh_softmax,
    "none": weigh(lambda s: s, lambda total: 1.0),
    "{weight: sigmoid(score), denominator: total + 0.1}": weigh(torch.sigmoid, lambda t: t + 0.1),
    "{weight: exp(score), denominator: total + 1}": weigh(torch.exp, lambda t: t + 1),
    '{weight: exp(score), denominator: "max(total * 2, 3) / 2 - 0.5"}': weigh(
        torch.exp, lambda t: max(t, torch.tensor(1.5)) - 0.5
    ),
    "{weight: exp(score), denominator: sqrt(total)}": weigh(torch.exp, torch.sqrt),
    "{weight: exp2(score), denominator: total}": weigh(torch.exp2),
    '{weight: exp(score), denominator: "1"}': weigh(torch.exp, lambda t: 1.0),
    "{weight: relu(score) ** 2, denominator: total}": weigh(lambda s: torch.relu(s) ** 2),
    '{weight: "exp(score - max(score, J))", denominator: total}': weigh(
        lambda s: torch.exp(s - s.max())
    ),
    '{weight: "score / sum(abs(score), J)", denominator: "1"}': weigh(
        lambda s: s / s.abs().sum(), lambda t: 1.0
    ),
}


@pytest.mark.parametrize("normalize", sorted(NORMALISERS))
@pytest.mark.parametrize("mask", [CAUSAL, STRICT], ids=["causal", "with empty rows"])
def test_normalisers_see_visible_keys_only(normalize, mask):
    text, visible = mask
    given = tensors()
    found = run(spec(normalize, text), given)
    wanted = by_rows(given, NORMALISERS[normalize], visible)
    # A row of relu weights that are all 0 has denominator 0, which gives weights 0.
    wanted = {n: torch.where(t.isnan() & (n != "lse"), 0, t) for n, t in wanted.items()}
    for name in ("o", "p", "lse"):
        torch.testing.assert_close(
            found[name], wanted[name], rtol=1e-11, atol=1e-12, equal_nan=True
        )


@pytest.mark.parametrize("normalize", sorted(NORMALISERS))
def test_gradients(normalize):
    mixer = spec(normalize, STRICT[0])
    given = tensors(grad=True)
    given = {n: t[:1, :1].detach().requires_grad_() for n, t in given.items()}

    def outputs(q, k, v):
        found = run(mixer, {"q": q, "k": k, "v": v})
        return found["o"], found["p"]

    assert torch.autograd.gradcheck(outputs, tuple(given.values()), atol=1e-6)


@pytest.mark.parametrize(
    ("normalize", "scale"),
    [
        ("softmax", 1.0),
        ("softmax", 30.0),
        ("softmax", 1000.0),
        ("{weight: exp(score), denominator: total + 0}", 100.0),
        ("{weight: exp2(1.5 * score), denominator: total}", 3.0),
    ],
)
def test_large_scores_are_those_of_sdpa(scale, normalize):
    given = tensors(grad=True, scale=scale)
    found = run(spec(normalize), given)["o"]
    q, k, v = given.values()
    steeper = 1.5 * math.log(2) if "exp2" in normalize else 1.0
    wanted = scaled_dot_product_attention(q * steeper, k, v, is_causal=True)
    torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-12)
    probe = torch.randn_like(wanted)
    for a, b in zip(
        torch.autograd.grad(found, [*given.values()], probe),
        torch.autograd.grad(wanted, [*given.values()], probe),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-10)


def test_one_more_in_the_denominator_at_large_negative_scores():
    given = tensors()
    given["k"] = -given["q"].sign() * 1000
    given["q"] = given["q"].sign()
    found = run(spec("{weight: exp(score), denominator: total + 1}", mask=""), given)
    assert found["o"].isfinite().all()
    assert found["p"].diagonal(dim1=-2, dim2=-1).abs().max() == 0  # exp(-2000) / (1 + ...)


def test_a_masked_row_gives_zeros_and_no_gradient():
    given = tensors(grad=True)
    # Scores, and values, that would spoil everything where they are seen.
    bad = given["k"].detach().clone()
    bad[:, :, 4] = math.inf
    values = given["v"].detach().clone()
    values[:, :, 5] = math.nan
    values[:, :, 4] = math.inf
    given |= {"k": bad.requires_grad_(), "v": values.requires_grad_()}
    found = run(spec(mask="mask: j < i and i != 3 and j < 4"), given)
    assert (found["o"][:, :, [0, 3]] == 0).all()
    assert (found["p"][:, :, [0, 3]] == 0).all()
    assert (found["lse"][:, :, [0, 3]] == -math.inf).all()
    assert found["o"].isfinite().all()
    total = found["o"].sum() + found["p"].square().sum() + found["lse"][:, :, 1].sum()
    dq, dk, dv = torch.autograd.grad(total, [given[n] for n in "qkv"])
    assert dq.isfinite().all()
    assert dk.isfinite().all()
    assert dv.isfinite().all()
    assert (dq[:, :, [0, 3]] == 0).all()
    assert (dk[:, :, 4:] == 0).all()
    assert (dv[:, :, 4:] == 0).all()


def test_the_log_of_an_empty_total_has_gradient_zero():
    given = tensors(grad=True)
    lse = run(spec(mask=STRICT[0]), given)["lse"]
    gradients = torch.autograd.grad(torch.where(lse.isfinite(), lse, 0).sum(), [given["q"]])
    assert gradients[0].isfinite().all()


def test_masked_scores_may_be_anything():
    mixer = load_text("""
mixer: decayed
inputs:
  q: [I, D]
  k: [J, D]
  v: [J, E]
  g: [T]
dims: {I: T, J: T}
attention:
  over: J
  score: sum(q * k, D) * exp(g[i] - g[j]) / where(j <= i, 1, 0)
  mask: j <= i
  normalize: none
  output: {o: v}
outputs: {o: [I, E]}
""")
    shapes = {"q": (5, 3), "k": (5, 3), "v": (5, 2)}
    given = {n: torch.randn(s, dtype=torch.float64, requires_grad=True) for n, s in shapes.items()}
    g = (-400 * torch.arange(5, dtype=torch.float64)).requires_grad_()
    found = run(mixer, {**given, "g": g})["o"]
    decay = torch.exp((g[:, None] - g[None, :]).tril()).tril()
    wanted = ((given["q"] @ given["k"].T) * decay) @ given["v"]
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)
    for a, b in zip(
        torch.autograd.grad(found.sum(), [*given.values(), g]),
        torch.autograd.grad(wanted.sum(), [*given.values(), g]),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_a_sink_takes_weight_and_gives_no_value():
    mixer = spec("\n    softmax: {sink: logit}", STRICT[0], inputs="  logit: [H]")
    given = tensors()
    logit = torch.tensor([0.5, -2.0, 900.0], dtype=torch.float64)
    found = run(mixer, {**given, "logit": logit})

    plain = run(spec(mask=STRICT[0]), given)
    more = torch.logaddexp(plain["lse"], logit[:, None])
    torch.testing.assert_close(found["lse"], more)
    torch.testing.assert_close(found["o"], plain["o"] * torch.exp(plain["lse"] - more)[..., None])
    assert torch.equal(found["lse"][:, :, 0], logit.expand(B, H))  # nothing visible there


def test_a_gain_comes_after_normalising_and_zero_times_infinity_is_zero():
    mixer = spec(more="gain: 1 / (i - j)", mask="mask: j <= i")
    given = tensors()
    masked = spec(more="gain: 1 / (i - j)", mask="mask: j < i")
    assert run(mixer, given)["o"][:, :, 0].isinf().all()
    found = run(masked, given)
    i, j = torch.arange(T)[:, None], torch.arange(T)[None, :]
    gain = torch.where(j < i, 1 / (i - j).clamp(min=1), 0).double()
    torch.testing.assert_close(found["o"], (found["p"] * gain) @ given["v"])
    torch.testing.assert_close(found["p"].sum(-1)[:, :, 1:], torch.ones(B, H, T - 1).double())


def test_a_value_without_the_key_axis_is_broadcast():
    mixer = spec(value="w", inputs="  w: [B, H, E]", mask=STRICT[0])
    given = {**tensors(), "w": torch.randn(B, H, E, dtype=torch.float64)}
    wanted = given["w"][:, :, None] * (torch.arange(T) % 4 != 0)[:, None]
    torch.testing.assert_close(run(mixer, given)["o"], wanted)


def test_reductions_in_a_weight_may_run_over_the_queries():
    mixer = load_text("""
mixer: slots
inputs:
  q: [I, D]
  k: [J, D]
  v: [J, E]
attention:
  over: J
  score: sum(q * k, D)
  mask: i != j
  normalize: {weight: "exp(score) / sum(exp(score), I)", denominator: "total + sum(total, I)"}
  output: {o: v}
outputs: {o: [I, E]}
""")
    q, k, v = (torch.randn(n, 3, dtype=torch.float64) for n in (4, 6, 6))
    s = (q @ k.T).masked_fill(torch.eye(4, 6, dtype=torch.bool), -math.inf)
    weight = torch.softmax(s, 0)
    total = weight.sum(1, keepdim=True)
    wanted = weight / (total + total.sum()) @ v
    torch.testing.assert_close(run(mixer, {"q": q, "k": k, "v": v})["o"], wanted)


def test_detach_stops_the_gradient():
    mixer = spec('{weight: "exp(score) / detach(sum(exp(score), J))", denominator: "1"}')
    given = tensors(grad=True)
    found = run(mixer, given)["o"]
    s = (given["q"] @ given["k"].mT * D**-0.5).masked_fill(~torch.ones(T, T).tril().bool(), -1e9)
    wanted = (torch.exp(s) / torch.exp(s).sum(-1, keepdim=True).detach()) @ given["v"]
    torch.testing.assert_close(found, wanted)
    for a, b in zip(
        torch.autograd.grad(found.sum(), [*given.values()]),
        torch.autograd.grad(wanted.sum(), [*given.values()]),
        strict=True,
    ):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("empty", ["B", "I", "J", "E"])
def test_empty_axes(empty):
    sizes = {"B": 2, "I": 3, "J": 4, "D": 2, "E": 3, empty: 0}
    mixer = load_text("""
mixer: crossed
inputs:
  q: [B, I, D]
  k: [B, J, D]
  v: [B, J, E]
attention:
  over: J
  score: sum(q * k, D)
  normalize: softmax
  output: {o: v}
  lse: lse
outputs: {o: [B, I, E], lse: [B, I]}
""")
    given = {
        n: torch.randn([sizes[d] for d in dims])
        for n, dims in {"q": "BID", "k": "BJD", "v": "BJE"}.items()
    }
    found = run(mixer, given)
    assert found["o"].shape == (sizes["B"], sizes["I"], sizes["E"])
    if empty == "J":
        assert (found["o"] == 0).all()
        assert (found["lse"] == -math.inf).all()
