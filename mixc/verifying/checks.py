"""One check of ``mixc verify``, as it is sent to the process that makes it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from ..ir.mixer import Mixer
from ..runtime.backends import Chosen

if TYPE_CHECKING:
    from ..autotune.checking.sampling import VerificationCase

DType = Literal["float32", "float16", "bfloat16"]


@dataclass(frozen=True)
class Check:
    """A trial of a mixer on a backend in a precision.

    ``mode``: as one call, as documents end to end, or in segments. ``draw``: 0 for the default
    configuration as shipped, else the number of another one that a search may choose. ``grad``:
    the gradients are compared, not the outputs.
    """

    mixer: Mixer
    backend: Chosen
    dtype: DType
    trial: VerificationCase
    mode: Literal["whole", "packed", "stepped"] = "whole"
    draw: int = 0
    grad: bool = False

    @property
    def name(self) -> str:
        """What the case is called."""
        if self.mode != "whole":
            return self.mode
        return f"{self.trial.name} #{self.draw}" if self.draw else self.trial.name

    @property
    def device(self) -> Literal["cpu", "cuda"]:
        """Where its tensors lie."""
        return "cuda" if self.backend == "triton" else "cpu"


__all__ = ["Check", "DType"]
