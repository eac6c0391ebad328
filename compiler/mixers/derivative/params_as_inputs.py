"""Run-time params that are tensors: inputs without axes, so that they have gradients."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from ....ir.errors import ArgumentError
from ....ir.expression import Expr, Kind, Ref, Scalar
from ....ir.mixer import Equation, Input, Mixer
from ....ir.rewriting import transform, walk
from ....ir.stages import changed


def params_as_inputs(mixer: Mixer, names: Collection[str]) -> Mixer:
    """``params: {c: {default: 1.0, runtime: true}}`` --> ``inputs: {c: []}``, for real params.

    They are float32 beside inputs of 16 bits. Raises ArgumentError where another param is made
    from one of them, since that is a number too.
    """
    for param in mixer.params:
        made_from = {n.name for n in walk(param.value) if isinstance(n, Scalar)} & {*names}
        if param.name not in names and made_from:
            one = min(made_from)
            raise ArgumentError(f"{one}: expected a number, since {param.name} is made from it")

    def change(node: Expr) -> Expr | None:
        match node:
            case Scalar(name, kind) if name in names:
                return Ref(name, frozenset(), kind)
        return None

    def renewed(value: Expr) -> Expr:
        return transform(value, change)

    return replace(
        mixer,
        inputs=(*mixer.inputs, *(Input(n, (), Kind.REAL, "float32") for n in names)),
        params=tuple(p for p in mixer.params if p.name not in names),
        lets=tuple(Equation(e.name, renewed(e.value), e.text) for e in mixer.lets),
        stages=tuple(changed(stage, renewed) for stage in mixer.stages),
    )


__all__ = ["params_as_inputs"]
