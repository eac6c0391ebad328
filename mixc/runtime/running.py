"""A mixer on a backend: its calls, by kernels, by torch, document by document."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, cast

from ..compiler.analysis.multiplied import multiplied_inputs
from ..ir.binding import Number
from ..ir.errors import UnsupportedError
from ..ir.mixer import Mixer
from .arguments import device_of, in_autocast, working_dtype
from .backends import Backend, Chosen, Runner, by_reference, choose, kernel_runner
from .documents import check_documents, one_by_one, row_sizes
from .obstacles import obstacle_of_tensors, wanting_gradient, warn_of_torch, with_tangent
from .overrides import override
from .packing import checked_edges, document_tables
from .quick import Again, again_like

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from ..backends.cpu.run import CpuRunner
    from ..compiler.mixers.derivative.differentiate import Derivative
    from ..compiler.mixers.pack.pack_sequences import Packing
    from .kept import Kept
    from .passes import Passes
    from .training import Training

_IN_BLOCKS = ("triton", "interpreter")
_MOST_DTYPES = 8  # of calls that go straight to kernels


class Execution:
    """A mixer on a backend; generated kernels are kept from call to call."""

    def __init__(
        self,
        mixer: Mixer,
        backend: Backend,
        *,
        tuned: Mixer | None = None,
        few_rows: bool = False,
        part: str = "whole",
        kept: Kept = "all",
    ) -> None:
        """Nothing is generated before the first call.

        Kernels take the configuration that is stored for ``tuned``, the mixer itself where it is
        left out; for calls of a ``few_rows``, recurrences run row by row, untuned. ``part`` says
        what the mixer is of ``tuned``, where it is not that itself; ``kept`` is for backward
        passes, of sequences that are not packed, as for ``mixc.load``.
        """
        self.mixer = mixer
        self.part, self.whole = part, tuned or mixer
        self.tuned = None if few_rows else tuned or mixer
        self.few_rows = few_rows
        self.kept: Kept = kept
        self.backend: Backend = backend
        self._wide = frozenset(output.name for output in mixer.outputs if output.dtype)
        self._packing: Packing | None = None
        self._has_last: bool | None = None
        self._chunks_lost: bool | None = None
        self._runners: dict[bool, Runner] = {}
        self._trainings: dict[bool, Training] = {}
        self._again: dict[object, dict[tuple[torch.dtype, ...], Again]] = {}

    def again(
        self, inputs: tuple[object, ...], names: tuple[str, ...] = ()
    ) -> tuple[Tensor, ...] | None:
        """The outputs in order, for inputs like those of an earlier call, of any shape; else None.

        ``names``: how that call named them, where they are not the mixer's first ones.
        """
        for known in self._again.get((len(inputs), names), {}).values():
            if known.is_plain(*inputs):
                return known.call.quickly(*cast("tuple[Tensor, ...]", inputs))
        return None

    def remember(
        self,
        inputs: tuple[object, ...],
        own: tuple[str, ...] = (),
        names: tuple[str, ...] = (),
    ) -> None:
        """Let calls with inputs like these go straight to the kernels that have just run.

        ``own``: what the mixer calls them, where they are not its first ones; ``names``: what
        ``again`` is told.
        """
        runner = self._runners.get(False)
        if runner is None or self.backend not in ("auto", "cpu"):
            return
        if not all(hasattr(value, "dtype") for value in inputs):
            return  # plain numbers, given for inputs without axes
        own = own or tuple(entry.name for entry in self.mixer.inputs)[: len(inputs)]
        tensors = dict(zip(own, cast("tuple[Tensor, ...]", inputs), strict=True))
        known = self._again.setdefault((len(inputs), names), {})
        dtypes = tuple(tensor.dtype for tensor in tensors.values())
        if dtypes not in known and len(known) < _MOST_DTYPES:
            found = again_like(self.mixer, cast("CpuRunner", runner), tensors)
            if found is not None:
                known[dtypes] = found

    def __call__(
        self,
        tensors: Mapping[str, Tensor],
        params: Mapping[str, Number],
        cu_seqlens: Tensor | Mapping[str, Tensor] | None = None,
    ) -> dict[str, Tensor]:
        """The outputs by name, real ones in the dtype of the real inputs.

        Raises ArgumentError where shapes, dtypes, devices or the backend don't fit.
        """
        return self.directly(in_autocast(self.multiplied, tensors), params, cu_seqlens)

    @cached_property
    def multiplied(self) -> frozenset[str]:
        """The inputs that autocast takes in 16 bits."""
        return multiplied_inputs(self.mixer)

    def directly(
        self,
        tensors: Mapping[str, Tensor],
        params: Mapping[str, Number],
        cu_seqlens: Tensor | Mapping[str, Tensor] | None = None,
    ) -> dict[str, Tensor]:
        """The same, on tensors that kernels may read."""
        if cu_seqlens is not None and self.is_one_by_one(tensors.keys(), device_of(tensors)):
            return self.by_document(tensors, params, cu_seqlens)
        chosen = choose(self.backend, device_of(tensors))
        dtype = working_dtype(self.mixer, tensors)
        given, mixer = dict(tensors), self.mixer
        if cu_seqlens is not None:
            packed = self.packed()
            given |= document_tables(packed, mixer, cu_seqlens, tensors, params)
            mixer = packed.mixer
        if self.backend == "auto" and chosen == "cpu":
            results = self._by_cpu(mixer, given, params, dtype)
        elif chosen == "reference":
            results = by_reference(mixer, given, params, dtype)
        elif (name := with_tangent(given)) is not None:
            raise UnsupportedError(
                f"{mixer.name}: kernels give values and no tangents, and {name} carries one; load "
                "it with backend='reference', which torch differentiates forward too"
            )
        else:
            wanted = wanting_gradient(given) is not None
            run = self._training(mixer, chosen) if wanted else self._runner(mixer, chosen)
            results = run(given, params)
        return in_dtype(results, dtype, self._wide)

    def check_device(self, device: torch.device) -> None:
        """ArgumentError where calls on a device are not served; on meta, any are."""
        if device.type != "meta":
            choose(self.backend, device)

    def passes(
        self,
        dtypes: Mapping[str, torch.dtype],
        wanted: tuple[str, ...],
        device: torch.device,
        sizes: Callable[[Derivative], Mapping[str, int]],
    ) -> Passes | None:
        """The two passes by kernels, whole. See ``Training.of``.

        None where gradients go through torch, or by segments of a call that is made again.
        """
        import torch

        if device.type == "meta" or torch.float64 in dtypes.values():
            return None
        chosen = choose(self.backend, device)
        if chosen == "reference":
            return None
        training = self._training(self.mixer, chosen)
        try:
            whole = training.of(dtypes, wanted, sizes)
            return None if training.keeps_less(whole, dtypes, wanted, sizes) else whole
        except UnsupportedError:
            if self.backend != "auto":
                raise
            return None

    def _by_cpu(
        self,
        mixer: Mixer,
        given: Mapping[str, Tensor],
        params: Mapping[str, Number],
        dtype: torch.dtype,
    ) -> Mapping[str, Tensor]:
        """Native kernels, or torch where they have no backward, no such precision or no term."""
        reason = obstacle_of_tensors(given, dtype)
        trained = wanting_gradient(given) is not None
        if reason is None:
            try:
                if trained:
                    return self._training(mixer, "cpu")(given, params)
                return self._runner(mixer, "cpu")(given, params)
            except UnsupportedError as error:
                reason = str(error)
        warn_of_torch(mixer.name, reason, trained)
        return by_reference(mixer, given, params, dtype)

    def is_one_by_one(self, names: Collection[str], device: torch.device) -> bool:
        """Whether documents get a call each: for last states, or where one call would be slow.

        ``names``: the inputs that are given.
        """
        from ..compiler.mixers.pack.pack_sequences import last_outputs

        if self._has_last is None:
            self._has_last = bool(last_outputs(self.mixer))
        if self._has_last or not any(name in names for name in self.packed().per_document):
            return self._has_last
        blocks = device.type != "meta" and choose(self.backend, device) in _IN_BLOCKS
        return blocks and self._loses_chunks()

    def _loses_chunks(self) -> bool:
        """Whether initial values of documents, given amid the row, keep a state from chunks."""
        if self._chunks_lost is None:
            whole, packed = (schedules(m) for m in (self.mixer, self.packed().mixer))
            self._chunks_lost = "chunk" in whole and "chunk" not in packed
        return self._chunks_lost

    def by_document(
        self,
        tensors: Mapping[str, Tensor],
        params: Mapping[str, Number],
        cu_seqlens: Tensor | Mapping[str, Tensor],
    ) -> dict[str, Tensor]:
        """Each document by a call of its own; what has one value for each has them as its batch."""
        from ..compiler.mixers.pack.pack_recurrence import per_document
        from ..compiler.mixers.pack.packing_plan import families_of

        families = families_of(self.mixer)
        tensors = in_autocast(self.multiplied, tensors)
        names = tuple(entry.name for entry in per_document(self.mixer, families))
        edges = checked_edges(families, self.mixer, cu_seqlens, tensors, params)
        check_documents(self.mixer, names, tensors, edges, one_row=True)
        sizes = row_sizes(self.mixer, names, tensors, params)
        return one_by_one(self.mixer, tensors, edges, sizes, names, lambda own: self(own, params))

    def packed(self) -> Packing:
        """The mixer for documents in one row; UnsupportedError where a term has no such form."""
        from ..compiler.mixers.pack.pack_sequences import packing

        if self._packing is None:
            self._packing = packing(self.mixer)
        return self._packing

    def _runner(self, mixer: Mixer, chosen: Chosen) -> Runner:
        packed = mixer is not self.mixer
        if packed not in self._runners:
            self._runners[packed] = kernel_runner(mixer, chosen, self.tuned, self.few_rows)
        return self._runners[packed]

    def _training(self, mixer: Mixer, chosen: Chosen) -> Training:
        """The mixer, or its packed form, with a backward pass by kernels."""
        from .training import Training

        packed = mixer is not self.mixer
        if packed not in self._trainings:
            kept = "all" if packed else self.kept
            self._trainings[packed] = Training(
                mixer,
                lambda made, tuned=None: kernel_runner(made, chosen, tuned),
                chosen != "cpu",
                kept,
                tuned=self.tuned,
            )
        return self._trainings[packed]


def schedules(mixer: Mixer) -> frozenset[str]:
    """How the kernels of a mixer go about it; none where a term can't be lowered."""
    from ..compiler.pipeline import lower

    try:
        return frozenset(kernel.schedule for kernel in lower(mixer, {}, "float32").kernels)
    except UnsupportedError:
        return frozenset()


