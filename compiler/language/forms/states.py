"""The states of a recurrence: what is listed, what starts them, and the axes that flow in."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from ....ir.errors import SpecError
from ....ir.expression import Expr, Kind, Literal, Ref, Span
from ....ir.mixer import State
from ..names.definitions import resolve
from ..names.inputs import DTYPES
from ..names.layouts import known_dim, read_layout
from ..names.names import declare
from ..names.scope import Scope
from ..schema import RecurrenceSpec, StateSpec, Word
from ..terms.complexes import PARTS, Complex, pair, together
from ..text.positions import Text, clip
from ..text.source import Source, closest, listed


@dataclass(frozen=True)
class Place:
    """Where a line of the step stands."""

    source: Source
    span: Span


Named = Callable[[str, str], str]  # what a name, or its part, is called in the mixer


@dataclass
class StateDraft:
    """A state while its axes, its kind and whether it is complex are being found."""

    word: Word
    listed: tuple[str, ...]
    dtype: str | None
    initial: Expr | None
    complex: bool
    kind: Kind
    dims: list[frozenset[str]] = field(default_factory=list)  # of the state, or of its two parts

    @property
    def axes(self) -> frozenset[str]:
        """The axes of the state, both parts together."""
        return frozenset[str]().union(*self.dims)


class States:
    """The states of one recurrence.

    Axes only grow: a state has the listed ones, those of its initial value, and those of every
    value assigned to it, except the axes of the loops around (a value with them is its row there).
    """

    def __init__(self, spec: RecurrenceSpec, over: str, scope: Scope, named: Named) -> None:
        self.over, self.scope, self.named = over, scope, named
        self.everywhere = frozenset[str]()  # what flows into all of them
        self.drafts = {str(key): self._draft(key, value) for key, value in spec.state.items()}
        if not self.drafts:
            raise spec.key("state").error("the recurrence has no state", do="list one: `S: [D, E]`")
        for key, text in spec.initial.items():
            self._initial(key, text)

    def _draft(self, key: Word, value: tuple[object, ...] | StateSpec) -> StateDraft:
        declare(key, self.scope.child())
        full = value if isinstance(value, StateSpec) else None
        items = full.dims if full is not None else value
        dims = []
        for item, product in zip(items, read_layout(items), strict=True):  # type: ignore[arg-type]
            assert isinstance(item, Text)
            if len(product) != 1:
                raise item.error("an axis of a state is one dim", allowed="`[D, E]`")
            dims.append(known_dim(item, self.scope.context.dims.known))
            self.scope.context.dims.use(dims[-1], item.span)
            self._check_time(item, key, dims[-1])
        dtype = None if full is None or full.dtype is None else _dtype(full.dtype)
        kind = Kind.BOOL if dtype is None else DTYPES[dtype]
        pair = full is not None and full.complex
        own = frozenset(dims)
        return StateDraft(key, tuple(dims), dtype, None, pair, kind, [own] * (1 + pair))

    def _check_time(self, place: Text, name: str, dim: str) -> None:
        if dim == self.over:
            found = f"the state `{name}` has {dim}, the axis of the recurrence"
        elif self._is_time(dim):
            found = f"the state `{name}` has {dim}, a position of the recurrence's own sequence"
        else:
            return
        raise place.error(
            found,
            allowed="axes of one row: channels, heads, batch",
            do=f"leave {dim} out: a state is the value of one row, carried to the next",
        )

    def _initial(self, key: Word, text: Text) -> None:
        if key not in self.drafts:
            raise key.text.error(
                f"`{clip(key)}` is no state of this recurrence",
                allowed=listed(self.drafts),
                do=closest(key, self.drafts),
            )
        draft = self.drafts[str(key)]
        value = resolve(f"the initial {key}", text, self.scope, pair=True)
        if self.over in value.axes:
            raise text.error(
                f"the initial value of `{key}` has {self.over}, the axis of the recurrence",
                allowed=f"any expression without {self.over}",
                do=f"read one row of it: `x[{self.over}=0]`",
            )
        if wrong := self._foreign(draft, value.axes):
            raise text.error(
                f"the initial value of `{key}` has {wrong[0]}, which the state does not list",
                allowed=f"[{', '.join(draft.listed)}], and batch and heads",
                do=f"list it, `{key}: [{', '.join([*draft.listed, wrong[0]])}]`, or sum over it",
            )
        draft.initial = value
        self.flow_in(key, value, ())

    def flow_in(self, name: str, value: Expr, loops: Iterable[str]) -> None:
        """Let the axes, the kind and the complexity of a value flow into a state."""
        draft, rows = self.drafts[name], {self.over, *loops}
        if isinstance(value, Complex) and not draft.complex:
            draft.complex, draft.dims = True, [self.everywhere | {*draft.listed}] * 2
            if draft.initial is not None:
                self.flow_in(name, draft.initial, ())
        for number, part in enumerate(pair(value)[: len(draft.dims)]):
            draft.dims[number] = self._merged(draft, draft.dims[number] | (part.axes - rows))
        draft.kind = max(draft.kind, value.kind)

    def flow_everywhere(self, axes: frozenset[str]) -> None:
        """Let axes flow into every state, whatever is assigned to it."""
        self.everywhere = axes
        for draft in self.drafts.values():
            draft.dims = [self._merged(draft, dims | axes) for dims in draft.dims]

    def _merged(self, draft: StateDraft, axes: frozenset[str]) -> frozenset[str]:
        """The axes without the head groups whose heads are there."""
        dims = self.scope.context.dims
        larger = {d for d in axes if d not in draft.listed and set(dims.larger(d)) & axes}
        return axes - larger

    def ref(self, name: str) -> Expr:
        """A state as the lines of the step see it."""
        draft = self.drafts[name]
        pairs = zip(self.names(name), draft.dims, strict=True)
        return together(Ref(made, dims, draft.kind) for made, dims in pairs)

    def names(self, name: str) -> list[str]:
        """What the state is called in the mixer, or its parts."""
        suffixes = PARTS if self.drafts[name].complex else ("",)
        return [self.named(name, suffix) for suffix in suffixes]

    def part_axes(self, made: str) -> frozenset[str] | None:
        """The axes of a state, or of its part, by its name in the mixer."""
        for name, draft in self.drafts.items():
            names = self.names(name)
            if made in names:
                return draft.dims[names.index(made)]
        return None

    def flowing(self, name: str, axes: frozenset[str]) -> frozenset[str]:
        """What flows into a state from the loss that it is trained by.

        Each position of the loss trains a state of its own, but for the axes that another state
        lists: over those the loss is summed.
        """
        draft = self.drafts.get(name)
        if draft is None:
            return frozenset()
        others = {dim for o in self.drafts.values() for dim in o.listed} - {*draft.listed}
        return axes - others

    def snapshot(self) -> tuple[object, ...]:
        """What can still change."""
        return tuple((tuple(d.dims), d.kind, d.complex) for d in self.drafts.values())

    def check_flow(
        self,
        name: str,
        value: Expr,
        loops: Iterable[str],
        place: Place,
        said: frozenset[str] = frozenset(),
    ) -> None:
        """Refuse a value with an axis that would change the shape of the state.

        ``said``: the axes that the line names. Another position of the sequence may be meant
        (a state for each row, walked along the keys) where it is said.

        Raises:
            SpecError: an axis that only another state lists, or a position of the sequence.
        """
        draft, rows = self.drafts[name], {self.over, *loops}
        meant = {axis for axis in said if self._is_time(axis)}
        if wrong := self._foreign(draft, value.axes - rows - meant):
            over = ", ".join(wrong)
            do = f"a sum over {over} is probably forgotten: `sum(…, {over})`"
            if self._is_time(wrong[0]):
                axes = ", ".join(sorted(value.axes - rows))
                do = (
                    f"read the row at hand, `x[{wrong[0]}={self.over.lower()}]`; "
                    f"or, for a state of each, say so: `{name}[{axes}] = …`"
                )
            raise self._reshaped(name, value, rows, f"{over} should not be there", place)(do)

    def check_whole(self, name: str, value: Expr, loops: Iterable[str], place: Place) -> None:
        """Refuse a value that lacks a listed axis although it has others, or of another kind.

        Raises:
            SpecError: at the line.
        """
        draft, rows = self.drafts[name], {self.over, *loops}
        if draft.dtype is not None and value.kind > DTYPES[draft.dtype]:
            raise place.source.error(
                place.span,
                f"a real number for the state `{name}`, which is {draft.dtype}",
                do="round it, or give the state a real dtype: float32",
            )
        lost = [d for d in draft.listed if d not in value.axes]
        if lost and value.axes - rows:
            verb = "is" if len(lost) == 1 else "are"
            over = ", ".join(lost)
            raise self._reshaped(name, value, rows, f"{over} {verb} missing", place)(
                f"keep {over}, or give the value a name of its own: `s = …`"
            )

    def _foreign(self, draft: StateDraft, axes: frozenset[str]) -> list[str]:
        """The axes that can't flow into a state: other states list them, or they are time."""
        others = {dim for o in self.drafts.values() if o is not draft for dim in o.listed}
        extra = axes - set(draft.listed)
        return sorted(dim for dim in extra if dim in others or self._is_time(dim))

    def _is_time(self, dim: str) -> bool:
        positions = self.scope.context.dims.sequences
        return dim in positions and positions[dim] == positions.get(self.over, self.over)

    def _reshaped(
        self, name: str, value: Expr, rows: set[str], what: str, place: Place
    ) -> Callable[[str], SpecError]:
        axes = ", ".join(sorted(value.axes - rows))
        found = (
            f"this line changes the shape of the state `{name}`: the value has the axes [{axes}]"
        )
        shape = ", ".join(self.drafts[name].listed)
        allowed = f"[{shape}], as `state` lists, and the batch and heads that flow in"
        return lambda do: place.source.error(place.span, f"{found}; {what}", allowed=allowed, do=do)

    def finish(self) -> tuple[State, ...]:
        """The states as the mixer has them."""
        found = []
        for name, draft in self.drafts.items():
            zero = Literal({Kind.BOOL: False, Kind.INT: 0, Kind.REAL: 0.0}[draft.kind])
            initial = pair(draft.initial if draft.initial is not None else zero)[: len(draft.dims)]
            for made, dims, start in zip(self.names(name), draft.dims, initial, strict=True):
                start = self.scope.context.dims.lift(start, dims)
                span = draft.word.text.span
                found.append(State(made, dims, start, draft.kind, draft.dtype, draft.listed, span))
        return tuple(found)


def _dtype(text: Text) -> str:
    if text.value not in DTYPES:
        raise text.error(
            f"unknown dtype `{clip(text.value)}`",
            allowed=listed(DTYPES),
            do=closest(text.value, DTYPES),
        )
    return text.value


__all__ = ["Named", "Place", "StateDraft", "States"]
