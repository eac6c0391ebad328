"""Every function of the language against torch, by way of the float64 reference."""

import math

import pytest
import torch
import torch.nn.functional as F

from mixc.backends.reference.evaluate import run
from mixc.compiler.language.load import load_text
from mixc.ir.errors import SpecError

B, J, D, G, H = 2, 7, 6, 2, 4


def compute(expression, axes, extra="", **more):
    spec = f"""
    mixer: f
    inputs:
      x_BJD: [B, J, D]
      y_BJ: [B, J]
      m: {{dims: [B, J], dtype: bool}}
      p_J: {{dims: [J], dtype: int32}}
      z_G: [B, G]
      z_H: [B, H]
    heads: {{G: H}}
    dims: {{N: 3, S: 2}}
    {extra}
    map:
      o: >
        {expression}
    outputs: {{o: {axes}}}
    """
    mixer = load_text(spec)
    out = run(mixer, {**inputs(), **more})["o"]
    assert not out.isnan().any()
    return out


def inputs():
    torch.manual_seed(1)
    return {
        "x_BJD": torch.randn(B, J, D, dtype=torch.float64),
        "y_BJ": torch.randn(B, J, dtype=torch.float64),
        "m": torch.tensor([[1, 0, 1, 1, 0, 1, 0], [0] * 7], dtype=torch.bool),
        "p_J": torch.tensor([3, 0, 6, 9, -1, 2, 2], dtype=torch.int32),
        "z_G": torch.randn(B, G, dtype=torch.float64),
        "z_H": torch.randn(B, H, dtype=torch.float64),
    }


IN = inputs()
X, Y, M, P = IN["x_BJD"], IN["y_BJ"], IN["m"], IN["p_J"].long()
MX = M[..., None]


def same(actual, expected):
    torch.testing.assert_close(actual, expected.to(actual), rtol=1e-12, atol=1e-12)


ELEMENTWISE = {
    "exp": torch.exp,
    "exp2": torch.exp2,
    "expm1": torch.expm1,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "logsigmoid": F.logsigmoid,
    "softplus": F.softplus,
    "relu": torch.relu,
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "silu": F.silu,
    "elu": F.elu,
    "erf": torch.erf,
    "sin": torch.sin,
    "cos": torch.cos,
    "abs": torch.abs,
    "sign": torch.sign,
    "floor": torch.floor,
    "ceil": torch.ceil,
    "round": torch.round,
    "detach": lambda x: x,
}
POSITIVE = {
    "log": torch.log,
    "log2": torch.log2,
    "log1p": torch.log1p,
    "sqrt": torch.sqrt,
    "rsqrt": torch.rsqrt,
}


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_elementwise(name):
    same(compute(f"{name}(3 * x_BJD)", "[B, J, D]"), ELEMENTWISE[name](3 * X))


@pytest.mark.parametrize("name", POSITIVE)
def test_elementwise_of_positive(name):
    same(compute(f"{name}(exp(x_BJD))", "[B, J, D]"), POSITIVE[name](X.exp()))


def test_acos_and_pairs():
    same(compute("acos(tanh(y_BJ))", "[B, J]"), torch.acos(torch.tanh(Y)))
    same(compute("logaddexp(x_BJD, y_BJ)", "[B, J, D]"), torch.logaddexp(X, Y[..., None]))
    same(compute("clip(x_BJD, -0.5, y_BJ)", "[B, J, D]"), torch.minimum(X.clip(-0.5), Y[..., None]))
    same(compute("max(x_BJD, y_BJ, 0)", "[B, J, D]"), torch.maximum(X, Y[..., None]).clip(0))
    same(compute("where(m, x_BJD, y_BJ)", "[B, J, D]"), torch.where(MX, X, Y[..., None]))


def test_comparisons_chain():
    found = compute("where(-1 < y_BJ <= 0.5 != x_BJD, 1, 0)", "[B, J, D]")
    same(found, ((Y > -1) & (Y <= 0.5))[..., None] & (X != 0.5))


