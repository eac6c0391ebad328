"""What part each dim of a mixer plays in its kernels."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial, reduce

from .errors import UnsupportedError
from .expression import Expr, Index, Kind, Literal, Read, Reduce, Ref, Scalar, Size, Solve, call
from .host import evaluate_host
from .mixer import Attention, Input, Map, Mixer, Recurrence, assignments
from .names import names_in
from .optional import expressions
from .rewriting import walk
from .targets import THREADS_PER_WARP

# A tile holds at most this many positions of an axis whole.
LARGEST_WHOLE = 512
# How many programs of a kernel a machine has room for at once.
UNITS = Scalar("units", Kind.INT)
_WARPS = 8  # of a program that holds a matrix


def group_of(group: str, heads: str) -> Expr:
    """The position along ``group`` of a head's group, h // (H // G)."""
    return call("floordiv", Index(heads), call("floordiv", Size(heads), Size(group)))


@dataclass(frozen=True)
class DimRoles:
    """``features``: dims of fixed length that tiles hold whole (head dims and the like).

    ``long``: positions of sequences and of what is derived from them, walked block by block.
    Every other dim is a batch dim: one position per program instance.
    """

    features: frozenset[str]
    long: frozenset[str]
    weights: Mapping[str, int]

    def with_long(self, dim: str) -> DimRoles:
        """With one more dim of any length."""
        return replace(self, long=self.long | {dim}, weights={**self.weights, dim: 4096})

    def order(self, axes: frozenset[str]) -> tuple[str, ...]:
        """Axes of a temporary: batch dims, then sequences, then features."""

        def rank(dim: str) -> tuple[int, str]:
            if dim in self.features:
                return 2, dim
            return (1 if dim in self.long else 0), dim

        return tuple(sorted(axes, key=rank))

    def cost(self, dims: frozenset[str]) -> int:
        """A rough count of elements, to compare where a value is computed."""
        total = 1
        for dim in dims:
            total *= self.weights.get(dim, 16)
        return total


def feature_dims(mixer: Mixer) -> frozenset[str]:
    """The dims whose length a kernel is compiled for.

    These are last axes of inputs, and axes of tables of params, that no attention attends over or
    has a row for: channels. In a recurrence they are the axes that states list, and all others
    that a row's values have; not those that flow into a state (batch and heads), nor loops, but
    for channels that a score sums along: of queries and keys that are a state's rows themselves.
    """
    sequences = {dim for pair in mixer.sequences for dim in pair}
    heads = {dim for pair in mixer.heads for dim in pair}
    walked: set[str] = sequences | heads | {dim for dim, _ in mixer.sizes}
    listed, in_rows, loops, sets = set[str](), set[str](), set[str](), set[str]()
    for stage in mixer.stages:
        match stage:
            case Attention():
                walked |= stage.queries | {stage.over}
            case Recurrence():
                if others := other_sequences(mixer, stage):  # rows are made as maps are
                    sets |= others
                    listed |= {state.listed[-1] for state in stage.states if state.listed}
                else:
                    listed |= {dim for state in stage.states for dim in state.listed}
                    in_rows |= _in_rows(mixer, stage)
                loops |= {stage.over}.union(*(rounds for _, rounds in assignments(stage.step)))
            case Map():
                pass
    sets -= {dim for dim, size in mixer.sizes if isinstance(size, Literal)}
    walked |= sets | (batch_dims(mixer) - _summed_by_scores(mixer))
    tables = {dim for t in mixer.tables for dim in t.dims}
    last = _last_axes(mixer.inputs) | solved_dims(mixer)
    rows = listed | (in_rows - heads - batch_dims(mixer))
    return frozenset((last | tables) - walked | rows - _lengths(mixer, sequences | sets)) - loops


def solved_dims(mixer: Mixer) -> set[str]:
    """The axes of systems of equations: a tile holds both sides of one whole."""
    nodes = (n for e in expressions(mixer) for n in walk(e))
    return {dim for n in nodes if isinstance(n, Solve) for dim in (n.left, n.right)}


def batch_dims(mixer: Mixer) -> frozenset[str]:
    """The axes that flow into states: batch and heads, each with a state of its own."""
    states = [s for stage in mixer.stages if isinstance(stage, Recurrence) for s in stage.states]
    listed = {dim for state in states for dim in state.listed}
    return frozenset[str]().union(*(state.dims for state in states)) - listed


def _summed_by_scores(mixer: Mixer) -> set[str]:
    """The axes that products of queries and keys are summed along."""
    scores = [stage.score for stage in mixer.stages if isinstance(stage, Attention)]
    nodes = (node for score in scores for node in walk(score))
    return {dim for node in nodes if isinstance(node, Reduce) for dim in node.over}


