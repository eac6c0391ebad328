"""The rows of a call: where inputs and outputs have the sequence's axis, and steps of one row."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING

from ..ir.binding import bind_sizes, expected_layout_text
from ..ir.errors import ArgumentError

if TYPE_CHECKING:
    from torch import Tensor

    from ..compiler.mixers.resume.sequence_axis import SequenceAxis
    from ..ir.binding import Number
    from ..ir.mixer import Layout, Mixer


class Rows:
    """The axis of a mixer's sequence in the tensors of a call."""

    def __init__(self, mixer: Mixer, axis: SequenceAxis) -> None:
        self.mixer = mixer
        self.axis = axis

    @cached_property
    def inputs(self) -> dict[str, tuple[int, int]]:
        """Where inputs have the axis by itself, and how many axes they have."""
        places = {i.name: (self._place(i.layout), len(i.layout)) for i in self.mixer.inputs}
        return {name: (p, axes) for name, (p, axes) in places.items() if p is not None}

    @cached_property
    def outputs(self) -> dict[str, int]:
        """Where outputs have the axis by itself."""
        return {o.name: p for o in self.mixer.outputs if (p := self._place(o.layout)) is not None}

    def _place(self, layout: Layout) -> int | None:
        has = self.axis.has
        return next((p for p, dims in enumerate(layout) if len(dims) == 1 and has(dims[0])), None)

    def quickly(self, given: dict[str, object], one_row: bool) -> tuple[int, bool] | None:
        """(how many rows, whether their axis is left out), which is put into ``given`` then.

        None where that needs a closer look.
        """
        import torch

        rows, lacking, having = 1 if one_row else -1, False, False
        for name, (place, axes) in self.inputs.items():
            value = given.get(name)
            if type(value) is not torch.Tensor:
                continue
            if one_row and value.dim() < axes:
                lacking = True
                given[name] = value.unsqueeze(place)
            elif value.dim() != axes or (one_row and value.shape[place] != 1):
                return None
            else:
                having = True
                rows = value.shape[place]
        return None if rows < 0 or (lacking and having) else (rows, lacking)

    def count(
        self, mixer: Mixer, tensors: Mapping[str, Tensor], params: Mapping[str, Number]
    ) -> int:
        """How many rows a segment has; ``mixer`` says which inputs may be left out."""
        for name, (place, axes) in self.inputs.items():
            if name in tensors and tensors[name].dim() == axes:
                return tensors[name].shape[place]
        shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        return bind_sizes(mixer, shapes, params)[self.axis.root]

    def of_a_step(self, tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], bool]:
        """The tensors with the axis, and whether it was left out; ArgumentError for more rows."""
        left_out = self._is_left_out(tensors)
        return {name: self._as_row(name, tensor) for name, tensor in tensors.items()}, left_out

    def _is_left_out(self, tensors: Mapping[str, Tensor]) -> bool:
        """Whether the inputs of a step leave the axis out, all or none of them."""
        found = {
            name: tensors[name].dim() < axes
            for name, (_, axes) in self.inputs.items()
            if name in tensors
        }
        if len(set(found.values())) > 1:
            having, lacking = (
                next(n for n, x in found.items() if x is out) for out in (False, True)
            )
            raise ArgumentError(
                f"step: expected {self._name(having)} in every input or in none, got it in "
                f"{having} and not in {lacking}"
            )
        return any(found.values())

    def _name(self, name: str) -> str:
        return self.mixer.input(name).layout[self.inputs[name][0]][0]

    def _as_row(self, name: str, tensor: Tensor) -> Tensor:
        if name not in self.inputs:
            return tensor
        place, axes = self.inputs[name]
        if tensor.dim() == axes - 1:
            return tensor.unsqueeze(place)
        if tensor.dim() == axes and tensor.shape[place] != 1:
            axis, layout = self._name(name), expected_layout_text(self.mixer.input(name))
            raise ArgumentError(
                f"{name}: a step is one row: expected {layout} with {axis} = 1 or without {axis}, "
                f"got {list(tensor.shape)}; for more rows call "
                f"{self.mixer.name}(..., state=state, return_state=True)"
            )
        return tensor


__all__ = ["Rows"]
