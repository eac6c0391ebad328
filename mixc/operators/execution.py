"""Calls of a mixer that somebody looks at: they are calls of an operator of PyTorch."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING

from ..runtime.arguments import in_autocast
from ..runtime.obstacles import is_recorded
from ..runtime.running import Execution
from .signature import text_of

if TYPE_CHECKING:
    from torch import Tensor

    from ..ir.binding import Number


class OperatorExecution(Execution):
    """A mixer on a backend; tracers, exporters and transforms see each call as one operator.

    The operator in turn runs a plain ``Execution``.
    """

    def __call__(
        self,
        tensors: Mapping[str, Tensor],
        params: Mapping[str, Number],
        cu_seqlens: Tensor | Mapping[str, Tensor] | None = None,
    ) -> dict[str, Tensor]:
        if is_recorded(tensors, self.backend):
            return self._by_operator(tensors, params, cu_seqlens)
        return super().__call__(tensors, params, cu_seqlens)

    def by_document(
        self,
        tensors: Mapping[str, Tensor],
        params: Mapping[str, Number],
        cu_seqlens: Tensor | Mapping[str, Tensor],
    ) -> dict[str, Tensor]:
        if is_recorded(tensors, self.backend):
            return self._by_operator(tensors, params, cu_seqlens)
        return super().by_document(tensors, params, cu_seqlens)

    @cached_property
    def _text(self) -> str:
        """What tells the mixer to an operator."""
        return text_of(self.whole, self.backend, self.part, self.kept)

    def _by_operator(
        self,
        tensors: Mapping[str, Tensor],
        params: Mapping[str, Number],
        cu_seqlens: Tensor | Mapping[str, Tensor] | None,
    ) -> dict[str, Tensor]:
        from .call import call_operator

        tensors = in_autocast(self.multiplied, tensors)
        made = call_operator(self._text, tensors, params, cu_seqlens)
        return dict(zip((output.name for output in self.mixer.outputs), made, strict=False))


__all__ = ["OperatorExecution"]
