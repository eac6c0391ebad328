"""Sums of a few terms on a CPU, term after term without a loop.

    sum(x[T=t - k] * w[K], K), of 4 taps --> x[t] * w[0] + x[t - 1] * w[1] + ...

A loop of C++ hands its sum on through memory, at every turn; terms that are written out meet in
registers, beside all that is done with the sum. A loop on a GPU has its sum in registers anyway.
"""

from __future__ import annotations

from ...ir.expression import Cumsum, Expr, Reduce, Solve
from ...ir.rewriting import walk
from ...ir.targets import CpuTarget
from ...ir.tile import Value
from .evaluator import Evaluator
from .sums import accumulate, seen

_TERMS = 8  # more would not fit registers, with what is read in each
_NODES = 160  # of the terms in all: text that a compiler is through with at once


def is_written_out(evaluator: Evaluator, factors: list[Expr], dim: str) -> bool:
    """Whether a sum along ``dim`` of the product of ``factors`` is one of a few plain terms."""
    terms = evaluator.context.length(dim)
    if not isinstance(evaluator.context.target, CpuTarget) or terms is None:
        return False
    nodes = [node for factor in factors for node in walk(factor)]
    plain = not any(isinstance(node, Reduce | Cumsum | Solve) for node in nodes)
    return plain and 1 <= terms <= _TERMS and terms * len(nodes) <= _NODES


def written_out(
    evaluator: Evaluator,
    factors: list[Expr],
    dim: str,
    hint: str,
    acc: Value | None,
    mask: Expr | None,
) -> Value:
    """acc + the sum along ``dim``; 0 where the factor ``mask`` is."""
    for place in range(evaluator.context.sizes[dim]):
        with evaluator.builder.at(dim, place):
            term = seen(evaluator, [evaluator.real(factor) for factor in factors], mask)
            acc = accumulate(evaluator, [acc, term], hint)
    assert acc is not None
    return acc
