"""Run a mixer's generated kernels: on a GPU, or on a CPU under Triton's interpreter."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from ...ir.binding import Number, bind_sizes
from ...ir.expression import Kind
from ...ir.grouping import QueryGroups
from ...ir.mixer import Input, Mixer
from ...ir.optional import without_inputs
from ...ir.plan import Plan
from ...ir.roles import feature_dims, shares_of_keys
from ...ir.verify_plan import verify_lengths
from ..cache import cache_folder, holds, put
from ..names import plain_names
from ..precision import with_own_dtypes, working_dtype
from .emit import emit_module
from .interpreter import mended
from .names import TAKEN

Lower = Callable[..., Plan]  # (mixer, sizes, dtype, splits=1)
# The knobs to set for these sizes in this dtype, and a plan with knobs set.
Choose = Callable[[Mapping[str, int], torch.dtype], Mapping[str, int]]
Bind = Callable[[Plan, Mapping[str, int]], Plan]
# A module's function, what names of the spec are called there, and the plan it is of.
_Function = tuple[Callable[..., Any], Mapping[str, str], Plan]


def import_source(source: str, name: str) -> ModuleType:
    """The module that ``source`` makes; Triton reads kernels from a file, so it is kept as one.

    The file is written aside and renamed, so that processes may share the folder.
    """
    digest = hashlib.sha256(source.encode()).hexdigest()[:24]
    folder = cache_folder() / "modules"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}_{digest}.py"
    if not holds(path, source.encode()):
        handle, aside = tempfile.mkstemp(suffix=".py", dir=folder)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(source)
        put(Path(aside), path)
    spec = importlib.util.spec_from_file_location(f"mixc_generated_{name}_{digest}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@dataclass
class TritonRunner:
    """A mixer that runs by generated kernels, compiled once per set of feature sizes and dtype.

    ``lower`` is the compiler's; backends do not know it, so it is handed in. So are ``choose`` and
    ``bind``, where the plan is not to run as it is.
    """

    mixer: Mixer
    lower: Lower
    choose: Choose | None = None
    bind: Bind | None = None
    groups: dict[object, QueryGroups] = field(default_factory=dict)
    modules: dict[object, _Function] = field(default_factory=dict)

    def __call__(
        self, tensors: Mapping[str, Tensor], params: Mapping[str, Number] = {}
    ) -> dict[str, Tensor]:
        """The outputs by name.

        Args:
            tensors: inputs by name, on one device; real ones in one dtype, or some in float32.
            params: values of run-time params.

        Raises:
            ArgumentError: tensors that do not fit the spec.
        """
        mixer = without_inputs(
            self.mixer, [i.name for i in self.mixer.inputs if i.name not in tensors]
        )
        sizes = bind_sizes(mixer, {n: tuple(t.shape) for n, t in tensors.items()}, params)
        dtype = working_dtype(mixer, tensors)
        mixer, sizes = self._groups(with_own_dtypes(mixer, tensors, dtype)).grouped(sizes)
        device = next((t.device for t in tensors.values()), torch.device("cpu"))
        function, words, plan = self._function(mixer, sizes, dtype, device)
        verify_lengths(plan, sizes)
        inputs = [_prepared(tensors[i.name], i, dtype) for i in mixer.inputs]
        given = [p.name for p in mixer.params if p.runtime and p.name in params]
        runtime = {words.get(name, name): params[name] for name in given}
        with torch.cuda.device(device) if device.type == "cuda" else mended():
            results = function(*inputs, **runtime)
        made = results if isinstance(results, tuple) else (results,)
        return {o.name: r for o, r in zip(mixer.outputs, made, strict=True)}

    def _groups(self, mixer: Mixer) -> QueryGroups:
        names = tuple((i.name, i.dtype) for i in mixer.inputs)
        if names not in self.groups:
            self.groups[names] = QueryGroups(mixer)
        return self.groups[names]

    def _function(
        self, mixer: Mixer, sizes: Mapping[str, int], dtype: torch.dtype, device: torch.device
    ) -> _Function:
        """The module for these sizes, made where there is none yet."""
        fixed = {d: sizes[d] for d in sorted(feature_dims(mixer))}
        chosen = {} if self.choose is None else self.choose(sizes, dtype)
        inputs = tuple((i.name, i.dtype) for i in mixer.inputs)
        splits = chosen.get("splits") or shares_of_keys(mixer, sizes, _units(device), rows=64)
        key = (inputs, mixer.sizes, tuple(fixed.items()), dtype, tuple(chosen.items()), splits)
        if key not in self.modules:
            name = str(dtype).removeprefix("torch.")
            plan = self.lower(mixer, fixed, name, splits=splits)
            bound = plan if self.bind is None else self.bind(plan, chosen)
            source = emit_module(bound, wide_dots=device.type == "cpu")
            words = plain_names(bound, TAKEN)
            module = import_source(source, mixer.name)
            function = getattr(module, words.get(mixer.name, mixer.name))
            self.modules[key] = function, words, bound
        return self.modules[key]


def _units(device: torch.device) -> int:
    """How many programs a device runs side by side."""
    if device.type != "cuda":
        return 1
    return torch.cuda.get_device_properties(device).multi_processor_count


def _prepared(tensor: Tensor, entry: Input, dtype: torch.dtype) -> Tensor:
    if entry.kind is Kind.INT:
        return tensor.to(torch.int64 if entry.dtype == "int64" else torch.int32)
    if entry.kind is not Kind.REAL:
        return tensor
    return tensor.to(dtype if entry.dtype is None else getattr(torch, entry.dtype))
