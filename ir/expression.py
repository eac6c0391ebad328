"""Typed expressions over named axes: the terms of the mixer level.

A value's type is a kind (boolean, integer, real) and the set of axes it has. Values align by
axis name, so there is no broadcast and no transpose among the nodes. Everything the language
offers beyond these nodes (``softmax``, ``rope``, ``layernorm``, grouped heads, ``shift`` ...) is
written in them by the loader.

Nodes are immutable and compare by structure; a node's ``span`` (its place in the spec's text)
does not take part in comparison.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import field
from functools import cached_property, reduce

from .node import (
    ARITHMETIC,
    ELEMENTWISE,
    INTEGRAL,
    PREDICATES,
    REDUCTIONS,
    TRANSCENDENTAL,
    Kind,
    Point,
    Span,
    node,
)


@node
class Expr:
    """A node; see the subclasses."""

    span: Span | None = field(default=None, compare=False, repr=False, kw_only=True)

    @cached_property
    def axes(self) -> frozenset[str]:
        """The dims that the value has."""
        raise NotImplementedError

    @cached_property
    def kind(self) -> Kind:
        """Boolean, integer or real."""
        raise NotImplementedError

    @property
    def children(self) -> tuple[Expr, ...]:
        """The expressions directly below this one, in order."""
        return ()

    def __getstate__(self) -> dict[str, object]:
        """Without the hash: strings have another one in each process."""
        return {name: value for name, value in self.__dict__.items() if name != "_hash"}

    def __str__(self) -> str:
        from .text import write_expression

        return write_expression(self)


@node
class Literal(Expr):
    """A number or a truth value."""

    value: bool | int | float

    @cached_property
    def axes(self) -> frozenset[str]:
        return frozenset()

    @cached_property
    def kind(self) -> Kind:
        match self.value:
            case bool():
                return Kind.BOOL
            case int():
                return Kind.INT
            case _:
                return Kind.REAL

    # True == 1 == 1.0 in Python, so the kind takes part in comparison.
    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Literal)
            and type(self.value) is type(other.value)
            and repr(self.value) == repr(other.value)
        )

    def __hash__(self) -> int:
        return hash((type(self.value).__name__, repr(self.value)))


@node
class Size(Expr):
    """The number of positions along ``dim``."""

    dim: str

    @cached_property
    def axes(self) -> frozenset[str]:
        return frozenset()

    @cached_property
    def kind(self) -> Kind:
        return Kind.INT


@node
class Scalar(Expr):
    """A param of the mixer, by name: a compile-time number or (``runtime``) a kernel argument."""

    name: str
    scalar_kind: Kind
    runtime: bool = False

    @cached_property
    def axes(self) -> frozenset[str]:
        return frozenset()

    @cached_property
    def kind(self) -> Kind:
        return self.scalar_kind


@node
class Index(Expr):
    """The position along ``dim``: 0 ... size - 1."""

    dim: str

    @cached_property
    def axes(self) -> frozenset[str]:
        return frozenset({self.dim})

    @cached_property
    def kind(self) -> Kind:
        return Kind.INT


@node
class Ref(Expr):
    """A named tensor: an input, a table, a let, or a stage's result.

    Inside a normaliser the names ``score`` and ``total`` stand for the attention's own. ``point``
    says what else than a tensor the name is; the name alone tells one from another.
    """

    name: str
    dims: frozenset[str]
    tensor_kind: Kind
    point: Point | None = field(default=None, compare=False, repr=False)

    @property
    def called(self) -> str:
        """What a step calls it, whichever of the name's values it is."""
        return self.name if self.point is None else self.point.of

    @cached_property
    def axes(self) -> frozenset[str]:
        return self.dims

    @cached_property
    def kind(self) -> Kind:
        return self.tensor_kind


@node
class Call(Expr):
    """An elementwise function of values that align by axis name; ``fn`` is in ELEMENTWISE."""

    fn: str
    args: tuple[Expr, ...]

    @cached_property
    def axes(self) -> frozenset[str]:
        return frozenset[str]().union(*(a.axes for a in self.args))

    @cached_property
    def kind(self) -> Kind:
        return call_kind(self.fn, self.args)

    @property
    def children(self) -> tuple[Expr, ...]:
        return self.args