REDUCTIONS = {
    "sum(x_BJD, J)": ("[B, D]", X.sum(1)),
    "sum(x_BJD, J, D)": ("[B]", X.sum((1, 2))),
    "max(x_BJD, D)": ("[B, J]", X.amax(2)),
    "min(x_BJD, D, J)": ("[B]", X.amin((1, 2))),
    "prod(x_BJD, D)": ("[B, J]", X.prod(2)),
    "mean(x_BJD, J)": ("[B, D]", X.mean(1)),
    "mean(x_BJD, J, D)": ("[B]", X.mean((1, 2))),
    "norm(x_BJD, D)": ("[B, J]", X.norm(dim=2)),
    "logsumexp(x_BJD, J)": ("[B, D]", X.logsumexp(1)),
    "where(any(x_BJD > 1, D), 1, 0)": ("[B, J]", (X > 1).any(2)),
    "where(all(x_BJD > -1, D), 1, 0)": ("[B, J]", (X > -1).all(2)),
    "sum(x_BJD, J, where=m)": ("[B, D]", (X * MX).sum(1)),
    "mean(x_BJD, J, where=m)": ("[B, D]", (X * MX).sum(1) / MX.sum(1).clip(1)),
    "mean(x_BJD, J, D, where=m)": ("[B]", (X * MX).sum((1, 2)) / (D * M.sum(1)).clip(1)),
    "max(x_BJD, J, where=m)": ("[B, D]", X.masked_fill(~MX, -math.inf).amax(1)),
    "logsumexp(x_BJD, J, where=m)": ("[B, D]", X.masked_fill(~MX, -math.inf).logsumexp(1)),
    "sum(2, J, where=m)": ("[B]", 2 * M.sum(1)),
}


@pytest.mark.parametrize("text", REDUCTIONS)
def test_reductions(text):
    axes, expected = REDUCTIONS[text]
    same(compute(text, axes), expected)


def test_reductions_by_group():
    blocks = torch.arange(J) // 3
    onehot = (blocks[:, None] == torch.arange(3)).double()
    total = torch.einsum("bjd,jn->bnd", X, onehot)
    same(compute("sum(x_BJD, J, N=j // 3)", "[B, N, D]"), total)
    same(compute("mean(x_BJD, J, N=j // 3)", "[B, N, D]"), total / onehot.sum(0)[:, None])
    split = [X[:, blocks == n].logsumexp(1) for n in range(3)]
    same(compute("logsumexp(x_BJD, J, N=j // 3)", "[B, N, D]"), torch.stack(split, 1))
    # what falls outside the new dim counts nowhere, and an empty group has the mean 0
    at = torch.tensor([X[0, n == P].sum() for n in range(3)])
    same(compute("sum(x_BJD, J, D, N=p_J)", "[B, N]")[0], at)
    assert compute("mean(x_BJD, J, D, N=p_J)", "[B, N]")[0, 1] == 0


def test_softmax():
    same(compute("softmax(x_BJD, J)", "[B, J, D]"), X.softmax(1))
    flat = X.flatten(1).softmax(1).view_as(X)
    same(compute("softmax(x_BJD, J, D)", "[B, J, D]"), flat)
    masked = X.masked_fill(~MX, -math.inf).softmax(1).nan_to_num(0)
    same(compute("softmax(x_BJD, J, where=m)", "[B, J, D]"), masked)


def test_no_nan_in_gradients_where_nothing_is_admitted():
    x = (1e3 * X).requires_grad_()
    for text in ("softmax(x_BJD, J, where=m)", "exp(logsumexp(x_BJD / 1000, J, where=m))"):
        axes = "[B, J, D]" if "softmax" in text else "[B, D]"
        (gradient,) = torch.autograd.grad(compute(text, axes, x_BJD=x).sum(), x)
        assert not gradient.isnan().any()
        assert (gradient[1] == 0).all()


def test_rank_puts_ties_in_order():
    tied = torch.tensor([[3.0, 1, 3, 2, 1, 3, 0]] * 2, dtype=torch.float64)
    expected = torch.tensor([0, 4, 1, 3, 5, 2, 6])
    same(compute("rank(y_BJ, J)", "[B, J]", y_BJ=tied)[0], expected)
    order = X.flatten(1).argsort(dim=1, descending=True).argsort(dim=1).view_as(X)
    same(compute("rank(x_BJD, J, D)", "[B, J, D]"), order)
    larger = ((Y[:, None] > Y[..., None]) & M[:, None]).sum(2)
    same(compute("rank(y_BJ, J, where=m)", "[B, J]"), larger)


