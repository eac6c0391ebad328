"""The configuration that a call runs with: the stored one that fits best, else the default."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ..ir.knob import Configuration
from ..ir.mixer import Mixer
from .devices import device_of_type
from .kernels import space_of
from .shapes import feature_sizes, length_buckets
from .stored import key_of, look_up, say_once

if TYPE_CHECKING:
    import torch


class TunedChoice:
    """Looks up a mixer's configuration for the sizes and dtype of a call, once for each bucket.

    What is not exact is said once, through the logger ``mixc.tuned``.
    """

    def __init__(self, mixer: Mixer, device_type: str, index: int = 0) -> None:
        """``device_type`` is torch's: ``cpu`` or ``cuda``."""
        self._mixer, self._type, self._index = mixer, device_type, index
        self._found: dict[object, Configuration] = {}

    def __call__(self, sizes: Mapping[str, int], dtype: torch.dtype) -> Configuration:
        """The knobs to set; those left out have their defaults."""
        features = feature_sizes(self._mixer, sizes)
        lengths = length_buckets(self._mixer, sizes)
        key = (dtype, tuple(features.items()), tuple(lengths.items()))
        if key not in self._found:
            self._found[key] = self._look_up(sizes, str(dtype).removeprefix("torch."))
        return self._found[key]

    def _look_up(self, sizes: Mapping[str, int], dtype: str) -> Configuration:
        device = device_of_type(self._type, self._index)
        key = key_of(self._mixer, sizes, dtype, device)

        def admits(configuration: Configuration) -> bool:
            return space_of(self._mixer, sizes, dtype, device).admits(configuration)

        found = look_up(key, admits)
        if found.how != "exact":
            say_once(found.sentence(key))
        return dict(found.configuration)
