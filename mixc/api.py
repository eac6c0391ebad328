"""Mixers on torch tensors: load a spec, call it, look at what was generated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from os import PathLike, fspath
from typing import TYPE_CHECKING, Any, get_args

from .compiler.language.find import find_spec
from .compiler.language.load import load_file
from .ir.errors import ArgumentError, UnsupportedError
from .ir.expression import Kind
from .ir.mixer import Mixer
from .operators.execution import OperatorExecution
from .operators.signature import text_of, told
from .runtime import arguments, compiling
from .runtime.backends import Backend, Chosen, choose
from .runtime.kept import Kept, checked_kept
from .runtime.overrides import Values, override
from .runtime.results import result_class
from .stepping.state import SequenceState, register_as_tree
from .stepping.stepping import Stepping

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from .backends.triton.binary_report import KernelReport
    from .runtime.compiling import Generated
    from .runtime.lowering import Lowering


def load(
    name_or_path: str | PathLike[str],
    /,
    *,
    backend: Backend = "auto",
    kept: Kept = "auto",
    **params: Values,
) -> LoadedMixer:
    """A mixer to call on torch tensors.

    Args:
        name_or_path: a name that ``mixc list`` prints, or the path of a spec.
        backend: ``auto`` runs cuda tensors with Triton and cpu tensors with native kernels (with
            the reference in float64); ``triton``, ``cpu``,
            ``interpreter`` (Triton's, on the cpu, slow) and ``reference`` are run as named.
        kept: what training by kernels keeps of a recurrence: ``all`` that its backward pass reads
            of each row; the ``least``, states now and then, from which rows are made again segment
            by segment; ``auto``, all where that is little. Or the rows of a segment. For rows that
            do not reach back any further than a state. Inside ``torch.compile``, where sizes are
            open, ``auto`` is ``all``, and for less the call is made once more on the way back.
        params: values for the spec's params in place of their defaults.

    Raises:
        SpecError: the spec is not there, or not right.
        ArgumentError: a param or a backend that there is not.

    >>> import torch
    >>> q, k, v = torch.zeros(1, 4, 5, 8), torch.zeros(1, 2, 5, 8), torch.ones(1, 2, 5, 16)
    >>> load("causal")(q, k, v).shape
    torch.Size([1, 4, 5, 16])
    """
    if backend not in get_args(Backend):
        known = ", ".join(get_args(Backend))
        raise ArgumentError(f"backend: expected one of {known}, got {backend!r}.")
    return _read(name_or_path, params, backend, checked_kept(kept))


def compile_source(
    name_or_path: str | PathLike[str],
    /,
    target: str = "cuda:90",
    dtype: str = "bfloat16",
    sizes: Mapping[str, int] | None = None,
    **params: Values,
) -> str:
    """The Triton module that mixc generates for a spec, as text.

    ``sizes`` fixes feature sizes (``{"D": 128}``); one that is left out is 64. Raises SpecError,
    ArgumentError, or UnsupportedError where a term can't be lowered.

    >>> source = compile_source("causal", sizes={"D": 64, "E": 64})
    >>> "@triton.jit" in source
    True
    """
    return _read(name_or_path, params).source(target, dtype, sizes)


def export_source(
    name_or_path: str | PathLike[str],
    /,
    dtype: str = "bfloat16",
    sizes: Mapping[str, int] | None = None,
    *,
    gradients: bool = True,
    optional: Sequence[str] = (),
    **params: Values,
) -> str:
    """One file for a spec that needs torch and triton only: kernels, gradients, a self-test.

    ``sizes`` as for ``compile_source``; ``optional`` names inputs with a default that the file's
    function takes. Without ``gradients``, or where none are derived, the file is forward only.

    >>> "class CausalFunction(torch.autograd.Function):" in export_source("causal")
    True
    """
    from .export.exporting import export

    mixer = _read(name_or_path, params).mixer
    return export(mixer, sizes or {}, dtype, gradients=gradients, optional=optional).source


def _read(
    name_or_path: str | PathLike[str],
    params: Mapping[str, Values],
    backend: Backend = "auto",
    kept: Kept = "auto",
) -> LoadedMixer:
    mixer = load_file(find_spec(fspath(name_or_path)))
    return LoadedMixer(override(mixer, params), backend, kept)


class LoadedMixer:
    """A spec with its params set, callable on torch tensors.

    Inputs are passed in the spec's order or by name, and run-time params by name: as numbers, or
    real ones as tensors without axes, which have gradients. One output comes back as a tensor,
    several as a named tuple, in the dtype of the first real input.
    With ``cu_seqlens`` (integers [documents + 1], from 0 to the length) documents lie end to end
    along the sequence and don't see each other; cross attention takes one for each axis,
    ``{"I": ..., "J": ...}``.

    A sequence may come in segments: with ``return_state`` a call gives (outputs, state), and
    ``state`` continues from one. Any split gives what one pass gives:

    >>> import torch
    >>> mixer = load("hgrn", backend="reference")
    >>> x, g = torch.ones(1, 5, 2), torch.full((1, 5, 2), 0.5).log()
    >>> (o, h), state = mixer(x[:, :3], g[:, :3], return_state=True)
    >>> (o, h), state = mixer.step(x[:, 3], g[:, 3], state=state)
    >>> o, state
    (tensor([[1.8750, 1.8750]]), <state of hgrn after 4 rows: h: [1, 2] float32>)
    """

    def __init__(self, mixer: Mixer, backend: Backend = "auto", kept: Kept = "auto") -> None:
        """Wrap a mixer; ``load`` reads one from a spec."""
        self.mixer = mixer
        self.backend: Backend = backend
        self.kept: Kept = kept
        self.inputs = tuple(entry.name for entry in mixer.inputs)
        self.outputs = tuple(entry.name for entry in mixer.outputs)
        self._execution = OperatorExecution(mixer, backend, kept=kept)
        self._stepping = Stepping(mixer, backend, OperatorExecution)
        self._result = result_class(mixer.name, self.outputs) if len(self.outputs) > 1 else None
        self._told = told(mixer, text_of(mixer, backend, kept=kept))
        from torch.compiler import is_compiling

        self._is_traced = is_compiling
        register_as_tree()
        self._numbers = [p.name for p in mixer.params if p.runtime and p.kind is Kind.REAL]
        self._by_tensors: dict[tuple[str, ...], LoadedMixer] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        """Copied and pickled as the spec that was read; kernels are built or found again."""
        return LoadedMixer, (self.mixer, self.backend, self.kept)

    def __repr__(self) -> str:
        where = "" if self.backend == "auto" else f" by {self.backend}"
        return f"{self.mixer.name}({', '.join(self.inputs)}) -> {', '.join(self.outputs)}{where}"

    def __call__(
        self,
        /,
        *inputs: object,
        cu_seqlens: Tensor | Mapping[str, Tensor] | None = None,
        state: SequenceState | None = None,
        return_state: bool = False,
        **named: object,
    ) -> Any:
        """Run the mixer; see the class.

        Args:
            inputs, named: tensors with the axes that the spec gives them, [B, T, H, D] and so on;
                T may be any length, 0 too. What has no T (weights) is given at each call; what
                only ``initial`` reads is given without ``state`` only.
            cu_seqlens: int32 or int64 [documents + 1]. What ``initial`` reads with the batch axis B
                has the documents along it; so have last states, as outputs and in the state.
            state: what an earlier call returned; the rows given follow those it has seen.
            return_state: whether to return (outputs, state after the last row).

        Raises:
            ArgumentError: tensors that do not fit the spec, or a state of another mixer or batch.
            UnsupportedError: a state is wanted, and a term needs the whole sequence.
        """
        if self._is_traced():
            return self._traced(inputs, named, cu_seqlens, state, return_state)
        if self._numbers and (given := arguments.tensor_params(self._numbers, named)):
            more: dict[str, Any] = {**named, **given, "state": state, "return_state": return_state}
            return self._with_inputs(tuple(given))(*inputs, cu_seqlens=cu_seqlens, **more)
        if state is not None or return_state:
            if cu_seqlens is not None and state is not None:
                raise ArgumentError(
                    "cu_seqlens: documents begin anew, and a state continues: give one of the two"
                )
            if cu_seqlens is not None:
                results, after = self._stepping.documents(inputs, named, cu_seqlens)
            else:
                results, after = self._stepping(inputs, named, state, one_row=False)
            return (self._outputs(results), after) if return_state else self._outputs(results)
        plain = cu_seqlens is None
        values, names = (*inputs, *named.values()), tuple(named)
        again = self._execution.again(values, names) if plain else None
        if again is not None:
            return again[0] if self._result is None else self._result(*again)
        tensors, params = arguments.by_name(self.mixer, inputs, named)
        found = self._execution(tensors, params, cu_seqlens)
        if plain and len(tensors) == len(values):
            self._execution.remember(values, (*self.inputs[: len(inputs)], *names), names)
        return self._outputs(found)

    def _traced(
        self,
        inputs: tuple[object, ...],
        named: Mapping[str, object],
        cu_seqlens: Tensor | Mapping[str, Tensor] | None,
        state: SequenceState | None,
        return_state: bool,
    ) -> Any:
        """The call under ``torch.compile``, which traces these lines."""
        from .operators.traced import traced, with_params

        if state is not None or return_state:
            if cu_seqlens is not None:
                raise UnsupportedError(
                    "cu_seqlens: what lengths documents have is not known to torch.compile, and a "
                    "state after them says it: keep the call out with torch.compiler.disable"
                )
            made, after = self._traced_segment(inputs, named, state, one_row=False)
            return (self._outputs(made), after) if return_state else self._outputs(made)
        given = self._by_name(inputs, named)
        found = traced(*with_params(self._told, given), cu_seqlens)
        return found[0] if self._result is None else self._result(*found[: len(self.outputs)])

    def _traced_segment(
        self,
        inputs: tuple[object, ...],
        named: Mapping[str, object],
        state: SequenceState | None,
        one_row: bool,
    ) -> tuple[dict[str, Tensor], SequenceState]:
        from .operators.traced import with_params
        from .operators.traced_segments import traced_segment

        given = self._by_name(inputs, named)
        return traced_segment(*with_params(self._told, given), state, one_row)

    def _by_name(
        self, inputs: tuple[object, ...], named: Mapping[str, object]
    ) -> dict[str, object]:
        if len(inputs) > len(self.inputs):
            raise ArgumentError(f"expected {len(self.inputs)} inputs, got {len(inputs)}")
        given = dict(zip(self.inputs, inputs, strict=False))
        for name, value in named.items():
            if name in given:
                raise ArgumentError(f"{name} is given twice, by position and by name")
            given[name] = value
        return given

    def step(
        self, /, *inputs: object, state: SequenceState | None = None, **named: object
    ) -> tuple[Any, SequenceState]:
        """One row: (outputs, state after it).

        Args:
            inputs, named: as for a call, with a sequence axis of length 1 ([B, 1, H, D]), or all
                without it ([B, H, D]); the outputs have it or lack it likewise.
            state: what the call for the rows before returned; None for the first row.

        Raises:
            ArgumentError: more than one row, tensors that do not fit, a state of another mixer.
            UnsupportedError: a term that needs the whole sequence, named.
        """
        if self._is_traced():
            results, after = self._traced_segment(inputs, named, state, one_row=True)
            return self._outputs(results), after
        if self._numbers and (given := arguments.tensor_params(self._numbers, named)):
            return self._with_inputs(tuple(given)).step(*inputs, state=state, **{**named, **given})
        results, after = self._stepping(inputs, named, state, one_row=True)
        return self._outputs(results), after

    def _with_inputs(self, params: tuple[str, ...]) -> LoadedMixer:
        """The mixer with run-time params as inputs, which have gradients."""
        from .compiler.mixers.derivative.params_as_inputs import params_as_inputs

        if params not in self._by_tensors:
            mixer = params_as_inputs(self.mixer, params)
            self._by_tensors[params] = LoadedMixer(mixer, self.backend, self.kept)
        return self._by_tensors[params]

    @property
    def only_first(self) -> frozenset[str]:
        """The inputs of the first segment alone: what only ``initial`` reads."""
        if self._is_traced():
            from .operators.segments import segments

            return frozenset(segments(self._told.text, False).only_first)
        return frozenset(self._stepping.continued.only_first)

    def _outputs(self, results: Mapping[str, Tensor]) -> Any:
        values = [results[name] for name in self.outputs]
        return values[0] if self._result is None else self._result(*values)

    def backend_for(self, device: str | torch.device, *, gradients: bool = False) -> Chosen:
        """Which backend runs tensors on ``device``: triton, cpu, interpreter or reference.

        A CPU runs by the reference, with torch, what kernels have no term for, and with
        ``gradients`` what has no derivative by kernels; ``mixc show`` names the term.
        """
        import torch

        chosen = choose(self.backend, torch.device(device))
        if chosen != "cpu" or self.backend != "auto":
            return chosen
        found = self._lowering
        by_torch = found.obstacle is not None or (gradients and found.without_gradient is not None)
        return "reference" if by_torch else chosen

    @cached_property
    def _lowering(self) -> Lowering:
        from .runtime.lowering import lowering

        return lowering(self.mixer, dtype="float32")

    def source(
        self,
        target: str = "cuda:90",
        dtype: str = "bfloat16",
        sizes: Mapping[str, int] | None = None,
    ) -> str:
        """The generated Triton module, as text; see ``compile_source``."""
        return self._generated(target, dtype, sizes).source

    def report(
        self,
        target: str = "cuda:90",
        dtype: str = "bfloat16",
        sizes: Mapping[str, int] | None = None,
    ) -> list[KernelReport]:
        """What each kernel costs on a target: registers, spilled and shared bytes, instructions.

        Compiles in processes of their own; no GPU is needed.
        """
        return compiling.report(self._generated(target, dtype, sizes), [target])

    def _generated(self, target: str, dtype: str, sizes: Mapping[str, int] | None) -> Generated:
        return compiling.generate(self.mixer, sizes or {}, dtype, [target])

    def show(self) -> None:
        """Print what ``mixc show`` prints: equations, key ranges, the mask, the plan."""
        from .runtime.lowering import lowering
        from .show.mask_picture import pictures
        from .show.written import console, write

        write(console(), self.mixer, lowering(self.mixer), pictures(self.mixer))
