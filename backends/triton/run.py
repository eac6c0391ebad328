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

from ...ir.binding import Number, check_input_names
from ...ir.expression import Kind
from ...ir.mixer import Input, Mixer
from ...ir.optional import without_inputs
from ...ir.plan import Plan
from ...ir.roles import feature_dims
from ...ir.targets import EVERY_GPU, Target, target_of
from ...ir.transform import FFT_TERMS
from ..cache import cache_folder, holds, put
from ..launches import Launches
from ..names import plain_names
from ..precision import with_own_dtypes, working_dtype
from ..prepared import SizeReader, size_reader
from .device import architecture_of
from .emit import emit_module
from .interpreter import mended
from .names import TAKEN

Lower = Callable[..., Plan]  # (mixer, sizes, dtype, splits=1)
# The knobs to set for these sizes in this dtype, and a plan with knobs set.
Choose = Callable[[Mapping[str, int], torch.dtype], Mapping[str, int]]
Bind = Callable[[Plan, Mapping[str, int]], Plan]
# The knobs that decide which kernels a plan has.
_OF_PLAN = ("chunk_kernels", FFT_TERMS.name)
# Programs with a state that a multiprocessor has the registers for, of 4 warps each.
BESIDE = 2


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


@dataclass(frozen=True)
class Module:
    """A plan's emitted function, and what names of the spec are called there."""

    plan: Plan
    function: Callable[..., Any]
    words: Mapping[str, str]


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
    prepared: dict[object, Prepared] = field(default_factory=dict)
    modules: dict[object, Module] = field(default_factory=dict)

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
        return self._prepared(tensors, params)(tuple(tensors.values()), params)

    def _prepared(self, tensors: Mapping[str, Tensor], params: Mapping[str, Number]) -> Prepared:
        """Calls on tensors of these names in this order, of these dtypes, on this device."""
        device = next((t.device for t in tensors.values()), torch.device("cpu"))
        key = (*tensors, *[tensor.dtype for tensor in tensors.values()], *params, device)
        if key not in self.prepared:
            check_input_names(self.mixer, tensors)
            absent = [i.name for i in self.mixer.inputs if i.name not in tensors]
            mixer = without_inputs(self.mixer, absent)
            dtype = working_dtype(mixer, tensors)
            mixer = with_own_dtypes(mixer, tensors, dtype)
            reader = size_reader(mixer, tuple(tensors), params)
            self.prepared[key] = Prepared(self, mixer, dtype, device, reader)
        return self.prepared[key]

    def module(
        self,
        mixer: Mixer,
        sizes: Mapping[str, int],
        dtype: torch.dtype,
        shares: int,
        device: torch.device,
    ) -> Module:
        """The module for these sizes, made where there is none yet."""
        fixed = {d: sizes[d] for d in sorted(feature_dims(mixer))}
        chosen = {} if self.choose is None else self.choose(sizes, dtype)
        inputs = tuple((i.name, i.dtype) for i in mixer.inputs)
        splits = chosen.get("splits") or shares
        target = _target(device)
        asked = (tuple(chosen.items()), splits, target)
        key = (inputs, mixer.sizes, mixer.heads, tuple(fixed.items()), dtype, *asked)
        if key not in self.modules:
            name = str(dtype).removeprefix("torch.")
            asked_of_plan = {k: chosen[k] for k in _OF_PLAN if k in chosen}
            plan = self.lower(mixer, fixed, name, splits=splits, target=target, **asked_of_plan)
            bound = plan if self.bind is None else self.bind(plan, chosen)
            source = emit_module(bound, wide_dots=device.type == "cpu")
            words = plain_names(bound, TAKEN)
            module = import_source(source, mixer.name)
            function = getattr(module, words.get(mixer.name, mixer.name))
            self.modules[key] = Module(bound, function, words)
        return self.modules[key]


class Prepared:
    """Calls of a runner that have tensors' names, dtypes and device in common."""

    def __init__(
        self,
        runner: TritonRunner,
        mixer: Mixer,
        dtype: torch.dtype,
        device: torch.device,
        reader: SizeReader,
    ) -> None:
        self.runner, self.mixer, self.dtype, self.device = runner, mixer, dtype, device
        self._reader = reader
        self._launches = Launches(mixer, reader.dims, self._module, beside=BESIDE)
        self._units = _units(device)
        self._runtime = [param.name for param in mixer.params if param.runtime]
        self._inputs = [(reader.inputs.index(i.name), _own_dtype(i, dtype)) for i in mixer.inputs]

    def __call__(
        self, tensors: tuple[Tensor, ...], params: Mapping[str, Number]
    ) -> dict[str, Tensor]:
        """The outputs by name."""
        sizes = self._reader.solve(tensors, params)
        module, _ = self._launches.find(sizes, self._units)
        inputs = [tensors[n] if own is None else tensors[n].to(own) for n, own in self._inputs]
        given = [name for name in self._runtime if name in params]
        runtime = {module.words.get(name, name): params[name] for name in given}
        with torch.cuda.device(self.device) if self.device.type == "cuda" else mended():
            results = module.function(*inputs, **runtime)
        made = results if isinstance(results, tuple) else (results,)
        return {o.name: r for o, r in zip(self.mixer.outputs, made, strict=True)}

    def _module(self, mixer: Mixer, sizes: Mapping[str, int], shares: int) -> tuple[Module, Plan]:
        found = self.runner.module(mixer, sizes, self.dtype, shares, self.device)
        return found, found.plan


def _units(device: torch.device) -> int:
    """How many programs a device runs side by side."""
    if device.type != "cuda":
        return 1
    return torch.cuda.get_device_properties(device).multi_processor_count


def _target(device: torch.device) -> Target:
    """What kernels for a device have to fit."""
    return target_of(architecture_of(device)) if device.type == "cuda" else EVERY_GPU


def _own_dtype(entry: Input, dtype: torch.dtype) -> torch.dtype | None:
    """What kernels take an input as; None where it is taken as it comes."""
    if entry.kind is Kind.INT:
        return torch.int64 if entry.dtype == "int64" else torch.int32
    if entry.kind is not Kind.REAL:
        return None
    return dtype if entry.dtype is None else getattr(torch, entry.dtype)
