"""A selection as kernels."""

from __future__ import annotations

from ...ir.errors import UnsupportedError
from ...ir.mixer import Select
from .plan_builder import PlanBuilder


def plan_select(builder: PlanBuilder, stage: Select) -> None:
    """The kernels of a selection.

    Raises:
        UnsupportedError: a rule that no schedule computes.
    """
    raise UnsupportedError(f"{builder.mixer.name}: selections have no kernels yet: {stage.output}")