def other_sequences(mixer: Mixer, stage: Recurrence) -> frozenset[str]:
    """The axes of any length that a step reads a set along: without those that lie within a row,
    and those that are as long as such an axis, or one that a state lists, with others behind it."""
    held = {dim for state in stage.states for dim in state.listed} | _within(mixer, stage.over)
    for dim, size in mixer.sizes:
        sizes = {node.dim for node in walk(size) if isinstance(node, Size)}
        if not sizes.isdisjoint(held):
            held.add(dim)
    return sets_read(mixer, stage) - held


def _within(mixer: Mixer, over: str) -> set[str]:
    """The axes that a row of ``over`` is cut along: M of an axis N*M, a segment's tokens."""
    products = (product for given in mixer.inputs for product in given.layout)
    return {dim for product in products if over in product for dim in product} - {over}


def sets_read(mixer: Mixer, stage: Recurrence) -> frozenset[str]:
    """The axes that a step sums what comes of a state along: a set, or another sequence.

    Not those that states list, nor channels, heads and the axes that flow into states.
    """
    made = {state.name for state in stage.states}
    summed: set[str] = set()
    for equation, _ in assignments(stage.step):
        nodes = [node for node in walk(equation.value) if not made.isdisjoint(names_in(node))]
        if nodes:
            made.add(equation.name)
        summed.update(dim for n in nodes if isinstance(n, Reduce) for dim in n.over)
    listed = {dim for state in stage.states for dim in state.listed}
    own = {stage.over}.union(*(rounds for _, rounds in assignments(stage.step)))
    return frozenset(summed - listed - own - _channels(mixer) - batch_dims(mixer))


def _channels(mixer: Mixer) -> set[str]:
    """The last axes of inputs, the axes of tables, and heads; a mask has no channels."""
    heads = {dim for pair in mixer.heads for dim in pair}
    last = _last_axes(i for i in mixer.inputs if i.kind is not Kind.BOOL)
    return last | heads | {dim for table in mixer.tables for dim in table.dims}


def _last_axes(inputs: Iterable[Input]) -> set[str]:
    """The last axes of those that have others."""
    several = [i for i in inputs if len(i.dims) > 1]
    return {i.layout[-1][-1] for i in several if i.layout[-1]} & {i.dims[-1] for i in several}


def _in_rows(mixer: Mixer, stage: Recurrence) -> set[str]:
    """The axes that the values of a step have."""
    values = [equation.value for equation, _ in assignments(stage.step)]
    return {dim for value in values for node in walk(value) for dim in node.axes}


def _lengths(mixer: Mixer, sequences: set[str]) -> set[str]:
    """Sequences, and the dims whose size depends on the length of one."""
    found = set(sequences)
    for dim, value in mixer.sizes:
        if any(isinstance(node, Size) and node.dim in found for node in walk(value)):
            found.add(dim)
    return found


def dim_roles(mixer: Mixer, sizes: Mapping[str, int]) -> DimRoles:
    """The roles, with the lengths of feature dims as given."""
    features = frozenset(d for d in feature_dims(mixer) if sizes.get(d, 64) <= LARGEST_WHOLE)
    long: set[str] = {dim for pair in mixer.sequences for dim in pair}
    derived = {dim for dim, value in mixer.sizes}
    queries: set[str] = set()
    for stage in mixer.stages:
        if isinstance(stage, Attention):
            long |= {stage.over, query_axis(mixer, stage)}
            queries |= stage.queries
        elif isinstance(stage, Recurrence):
            long |= {stage.over}
    heads = {dim for pair in mixer.heads for dim in pair}
    tables = [i.dims for i in mixer.inputs if len(i.dims) > 1]
    rows = {dims[-2] for dims in tables if dims[-1] in features} - queries
    long |= derived | rows | {dims[-1] for dims in tables}
    long -= heads | features | batch_dims(mixer)
    copies = {dim for dim, value in mixer.sizes if isinstance(value, Size)}
    weights = {d: 4096 for d in long}
    weights.update(dict.fromkeys(derived - copies, 64))
    weights.update({d: sizes.get(d, 64) for d in features})
    return DimRoles(features, frozenset(long), weights)


def query_axis(mixer: Mixer, stage: Attention) -> str:
    """The query axis that kernels cut into blocks.

    It is the other position of the key's sequence; where there is none, the one that the keys of
    the score lack. UnsupportedError where the attention has no query axis at all.
    """
    own = mixer.sequence(stage.over)
    partners = [d for d in stage.queries if own is not None and mixer.sequence(d) == own]
    if partners:
        return min(partners)
    heads = {d for pair in mixer.heads for d in pair}
    keyed = frozenset[str]().union(*axes_of_keys(mixer, stage))
    order = [d for i in mixer.inputs for d in i.dims]
    if not stage.queries:
        raise UnsupportedError(f"{mixer.name}: the attention over {stage.over} has no query axis")

    def rank(dim: str) -> tuple[bool, bool, bool, int, bool, str]:
        given = dim in order
        place = -order.index(dim) if given else 0
        return dim in keyed, dim in heads, mixer.sequence(dim) is None, place, given, dim

    return min(stage.queries, key=rank)


