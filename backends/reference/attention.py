"""The attention form, dense: every pair of a query and a key in memory.

See ``ir/mixer.py: Attention`` for what it means. Masked pairs give weight 0 whatever the
expressions say there, and no gradient goes through them.
"""

from __future__ import annotations

import torch

from ...ir.expression import Expr, Kind
from ...ir.mixer import Attention
from .axes import contract, is_finite, reduce
from .elementwise import nothing_from_nothing
from .normalise import Evaluate, Pairs, weigh
from .values import Setting, Value


def attend(setting: Setting, stage: Attention, evaluate: Evaluate) -> dict[str, Value]:
    """Every name that the stage makes."""
    pairs = _score(setting, stage, evaluate)
    weights, lse = weigh(pairs, stage, evaluate)
    made = {o.name: _output(pairs, stage, o.value, weights, evaluate) for o in stage.outputs}
    if stage.lse is not None:
        made[stage.lse] = lse
    if stage.weights is not None:
        made[stage.weights] = weights
    return made


def _score(setting: Setting, stage: Attention, evaluate: Evaluate) -> Pairs:
    dims = setting.ordered(stage.queries | {stage.over})
    raw = setting.of_kind(evaluate(stage.score, {}), Kind.REAL)
    mask = None
    if stage.mask is not None:
        mask = setting.of_kind(evaluate(stage.mask, {}), Kind.BOOL)
    pairs = Pairs(setting, stage.over, dims, setting.expanded(raw, dims), mask)
    if mask is None:
        return pairs
    # A masked pair gets the score of a visible one, so that no weight function is ever computed,
    # or differentiated, at a score that the spec excludes.
    score = pairs.score.tensor
    with torch.no_grad():
        top = reduce(setting, "max", pairs.score, [stage.over], where=mask)
        tensor = pairs.of_queries(setting.expanded(top, pairs.queries))
        stand_in = torch.where(torch.isfinite(tensor), tensor, 0.5)
    (admits,) = setting.aligned([mask], dims)
    safe = Value(torch.where(admits, score, stand_in), dims)
    return Pairs(setting, stage.over, dims, safe, mask)


def _output(
    pairs: Pairs, stage: Attention, value: Expr, weights: Value, evaluate: Evaluate
) -> Value:
    """sum(p * gain * value) over the keys, with 0 * inf = 0."""
    setting = pairs.setting
    factors = [weights]
    if stage.gain is not None:
        factors.append(setting.of_kind(evaluate(stage.gain, {}), Kind.REAL))
    factors.append(setting.of_kind(evaluate(value, {}), Kind.REAL))
    if is_finite(factors):
        return contract(setting, factors, [pairs.over])
    factors = setting.in_one_precision(factors)
    dims = setting.ordered({dim for f in factors for dim in f.dims})
    tensors = [setting.expanded(f, dims).tensor for f in factors]
    product = nothing_from_nothing(lambda *parts: torch.stack(parts).prod(0), tensors)
    zero = torch.stack([t == 0 for t in tensors]).any(0)
    product = torch.where(zero & ~torch.isfinite(product), 0, product)
    return reduce(setting, "sum", Value(product, dims), [pairs.over])
