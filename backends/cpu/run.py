"""Run a mixer's generated kernels on the CPU."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from ...ir.binding import Number, check_input_names
from ...ir.errors import UnsupportedError
from ...ir.mixer import Mixer, Recurrence
from ...ir.optional import without_inputs
from ...ir.plan import Plan
from ...ir.roles import feature_dims
from ...ir.targets import CpuTarget
from ...ir.transform import FFT_TERMS
from ...ir.verify_plan import verify_lengths
from ..launches import Launches
from ..precision import with_own_dtypes, working_dtype
from ..prepared import SizeReader, checked_params, size_reader
from .build import build, find_compiler, load_function
from .configure import (
    BLOCK_ROWS,
    BY_ROWS,
    FFT_LAGS,
    NARROWEST,
    ONE_SWEEP,
    chunks_pay,
    configure,
    defaults,
    fill_cores,
    keeps_cores_busy,
    knobs_of_stages,
    own_defaults,
    short_rows,
)
from .emit import emit_source
from .launch import Launch, Module, Signature

Lower = Callable[..., Plan]  # (mixer, sizes, dtype, splits=1, recurrence="chunk", ...)
# The knobs to take for these sizes in this dtype; what it leaves out has its default.
Choose = Callable[[Mapping[str, int], torch.dtype], Mapping[str, int]]
_MOST_SIZES = 4096  # of calls whose kernels are remembered
_ALL = 1 << 30  # threads, bytes


@dataclass
class CpuRunner:
    """A mixer that runs by native kernels, built once per set of feature sizes and dtype.

    ``lower`` is the compiler's; backends do not know it, so it is handed in. ``configuration``
    overrides default knobs by name; ``choose`` gives it anew for the sizes of a call. ``flags``
    are further ones for the C++ compiler, ``target`` is this machine's where it is left out. A call
    whose tensors have up to ``alone_bytes`` runs on one thread: for steps, which are done before a
    second one is awake.
    """

    mixer: Mixer
    lower: Lower
    configuration: Mapping[str, int] = field(default_factory=dict)
    choose: Choose | None = None
    flags: tuple[str, ...] = ()
    target: CpuTarget | None = None
    alone_bytes: int = 0
    plans: dict[object, Plan] = field(default_factory=dict)
    modules: dict[object, Module] = field(default_factory=dict)
    prepared: dict[object, Prepared] = field(default_factory=dict)
    refused: dict[object, UnsupportedError] = field(default_factory=dict)

    def __call__(
        self, tensors: Mapping[str, Tensor], params: Mapping[str, Number] = {}
    ) -> dict[str, Tensor]:
        """The outputs by name.

        Args:
            tensors: inputs by name, on the CPU; real ones in one dtype, or some in float32.
            params: values of run-time params.

        Raises:
            ArgumentError: tensors that do not fit the spec.
            UnsupportedError: no C++ compiler, or a term that can't be lowered.
        """
        call = self.prepare(tensors, params)
        results = call(*tensors.values(), params=params)
        return dict(zip(call.outputs, results, strict=True))

    def prepare(self, tensors: Mapping[str, Tensor], params: Mapping[str, Number] = {}) -> Prepared:
        """Calls on tensors of these names in this order, of these dtypes."""
        key = _key(tensors, params)
        if key not in self.prepared:
            dtypes = tuple(tensor.dtype for tensor in tensors.values())
            mixer = self.mixer
            check_input_names(mixer, tensors)
            mixer = without_inputs(mixer, [i.name for i in mixer.inputs if i.name not in tensors])
            reader = size_reader(mixer, tuple(tensors), params)
            signature = Signature(tuple(tensors), dtypes, tuple(params), reader.dims)
            dtype = working_dtype(mixer, tensors)
            mixer = with_own_dtypes(mixer, tensors, dtype)
            self.prepared[key] = Prepared(self, mixer, dtype, signature, reader)
        return self.prepared[key]

    def prepared_for(self, tensors: Mapping[str, Tensor]) -> Prepared | None:
        """Calls like these, where one of them has run, in whatever order."""
        wanted = {name: tensor.dtype for name, tensor in tensors.items()}
        for known in list(self.prepared.values()):
            own = zip(known.signature.inputs, known.signature.dtypes, strict=True)
            if known.dtypes and not known.signature.params and dict(own) == wanted:
                call = self.prepare(tensors)
                call.dtypes = known.dtypes
                return call
        return None

    def source(self, sizes: Mapping[str, int], dtype: torch.dtype) -> str:
        """The C++ that a call with these feature sizes runs."""
        return emit_source(self.plan(sizes, dtype), self._target).text

    def plan(self, sizes: Mapping[str, int], dtype: torch.dtype) -> Plan:
        """The plan of a call with these feature sizes, every knob set; lengths are long."""
        return self._plan(self.mixer, sizes, dtype)

    # ----------------------------------------------------------------------------- building

    @property
    def _target(self) -> CpuTarget:
        return self.target or find_compiler().target

    def _chosen(self, sizes: Mapping[str, int], dtype: torch.dtype) -> Mapping[str, int]:
        return self.configuration if self.choose is None else self.choose(sizes, dtype)

    def _plan(
        self,
        mixer: Mixer,
        sizes: Mapping[str, int],
        dtype: torch.dtype,
        shares: int = 1,
        cores: int = 1,
    ) -> Plan:
        """The plan with every knob set; lengths that are not given are long."""
        chosen = self._chosen(sizes, dtype)
        plan = self._lowered(mixer, sizes, dtype, shares, chosen)
        if plan.one_sweep and not keeps_cores_busy(plan, sizes, cores):
            plan = self._lowered(mixer, sizes, dtype, shares, {**chosen, ONE_SWEEP.name: 0})
        sizes = {**sizes, **dict(plan.sizes)}
        own = own_defaults(plan, self._target, sizes, cores)
        knobs = {**defaults(self._target), **own, **chosen}
        plan = configure(plan, knobs, short_rows(plan, sizes), self._target.l1_bytes)
        return plan if BLOCK_ROWS.name in chosen else fill_cores(plan, sizes, cores)

    def _lowered(
        self,
        mixer: Mixer,
        sizes: Mapping[str, int],
        dtype: torch.dtype,
        shares: int,
        chosen: Mapping[str, int],
    ) -> Plan:
        """The plan before knobs are set."""
        fixed = {d: sizes[d] for d in sorted(feature_dims(mixer)) if d in sizes}
        inputs = tuple((i.name, i.dtype) for i in mixer.inputs)
        by_rows = chosen.get(BY_ROWS.name, BY_ROWS.default)
        own = knobs_of_stages(mixer)
        pairs = self._target.tile_dot and dtype is torch.bfloat16
        if pairs and BY_ROWS in own and BY_ROWS.name not in chosen:
            chunks = {**chosen, BY_ROWS.name: 0}
            plan = self._lowered(mixer, sizes, dtype, shares, chunks)
            if chunks_pay(plan, self._target, sizes):
                return plan
        lags = chosen.get(FFT_LAGS.name, FFT_LAGS.default) if FFT_LAGS in own else None
        terms = chosen.get(FFT_TERMS.name, FFT_TERMS.default) if FFT_TERMS in own else None
        sweeps = ONE_SWEEP in own
        sweeps = sweeps and bool(chosen.get(ONE_SWEEP.name, ONE_SWEEP.default))
        setting = (tuple(fixed.items()), dtype, shares, by_rows, sweeps, lags, terms)
        key = (inputs, mixer.sizes, mixer.heads, *setting)
        if key not in self.plans:
            name = str(dtype).removeprefix("torch.")
            more: dict[str, Any] = {"splits": shares} if shares > 1 else {}
            if any(isinstance(stage, Recurrence) for stage in mixer.stages):
                more["recurrence"] = "loop" if by_rows else "chunk"
            if sweeps:
                more["one_sweep"] = True
            if lags is not None:
                more["fft_lags"] = lags
            if terms is not None:
                more["fft_terms"] = terms
            self.plans[key] = self.lower(mixer, fixed, name, target=self._target, **more)
        return self.plans[key]

    def module(
        self,
        mixer: Mixer,
        sizes: Mapping[str, int],
        dtype: torch.dtype,
        shares: int,
        cores: int = 1,
    ) -> Module:
        """The kernels for a call of these sizes: one set for all but its shortest lengths, and
        where its heads are too few for ``cores``.

        Raises UnsupportedError, at once where it has before.
        """
        fixed = [sizes[dim] for dim in sorted(feature_dims(mixer)) if dim in sizes]
        inputs = tuple((entry.name, entry.dtype) for entry in mixer.inputs)
        key = (inputs, mixer.sizes, mixer.heads, dtype, shares, *fixed)
        if key in self.refused:
            raise self.refused[key]
        try:
            # First: what can't be lowered has no configuration to look up, and to talk of.
            self._lowered(mixer, sizes, dtype, shares, {})
            shares = self._chosen(sizes, dtype).get("splits", shares)
            return self._built(mixer, sizes, dtype, shares, cores)
        except UnsupportedError as error:
            self.refused[key] = error
            raise

    def _built(
        self, mixer: Mixer, sizes: Mapping[str, int], dtype: torch.dtype, shares: int, cores: int
    ) -> Module:
        plan = self._plan(mixer, sizes, dtype, shares, cores)
        inputs = tuple((i.name, i.dtype) for i in mixer.inputs)
        key = (inputs, mixer.sizes, mixer.heads, dtype, _setting(plan))
        if key not in self.modules:
            self.modules[key] = _module(plan, mixer, self._target, self.flags)
        return self.modules[key]


@dataclass(frozen=True)
class _Call:
    """What the sizes of a call decide."""

    launch: Launch
    sizes: tuple[int, ...]  # of the launch's dims
    numbers: tuple[int, ...]
    threads: int  # at most; 0 where there is nothing to compute


class Prepared:
    """Calls of a runner that have a signature in common, on tensors in its order."""

    def __init__(
        self,
        runner: CpuRunner,
        mixer: Mixer,
        dtype: torch.dtype,
        signature: Signature,
        reader: SizeReader,
    ) -> None:
        self.runner, self.mixer, self.dtype, self.signature = runner, mixer, dtype, signature
        self.outputs = tuple(output.name for output in mixer.outputs)
        self.dtypes: tuple[torch.dtype, ...] = ()  # of the outputs, once there was a call
        self._reader = reader
        self._launches = Launches(mixer, signature.dims, self._launch, NARROWEST)
        self._made: dict[int, Launch] = {}  # by the identity of a module
        self._calls: dict[tuple[int, ...], _Call] = {}
        self._threads = 0

    def __call__(
        self, *tensors: Tensor, params: Mapping[str, Number] | None = None
    ) -> tuple[Tensor, ...]:
        """The outputs in order."""
        return self._run(self._reader.solve(tensors, params or {}), tensors, params)

    def quickly(self, *tensors: Tensor) -> tuple[Tensor, ...] | None:
        """The same; None where that takes a closer look, or can't be."""
        sizes = self._reader.read(tensors)
        try:
            return None if sizes is None else self._run(sizes, tensors, None)
        except UnsupportedError:
            return None

    def _run(
        self,
        sizes: tuple[int, ...],
        tensors: tuple[Tensor, ...],
        params: Mapping[str, Number] | None,
    ) -> tuple[Tensor, ...]:
        threads = torch.get_num_threads()
        if threads != self._threads:
            self._calls.clear()
            self._threads = threads
        given = checked_params(self.mixer, params) if params else ()
        call = self._calls.get(sizes) or self._call(sizes, tensors, given)
        numbers = call.launch.numbers(call.sizes, given) if params else call.numbers
        return call.launch.run(call.sizes, numbers, min(threads, call.threads), *tensors)

    def _call(
        self, sizes: tuple[int, ...], tensors: tuple[Tensor, ...], params: tuple[Number, ...]
    ) -> _Call:
        launch, own = self._launches.find(sizes, self._threads)
        numbers = launch.numbers(own, params)
        made = numbers[-1]
        threads = _ALL if made else 0
        alone = self.runner.alone_bytes
        if made and alone and made + sum([tensor.nbytes for tensor in tensors]) <= alone:
            threads = 1
        if len(self._calls) >= _MOST_SIZES:
            self._calls.clear()
        call = self._calls[sizes] = _Call(launch, own, numbers, threads)
        return call

    def _launch(self, mixer: Mixer, sizes: Mapping[str, int], shares: int) -> tuple[Launch, Plan]:
        cores = 1 if self.runner.alone_bytes else self._threads
        module = self.runner.module(mixer, sizes, self.dtype, shares, cores)
        if id(module) not in self._made:
            signature = replace(self.signature, dims=tuple(sizes))
            self._made[id(module)] = Launch(module, signature)
        launch = self._made[id(module)]
        self.dtypes = launch.dtypes
        return launch, module.plan


