"""The functions of the language: a table from name to the function that builds the term."""

from __future__ import annotations

from collections.abc import Mapping

from . import expand, terms
from .arguments import Function

# Functions of the language that a later version compiles.
LATER = frozenset("complex real imag conj solve grad".split())
_UNARY = (
    "exp exp2 expm1 log log2 log1p sqrt rsqrt tanh sigmoid logsigmoid softplus relu gelu gelu_tanh "
    "silu elu erf sin cos acos abs sign floor ceil round detach"
).split()


_WHERE = frozenset({"where"})


def _reductions() -> Mapping[str, Function]:
    def entry(name: str, build: terms.Reduction) -> Function:
        signature = f"{name}(x, D…, where=condition, N=index)"
        return Function(signature, terms.reduction(build), 1, None, _WHERE, dims=True)

    plain = {name: entry(name, terms.plain_reduce) for name in ("sum", "prod", "any", "all")}
    shaped = {
        "mean": entry("mean", terms.mean),
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
    "where": Function("where(condition, a, b)", terms.where, 3, 3),
    "clip": Function("clip(x, low, high)", terms.clip, 3, 3),
    "logaddexp": Function("logaddexp(a, b…)", terms.logaddexp, 2, None),
    **_reductions(),
    **_norms(),
    "softmax": Function("softmax(x, D…, where=condition)", terms.softmax, 1, None, _WHERE),
    "rank": Function("rank(x, D…, where=condition)", terms.rank, 1, None, _WHERE),
    "flip": Function("flip(x, D…)", terms.flip, 1, None, _WHERE),
    "cumsum": Function(
        "cumsum(x, D, reverse=false, exclusive=false)",
        terms.cumsum,
        2,
        4,
        frozenset({"where", "reverse", "exclusive"}),
    ),
    "at": Function("at(x, T=index, …, fill=0)", terms.at, 1, 1, frozenset({"fill"}), dims=True),
    "rope": Function(
        "rope(x, position, D, base=10000, interleaved=false)",
        terms.rope,
        3,
        5,
        frozenset({"base", "interleaved"}),
    ),
    "shift": Function("shift(x, T, n)", terms.shift, 3, 3),
    "last": Function("last(x, T)", terms.last, 1, 2),
    "stack": Function("stack(S, a, b, …)", terms.stack, 2, None),
    "index": Function("index(D)", terms.index),
}

__all__ = ["FUNCTIONS", "LATER"]