def axes_of_keys(mixer: Mixer, stage: Attention) -> Iterator[frozenset[str]]:
    """The axes of what a score has for each key: values along ``over``, and tables read there.

    Sums along a sequence are values, too: a kernel of their own makes them.
    """
    sequences = {dim for pair in mixer.sequences for dim in pair}
    for node in walk(stage.score):
        match node:
            case Ref() if stage.over in node.axes:
                yield node.axes
            case Read(x, at) if any(stage.over in index.axes for _, index in at):
                yield x.axes
            case Read() if stage.over in node.axes:  # keys of a block
                yield node.axes
            case Reduce(over=over) if stage.over in node.axes and not sequences.isdisjoint(over):
                yield node.axes


@dataclass(frozen=True, slots=True)
class ShareRule:
    """In how many shares one stage goes, by the sizes of a call.

    ``over`` is shared out where the programs, one for each position of ``batch`` and each block of
    ``blocks`` (the longest counts), are fewer than what can work side by side; a share has
    ``least`` positions of it. ``states``: blocks are of a state's columns, not of rows;
    ``vectors``: of the channels of states that have no columns, a warp's on a GPU.
    """

    over: str
    blocks: tuple[str, ...]
    batch: tuple[str, ...]
    least: int
    states: bool = False
    vectors: bool = False

    def count(self, rows: int, beside: int = 1, enough: int = 1) -> Expr:
        """For blocks of ``rows`` positions on UNITS that work side by side; each is busy with
        ``beside`` programs, which may then be as much shorter, and takes ``enough`` as they are."""
        one = Literal(1)
        blocks: list[Expr] = [Size(dim) for dim in self.blocks]
        longest = _largest(blocks or [one])
        programs = _upwards(longest, Literal(rows))
        for dim in self.batch:
            programs = call("mul", programs, Size(dim))
        few = UNITS if enough == 1 else call("mul", UNITS, Literal(enough))
        idle = call("and", call("lt", Literal(0), programs), call("lt", programs, few))
        places = call("mul", UNITS, beside) if beside > 1 else UNITS
        wanted = call("min", _upwards(places, call("max", programs, one)), Literal(64))
        most = call("floordiv", Size(self.over), Literal(self.least // beside))
        return call("where", idle, call("min", wanted, most), one)


def _upwards(a: Expr, b: Expr) -> Expr:
    """The quotient, rounded up."""
    return call("floordiv", call("sub", call("add", a, b), Literal(1)), b)


def _largest(values: list[Expr]) -> Expr:
    return reduce(partial(call, "max"), values)


def share_rules(mixer: Mixer) -> tuple[ShareRule, ...]:
    """Those of an attention's keys, and of a recurrence's rows where its states are matrices; rows
    are gone through twice, and a segment of them has four times what a share of keys has."""
    rules = []
    features = feature_dims(mixer)
    for stage in mixer.stages:
        match stage:
            case Attention():
                block = query_axis(mixer, stage)
                batch = stage.queries - features - {block}
                rules.append(ShareRule(stage.over, (block,), tuple(sorted(batch)), 512))
            case Recurrence(states=states):
                listed = {d: None for state in states for d in state.listed}
                batch = frozenset[str]().union(*(s.dims - {*s.listed} for s in states))
                key = (stage.over, (*listed,), tuple(sorted(batch)))
                rules.append(ShareRule(*key, 2048, True, all(len(s.listed) == 1 for s in states)))
    if all(rule.vectors for rule in rules):
        return tuple(rules)
    return tuple(replace(rule, vectors=False) for rule in rules)


def share_count(mixer: Mixer, rows: int, columns: int, beside: int = 1) -> Expr:
    """In how many shares a call's stages go, so that each of UNITS has work: 1 where blocks of
    ``rows`` queries, or of ``columns`` of a state, are enough or keys are few. ``beside``: programs
    with a state that a unit takes to be busy; of a warp each, as many as have the same warps."""

    def count(rule: ShareRule) -> Expr:
        if rule.vectors and beside > 1:
            return rule.count(THREADS_PER_WARP, _WARPS * beside, _WARPS * beside // 4)
        return rule.count(columns, beside) if rule.states else rule.count(rows)

    return _largest([Literal(1), *map(count, share_rules(mixer))])


def shares_of_keys(
    mixer: Mixer,
    sizes: Mapping[str, int],
    units: int,
    rows: int,
    columns: int = 64,
    beside: int = 1,
) -> int:
    """``share_count`` for these sizes, down to a power of two."""
    count = share_count(mixer, rows, columns, beside)
    shares = int(evaluate_host(count, sizes, {UNITS.name: units}))
    return 1 << (shares.bit_length() - 1)


def equal_lengths(mixer: Mixer) -> dict[str, str]:
    """A representative for each dim that has another's length."""
    equal = dict(mixer.sequences)
    for dim, value in mixer.sizes:
        if isinstance(value, Size):
            equal[dim] = equal.get(value.dim, value.dim)
    return equal
