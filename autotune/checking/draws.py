"""How to draw the real inputs of a recurrence, so that its states keep a sensible size.

Random numbers in the wrong place make a state grow without bound, or divide by what may be
anything. Where an input stands in the equations tells what it is: what multiplies a state has to
lie in -1 ... 1, what a state is contracted with has to be short, what is divided by must have one
sign. Inputs that no such rule is about are normal. Names play no part.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product

from ...compiler.analysis.intervals import EVERYTHING, Interval, elementwise
from ...ir.binding import Number
from ...ir.expression import Call, Expr, Kind, Ref
from ...ir.host import evaluate_host
from ...ir.mixer import Input, Map, Mixer, Recurrence
from ...ir.optional import expressions
from ...ir.rewriting import every_node
from .influence import Influence, Way
from .intervals import Bounds


class Law(enum.Enum):
    """A distribution, by where its values lie."""

    NORMAL = "normal"
    NEGATIVE = "negative"  # the log of a share near 1
    LITTLE = "a little"  # a share near 0
    MUCH = "nearly all"  # a share near 1
    SHARE = "a share"
    POSITIVE = "positive"


_INTERVALS: Mapping[Law, Interval] = {
    Law.NORMAL: EVERYTHING,
    Law.NEGATIVE: Interval(-float("inf"), 0.0),
    Law.LITTLE: Interval(0.0, 0.1),
    Law.MUCH: Interval(0.9, 1.0),
    Law.SHARE: Interval(0.0, 1.0),
    Law.POSITIVE: Interval(0.0, float("inf")),
}
# What is tried, in order, for what multiplies a state by itself, for what takes part in a
# correction, and for what is divided by.
_DECAYS = (Law.NEGATIVE, Law.LITTLE, Law.MUCH)
_SHARES = (Law.SHARE, Law.NEGATIVE, Law.POSITIVE)
_DIVISORS = (Law.POSITIVE, Law.MUCH, Law.NEGATIVE)
# Where more inputs than this stand in one term, the others stay as they are.
_TOGETHER = 4


@dataclass(frozen=True, slots=True)
class Draw:
    """How to draw an input.

    ``within``: where the spec says that its values lie, instead of a law. ``unit``: vectors along
    these axes have the norm ``scale``. ``rows``: the axis along which it
    decides, row by row, how much of a state is kept, so that extreme values are worth trying;
    ``signed``: it is what the state is multiplied by, so that negative ones are too.
    """

    law: Law = Law.NORMAL
    within: Interval | None = None
    unit: tuple[str, ...] = ()
    scale: float = 1.0
    rows: str | None = None
    signed: bool = False

    @property
    def interval(self) -> Interval:
        """Where its values lie."""
        return self.within or _INTERVALS[self.law]


def draws(mixer: Mixer, sizes: Mapping[str, int], params: Mapping[str, Number]) -> dict[str, Draw]:
    """A draw for every real input that an equation has something to say about.

    What the spec says of an input stands; without a recurrence that is all.
    """
    stages = [stage for stage in mixer.stages if isinstance(stage, Recurrence)]
    declared = dict(_declared(mixer, sizes, params))
    if not stages:
        return declared
    influences = [Influence.of(stage) for stage in stages]
    search = _Search(mixer, sizes, params, influences, declared)
    for stage, influence in zip(stages, influences, strict=True):
        search.decays(stage, influence)
    for stage, influence in zip(stages, influences, strict=True):
        search.corrections(stage, influence)
    search.divisors()
    return search.found


def _declared(
    mixer: Mixer, sizes: Mapping[str, int], params: Mapping[str, Number]
) -> Iterator[tuple[str, Draw]]:
    for item in mixer.inputs:
        if item.kind is Kind.REAL and item.range is not None:
            yield item.name, Draw(within=declared_range(item, sizes, params))
        elif item.unit is not None:
            yield item.name, Draw(unit=(item.unit,))


def declared_range(item: Input, sizes: Mapping[str, int], params: Mapping[str, Number]) -> Interval:
    """Where the spec says that the values of an input lie."""
    if item.range is None:
        return EVERYTHING
    low, high = (float(evaluate_host(end, sizes, params)) for end in item.range)
    return Interval(low, max(low, high))


@dataclass
class _Search:
    mixer: Mixer
    sizes: Mapping[str, int]
    params: Mapping[str, Number]
    influences: Sequence[Influence]
    found: dict[str, Draw] = field(default_factory=dict)  # of what is settled, normal ones too
    tried: set[frozenset[int]] = field(default_factory=set)
    leaves_of: dict[tuple[int, bool], dict[str, Input]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.inputs = {i.name: i for i in self.mixer.inputs if i.kind is Kind.REAL}
        self.states = {
            state.name: state
            for stage in self.mixer.stages
            if isinstance(stage, Recurrence)
            for state in stage.states
        }
        self.values: dict[str, list[Expr]] = {let.name: [let.value] for let in self.mixer.lets}
        for stage in self.mixer.stages:
            if isinstance(stage, Map):
                self.values |= {e.name: [e.value] for e in stage.equations}
        for influence in self.influences:
            self.values |= influence.values

    # ------------------------------------------------------------------- what rules are about

    def decays(self, stage: Recurrence, influence: Influence) -> None:
        """What a state is multiplied by, entry by entry, lies in -1 ... 1."""
        for way in _ways(stage, influence):
            if way.is_correction:
                continue
            free = [term for term in way.terms if not influence.into(term)]
            self.settle(free, _DECAYS, _is_bounded)
            for declared in self.leaves(way.terms):
                itself = any(isinstance(t, Ref) and t.name == declared.name for t in free)
                self.mark(stage, declared, itself)

    def mark(self, stage: Recurrence, declared: Input, signed: bool = False) -> None:
        """Note that an input has a say, row by row, in how much of a state is kept."""
        if stage.over in declared.dims:
            known = self.found.get(declared.name, Draw())
            signed = known.signed or signed
            self.found[declared.name] = replace(known, rows=stage.over, signed=signed)

    def corrections(self, stage: Recurrence, influence: Influence) -> None:
        """What a state is contracted with, and written with after that, is short."""
        listed = frozenset(dim for state in stage.states for dim in state.listed)
        for way in _ways(stage, influence):
            for term in way.terms if way.is_correction else ():
                if influence.into(term):
                    continue
                axes = term.axes & way.summed or term.axes & listed
                if axes:
                    self.shorten(term, axes, 1.0 if stage.over in term.axes else 0.7)
                    continue
                self.settle([term], _SHARES, _is_bounded)
                for declared in self.leaves([term]):
                    found = self.found.get(declared.name, Draw())
                    if found.law is Law.SHARE or (found.within and found.interval.within(0, 1)):
                        self.mark(stage, declared)

    def shorten(self, term: Expr, axes: frozenset[str], norm: float) -> None:
        """The inputs of a term that is a vector along ``axes`` have norm 1, or ``norm``."""
        for declared in self.leaves([term]):
            own = axes.intersection(declared.dims) or set(declared.dims) - term.axes
            along = tuple(dim for dim in declared.dims if dim in own)
            if along and declared.name not in self.found:
                self.found[declared.name] = Draw(unit=along, scale=norm)

    def divisors(self) -> None:
        """What is divided by has one sign; what a root or a log is taken of isn't negative."""
        for node in every_node(expressions(self.mixer)):
            match node:
                case Call("div", (_, b)):
                    self.settle([b], _DIVISORS, _has_one_sign, through_states=True)
                case Call("sqrt" | "rsqrt" | "log" | "log2", (x,)):
                    self.settle([x], _DIVISORS, _is_positive, through_states=True)
                case _:
                    pass

    # ------------------------------------------------------------------------ how they settle

    def settle(
        self, terms: Sequence[Expr], laws: Sequence[Law], holds: _Rule, through_states: bool = False
    ) -> None:
        """Find laws for the inputs of terms, as few as can be, under which a rule holds.

        Where it holds as it is, they are settled as they are; where nothing helps, nothing changes.
        """
        key = frozenset(id(term) for term in terms)
        if not terms or key in self.tried:
            return
        self.tried.add(key)
        leaves = self.leaves(terms, through_states)
        if holds(self.bounds({}), terms):
            for declared in leaves:
                self.found.setdefault(declared.name, Draw())
            return
        free = [i.name for i in leaves if i.name not in self.found][:_TOGETHER]
        choices = [
            {name: law for name, law in zip(free, chosen, strict=True) if law is not Law.NORMAL}
            for chosen in product((Law.NORMAL, *laws), repeat=len(free))
        ]
        held: list[tuple[float, Mapping[str, Law]]] = []
        for choice in sorted(choices, key=len)[1:]:
            if held and len(choice) > len(held[0][1]):
                break
            bounds = self.bounds(choice)
            if holds(bounds, terms):
                held.append((_product(bounds, terms).smallest, choice))
        if held:
            # Of what multiplies a state, what keeps most of it.
            best = max(held, key=lambda one: one[0])[1] if laws is _DECAYS else held[0][1]
            self.found |= {name: Draw(law) for name, law in best.items()}

    def bounds(self, choice: Mapping[str, Law]) -> Bounds:
        """Where everything lies with what is settled and a choice more."""
        known = {name: draw.interval for name, draw in self.found.items()}
        intervals = {**known, **{name: _INTERVALS[law] for name, law in choice.items()}}
        return Bounds(self.mixer, self.sizes, self.params, intervals)

    def leaves(self, terms: Sequence[Expr], through_states: bool = False) -> list[Input]:
        """The real inputs that terms are made of, through lets and names of steps."""
        found = dict[str, Input]()
        for term in terms:
            key = (id(term), through_states)
            if key not in self.leaves_of:
                self.leaves_of[key] = self._leaves(term, through_states)
            found |= self.leaves_of[key]
        return list(found.values())

    def _leaves(self, term: Expr, through_states: bool) -> dict[str, Input]:
        pending, seen, found = [term], set[str](), dict[str, Input]()
        while pending:
            for node in every_node([pending.pop()]):
                if not isinstance(node, Ref) or node.name in seen:
                    continue
                seen.add(node.name)
                if node.name in self.inputs:
                    found[node.name] = self.inputs[node.name]
                elif node.name not in self.states or through_states:
                    pending += self.values.get(node.name, [])
                    if node.name in self.states:
                        pending.append(self.states[node.name].initial)
        return found


