"""Query heads that read the same keys, as rows of one axis: for calls of few queries.

    q [B, H, I, D], k [B, G, J, D], heads {G: H}  -->  rows P of one group: P = I * R, R = H // G
    score at (h, i)                               -->  at (g * R + p % R, p // R)
    output {o: v}                                 -->  {o_rows: v}, o at (h, i) = o_rows at
                                                       (h // R, i * R + h % R)

A block of rows then shares each block of keys that it loads among the heads of a group, where a
block of one head's queries would leave most of its rows empty and load the keys once per head. The
position in the sequence rises with the row, so that what a mask says of a block of queries holds
for a block of rows. Keys without heads serve all of them: then R is H, and there is no group.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from .expression import (
    Call,
    Cumsum,
    Expr,
    Index,
    Kind,
    Literal,
    Read,
    Reduce,
    Ref,
    Size,
    Solve,
    call,
)
from .host import evaluate_host
from .mixer import Attention, Equation, Map, Mixer, Stage
from .rewriting import bound_axes, rebuild, walk, with_names
from .roles import feature_dims, query_axis
from .stages import changed, names_taken, values

# Up to this many queries leave most of a block of rows empty; fewer keys are soon read again.
_FEW_QUERIES, _MANY_KEYS = 16, 128
_BLOCKS = (16, 32)  # rows of a block on a GPU: the fewest that a product takes, mostly enough


@dataclass(frozen=True, slots=True)
class _Heads:
    """The axis ``heads`` whose positions share the keys of a position of ``group`` (None: all)."""

    heads: str
    group: str | None

    @property
    def ratio(self) -> Expr:
        """How many heads read one key."""
        heads = Size(self.heads)
        return heads if self.group is None else call("floordiv", heads, Size(self.group))

    def count(self, sizes: Mapping[str, int]) -> int:
        """The same, as a number."""
        return sizes[self.heads] // (1 if self.group is None else max(sizes[self.group], 1))

    def runs_along(self, expr: Expr, queries: str) -> bool:
        """Whether a term goes along the heads, their groups or the queries."""
        own = {self.heads, self.group, queries}
        return any(
            isinstance(n, Reduce | Cumsum | Solve) and not own.isdisjoint(bound_axes(n))
            for n in walk(expr)
        )


class QueryGroups:
    """The attentions of a mixer whose heads share keys, and the mixers with them as rows."""

    def __init__(self, mixer: Mixer) -> None:
        """What depends on sizes is left for the calls, and kept from call to call."""
        self.mixer = mixer
        self._made: dict[tuple[_Heads | None, ...], Mixer] = {}
        lets: dict[str, Expr] = {}
        for let in mixer.lets:
            lets[let.name] = with_names(let.value, lets)
        self._stages = {
            place: changed(stage, lambda expr: with_names(expr, lets))
            for place, stage in enumerate(mixer.stages)
            if isinstance(stage, Attention) and stage.weights is None and stage.queries
        }
        self._queries = {n: query_axis(mixer, stage) for n, stage in self._stages.items()}
        features = feature_dims(mixer)
        self._heads = {n: tuple(self._sharing(n, features)) for n in self._stages}

    @property
    def deciding(self) -> frozenset[str]:
        """The dims of which every size may be grouped in a way of its own."""
        found = [heads for sharing in self._heads.values() for heads in sharing]
        return frozenset(d for h in found for d in (h.heads, h.group) if d is not None)

    def grouped(self, sizes: Mapping[str, int]) -> tuple[Mixer, dict[str, int]]:
        """The mixer, and its sizes, for a call: with rows where queries are few and keys many.

        Left alone are attentions whose weights are wanted, and terms along the heads or the
        queries (a sum over heads).
        """
        chosen = tuple(self._chosen(place, sizes) for place in range(len(self.mixer.stages)))
        if chosen not in self._made:
            self._made[chosen] = self._with_rows(chosen)
        made = self._made[chosen]
        more = dict(sizes)
        for rows, size in made.sizes[len(self.mixer.sizes) :]:
            more[rows] = int(evaluate_host(size, sizes, {}))
        return made, more

    def _chosen(self, place: int, sizes: Mapping[str, int]) -> _Heads | None:
        """The heads to take as rows in the stage at ``place``: the most that share a key."""
        found = self._heads.get(place)
        if not found:
            return None
        few = sizes[self._queries[place]] <= _FEW_QUERIES
        if not few or sizes[self._stages[place].over] < _MANY_KEYS:
            return None
        most = max(found, key=lambda heads: heads.count(sizes))
        return most if most.count(sizes) > 1 else None

    def _sharing(self, place: int, features: frozenset[str]) -> Iterator[_Heads]:
        """The axes of the queries that no key has, or that keys have by groups."""
        stage, queries = self._stages[place], self._queries[place]
        keys = [key for _, e in values(stage) for key in _keys(e, stage.over, features)]
        for dim in sorted(stage.queries - features - {queries}):
            groups = {spread[dim] for _, spread in keys if dim in spread}
            shared = keys and not any(dim in axes for axes, _ in keys)
            heads = _Heads(dim, next(iter(groups), None))
            along = any(heads.runs_along(expr, queries) for _, expr in values(stage))
            if shared and not along and len(groups) <= 1 and not groups & stage.queries:
                yield heads

    def _with_rows(self, chosen: tuple[_Heads | None, ...]) -> Mixer:
        stages: list[Stage] = []
        sizes: list[tuple[str, Expr]] = []
        for place, heads in enumerate(chosen):
            if heads is None:
                stages.append(self.mixer.stages[place])
                continue
            queries = self._queries[place]
            rows = self._free(f"{heads.heads}{queries}", sizes)
            move = _Move(heads, queries, rows)
            stages += self._in_rows(self.mixer.stages[place], move(self._stages[place]), move)
            sizes.append((rows, call("mul", Size(queries), heads.ratio)))
        if not sizes:
            return self.mixer
        blocks = tuple((f"block_{rows.lower()}", _BLOCKS) for rows, _ in sizes)
        return replace(
            self.mixer,
            stages=tuple(stages),
            sizes=(*self.mixer.sizes, *sizes),
            tiling=(*self.mixer.tiling, *blocks),
        )

    def _in_rows(self, stage: Stage, moved: Attention, move: _Move) -> list[Stage]:
        """The attention over rows, and the map that gives the stage's results."""
        assert isinstance(stage, Attention)
        taken, names = names_taken(self.mixer), dict[str, str]()
        for result in stage.results:
            name = f"{result.name}_rows"
            while name in taken:
                name += "_"
            names[result.name] = name
        outputs = tuple(replace(o, name=names[o.name]) for o in moved.outputs)
        lse = None if stage.lse is None else names[stage.lse]
        made = replace(moved, outputs=outputs, lse=lse)
        pairs = zip(stage.results, made.results, strict=True)
        return [made, Map(tuple(Equation(old.name, move.back(new)) for old, new in pairs))]

    def _free(self, stem: str, sizes: list[tuple[str, Expr]]) -> str:
        taken = names_taken(self.mixer) | {dim for dim, _ in sizes}
        while stem in taken or stem.lower() in taken:
            stem += "_"
        return stem