def test_cumsum_flip_shift_last():
    same(compute("cumsum(x_BJD, J)", "[B, J, D]"), X.cumsum(1))
    backward = X.flip(1).cumsum(1).flip(1)
    same(compute("cumsum(x_BJD, J, reverse=true)", "[B, J, D]"), backward)
    same(compute("cumsum(x_BJD, J, true, true)", "[B, J, D]"), backward - X)
    same(compute("cumsum(x_BJD, J, where=m)", "[B, J, D]"), (X * MX).cumsum(1))
    same(compute("flip(x_BJD, J, D)", "[B, J, D]"), X.flip(1, 2))
    same(compute("shift(x_BJD, J, 2)", "[B, J, D]"), F.pad(X, (0, 0, 2, 0))[:, :J])
    same(compute("last(x_BJD, J)", "[B, D]"), X[:, -1])


def test_norms():
    same(compute("layernorm(x_BJD, D, eps=1e-5)", "[B, J, D]"), F.layer_norm(X, (D,)))
    rms = F.rms_norm(X, (D,), eps=1e-6)
    same(compute("rmsnorm(x_BJD, D, eps=1e-6)", "[B, J, D]"), rms)
    l2 = X * ((X * X).sum(2, keepdim=True) + 1e-6).rsqrt()
    same(compute("l2norm(x_BJD, D, eps=1e-6)", "[B, J, D]"), l2)


def test_reads():
    inside = (P >= 0) & (P < J)
    gathered = torch.where(inside[:, None], X[:, P.clip(0, J - 1)], 0)
    same(compute("x_BJD[J=p_J]", "[B, J, D]"), gathered)
    same(compute("at(x_BJD, J=p_J, fill=2)", "[B, J, D]")[:, 3], torch.full((B, D), 2.0))
    same(compute("x_BJD[j - 1]", "[B, J, D]"), F.pad(X, (0, 0, 1, 0))[:, :J])
    swapped = compute("sum(x_BJD[J=d, D=j], J)", "[B, D]")
    same(swapped, X[:, :D].transpose(1, 2).sum(1))


def test_stack():
    both = compute("stack(S, x_BJD, y_BJ)", "[S, B, J, D]")
    same(both, torch.stack([X, Y[..., None].expand_as(X)]))


def test_concat():
    rows = torch.cat([IN["y_BJ"], IN["z_H"], IN["y_BJ"]], 1)
    same(compute("concat(U, y_BJ, J, z_H, y_BJ, J)", "[B, U]"), rows)
    same(compute("concat(U, y_BJ, z_H)", "[B, U]"), rows[:, : J + H])
    wide = torch.cat([X, (IN["z_H"][:, :, None]).expand(B, H, D)], 1)
    same(compute("concat(U, x_BJD, J, z_H, H)", "[B, U, D]"), wide)
    same(
        compute("sum(concat(U, y_BJ, z_H) * u, U)", "[B]"),
        rows[:, :-J] @ torch.arange(J + H).to(rows),
    )


CUMULATIVE = {"cummax": torch.cummax, "cummin": torch.cummin}


@pytest.mark.parametrize("name", CUMULATIVE)
def test_running_extremes(name):
    def expected(x):
        return CUMULATIVE[name](x, 1).values

    same(compute(f"{name}(x_BJD, J)", "[B, J, D]"), expected(X))
    same(compute(f"{name}(x_BJD, J, reverse=true)", "[B, J, D]"), expected(X.flip(1)).flip(1))
    end = -math.inf if name == "cummax" else math.inf
    admitted = expected(torch.where(MX, X, end))
    made = compute(f"clip({name}(x_BJD, J, where=m), -9, 9)", "[B, J, D]")
    same(made, admitted.clamp(-9, 9))
    before = F.pad(expected(X), (0, 0, 1, 0), value=end)[:, :J]
    made = compute(f"clip({name}(x_BJD, J, exclusive=true), -9, 9)", "[B, J, D]")
    same(made, before.clamp(-9, 9))
    same(compute(f"{name}(p_J, J)", "[J]"), CUMULATIVE[name](IN["p_J"], 0).values)


def test_a_running_extreme_of_a_let_and_of_a_line_before():
    let = "let: {c: 'cummax(x_BJD * x_BJD, J) - y_BJ'}"
    squares = torch.cummax(X * X, 1).values - Y[..., None]
    same(
        compute("cummax(c, J) + cummax(c, J)", "[B, J, D]", let),
        2 * torch.cummax(squares, 1).values,
    )