_Rule = Callable[[Bounds, Sequence[Expr]], bool]


def _product(bounds: Bounds, terms: Sequence[Expr]) -> Interval:
    found = Interval(1.0, 1.0)
    for term in terms:
        found = elementwise("mul", [found, bounds.of(term)])
    return found


def _is_bounded(bounds: Bounds, terms: Sequence[Expr]) -> bool:
    return _product(bounds, terms).within(-1, 1)


def _has_one_sign(bounds: Bounds, terms: Sequence[Expr]) -> bool:
    found = _product(bounds, terms)
    return found.low >= 0 or found.high <= 0


def _is_positive(bounds: Bounds, terms: Sequence[Expr]) -> bool:
    return _product(bounds, terms).low >= 0


@dataclass(frozen=True, slots=True)
class _Return:
    """A way on which a state comes back to itself, at once or through others.

    ``is_correction``: it is summed over an axis, or spreads along one that the state lacks, or is
    added to the state as it was; otherwise what stands on it is what the state is multiplied by.
    """

    summed: frozenset[str]
    terms: tuple[Expr, ...]
    is_correction: bool


def _ways(stage: Recurrence, influence: Influence) -> Iterator[_Return]:
    dims = {state.name: state.dims for state in stage.states}
    listed = frozenset(dim for state in stage.states for dim in state.listed)
    back = influence.feedback()
    seen = set[tuple[frozenset[int], frozenset[str], bool]]()
    for name in dims:
        kept = Way(name) in influence.ways[name]
        for way in sorted(influence.ways[name], key=lambda w: sorted(w.factors)):
            if way.state not in back[name]:
                continue
            terms = tuple(influence.terms[place] for place in sorted(way.factors))
            spreads = any(term.axes & listed - dims[way.state] for term in terms)
            correction = bool(way.summed) or spreads or kept
            key = (way.factors, way.summed, correction)
            if key not in seen:
                seen.add(key)
                yield _Return(way.summed, terms, correction)