@dataclass(frozen=True, slots=True)
class _Move:
    """From heads and queries to rows."""

    heads: _Heads
    queries: str
    rows: str

    def __call__(self, stage: Attention) -> Attention:
        """An attention of heads and queries as one of rows."""
        bare = replace(stage, weight=Literal(1), denominator=Literal(1))
        made = changed(bare, self._expr)
        own = {
            "score": Ref("score", made.score.axes, made.score.kind),
            "total": Ref("total", made.queries, Kind.REAL),
        }
        weight, denominator = (
            self._expr(with_names(part, own)) for part in (stage.weight, stage.denominator)
        )
        return replace(made, weight=weight, denominator=denominator)

    def _places(self) -> dict[str, Expr]:
        """Where a row stands."""
        row, ratio = Index(self.rows), self.heads.ratio
        member: Expr = call("mod", row, ratio)
        if self.heads.group is not None:
            member = call("add", call("mul", Index(self.heads.group), ratio), member)
        return {self.heads.heads: member, self.queries: call("floordiv", row, ratio)}

    def back(self, made: Ref) -> Expr:
        """The result of a head and a query, read from those of rows."""
        ratio, head = self.heads.ratio, Index(self.heads.heads)
        first = call("mul", Index(self.queries), ratio)
        if self.heads.group is None:
            return Read(made, ((self.rows, call("add", first, head)),))
        at: tuple[tuple[str, Expr], ...] = (
            (self.rows, call("add", first, call("mod", head, ratio))),
        )
        if self.heads.group in made.axes:
            at = ((self.heads.group, call("floordiv", head, ratio)), *at)
        return Read(made, at)

    def _expr(self, expr: Expr) -> Expr:
        return self._moved(expr, self._places())

    def _moved(self, expr: Expr, places: Mapping[str, Expr]) -> Expr:
        places = {dim: place for dim, place in places.items() if dim in expr.axes}
        if not places:
            return expr
        match expr:
            case Index(dim):
                return places[dim]
            case Ref():
                return Read(expr, tuple(places.items()))
            case Read(x, at, fill):
                kept = tuple(
                    (dim, self._moved(index, places))
                    for dim, index in at
                    if not _spreads(dim, index, self.heads)
                )
                inner = {d: p for d, p in places.items() if d not in dict(at)}
                if isinstance(x, Ref):
                    kept += tuple((d, p) for d, p in inner.items() if d in x.axes)
                    return Read(x, kept, fill, span=expr.span) if kept else x
                moved = self._moved(x, inner)
                return Read(moved, kept, fill, span=expr.span) if kept else moved
            case _:
                return rebuild(expr, lambda child: self._moved(child, places))


def _spreads(dim: str, index: Expr, heads: _Heads) -> bool:
    """Whether a read at ``dim`` gives each head the value of its group."""
    group = Call("floordiv", (Index(heads.heads), heads.ratio))
    return dim == heads.group and index == group


def _keys(
    expr: Expr, over: str, features: frozenset[str]
) -> Iterator[tuple[frozenset[str], Mapping[str, str]]]:
    """The axes of each tensor of keys with features, and the group of each head that shares it."""
    match expr:
        case Read(Ref(), at):
            if over in expr.axes and expr.axes & features:
                spread = {
                    index.args[0].dim: dim
                    for dim, index in at
                    if isinstance(index, Call)
                    and isinstance(index.args[0], Index)
                    and _spreads(dim, index, _Heads(index.args[0].dim, dim))
                }
                yield expr.axes - spread.keys(), spread
        case Ref():
            if over in expr.axes and expr.axes & features:
                yield expr.axes, {}
        case _:
            for child in expr.children:
                yield from _keys(child, over, features)


__all__ = ["QueryGroups"]