WRONG = {
    "concat(U, y_BJ)": "`concat` with 2 arguments",
    "concat(U, J, y_BJ)": "`concat` of fewer than two values",
    "concat(U, y_BJ, y_BJ)": "which axis of this value goes end to end: the others have all of",
    "concat(U, x_BJD, z_H)": "which axis of this value goes end to end: D, J are its own",
    "concat(U, y_BJ, D, z_H)": "`concat` over D, which its argument does not have",
    "cummax(y_BJ)": "`cummax` with 1 argument",
    "cummax(y_BJ, D)": "`cummax` over D, which its argument does not have",
}


@pytest.mark.parametrize("expression", WRONG)
def test_what_is_refused(expression):
    with pytest.raises(SpecError) as error:
        compute(expression, "[B, J, U]")
    assert WRONG[expression] in str(error.value)


def test_an_input_may_be_called_like_a_clause():
    form = "{over: J, score: x * k, gain: 'cummax(gain, T)[T=i]', output: {o: v}}"
    inputs = "{x: [I], k: [J], v: [J], gain: [T]}\ndims: {I: T, J: T}"
    mixer = load_text(f"mixer: f\ninputs: {inputs}\nattention: {form}\noutputs: {{o: [I]}}\n")
    x, k, v, gain = (torch.randn(5, dtype=torch.float64) for _ in range(4))
    made = run(mixer, {"x": x, "k": k, "v": v, "gain": gain})["o"]
    same(made, torch.cummax(gain, 0).values * (torch.softmax(x[:, None] * k, 1) @ v))


def test_a_running_extreme_inside_a_step_is_refused():
    step = "['S = S + x', 'y = cummax(S, T)']"
    form = f"{{over: T, state: {{S: []}}, step: {step}}}"
    spec = f"mixer: f\ninputs: {{x: [B, T]}}\nrecurrence: {form}\n"
    with pytest.raises(SpecError, match="cummax"):
        load_text(spec + "outputs: {y: [B, T]}\n")


@pytest.mark.parametrize("interleaved", [False, True])
def test_rope(interleaved):
    pairs = torch.arange(D // 2, dtype=torch.float64)
    angle = torch.arange(J)[:, None] * 500.0 ** (-2 * pairs / D)
    turn = torch.polar(torch.ones_like(angle), angle)
    if interleaved:
        expected = torch.view_as_real(torch.view_as_complex(X.unflatten(2, (-1, 2))) * turn)
        expected = expected.flatten(2)
    else:
        turned = torch.complex(X[..., : D // 2], X[..., D // 2 :]) * turn
        expected = torch.cat([turned.real, turned.imag], 2)
    flag = str(interleaved).lower()
    same(compute(f"rope(x_BJD, j, D, base=500, interleaved={flag})", "[B, J, D]"), expected)


def test_heads_align_where_values_meet():
    z_G, z_H = IN["z_G"], IN["z_H"]
    wide = z_G.repeat_interleave(H // G, 1)
    same(compute("z_G * z_H", "[B, H]"), wide * z_H)
    same(compute("sum(z_G, H, where=z_H > 0)", "[B]"), (wide * (z_H > 0)).sum(1))
    same(compute("sum(z_H, H) + sum(z_G, G)", "[B]"), z_H.sum(1) + z_G.sum(1))
    same(compute("z_G[G=0] + z_H", "[B, H]"), z_G[:, :1] + z_H)
    same(compute("z_G * 2", "[B, G]"), z_G * 2)


def test_macros_take_expressions_and_dims():
    extra = "define: {'scaled(a, A)': 'a / (norm(a, A) + index(A))'}"
    expected = X / (X.norm(dim=2, keepdim=True) + torch.arange(D))
    same(compute("scaled(x_BJD, D)", "[B, J, D]", extra), expected)
    nested = compute("scaled(scaled(x_BJD, D), D)", "[B, J, D]", extra)
    same(nested, expected / (expected.norm(dim=2, keepdim=True) + torch.arange(D)))


def test_tables_params_and_constants():
    extra = "params: {t: {dims: [S], values: [4, -1]}, a: 3, b: a * 2 - 1e-1, on: true}"
    same(compute("sum(t * (s + 1), S) + y_BJ", "[B, J]", extra), Y + 2)
    same(compute("where(on, b, 0) * y_BJ + pi", "[B, J]", extra), 5.9 * Y + math.pi)
    same(compute("y_BJ + J // 2", "[B, J]", extra), Y + 3)
