"""What steps do to the keys before them: by running sums, or by a recurrence over the keys."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mixc.backends.reference.evaluate import run
from mixc.compiler.language.load import load_text
from mixc.ir.errors import SpecError
from mixc.ir.mixer import Attention, Map, Recurrence

SPEC = """\
mixer: carried
inputs: {q: [B, I, H, D], k: [B, J, G, D], v: [B, J, G, E], w: [B, T, G, D], g: [B, T, H], z: [J]}
dims: {I: T, J: T}
heads: {G: H}
attention:
  over: J
  carry: {CARRY}
  score: SCORE
  mask: j <= i
  output: {o: v}
outputs: {o: [B, I, H, E]}
"""
B, T, H, G, D, E = 2, 7, 4, 2, 3, 5
SHAPES = {
    "q": (B, T, H, D),
    "k": (B, T, G, D),
    "v": (B, T, G, E),
    "w": (B, T, G, D),
    "g": (B, T, H),
    "z": (T,),
}


@pytest.fixture
def given() -> dict[str, Tensor]:
    torch.manual_seed(0)
    return {n: torch.randn(*s, dtype=torch.float64).requires_grad_() for n, s in SHAPES.items()}


def spec(carry: str, score: str) -> str:
    return SPEC.replace("CARRY", carry).replace("SCORE", score)


def by_loops(given: dict[str, Tensor], step: str, score: str) -> Tensor:
    """The cache as it says: every key of a query walked from its own step to the query's."""
    heads = {n: x.repeat_interleave(H // G, 2) for n, x in given.items() if n in "kvw"}
    rows = []
    for i in range(T):
        scores = []
        for j in range(i + 1):
            k, z = heads["k"][:, j], given["z"][j].expand(B, H)
            for t in range(j + 1, i + 1):
                w, g = heads["w"][:, t], given["g"][:, t]
                match step:
                    case "turn":
                        k = k - w * (w * k).sum(-1, keepdim=True)
                    case "age":
                        z = z + g
                    case "fade":
                        z = z * torch.sigmoid(g)
                    case "bend":
                        z = torch.tanh(z + g)
                    case "both":
                        k, z = k + w * z[..., None], z + (w * k).sum(-1)
            q = given["q"][:, i]
            dot = (q * k).sum(-1)
            scores.append({"dot": dot, "sum": dot + z, "product": dot * z}[score])
        weights = torch.stack(scores, 1).softmax(1)
        rows.append((weights[..., None] * heads["v"][:, : i + 1]).sum(1))
    return torch.stack(rows, 1)


CASES = {
    "turn": ("k: 'k - w * sum(w * k, D)'", "sum(q * k, D)", "dot"),
    "age": ("z: z + g", "sum(q * k, D) + z", "sum"),
    "fade": ("z: sigmoid(g) * z", "sum(q * k, D) * z", "product"),
    "bend": ("z: tanh(z + g)", "sum(q * k, D) + z", "sum"),
    "both": ("k: k + w * z, z: 'z + sum(w * k, D)'", "sum(q * k, D) + z", "sum"),
}
SUMS = {"age", "fade"}


@pytest.mark.parametrize("name", CASES)
def test_keys_are_what_the_steps_leave(name: str, given: dict[str, Tensor]) -> None:
    carry, score, kind = CASES[name]
    found = run(
        load_text(spec(carry, score)),
        given,
    )["o"]
    expected = by_loops(given, name, kind)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
    used = list(given.values())
    above = torch.randn_like(expected)
    slopes = (torch.autograd.grad(o, used, above, allow_unused=True) for o in (found, expected))
    for slope, want in zip(*slopes, strict=True):
        if want is not None:
            torch.testing.assert_close(slope, want, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("name", CASES)
def test_running_sums_where_they_say_it(name: str) -> None:
    """What a step adds, or multiplies by, leaves the attention one; the rest is a recurrence."""
    carry, score, _ = CASES[name]
    mixer = load_text(spec(carry, score))
    forms = [type(stage) for stage in mixer.stages]
    assert forms == ([Map, Attention] if name in SUMS else [Recurrence, Attention])


def test_every_normaliser_and_result(given: dict[str, Tensor]) -> None:
    """Beside each other: weights, their log-sum, a sink, a gain."""
    text = spec("z: z + g", "z").replace(
        "output: {o: v}", "output: {o: v}\n  lse: L\n  weights: p\n  gain: w[I=i]"
    )
    plain = text.replace("gain: w[I=i]", "gain: 2 * z").replace(
        "outputs: {o", "outputs: {L: [B, I, H], p: [B, I, H, J], o"
    )
    made = run(load_text(plain), given)
    c = given["g"].cumsum(1)
    z = given["z"][None, None, None] + c[..., None] - c.transpose(1, 2)[:, None]
    seen = torch.ones(T, T).tril().bool()[None, :, None]
    weights = z.masked_fill(~seen, -torch.inf).softmax(-1)
    torch.testing.assert_close(made["p"], weights)
    v = given["v"].repeat_interleave(H // G, 2)
    torch.testing.assert_close(made["o"], torch.einsum("bihj,bjhe->bihe", weights * 2 * z, v))
    torch.testing.assert_close(made["L"], z.masked_fill(~seen, -torch.inf).logsumexp(-1))


ERRORS = {
    "no mask": ("  mask: j <= i\n", "", "the mask shows keys after the query", "`j <= i`"),
    "other mask": ("j <= i", "j <= i + 1", "the mask shows keys after the query", "`j <= i`"),
    "no key": ("{z: z + g}", "{g: g + 1}", "`g` has no axis J: it is no key", "axes: B, H, T"),
    "unknown": ("{z: z + g}", "{y: y + g}", "unknown name `y`", "declare it"),
    "query": ("z + g}", "'z + sum(q, D)'}", "a step reads a value with I", "the axis T"),
    "unread": ("{z: z + g}", "{z: g}", "does not read it", "`z: z + …`"),
    "no sequence": ("{I: T, J: T}", "{I: T}", "J is a sequence of its own", "J: T"),
    "a list": ("over: J", "over: [J, D]", "`carry` with several key axes", "one axis"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_what_it_refuses(name: str) -> None:
    old, new, found, do = ERRORS[name]
    with pytest.raises(SpecError) as error:
        load_text(spec("z: z + g", "sum(q * k, D) + z").replace(old, new))
    assert found in str(error.value), str(error.value)
    assert do in str(error.value), str(error.value)


def test_a_let_that_reads_the_key_itself() -> None:
    """A let of the spec is the same everywhere; the attention's own reads what steps leave."""
    carry, score, _ = CASES["age"]
    text = spec(carry, "s").replace("attention:", "let: {s: 'sum(q * k, D) + z'}\nattention:")
    with pytest.raises(SpecError, match="`s` reads `z` as it was before the steps"):
        load_text(text)
    own = spec(carry, "s").replace("  mask:", "  let: {s: 'sum(q * k, D) + z'}\n  mask:")
    assert load_text(own).stages == load_text(spec(carry, score)).stages


def test_parts_carry_nothing() -> None:
    text = """\
mixer: parted
inputs: {a: [I, J], g: [T], z: [J], v: [J, E]}
dims: {I: T, J: T}
attention:
  parts:
    - {over: J, carry: {z: z + g}, score: a + z, mask: j <= i, output: {o: v}}
outputs: {o: [I, E]}
"""
    with pytest.raises(SpecError, match="`carry` in a part"):
        load_text(text)
