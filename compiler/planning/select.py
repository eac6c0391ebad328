"""A selection as kernels."""

from __future__ import annotations

from ...ir.errors import UnsupportedError
from ...ir.mixer import Select
from .workspace import Workspace


def plan_select(work: Workspace, stage: Select) -> None:
    """The kernels of a selection.

    Raises:
        UnsupportedError: a rule that no schedule computes.
    """
    raise UnsupportedError(f"{work.mixer.name}: selections have no kernels yet: {stage.output}")