@node
class Reduce(Expr):
    """``op`` of x over the dims ``over``, of what ``where`` admits.

    Nothing admitted gives 0 (sum), 1 (prod), -inf (max), inf (min), false (any), true (all).
    With ``group`` (dim, index expression), position n along the new dim gets the reduction over
    those positions whose index expressions equal n; positions outside the dim count nowhere.
    """

    op: str
    x: Expr
    over: tuple[str, ...]
    where: Expr | None = None
    group: tuple[tuple[str, Expr], ...] = ()

    @cached_property
    def axes(self) -> frozenset[str]:
        inner = frozenset[str]().union(*(c.axes for c in self.children))
        return (inner - frozenset(self.over)) | {dim for dim, _ in self.group}

    @cached_property
    def kind(self) -> Kind:
        if self.op in ("any", "all"):
            return Kind.BOOL
        return max(self.x.kind, Kind.INT)

    @property
    def children(self) -> tuple[Expr, ...]:
        where = () if self.where is None else (self.where,)
        return (self.x, *where, *(index for _, index in self.group))


@node
class Read(Expr):
    """x at computed positions along some of its dims; ``fill`` where any lies outside.

    All positions are read at once, so ``Read(A, D=p, P=d)`` is a transpose.
    """

    x: Expr
    at: tuple[tuple[str, Expr], ...]
    fill: float = 0.0

    @cached_property
    def axes(self) -> frozenset[str]:
        kept = self.x.axes - {dim for dim, _ in self.at}
        return kept.union(*(index.axes for _, index in self.at))

    @cached_property
    def kind(self) -> Kind:
        return self.x.kind if float(self.fill).is_integer() else Kind.REAL

    @property
    def children(self) -> tuple[Expr, ...]:
        return (self.x, *(index for _, index in self.at))


@node
class Cumsum(Expr):
    """The running sum of x along ``over``; with ``exclusive`` the position itself is left out."""

    x: Expr
    over: str
    reverse: bool = False
    exclusive: bool = False

    @cached_property
    def axes(self) -> frozenset[str]:
        return self.x.axes

    @cached_property
    def kind(self) -> Kind:
        return max(self.x.kind, Kind.INT)

    @property
    def children(self) -> tuple[Expr, ...]:
        return (self.x,)


@node
class Solve(Expr):
    """The x along ``right`` for which ``sum(matrix * x, right) == vector``, for each ``left``.

    ``matrix`` has both axes, of one length; the other axes of ``vector`` are right-hand sides, and
    what ``matrix`` has beside them too is a batch of systems.
    """

    matrix: Expr
    vector: Expr
    left: str
    right: str

    @cached_property
    def axes(self) -> frozenset[str]:
        return (self.matrix.axes | self.vector.axes) - {self.left} | {self.right}

    @cached_property
    def kind(self) -> Kind:
        return Kind.REAL

    @property
    def children(self) -> tuple[Expr, ...]:
        return (self.matrix, self.vector)


def call_kind(fn: str, args: tuple[Expr, ...]) -> Kind:
    """The kind of ``fn(*args)``, as section "Integers are" of the language has it."""
    if fn in PREDICATES:
        return Kind.BOOL
    if fn in INTEGRAL:
        return Kind.INT
    if fn == "where":
        return max(args[1].kind, args[2].kind)
    if fn in ARITHMETIC or fn == "relu":
        return max(Kind.INT, *(a.kind for a in args))
    if fn == "pow":
        base, power = args
        return Kind.INT if base.kind <= Kind.INT and is_nonnegative(power) else Kind.REAL
    return Kind.REAL


def is_nonnegative(expr: Expr) -> bool:
    """Whether an expression is an integer that can't be negative, as far as its form shows."""
    if expr.kind is Kind.REAL:
        return False
    match expr:
        case Literal(value):
            return value >= 0
        case Size() | Index():
            return True
        case Call("add" | "mul" | "floordiv" | "mod" | "min", args):
            return all(is_nonnegative(a) for a in args)
        case Call("max", args):
            return any(is_nonnegative(a) for a in args)
        case Call("abs" | "relu"):
            return True
        case Call("where", (_, yes, no)):
            return is_nonnegative(yes) and is_nonnegative(no)
        case _:
            return expr.kind is Kind.BOOL


def call(fn: str, *args: Expr | float | int | bool, span: Span | None = None) -> Call:
    """An elementwise call; plain numbers become literals."""
    exprs = tuple(a if isinstance(a, Expr) else Literal(a) for a in args)
    assert ELEMENTWISE[fn] == len(exprs), fn
    return Call(fn, exprs, span=span)


def product_of(factors: Iterable[Expr]) -> Expr:
    """The factors multiplied from left to right; 1.0 where there are none."""
    first, *others = [*factors] or [Literal(1.0)]
    return reduce(lambda a, b: call("mul", a, b), others, first)


__all__ = [
    "ELEMENTWISE",
    "REDUCTIONS",
    "TRANSCENDENTAL",
    "Call",
    "Cumsum",
    "Expr",
    "Index",
    "Kind",
    "Literal",
    "Read",
    "Reduce",
    "Ref",
    "Scalar",
    "Size",
    "Solve",
    "Span",
    "call",
    "call_kind",
    "is_nonnegative",
    "product_of",
]
