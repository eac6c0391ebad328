"""Mixers as modules of torch.nn: weights and buffers are the inputs that a spec marks so."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from typing import Any

import torch
from torch import Tensor

from .api import load
from .ir.binding import expected_layout_text
from .ir.errors import ArgumentError
from .ir.mixer import Input
from .runtime.backends import Backend
from .runtime.kept import Kept
from .runtime.overrides import Values
from .stepping.state import SequenceState
from .weights import held_sizes, of_dtype, start


class Mixer(torch.nn.Module):
    """A mixer with its weights and buffers, which ``state_dict``, ``.to()`` and optimisers see.

    It is called like a loaded mixer, without what it keeps:

    >>> _ = torch.manual_seed(0)
    >>> lstm = Mixer("lstm", sizes={"H": 1, "D": 8, "P": 8})
    >>> lstm
    Mixer(lstm(x, h0, c0) -> o, h, c; R [K, H, D, P] = [4, 1, 8, 8])
    >>> lstm(torch.randn(2, 5, 4, 1, 8)).o.shape
    torch.Size([2, 5, 1, 8])
    """

    def __init__(
        self,
        name_or_path: str | PathLike[str],
        /,
        *,
        sizes: Mapping[str, int] | None = None,
        backend: Backend = "auto",
        kept: Kept = "auto",
        device: str | torch.device | None = None,
        dtype: torch.dtype | None = None,
        **params: Values,
    ) -> None:
        """Read a spec, and make what it marks with ``weight`` or ``buffer``.

        Args:
            name_or_path, backend, kept, params: as for ``mixc.load``.
            sizes: of the axes that weights and buffers have: ``{"H": 4, "D": 64}``.
            device, dtype: of the weights; torch's defaults where they are left out.

        Raises:
            SpecError: the spec is not there, or not right.
            ArgumentError: a size that is needed, or a param that there is not.
        """
        super().__init__()
        self.mixer = load(name_or_path, backend=backend, kept=kept, **params)
        mixer = self.mixer.mixer
        held = [entry for entry in mixer.inputs if entry.held is not None]
        self.sizes = held_sizes(mixer, sizes or {})
        self.held = tuple(entry.name for entry in held)
        self.given = tuple(name for name in self.mixer.inputs if name not in self.held)
        for entry in held:
            self._keep(entry, device, dtype or torch.get_default_dtype())

    def _keep(self, entry: Input, device: str | torch.device | None, dtype: torch.dtype) -> None:
        if hasattr(self, entry.name):
            raise ArgumentError(
                f"{entry.name}: a module has something of that name: call the input otherwise"
            )
        values = start(self.mixer.mixer, entry, self.sizes)
        values = of_dtype(entry, values, dtype).to(device or torch.get_default_device())
        if entry.held is not None and entry.held.trained:
            self.register_parameter(entry.name, torch.nn.Parameter(values))
        else:
            self.register_buffer(entry.name, values)

    def reset_parameters(self) -> None:
        """Give weights and buffers the values that they start from, drawn anew."""
        with torch.no_grad():
            for name in self.held:
                values = start(self.mixer.mixer, self.mixer.mixer.input(name), self.sizes)
                getattr(self, name).copy_(values)

    def forward(
        self,
        *inputs: object,
        cu_seqlens: Tensor | Mapping[str, Tensor] | None = None,
        state: SequenceState | None = None,
        return_state: bool = False,
        **named: object,
    ) -> Any:
        """Run the mixer on all other inputs, in the spec's order or by name."""
        return self.mixer(
            **self._all(inputs, named, state),
            cu_seqlens=cu_seqlens,
            state=state,
            return_state=return_state,
        )

    def step(
        self, *inputs: object, state: SequenceState | None = None, **named: object
    ) -> tuple[Any, SequenceState]:
        """One row: (outputs, state after it); see ``LoadedMixer.step``."""
        return self.mixer.step(**self._all(inputs, named, state), state=state)

    def _all(
        self, inputs: tuple[object, ...], named: Mapping[str, object], state: SequenceState | None
    ) -> dict[str, Any]:
        """What is given and what is kept, by name."""
        if len(inputs) > len(self.given):
            raise ArgumentError(
                f"{self.mixer.mixer.name} takes {len(self.given)} inputs "
                f"({', '.join(self.given)}) beside what the module keeps, got {len(inputs)}"
            )
        found: dict[str, Any] = dict(zip(self.given, inputs, strict=False))
        for name, value in named.items():
            if name in self.held:
                raise ArgumentError(f"{name} is kept by the module, and not given at a call")
            if name in found:
                raise ArgumentError(f"{name} is given twice, by position and by name")
            found[name] = value
        past = () if state is None else self.mixer.only_first
        for name in self.held:
            if name not in past:
                found[name] = getattr(self, name)
        return found

    def extra_repr(self) -> str:
        """The call, and what is kept with its axes and sizes."""
        made = ", ".join(self.mixer.outputs)
        parts = [f"{self.mixer.mixer.name}({', '.join(self.given)}) -> {made}"]
        for name in self.held:
            axes = expected_layout_text(self.mixer.mixer.input(name))
            parts.append(f"{name} {axes} = {list(getattr(self, name).shape)}")
        return "; ".join(parts)


__all__ = ["Mixer"]
