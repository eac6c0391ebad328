"""The configuration that a call runs with: the stored one that fits best, else the default."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ...ir.knob import Configuration
from ...ir.mixer import Mixer
from ...ir.roles import feature_dims
from ..checking.shapes import bucket, long_dims
from ..search.kernels import space_of
from .devices import device_of_type
from .stored import Remark, key_of, look_up, say_once

if TYPE_CHECKING:
    import torch


class TunedChoice:
    """Looks up a mixer's configuration for the sizes and dtype of a call, once for each bucket.

    What is not exact is said once for each mixer, through the logger ``mixc.tuned``.
    """

    def __init__(
        self, mixer: Mixer, device_type: str, index: int = 0, runs: Mixer | None = None
    ) -> None:
        """``device_type`` is torch's: ``cpu`` or ``cuda``.

        ``runs``: whose kernels the configuration is for, where it is another form of ``mixer``.
        """
        self._mixer, self._type, self._index = mixer, device_type, index
        self._runs = mixer if runs is None else runs
        self._found: dict[object, Configuration] = {}
        self._features = tuple(sorted(feature_dims(mixer)))
        self._long: dict[tuple[int, ...], tuple[str, ...]] = {}  # by the sizes of features

    def __call__(self, sizes: Mapping[str, int], dtype: torch.dtype) -> Configuration:
        """The knobs to set; those left out have their defaults."""
        features = tuple([sizes[dim] for dim in self._features if dim in sizes])
        if features not in self._long:
            self._long[features] = tuple(long_dims(self._mixer, sizes))
        lengths = [bucket(sizes[dim]) for dim in self._long[features]]
        key = (dtype, features, *lengths)
        if key not in self._found:
            self._found[key] = self._look_up(sizes, str(dtype).removeprefix("torch."))
        return self._found[key]

    def _look_up(self, sizes: Mapping[str, int], dtype: str) -> Configuration:
        device = device_of_type(self._type, self._index)
        key = key_of(self._mixer, sizes, dtype, device)

        def fault(configuration: Configuration) -> tuple[str, str] | None:
            return space_of(self._runs, sizes, dtype, device).fault(configuration)

        found = look_up(key, fault)
        if found.how != "exact":
            say_once(Remark(key.spec, found.sentence(key)))
        return dict(found.configuration)