def in_dtype(
    results: Mapping[str, Tensor], dtype: torch.dtype, wide: frozenset[str] = frozenset()
) -> dict[str, Tensor]:
    """The results with the real ones in ``dtype``, but those that have one of their own."""
    return {
        name: result.to(dtype) if result.is_floating_point() and name not in wide else result
        for name, result in results.items()
    }


def by_backend(
    mixer: Mixer, given: Mapping[str, Tensor], params: Mapping[str, Number], chosen: Chosen
) -> dict[str, Tensor]:
    """One run with all params set, in the dtypes that the backend itself gives."""
    if chosen == "reference":
        return by_reference(mixer, given, params, working_dtype(mixer, given))
    fixed, runtime = fixed_and_runtime(mixer, params)
    trained = wanting_gradient(given) is not None
    at_defaults = _training_at_defaults if trained else _kernels_at_defaults
    return dict(at_defaults(override(mixer, fixed), chosen)(given, runtime))


@lru_cache(maxsize=32)
def _kernels_at_defaults(mixer: Mixer, chosen: Chosen) -> Runner:
    """Kernels of which one runner serves all sizes."""
    return kernel_runner(mixer, chosen)


@lru_cache(maxsize=32)
def _training_at_defaults(mixer: Mixer, chosen: Chosen) -> Training:
    """The same with a backward pass."""
    from .training import Training

    return Training(mixer, lambda made: kernel_runner(made, chosen), chosen != "cpu")


def fixed_and_runtime(
    mixer: Mixer, params: Mapping[str, Number]
) -> tuple[dict[str, Number], dict[str, Number]]:
    """Params that are fixed when a mixer is loaded, and those of each call."""
    runtime = {p.name: params[p.name] for p in mixer.params if p.runtime and p.name in params}
    return {name: value for name, value in params.items() if name not in runtime}, runtime
