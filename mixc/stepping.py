"""A mixer called stretch by stretch: what one call hands over, the next one takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, cast

from . import arguments
from .ir.binding import bind_sizes, expected_layout_text
from .ir.errors import ArgumentError, UnsupportedError
from .ir.expression import Kind
from .running import Backend, Execution
from .state import SequenceState

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from .compiler.passes.continue_sequence import Continued
    from .ir.binding import Number
    from .ir.mixer import Input, Layout, Mixer


# Stretches of up to this many rows go row by row; longer ones as a whole sequence does.
FEW_ROWS = 8


class Stepping:
    """The two mixers of a mixer over stretches, and their kernels, kept from call to call."""

    def __init__(self, mixer: Mixer, backend: Backend) -> None:
        """Nothing is generated before the first call."""
        self.mixer = mixer
        self.backend: Backend = backend
        self._executions: dict[tuple[bool, bool], Execution] = {}

    def __call__(
        self,
        inputs: tuple[object, ...],
        named: Mapping[str, object],
        state: SequenceState | None,
        one_row: bool,
    ) -> tuple[dict[str, Tensor], SequenceState]:
        """The outputs by name and the state after the stretch.

        Args:
            inputs, named: as for the mixer; those of ``initial`` are for the first stretch only.
            state: what the stretch before handed over; None for the first.
            one_row: whether the stretch is one row, whose axis the inputs may leave out.

        Raises:
            UnsupportedError: a term that needs rows which a stretch does not have.
            ArgumentError: a state of another mixer, or tensors that do not fit it.
        """
        self._check(state)
        again = self._repeated(inputs, named, state, one_row)
        return self._run(inputs, named, state, one_row) if again is None else again

    def documents(
        self,
        inputs: tuple[object, ...],
        named: Mapping[str, object],
        cu_seqlens: Tensor | Mapping[str, Tensor],
    ) -> tuple[dict[str, Tensor], SequenceState]:
        """The first stretch of documents that lie end to end; the state has them as its batch."""
        tensors, params = arguments.by_name(self.mixer, inputs, named)
        results = self._execution(True, None).by_document(tensors, params, cu_seqlens)
        ends = (
            cu_seqlens
            if isinstance(cu_seqlens, Mapping)
            else {self.continued.axis.root: cu_seqlens}
        )
        lengths = [int(n) for n in ends[self.continued.axis.root].diff()]
        results, after = self._results(results, self._like(tensors), None, 0, False)
        t = lengths[0] if len(set(lengths)) == 1 else tuple(lengths)
        return results, replace(after, t=t)

    # ------------------------------------------------------------------------ what is run

    @cached_property
    def continued(self) -> Continued:
        """The mixers over a stretch."""
        from .compiler.passes.continue_sequence import continue_sequence

        return continue_sequence(self.mixer)

    @cached_property
    def source(self) -> str:
        """Tells the states of this mixer, with these params, from those of others."""
        from .autotune.stored import spec_hash

        return spec_hash(self.mixer)

    def _execution(self, first: bool, rows: int | None) -> Execution:
        """What runs a stretch; a few rows have kernels of their own."""
        key = (first, rows is not None and rows <= FEW_ROWS)
        if key not in self._executions:
            mixer = self.continued.start if first else self.continued.more
            self._executions[key] = Execution(
                mixer, self.backend, tuned=self.mixer, few_rows=key[1]
            )
        return self._executions[key]

    @cached_property
    def _later(self) -> Mixer:
        """The mixer as a later call names its inputs: those of ``initial`` may be left out."""
        only = self.continued.only_first
        return replace(
            self.mixer,
            inputs=tuple(replace(i, default=0) if i.name in only else i for i in self.mixer.inputs),
        )

    @cached_property
    def _order(self) -> tuple[str, ...]:
        """The inputs' names."""
        return tuple(entry.name for entry in self.mixer.inputs)

    @cached_property
    def _rows_at(self) -> dict[str, tuple[int, int]]:
        """Where inputs have the sequence's axis by itself, and how many axes they have."""
        places = {i.name: (self._place(i.layout), len(i.layout)) for i in self.mixer.inputs}
        return {name: (p, axes) for name, (p, axes) in places.items() if p is not None}

    @cached_property
    def _rows_out(self) -> dict[str, int]:
        """Where outputs have the sequence's axis by itself."""
        return {o.name: p for o in self.mixer.outputs if (p := self._place(o.layout)) is not None}

    @cached_property
    def _states_out(self) -> tuple[str, ...]:
        """The outputs that are handed over too, real ones."""
        handed = {c.after for c in self.continued.carried if c.kind is Kind.REAL}
        return tuple(o.name for o in self.mixer.outputs if o.name in handed)

    def _place(self, layout: Layout) -> int | None:
        has = self.continued.axis.has
        return next((p for p, dims in enumerate(layout) if len(dims) == 1 and has(dims[0])), None)

    # ------------------------------------------------------------------------------- calls

    def _repeated(
        self,
        inputs: tuple[object, ...],
        named: Mapping[str, object],
        state: SequenceState | None,
        one_row: bool,
    ) -> tuple[dict[str, Tensor], SequenceState] | None:
        """A call like an earlier one, straight to the kernels; None where there was none."""
        import torch

        given = {**dict(zip(self._order, inputs, strict=False)), **named}
        if len(given) != len(inputs) + len(named):
            return None
        rows, lacking, having = 1 if one_row else -1, 0, 0
        for name, (place, axes) in self._rows_at.items():
            value = given.get(name)
            if type(value) is not torch.Tensor:
                continue
            if one_row and value.dim() < axes:
                lacking += 1
                given[name] = value.unsqueeze(place)
            elif value.dim() != axes or (one_row and value.shape[place] != 1):
                return None
            else:
                having += 1
                rows = value.shape[place]
        if rows < 0 or (lacking and having):
            return None
        execution = self._execution(state is None, rows)
        if not execution.remembers:
            return None
        values = (*given.values(), *self._handed(state))
        results = execution.repeated(values, tuple(given))
        if results is None:
            return None
        return self._results(results, self._like(given), state, rows, lacking > 0)

    def _run(
        self,
        inputs: tuple[object, ...],
        named: Mapping[str, object],
        state: SequenceState | None,
        one_row: bool,
    ) -> tuple[dict[str, Tensor], SequenceState]:
        """A call with everything checked."""
        tensors, params = self._given(inputs, named, state)
        left_out = self._row_left_out(tensors) if one_row else False
        if one_row:
            tensors = {name: self._as_row(name, tensor) for name, tensor in tensors.items()}
        given = dict(tensors)
        if state is not None:
            names = [entry.before for entry in self.continued.carried]
            names += [self.continued.rows_before] if self.continued.rows_before else []
            given |= dict(zip(names, self._handed(state), strict=True))
            self._check_fit(tensors, given, params)
        rows = self._rows_of(tensors, params)
        execution = self._execution(state is None, rows)
        results = execution(given, params)
        if not params:
            said = (*zip(self._order, inputs, strict=False), *named.items())
            order = tuple(name for name, _ in said)
            if all(type(value) is type(tensors.get(name)) for name, value in said):
                values = (*(tensors[name] for name in order), *list(given.values())[len(tensors) :])
                execution.remember(values, (*order, *list(given)[len(tensors) :]), order)
        return self._results(results, self._like(tensors), state, rows, left_out)

    def _given(
        self,
        inputs: tuple[object, ...],
        named: Mapping[str, object],
        state: SequenceState | None,
    ) -> tuple[dict[str, Tensor], dict[str, Number]]:
        if state is None:
            return arguments.by_name(self.mixer, inputs, named)
        tensors, params = arguments.by_name(self._later, inputs, named)
        for name in self.continued.only_first:
            if name in tensors:
                raise ArgumentError(
                    f"{name}: it is what {self.mixer.name} starts from, and this call continues "
                    "from a state: leave it out"
                )
        return tensors, params

    def _like(self, tensors: Mapping[str, object]) -> torch.dtype | None:
        """The dtype of the outputs, where an output is a state too (which keeps its own)."""
        if self._states_out:
            for entry in self.mixer.inputs:
                if entry.kind is Kind.REAL and entry.dtype is None and entry.name in tensors:
                    return cast("torch.Tensor", tensors[entry.name]).dtype
        return None

    def _results(
        self,
        results: dict[str, Tensor],
        dtype: torch.dtype | None,
        state: SequenceState | None,
        rows: int,
        left_out: bool,
    ) -> tuple[dict[str, Tensor], SequenceState]:
        handed = {c.name: results[c.after] for c in self.continued.carried}
        if dtype is not None:
            for name in self._states_out:
                results[name] = results[name].to(dtype)
        before = 0 if state is None else state.t
        t = before + rows if isinstance(before, int) else tuple(one + rows for one in before)
        after = SequenceState(self.mixer.name, t, handed, self.source)
        if left_out:
            for name, place in self._rows_out.items():
                results[name] = results[name].squeeze(place)
        return results, after

    def _handed(self, state: SequenceState | None) -> list[Tensor]:
        """The inputs of a later stretch that the state gives, in their order."""
        import torch

        if state is None:
            return []
        handed = list(state.tensors.values())
        if self.continued.rows_before is not None:
            if not isinstance(state.t, int):
                raise UnsupportedError(
                    f"{self.mixer.name} reads positions, and the documents of this state have "
                    f"{', '.join(map(str, state.t))} rows so far: continue from the states of "
                    "documents of one length"
                )
            device = handed[0].device if handed else None
            handed.append(torch.tensor(state.t, dtype=torch.int32, device=device))
        return handed

    # ---------------------------------------------------------------------------- checking

    def _check(self, state: SequenceState | None) -> None:
        if state is None:
            return
        if not isinstance(state, SequenceState):
            raise ArgumentError(
                f"state: expected what an earlier call returned, got {type(state).__name__}"
            )
        if state.source != self.source:
            what = f"a state of {state.mixer}"
            if state.mixer == self.mixer.name:
                what += " as another spec or other params make it"
            raise ArgumentError(
                f"state: expected a state of {self.mixer.name}, got {what}; a state continues the "
                "mixer that returned it"
            )

    def _check_fit(
        self,
        tensors: Mapping[str, Tensor],
        given: Mapping[str, Tensor],
        params: Mapping[str, Number],
    ) -> None:
        """Say it in terms of the state where it is that which does not fit."""
        names = {entry.before: entry.name for entry in self.continued.carried}
        try:
            arguments.device_of(given)
            bind_sizes(self.continued.more, {n: tuple(t.shape) for n, t in given.items()}, params)
        except ArgumentError as error:
            name, colon, rest = str(error).partition(": ")
            if name not in names:
                raise
            raise ArgumentError(
                f"state: {names[name]} does not fit the inputs{colon}{rest}; a state continues "
                "the batch that made it, on its device (state.to)"
            ) from None

    def _row_left_out(self, tensors: Mapping[str, Tensor]) -> bool:
        """Whether the inputs of a step leave the sequence's axis out, all or none of them."""
        found = {
            name: tensors[name].dim() < len(self.mixer.input(name).layout)
            for name in self._rows_at
            if name in tensors
        }
        if len(set(found.values())) > 1:
            having, lacking = (
                next(n for n, x in found.items() if x is out) for out in (False, True)
            )
            axis = self._axis_of(having)
            raise ArgumentError(
                f"step: expected {axis} in every input or in none, got it in {having} and not in "
                f"{lacking}"
            )
        return any(found.values())

    def _axis_of(self, name: str) -> str:
        return self.mixer.input(name).layout[self._rows_at[name][0]][0]

    def _as_row(self, name: str, tensor: Tensor) -> Tensor:
        entry: Input = self.mixer.input(name)
        if name not in self._rows_at:
            return tensor
        place, axes = self._rows_at[name]
        if tensor.dim() == axes - 1:
            return tensor.unsqueeze(place)
        if tensor.dim() == axes and tensor.shape[place] != 1:
            axis = self._axis_of(name)
            raise ArgumentError(
                f"{name}: a step is one row: expected {expected_layout_text(entry)} with "
                f"{axis} = 1 or without {axis}, got {list(tensor.shape)}; for more rows call "
                f"{self.mixer.name}(..., state=state, return_state=True)"
            )
        return tensor

    # -------------------------------------------------------------------------------- rows

    def _rows_of(self, tensors: Mapping[str, Tensor], params: Mapping[str, Number]) -> int:
        """How many rows a stretch has."""
        for name, (place, axes) in self._rows_at.items():
            if name in tensors and tensors[name].dim() == axes:
                return tensors[name].shape[place]
        shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        return bind_sizes(self._later, shapes, params)[self.continued.axis.root]


__all__ = ["Stepping"]
