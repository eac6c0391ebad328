"""Sizes and params that compile time knows, beside those that it is told."""

from __future__ import annotations

from collections.abc import Container, Mapping

from ...ir.host import Number, evaluate_host
from ...ir.mixer import Mixer, Recurrence
from ...ir.roles import LARGEST_WHOLE, solved_dims


def declared_sizes(mixer: Mixer) -> dict[str, int]:
    """Sizes that a mixer gives as numbers, in whatever case it is called."""
    made: dict[str, int] = {}
    for dim, value in mixer.sizes:
        try:
            made[dim] = int(evaluate_host(value, made, {}))
        except KeyError:
            continue
    return made


def following_sizes(
    mixer: Mixer, fixed: Mapping[str, int], told: Container[str] = ()
) -> dict[str, int]:
    """Sizes that follow from fixed ones: of axes of states, of systems of equations, and of fixed
    ones that nobody has ``told``."""
    stages = [stage for stage in mixer.stages if isinstance(stage, Recurrence)]
    listed = {dim for stage in stages for state in stage.states for dim in state.listed}
    listed |= solved_dims(mixer)
    made: dict[str, int] = {}
    for dim, value in mixer.sizes:
        try:
            size = int(evaluate_host(value, {**fixed, **made}, fixed_params(mixer, fixed)))
        except KeyError:
            continue
        free = dim in fixed and dim not in told
        if (dim in listed or free) and size <= LARGEST_WHOLE:
            made[dim] = size
    return made


def fixed_params(mixer: Mixer, sizes: Mapping[str, int]) -> dict[str, Number]:
    """The params that compile time knows; one that depends on run-time sizes is written out."""
    fixed: dict[str, Number] = {}
    for param in mixer.params:
        if param.runtime:
            continue
        try:
            fixed[param.name] = evaluate_host(param.value, sizes, fixed)
        except KeyError:
            continue
    return fixed