def run_plan(
    plan: Plan,
    tensors: Mapping[str, Tensor],
    sizes: Mapping[str, int],
    params: Mapping[str, Number] = {},
    flags: tuple[str, ...] = (),
) -> dict[str, Tensor]:
    """The outputs of a plan by name, its programs run natively just as they are.

    Raises:
        PromiseError: lengths or blocks that the programs are not made for.
    """
    verify_lengths(plan, sizes)
    module = _module(plan, plan.mixer, find_compiler().target, flags)
    dtypes = tuple(tensor.dtype for tensor in tensors.values())
    signature = Signature(tuple(tensors), dtypes, tuple(params), tuple(sizes))
    launch = Launch(module, signature)
    given = tuple(sizes.values())
    numbers = launch.numbers(given, checked_params(plan.mixer, params))
    threads = torch.get_num_threads() if numbers[-1] else 0
    return dict(
        zip(launch.outputs, launch.run(given, numbers, threads, *tensors.values()), strict=True)
    )


def _module(plan: Plan, mixer: Mixer, target: CpuTarget, flags: tuple[str, ...]) -> Module:
    """A plan built; one that is transforms alone has nothing to build."""
    source = emit_source(plan, target)
    if not source.entries:
        return Module(plan, mixer, ())
    path = build(source.text, mixer.name, flags)
    return Module(plan, mixer, tuple(load_function(path, entry) for entry in source.entries))


def _key(tensors: Mapping[str, Tensor], params: Mapping[str, Number]) -> object:
    return (*tensors, *[tensor.dtype for tensor in tensors.values()], *params)


def _setting(plan: Plan) -> object:
    """What tells apart the plans of one mixer and dtype."""
    tiles = tuple((k.program.name, k.program.tiles, k.program.launch) for k in plan.kernels)
    return plan.sizes, tiles
