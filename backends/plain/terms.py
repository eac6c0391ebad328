"""Every term of the mixer level as torch code that a person could have written."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import inf, isfinite

from ...ir.errors import UnsupportedError
from ...ir.expression import (
    TRANSCENDENTAL,
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
)
from ...ir.host import is_host
from ...ir.reductions import identity
from ..host_text import host_text
from ..python_text import LOGIC, SIGNS, Text, call, chain, infix, listed, name
from .text import Order, Piece

_INFIX = {**SIGNS, **LOGIC}
DEVICE = name("device")  # where tensors are
DTYPES = {Kind.BOOL: "torch.bool", Kind.INT: "torch.int64", Kind.REAL: "torch.float64"}
_COMPARISONS = frozenset("lt le gt ge eq ne".split())
_LOGIC = frozenset("and or not".split())
_REAL = TRANSCENDENTAL | {"div", "floor", "ceil", "round"}
_NAMED = {
    "logsigmoid": "torch.nn.functional.logsigmoid",
    "gelu": "torch.nn.functional.gelu",
    "gelu_tanh": "torch.nn.functional.gelu",
    "silu": "torch.nn.functional.silu",
    "elu": "torch.nn.functional.elu",
    "max": "torch.maximum",
    "min": "torch.minimum",
}
_KEYWORDS = {"gelu_tanh": {"approximate": '"tanh"'}}
_REDUCE = {"max": "amax", "min": "amin"}
_LETTERS = "abcdefghijklmnopqrstuvwxyz"
# Characters of the parts of a statement, and of a part that is worth a name.
_WIDEST, _NAMED_FROM = 52, 16

# Gives a value a name: the statement for it comes before the one at hand.
Keep = Callable[[str, Text], Text]


@dataclass
class Terms:
    """A writer of expressions; ``names`` has the pieces that references stand for.

    ``rows`` are the dims of loops around, with the variable that stands for their position.
    ``shared`` are ids of nodes that several places have: they are ``keep``-t under a name.
    """

    order: Order
    names: dict[str, Piece]
    position: Callable[[str], Piece]
    sources: Mapping[str, str]  # the dim whose positions a dim runs over, by dim
    keep: Keep
    used: set[str]  # helper functions
    shared: frozenset[int] = frozenset()
    lazily: Callable[[str], None] = lambda _: None
    rows: dict[str, str] = field(default_factory=dict)
    done: dict[int, Piece] = field(default_factory=dict)

    def write(self, expr: Expr) -> Piece:
        """The code of an expression."""
        if id(expr) in self.done:
            return self.done[id(expr)]
        piece = self._written(expr)
        if id(expr) in self.shared and piece.tensor and not piece.code.isidentifier():
            piece = replace(piece, text=self.keep("part", piece.text))
            self.done[id(expr)] = piece
        return piece

    def _written(self, expr: Expr) -> Piece:
        match expr:
            case Index(dim):
                return self._index(dim)
            case Ref(known):
                self.lazily(known)
                return self.row(self.names[known])
            case Reduce():
                return self._reduce(expr)
            case Read():
                return self._read(expr)
            case Cumsum():
                return self._running_sum(expr)
            case Solve():
                return self._solve(expr)
            case Call(fn, args) if not is_host(expr):
                return self._call(expr, fn, [self.write(a) for a in args])
        return Piece(host_text(expr, {}), (), expr.kind, tensor=False)

    def _index(self, dim: str) -> Piece:
        if dim in self.rows:
            return Piece(name(self.rows[dim]), (), Kind.INT)
        return self.position(dim)

    def row(self, piece: Piece) -> Piece:
        """A value as a loop around sees it: at its row."""
        if not set(self.rows) & set(piece.dims):
            return piece
        last = max(n for n, dim in enumerate(piece.dims) if dim in self.rows)
        rows = [self.rows.get(dim) for dim in piece.dims[: last + 1]]
        places = [Text(":") if row is None else name(row) for row in rows]
        dims = tuple(dim for dim in piece.dims if dim not in self.rows)
        return Piece(piece.text.item(places), dims, piece.kind)

    def expanded(self, piece: Piece, dims: Iterable[str]) -> Piece:
        """The piece with all of ``dims``, repeated along those that it lacks."""
        wanted = self.order.of({*piece.dims, *dims})
        if wanted == piece.dims:
            return piece
        sizes = [name(dim) for dim in wanted]
        if piece.tensor:
            whole = self.order.aligned(piece, wanted)
            return Piece(whole.text.method("expand", *sizes), wanted, piece.kind)
        shape = listed(sizes, "[", "]")
        zeros = piece.code in ("0", "0.0", "False")
        function, given = ("zeros", [shape]) if zeros else ("full", [shape, piece.text])
        dtype = DTYPES[piece.kind]
        text = call(f"torch.{function}", *given, dtype=dtype, device=DEVICE)
        return Piece(text, wanted, piece.kind)

    def short(self, pieces: Sequence[Piece]) -> list[Piece]:
        """Pieces that fit into one line together: the longest ones under names of their own."""
        made = list(pieces)
        while sum(len(p.code) for p in made) > _WIDEST:
            longest = max(range(len(made)), key=lambda n: len(made[n].code))
            piece = made[longest]
            if not piece.tensor or len(piece.code) < _NAMED_FROM:
                break
            made[longest] = replace(piece, text=self.keep("part", piece.text))
        return made

    def _chosen(self, args: list[Piece], kind: Kind) -> list[Text]:
        """The arguments of a choice: its condition is a tensor, and so is one of two numbers."""
        condition, yes, no = args
        first = condition.text if condition.tensor else call("torch.tensor", condition.text)
        numbers = not yes.tensor and not no.tensor
        return [first, as_tensor(yes.text, kind) if numbers else yes.text, no.text]

    # ---------------------------------------------------------------------- elementwise

    def _call(self, expr: Call, fn: str, args: list[Piece]) -> Piece:
        dims = self.order.of(dim for a in args for dim in a.dims)
        args = self.short(self._kinds(expr, fn, args))
        args = [self.order.aligned(a, dims) for a in args]
        if fn == "where" and args[0].tensor and [a.code for a in args[1:]] == ["True", "False"]:
            return replace(args[0], kind=expr.kind)
        if fn == "where":
            return Piece(call("torch.where", *self._chosen(args, expr.kind)), dims, expr.kind)
        if fn in _INFIX:
            a, b = (arg.text for arg in args)
            text = infix(a, _INFIX[fn], b, regroup=fn in ("and", "or"))
            return Piece(text, dims, expr.kind)
        if fn in ("neg", "not"):
            return Piece(args[0].text.behind("-" if fn == "neg" else "~"), dims, expr.kind)
        if fn == "softplus" and args[0].tensor:
            below = call("torch.nn.functional.logsigmoid", args[0].text.behind("-"))
            return Piece(below.behind("-"), dims, Kind.REAL)
        if fn in ("max", "min") and any(not a.tensor for a in args):
            number, tensor = sorted(args, key=lambda a: a.tensor)
            side = "min" if fn == "max" else "max"
            text = call("torch.clamp", tensor.text, **{side: number.text})
            return Piece(text, dims, expr.kind)
        if any(not a.tensor for a in args) and fn != "pow":
            args = [a if a.tensor else replace(a, text=as_tensor(a.text, Kind.REAL)) for a in args]
        function = _NAMED.get(fn, f"torch.{fn}")
        text = call(function, *(a.text for a in args), **_KEYWORDS.get(fn, {}))
        piece = Piece(text, dims, Kind.REAL)
        return piece if expr.kind is Kind.REAL else piece.of_kind(expr.kind)

    def _kinds(self, expr: Call, fn: str, args: list[Piece]) -> list[Piece]:
        """The arguments as kinds that torch takes together."""
        if fn == "where":
            return [args[0].of_kind(Kind.BOOL), *(a.of_kind(expr.kind) for a in args[1:])]
        if fn in _LOGIC:
            return [a.of_kind(Kind.BOOL) for a in args]
        wanted = Kind.REAL if fn in _REAL else expr.kind
        if fn in _COMPARISONS:
            wanted = max(Kind.INT, *(a.kind for a in args))
        # Beside a float64 tensor torch makes float64 of integers by itself.
        promoted = fn in ("add", "sub", "mul") or fn in _COMPARISONS
        real = promoted and any(a.tensor and a.dims and a.kind is Kind.REAL for a in args)
        return [
            a if real and a.kind is Kind.INT and wanted is Kind.REAL else a.of_kind(wanted)
            for a in args
        ]

    # ------------------------------------------------------------------------ reductions

    def _reduce(self, expr: Reduce) -> Piece:
        if {dim for dim, _ in expr.group} & {*expr.over}:
            raise UnsupportedError(f"a sum by groups of its own axis: {expr}")
        where = None if expr.where is None else self.write(expr.where).of_kind(Kind.BOOL)
        for dim, index in expr.group:
            here = self._member(dim, self.write(index))
            where = here if where is None else self.both(where, here)
        if expr.op == "sum" and expr.kind is Kind.REAL and where is None:
            factors = [self.write(f) for f in factors_of(expr.x)]
            return self.contracted(factors, expr.over)
        kind = Kind.BOOL if expr.op in ("any", "all") else expr.kind
        x = self.write(expr.x).of_kind(kind)
        if where is not None:
            x = self._admitted(expr.op, x, where)
        x = self.expanded(x, expr.over)
        return self._reduced(expr.op, x, expr.over)

    def _reduced(self, op: str, x: Piece, over: Sequence[str]) -> Piece:
        (x,) = self.short([x])
        places = sorted(x.dims.index(dim) - len(x.dims) for dim in over)
        kept = tuple(dim for dim in x.dims if dim not in over)
        if op == "prod":
            products = "".join(f".prod({n + len(x.dims)})" for n in reversed(places))
            return Piece(x.text.then(products), kept, x.kind)
        axes = str(places[0]) if len(places) == 1 else f"({', '.join(map(str, places))})"
        return Piece(x.text.then(f".{_REDUCE.get(op, op)}({axes})"), kept, x.kind)

    def _admitted(self, op: str, x: Piece, where: Piece) -> Piece:
        if op in ("any", "all"):
            if op == "any":
                return self.both(x, where)
            outside = replace(where, text=where.text.behind("~"))
            return self._lined_up(x, "|", outside)
        return self.chosen(where, x, _nothing(op, x.kind))

    def chosen(self, where: Piece, x: Piece, otherwise: str) -> Piece:
        """The piece where a condition holds, else a number."""
        dims = self.order.of({*x.dims, *where.dims})
        where, x = self.short([where, x])
        condition, value = self.order.aligned(where, dims), self.order.aligned(x, dims)
        text = value.text if value.tensor else as_tensor(value.text, Kind.REAL)
        return Piece(call("torch.where", condition.text, text, otherwise), dims, x.kind)

    def both(self, a: Piece, b: Piece) -> Piece:
        """Where two conditions hold."""
        return self._lined_up(a, "&", b)

    def _member(self, dim: str, index: Piece) -> Piece:
        return self._lined_up(index, "==", self._index(dim))

    def _lined_up(self, a: Piece, sign: str, b: Piece) -> Piece:
        dims = self.order.of({*a.dims, *b.dims})
        left, right = self.order.aligned(a, dims), self.order.aligned(b, dims)
        return Piece(infix(left.text, sign, right.text, regroup=True), dims, Kind.BOOL)

    def contracted(self, factors: Sequence[Piece], over: Sequence[str]) -> Piece:
        """The sum of a product: by einsum where several factors have axes."""
        numbers = [f for f in factors if not f.dims]
        tensors = [f.of_kind(Kind.REAL) for f in factors if f.dims]
        missing = [dim for dim in over if not any(dim in f.dims for f in tensors)]
        numbers += [Piece(name(dim), tensor=False) for dim in missing]
        over = [dim for dim in over if dim not in missing]
        if len(tensors) > 1 and over:
            made = self._einsum(tensors, over)
        elif tensors:
            made = self._reduced("sum", tensors[0], over) if over else self.product(tensors)
        else:
            return self.product(numbers)
        return self.product([*numbers, made]) if numbers else made

    def product(self, factors: Sequence[Piece]) -> Piece:
        """The product of pieces that line up."""
        dims = self.order.of(dim for f in factors for dim in f.dims)
        texts = [self.order.aligned(f, dims) for f in self.short(factors)]
        text = chain("*", [t.text for t in texts])
        return Piece(text, dims, Kind.REAL, any(f.tensor for f in factors))

    def _einsum(self, factors: Sequence[Piece], over: Sequence[str]) -> Piece:
        kept = self.order.of({dim for f in factors for dim in f.dims} - {*over})
        letters = _letters(dict.fromkeys(dim for f in factors for dim in f.dims))
        terms = ",".join("".join(letters[dim] for dim in f.dims) for f in factors)
        result = "".join(letters[dim] for dim in kept)
        given = [f.text for f in self.short(factors)]
        return Piece(call("torch.einsum", f'"{terms}->{result}"', *given), kept)

    # --------------------------------------------------------------- reads, sums, systems

    def _read(self, expr: Read) -> Piece:
        x = self.write(expr.x)
        if not float(expr.fill).is_integer():
            x = x.of_kind(Kind.REAL)
        at = {dim: index for dim, index in expr.at if dim not in self.rows}
        if len(at) != len(expr.at):
            raise UnsupportedError(f"a read of other rows inside a loop: {expr}")
        x = self.expanded(x, [*at])
        renamed = self._renamed(x, at)
        if renamed is not None:
            return renamed
        places = {dim: self.write(index).of_kind(Kind.INT) for dim, index in at.items()}
        places = {dim: self._placed(place) for dim, place in places.items()}
        index_dims = self.order.of(dim for place in places.values() for dim in place.dims)
        shared = tuple(dim for dim in x.dims if dim not in at and dim in index_dims)
        free = tuple(dim for dim in x.dims if dim not in at and dim not in index_dims)
        places = {**{dim: self._index(dim) for dim in shared}, **places}
        x, *shorter = self.short([x, *places.values()])
        places = dict(zip(places, shorter, strict=True))
        at_places = [self.order.aligned(place, index_dims).text for place in places.values()]
        inside = all(self._inside(dim, index) for dim, index in at.items())
        if inside and len(places) == 1 and (direct := self._direct(x, places)) is not None:
            return direct
        table = self.order.permuted(x.text, x.dims, (*places, *free))
        if inside:
            text = table.item(at_places)
        else:
            self.used.add("read")
            text = call(
                "read", table, listed(at_places, "[", "]"), host_text(Literal(expr.fill), {})
            )
        made = (*index_dims, *free)
        wanted = self.order.of(made)
        if made != wanted and len(text.code) > _WIDEST:
            text = self.keep("part", text)
        return Piece(self.order.permuted(text, made, wanted), wanted, x.kind)

    def _direct(self, x: Piece, places: Mapping[str, Piece]) -> Piece | None:
        """``x[:, place]``, where that leaves all axes in order."""
        ((dim, place),) = places.items()
        axis = x.dims.index(dim)
        dims = (*x.dims[:axis], *place.dims, *x.dims[axis + 1 :])
        if dims != self.order.of(dims) or len(place.dims) > 1 < len(dims):
            return None
        return Piece(x.text.item([*[Text(":")] * axis, place.text]), dims, x.kind)

    def _placed(self, place: Piece) -> Piece:
        return place if place.tensor else replace(place, text=as_tensor(place.text), tensor=True)

    def _renamed(self, x: Piece, at: Mapping[str, Expr]) -> Piece | None:
        """A read at the index of a dim of the same sequence: the axis has another name."""
        names = {}
        for dim, index in at.items():
            match index:
                case Index(other) if self._same(dim, other) and other not in (*x.dims, *self.rows):
                    names[dim] = other
                case _:
                    return None
        if len(set(names.values())) < len(names):
            return None
        dims = tuple(names.get(dim, dim) for dim in x.dims)
        wanted = self.order.of(dims)
        if wanted == dims:
            return replace(x, dims=dims)
        return Piece(self.order.permuted(x.text, dims, wanted), wanted, x.kind)

    def _same(self, dim: str, other: str) -> bool:
        return dim == other or self.sources.get(dim, dim) == self.sources.get(other, other)

    def _inside(self, dim: str, index: Expr) -> bool:
        """Whether an index is never outside: of the same sequence, or a group of heads."""
        match index:
            case Index(other):
                return self._same(dim, other)
            case Call("floordiv", (Index(large), Call("floordiv", (Size(size), Size(small))))):
                return large == size and small == dim
            case Call("mod", (_, Size(size))):
                return size == dim
            case _:
                return False

    def _running_sum(self, expr: Cumsum) -> Piece:
        x = self.write(expr.x)
        x = self.expanded(x.of_kind(max(Kind.INT, x.kind)), [expr.over])
        axis = x.dims.index(expr.over)
        turned = f".flip({axis})" if expr.reverse else ""
        text = x.text.then(f"{turned}.cumsum({axis}){turned}")
        return Piece(infix(text, "-", x.text) if expr.exclusive else text, x.dims, x.kind)

    def _solve(self, expr: Solve) -> Piece:
        matrix = self.expanded(self.write(expr.matrix).of_kind(Kind.REAL), [expr.left, expr.right])
        vector = self.expanded(self.write(expr.vector).of_kind(Kind.REAL), [expr.left])
        batch = self.order.of({*matrix.dims} - {expr.left, expr.right})
        sides = self.order.of({*vector.dims} - {expr.left, *batch})
        if len(sides) > 1:
            raise UnsupportedError(f"right-hand sides with several axes: {expr}")
        matrix, vector = self.short([matrix, self.expanded(vector, batch)])
        a = self.order.permuted(matrix.text, matrix.dims, (*batch, expr.left, expr.right))
        b = self.order.permuted(vector.text, vector.dims, (*batch, expr.left, *sides))
        if sides:
            text = call("torch.linalg.solve", a, b)
        else:
            text = call("torch.linalg.solve", a, b.then("[..., None]")).then("[..., 0]")
        made = (*batch, expr.right, *sides)
        return Piece(self.order.permuted(text, made, self.order.of(made)), self.order.of(made))


def as_tensor(number: Text, kind: Kind | None = None) -> Text:
    """A number as a tensor; of its own kind where none is given."""
    dtype = {} if kind is None else {"dtype": DTYPES[kind]}
    return call("torch.tensor", number, **dtype, device=DEVICE)


def _nothing(op: str, kind: Kind) -> str:
    """What a reduction of no positions gives; integers end where 64 bits do."""
    number = identity(op)
    if kind is Kind.REAL:
        return repr(number) if isfinite(number) else f'float("{number}")'
    ends = {inf: "torch.iinfo(torch.int64).max", -inf: "torch.iinfo(torch.int64).min"}
    return ends.get(number, str(int(number)))


def factors_of(expr: Expr) -> list[Expr]:
    """The factors of a product, which a sum over it can contract; else the term itself."""
    match expr:
        case Call("mul", (a, b)) if not is_host(expr) and expr.kind is Kind.REAL:
            return [*factors_of(a), *factors_of(b)]
        case _:
            return [expr]


def _letters(dims: Mapping[str, object] | dict[str, None]) -> dict[str, str]:
    """A letter for each dim, its own where that is free."""
    found: dict[str, str] = {}
    for dim in dims:
        wishes = [c for c in dim.lower() if c in _LETTERS] + list(_LETTERS)
        found[dim] = next(c for c in wishes if c not in found.values())
    return found


__all__ = ["Keep", "Terms", "as_tensor", "factors_of"]
