"""The functions of the language: a table from name to the function that builds the term."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from . import algebra, expand
from . import calls as terms
from .arguments import Function

_UNARY = (
    "exp2 expm1 log log2 log1p sqrt rsqrt tanh sigmoid logsigmoid softplus relu gelu gelu_tanh "
    "silu elu erf sin cos acos sign floor ceil round"
).split()


_WHERE = frozenset({"where"})


def _reductions() -> Mapping[str, Function]:
    def entry(name: str, build: terms.Reduction) -> Function:
        signature = f"{name}(x, D…, where=condition, N=index)"
        return Function(signature, terms.reduction(build), 1, None, _WHERE, dims=True)

    def linear(name: str, build: terms.Reduction) -> Function:
        made = entry(name, build)
        return replace(made, build=algebra.linear(made.build), complex=True)

    plain = {name: entry(name, terms.plain_reduce) for name in ("prod", "any", "all")}
    shaped = {
        "sum": linear("sum", terms.plain_reduce),
        "mean": linear("mean", terms.mean),
        "norm": entry("norm", terms.norm),
        "logsumexp": entry("logsumexp", terms.logsumexp),
    }
    extreme = {
        name: Function(
            f"{name}(a, b…) of values, {name}(x, D…, where=condition, N=index) over dims",
            terms.extreme,
            1,
            None,
            _WHERE,
            dims=True,
        )
        for name in ("max", "min")
    }
    return {**plain, **extreme, **shaped}


def _norms() -> Mapping[str, Function]:
    builds = {"layernorm": expand.layernorm, "rmsnorm": expand.rmsnorm, "l2norm": expand.l2norm}
    return {
        name: Function(
            f"{name}(x, D…, eps=0)", terms.normalised(build), 1, None, frozenset({"eps"})
        )
        for name, build in builds.items()
    }


FUNCTIONS: Mapping[str, Function] = {
    **{name: Function(f"{name}(x)", terms.elementwise) for name in _UNARY},
    "exp": Function("exp(x)", terms.elementwise, complex=True),
    "abs": Function("abs(x)", terms.elementwise, complex=True),
    "detach": Function("detach(x)", terms.elementwise, complex=True),
    "complex": Function("complex(re, im)", algebra.complex_number, 2, 2),
    "real": Function("real(z)", algebra.real, complex=True),
    "imag": Function("imag(z)", algebra.imag, complex=True),
    "conj": Function("conj(z)", algebra.conj, complex=True),
    "grad": Function("grad(loss, z)", algebra.grad, 2, 2),
    "solve": Function("solve(A, b, D=P)", algebra.solve, 2, 2, dims=True),
    "dft": Function("dft(x, T=F)", algebra.transformed(-1), dims=True, complex=True),
    "idft": Function("idft(z, F=T)", algebra.transformed(1), dims=True, complex=True),
    "where": Function("where(condition, a, b)", terms.where, 3, 3, complex=True),
    "clip": Function("clip(x, low, high)", terms.clip, 3, 3),
    "lerp": Function("lerp(a, b, w)", terms.lerp, 3, 3),
    "logaddexp": Function("logaddexp(a, b…)", terms.logaddexp, 2, None),
    **_reductions(),
    **_norms(),
    "softmax": Function("softmax(x, D…, where=condition)", terms.softmax, 1, None, _WHERE),
    "rank": Function("rank(x, D…, where=condition)", terms.rank, 1, None, _WHERE),
    "flip": Function("flip(x, D…)", algebra.linear(terms.flip), 1, None, _WHERE, complex=True),
    "cumsum": Function(
        "cumsum(x, D, reverse=false, exclusive=false)",
        algebra.linear(terms.cumsum),
        2,
        4,
        frozenset({"where", "reverse", "exclusive"}),
        complex=True,
    ),
    **{
        f"cum{op}": Function(
            f"cum{op}(x, D, reverse=false, exclusive=false)",
            terms.running_extreme(op),
            2,
            4,
            frozenset({"where", "reverse", "exclusive"}),
        )
        for op in terms.EXTREMES
    },
    "at": Function(
        "at(x, T=index, …, fill=0)", terms.at, 1, 1, frozenset({"fill"}), dims=True, complex=True
    ),
    "rope": Function(
        "rope(x, position, D, base=10000, interleaved=false)",
        terms.rope,
        3,
        5,
        frozenset({"base", "interleaved"}),
    ),
    "shift": Function("shift(x, T, n)", terms.shift, 3, 3, complex=True),
    "last": Function("last(x, T)", terms.last, 1, 2, complex=True),
    "stack": Function("stack(S, a, b, …)", terms.stack, 2, None, complex=True),
    "concat": Function("concat(U, a, b, …)", terms.concat, 3, None),
    "index": Function("index(D)", terms.index),
}

__all__ = ["FUNCTIONS"]
