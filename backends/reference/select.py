"""The select form; see ``ir/mixer.py: Select`` for what it means.

A choice is a constant for gradients. What it chooses by is not: a let may be first read here.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from ...ir.expression import Expr, Kind
from ...ir.mixer import Select
from .choice import choose
from .values import Setting, Value


def select(setting: Setting, stage: Select, evaluate: Callable[[Expr], Value]) -> dict[str, Value]:
    """Every name that the stage makes."""
    rows = setting.ordered(stage.queries)
    dims = (*rows, *stage.over)

    def laid_out(expr: Expr, kind: Kind, wanted: tuple[str, ...]) -> Tensor:
        """The value with these axes in this order, those of ``over`` as one, the last."""
        value = setting.expanded(setting.of_kind(evaluate(expr), kind), wanted)
        tensor = value.tensor.detach().permute([value.dims.index(dim) for dim in wanted])
        return tensor.flatten(len(rows)) if wanted == dims else tensor.unsqueeze(-1)

    chosen, listed = choose(
        laid_out(stage.score, Kind.REAL, dims),
        None if stage.among is None else laid_out(stage.among, Kind.BOOL, dims),
        stage.rule,
        laid_out(stage.bound, Kind.INT if stage.rule == "top" else Kind.REAL, rows),
        None if stage.always is None else laid_out(stage.always, Kind.BOOL, dims),
        0 if stage.slots is None else setting.sizes[stage.slots],
    )
    whole = Value(chosen.reshape(setting.shape(dims)), dims)
    made = {stage.output: setting.reordered(whole)}
    if stage.listed is not None and stage.slots is not None:
        made[stage.listed] = setting.reordered(Value(listed, (*rows, stage.slots)))
    return made


__all__ = ["select"]
