"""A mixer called segment by segment: what one call hands over, the next one takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property, partial
from itertools import pairwise
from typing import TYPE_CHECKING, cast

from ..ir.binding import bind_sizes
from ..ir.errors import ArgumentError, UnsupportedError
from ..ir.expression import Kind
from ..runtime import arguments
from ..runtime.backends import Backend
from ..runtime.packing import boundaries
from ..runtime.rows import Rows
from ..runtime.running import Execution
from .keeping import Keys, first_segment, later_segment
from .state import SequenceState

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from ..compiler.mixers.resume.continue_sequence import Continued
    from ..ir.binding import Number
    from ..ir.mixer import Mixer


# Segments of up to this many rows go row by row; longer ones as a whole sequence does.
FEW_ROWS = 8


class Stepping:
    """The two mixers of a mixer over segments, and their kernels, kept from call to call."""

    def __init__(
        self, mixer: Mixer, backend: Backend, execution: type[Execution] = Execution
    ) -> None:
        """Nothing is generated before the first call; ``execution`` is what runs the mixers."""
        self.mixer = mixer
        self.backend: Backend = backend
        self._new_execution = execution
        self._executions: dict[tuple[bool, bool, int], Execution] = {}

    def __call__(
        self,
        inputs: tuple[object, ...],
        named: Mapping[str, object],
        state: SequenceState | None,
        one_row: bool,
    ) -> tuple[dict[str, Tensor], SequenceState]:
        """The outputs by name and the state after the segment.

        Args:
            inputs, named: as for the mixer; those of ``initial`` are for the first segment only.
            state: what the segment before handed over; None for the first.
            one_row: whether the segment is one row, whose axis the inputs may leave out.

        Raises:
            UnsupportedError: a term that needs rows which a segment does not have.
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
        """The first segment of documents that lie end to end; the state has them as its batch."""
        if self.continued.keys:
            raise UnsupportedError(
                f"{self.mixer.name} keeps keys, and those of documents differ in number: call it "
                "with each document by itself where a state is to be returned"
            )
        tensors, params = arguments.by_name(self.mixer, inputs, named)
        results = self._execution(True, None).by_document(tensors, params, cu_seqlens)
        ends = (
            cu_seqlens
            if isinstance(cu_seqlens, Mapping)
            else {self.continued.axis.root: cu_seqlens}
        )
        lengths = [
            end - start for start, end in pairwise(boundaries(ends[self.continued.axis.root]))
        ]
        results, after = self._results(results, self._like(tensors), None, 0, False)
        t = lengths[0] if len(set(lengths)) == 1 else tuple(lengths)
        return results, after.after_rows(t)

    # ------------------------------------------------------------------------ what is run

    @cached_property
    def continued(self) -> Continued:
        """The mixers over a segment."""
        from ..compiler.mixers.resume.continue_sequence import continue_sequence

        return continue_sequence(self.mixer)

    @cached_property
    def source(self) -> str:
        """Tells the states of this mixer, with these params, from those of others."""
        from ..autotune.results.stored import spec_hash

        return spec_hash(self.mixer)

    def _execution(self, first: bool, rows: int | None, part: int = 0) -> Execution:
        """What runs a segment, or a part of it; a few rows have kernels of their own."""
        key = (first, rows is not None and rows <= FEW_ROWS, part)
        if key not in self._executions:
            mixer = self.continued.start if first else self.continued.parts[part]
            name = f"{'first' if first else part}{'-few' * key[1]}"
            self._executions[key] = self._new_execution(
                mixer, self.backend, tuned=self.mixer, few_rows=key[1], part=name
            )
        return self._executions[key]

    def part(self, name: str) -> Execution:
        """What runs a part of the mixer over segments, by the name that it has."""
        stem, _, few = name.partition("-")
        rows = 1 if few else None
        return (
            self._execution(True, rows)
            if stem == "first"
            else self._execution(False, rows, int(stem))
        )

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
    def rows(self) -> Rows:
        """Where the rows of the sequence lie."""
        return Rows(self.mixer, self.continued.axis)

    @cached_property
    def states_out(self) -> tuple[str, ...]:
        """The outputs that are handed over too, real ones."""
        handed = {c.after for c in self.continued.carried if c.kind is Kind.REAL}
        return tuple(o.name for o in self.mixer.outputs if o.name in handed)

    # ------------------------------------------------------------------------------- calls

    def _repeated(
        self,
        inputs: tuple[object, ...],
        named: Mapping[str, object],
        state: SequenceState | None,
        one_row: bool,
    ) -> tuple[dict[str, Tensor], SequenceState] | None:
        """A call like an earlier one, straight to the kernels; None where there was none."""
        if self.continued.keys:  # there is one row more of them at each step
            return None
        given: dict[str, object] = {**dict(zip(self._order, inputs, strict=False)), **named}
        found = self.rows.quickly(given, one_row)
        if found is None or len(given) != len(inputs) + len(named):
            return None
        rows, left_out = found
        execution = self._execution(state is None, rows)
        values = (*given.values(), *self._handed(state))
        made = execution.again(values, tuple(given))
        if made is None:
            return None
        results = dict(zip((o.name for o in execution.mixer.outputs), made, strict=True))
        return self._results(results, self._like(given), state, rows, left_out)

    def _run(
        self,
        inputs: tuple[object, ...],
        named: Mapping[str, object],
        state: SequenceState | None,
        one_row: bool,
    ) -> tuple[dict[str, Tensor], SequenceState]:
        """A call with everything checked."""
        tensors, params = self._given(inputs, named, state)
        left_out = False
        if one_row:
            tensors, left_out = self.rows.of_a_step(tensors)
        given = dict(tensors)
        if state is not None:
            names = [entry.before for entry in self.continued.carried]
            names += [self.continued.rows_before] if self.continued.rows_before else []
            handed = self._handed(state, arguments.device_of(tensors))
            given |= dict(zip(names, handed, strict=True))
            if not self.continued.keys:
                self._check_fit(tensors, given, params)
        rows = self.rows.count(self._later, tensors, params)
        if self.continued.keys:
            results, keys = self._with_keys(given, params, state, rows)
            return self._results(results, self._like(tensors), state, rows, left_out, keys)
        execution = self._execution(state is None, rows)
        results = execution(given, params)
        if not params:
            said = (*zip(self._order, inputs, strict=False), *named.items())
            order = tuple(name for name, _ in said)
            if all(type(value) is type(tensors.get(name)) for name, value in said):
                values = (*(tensors[name] for name in order), *list(given.values())[len(tensors) :])
                execution.remember(values, (*order, *list(given)[len(tensors) :]), order)
        return self._results(results, self._like(tensors), state, rows, left_out)

    def _with_keys(
        self,
        given: dict[str, Tensor],
        params: dict[str, Number],
        state: SequenceState | None,
        rows: int,
    ) -> tuple[dict[str, Tensor], Keys]:
        """A segment whose keys later ones see."""
        if state is None:
            return first_segment(self.continued, self._execution(True, rows), given, params)
        run = partial(self._execution, False, rows)
        return later_segment(self.continued, run, given, params, state)

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
        if self.states_out:
            return arguments.working_dtype(self.mixer, cast("Mapping[str, Tensor]", tensors))
        return None

    def _results(
        self,
        results: dict[str, Tensor],
        dtype: torch.dtype | None,
        state: SequenceState | None,
        rows: int,
        left_out: bool,
        keys: Keys | None = None,
    ) -> tuple[dict[str, Tensor], SequenceState]:
        handed = {c.name: results[c.after] for c in self.continued.carried}
        if dtype is not None:
            for name in self.states_out:
                results[name] = results[name].to(dtype)
        before = 0 if state is None else state.t
        t = before + rows if isinstance(before, int) else tuple(one + rows for one in before)
        kept = Keys.of(None) if keys is None else keys
        handed |= kept.tensors
        after = SequenceState(self.mixer.name, t, handed, self.source, kept.rooms)
        if left_out:
            for name, place in self.rows.outputs.items():
                results[name] = results[name].squeeze(place)
        return results, after

    def _handed(
        self, state: SequenceState | None, device: str | torch.device = "cpu"
    ) -> list[Tensor]:
        """The inputs of a later segment that the state gives, in their order."""
        import torch

        if state is None:
            return []
        handed = [state[entry.name] for entry in self.continued.carried]
        if self.continued.rows_before is not None:
            if not isinstance(state.t, int):
                raise UnsupportedError(
                    f"{self.mixer.name} reads positions, and the documents of this state have "
                    f"{', '.join(map(str, state.t))} rows so far: continue from the states of "
                    "documents of one length"
                )
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


__all__ = ["Stepping"]
