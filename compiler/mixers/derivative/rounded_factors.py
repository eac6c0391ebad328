"""Whether kernels of 16 bits round what an attention multiplies.

The backward pass of a mixer with recurrences works in float32 where products do not need 16 bits.
An attention whose query, key or value is an input has the same weights there. One whose factors are
made on the way, by a norm or a projection, multiplies other numbers than the forward pass did: the
log of the total that was kept is of other scores, and weights of exp(score - lse) no longer sum to
1 (MEGA's gradients in bfloat16 were 28 % off).
"""

from __future__ import annotations

from collections.abc import Iterator

from ....ir.expression import Expr, Read, Reduce, Ref
from ....ir.mixer import Attention, Map, Mixer
from ....ir.rewriting import every_node
from ...tiles.contraction import factors_of


def multiplies_what_is_made(stage: Attention, mixer: Mixer) -> bool:
    """Whether a factor of its score's sums, or a value that its weights multiply, is no input."""
    inputs = {i.name for i in mixer.inputs}

    def is_made(factor: Expr) -> bool:
        read = factor.x if isinstance(factor, Read) else factor
        return not (isinstance(read, Ref) and read.name in inputs)

    sums = [n for n in _nodes(stage.score, mixer) if isinstance(n, Reduce) and n.op == "sum"]
    factors = [f for n in sums for f in factors_of(n.x) if f.axes & {*n.over}]
    factors += [f for output in stage.outputs for f in factors_of(output.value) if f.axes]
    return any(is_made(factor) for factor in factors)


def _nodes(score: Expr, mixer: Mixer) -> Iterator[Expr]:
    """All that a score is made of, what its names stand for in it."""
    maps = (stage.equations for stage in mixer.stages if isinstance(stage, Map))
    known = {e.name: e.value for e in (*mixer.lets, *(e for part in maps for e in part))}
    pending = [score]
    while pending:
        for node in every_node([pending.pop()]):
            yield node
            if isinstance(node, Ref) and node.name in known:
                pending.append(known.pop(node.name))


__all__ = ["multiplies_what_is_made"]
