"""Every term of the mixer level as torch code that a person could have written."""

from __future__ import annotations

import re
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
    Read,
    Reduce,
    Ref,
    Size,
    Solve,
)
from ...ir.host import is_host
from ...ir.reductions import identity
from ..statements import Spellings
from ..triton.host import host_text
from .text import AND, ATOM, COMPARE, OR, PRODUCT, SUM, UNARY, Order, Piece, bare

_INFIX: Mapping[str, tuple[str, int]] = {
    "add": ("+", SUM),
    "sub": ("-", SUM),
    "mul": ("*", PRODUCT),
    "div": ("/", PRODUCT),
    "floordiv": ("//", PRODUCT),
    "mod": ("%", PRODUCT),
    "and": ("&", AND),
    "or": ("|", OR),
    "lt": ("<", COMPARE),
    "le": ("<=", COMPARE),
    "gt": (">", COMPARE),
    "ge": (">=", COMPARE),
    "eq": ("==", COMPARE),
    "ne": ("!=", COMPARE),
}
DTYPES = {Kind.BOOL: "torch.bool", Kind.INT: "torch.int64", Kind.REAL: "torch.float64"}
_COMPARISONS = frozenset("lt le gt ge eq ne".split())
_LOGIC = frozenset("and or not".split())
_REAL = TRANSCENDENTAL | {"div", "floor", "ceil", "round"}
_NAMED = {
    "logsigmoid": "torch.nn.functional.logsigmoid({0})",
    "gelu": "torch.nn.functional.gelu({0})",
    "gelu_tanh": 'torch.nn.functional.gelu({0}, approximate="tanh")',
    "silu": "torch.nn.functional.silu({0})",
    "elu": "torch.nn.functional.elu({0})",
    "detach": "torch.detach({0})",
    "max": "torch.maximum({0}, {1})",
    "min": "torch.minimum({0}, {1})",
}
_REDUCE = {"max": "amax", "min": "amin"}
_LETTERS = "abcdefghijklmnopqrstuvwxyz"
# Characters of the parts of a statement, and of a part that is worth a name.
_WIDEST, _NAMED_FROM = 52, 16

# Puts the statement ``name = code`` before the one at hand, and gives the name.
Keep = Callable[[str, str], str]


class Pieces(dict[str, Piece]):
    """What names stand for; ``sizes`` hears which were asked for."""

    def __init__(self, sizes: Spellings) -> None:
        super().__init__()
        self.sizes = sizes

    def __getitem__(self, name: str) -> Piece:
        self.sizes.note(name)
        return super().__getitem__(name)


@dataclass
class Terms:
    """A writer of expressions; ``names`` has the pieces that references stand for.

    ``rows`` are the dims of loops around, with the variable that stands for their position.
    ``shared`` are ids of nodes that several places have: they are ``keep``-t under a name.
    """

    order: Order
    names: Pieces
    position: Callable[[str], Piece]
    sizes: Spellings
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
            piece = replace(piece, code=self.keep("part", piece.code), level=ATOM)
            self.done[id(expr)] = piece
        return piece

    def _written(self, expr: Expr) -> Piece:
        match expr:
            case Index(dim):
                return self._index(dim)
            case Ref(name):
                self.lazily(name)
                return self.row(self.names[name])
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
        code = bare(host_text(expr, self.sizes))
        level = ATOM if code.isidentifier() or re.fullmatch(r"[\d.]+", code) else COMPARE
        return Piece(code, (), expr.kind, level, tensor=False)

    def _index(self, dim: str) -> Piece:
        if dim in self.rows:
            return Piece(self.rows[dim], (), Kind.INT)
        return self.position(dim)

    def row(self, piece: Piece) -> Piece:
        """A value as a loop around sees it: at its row."""
        if not set(self.rows) & set(piece.dims):
            return piece
        places = [self.rows.get(dim, ":") for dim in piece.dims]
        while places[-1] == ":":
            places.pop()
        dims = tuple(dim for dim in piece.dims if dim not in self.rows)
        return Piece(f"{piece.at(ATOM)}[{', '.join(places)}]", dims, piece.kind)

    def expanded(self, piece: Piece, dims: Iterable[str]) -> Piece:
        """The piece with all of ``dims``, repeated along those that it lacks."""
        wanted = self.order.of({*piece.dims, *dims})
        if wanted == piece.dims:
            return piece
        shape = ", ".join(self.sizes.get(dim, dim) for dim in wanted)
        if not piece.tensor:
            dtype = f"dtype={DTYPES[piece.kind]}, device={self.device}"
            zeros = piece.code in ("0", "0.0", "False")
            made = f"zeros([{shape}]" if zeros else f"full([{shape}], {piece.code}"
            code = f"torch.{made}, {dtype})"
            return Piece(code, wanted, piece.kind)
        whole = self.order.aligned(piece, wanted)
        return Piece(f"{whole.at(ATOM)}.expand({shape})", wanted, piece.kind)

    def short(self, pieces: Sequence[Piece]) -> list[Piece]:
        """Pieces that fit into one line together: the longest ones under names of their own."""
        made = list(pieces)
        while sum(len(p.code) for p in made) > _WIDEST:
            longest = max(range(len(made)), key=lambda n: len(made[n].code))
            piece = made[longest]
            if not piece.tensor or len(piece.code) < _NAMED_FROM:
                break
            made[longest] = replace(piece, code=self.keep("part", piece.code), level=ATOM)
        return made

    @property
    def device(self) -> str:
        """The variable that says where tensors are."""
        return self.sizes.get("device", "device")

    def as_tensor(self, code: str, kind: Kind | None = None) -> str:
        """A number as a tensor; of its own kind where none is given."""
        dtype = "" if kind is None else f"dtype={DTYPES[kind]}, "
        return f"torch.tensor({code}, {dtype}device={self.device})"

    def _chosen(self, args: list[Piece], kind: Kind) -> list[str]:
        """The arguments of a choice: its condition is a tensor, and so is one of two numbers."""
        condition, yes, no = args
        first = condition.code if condition.tensor else f"torch.tensor({condition.code})"
        numbers = not yes.tensor and not no.tensor
        return [first, self.as_tensor(yes.code, kind) if numbers else yes.code, no.code]

    # ---------------------------------------------------------------------- elementwise

    def _call(self, expr: Call, fn: str, args: list[Piece]) -> Piece:
        dims = self.order.of(dim for a in args for dim in a.dims)
        args = self.short(self._kinds(expr, fn, args))
        args = [self.order.aligned(a, dims) for a in args]
        if fn == "where" and args[0].tensor and [a.code for a in args[1:]] == ["True", "False"]:
            return replace(args[0], kind=expr.kind)
        if fn == "where":
            return Piece(
                f"torch.where({', '.join(self._chosen(args, expr.kind))})", dims, expr.kind
            )
        if fn in _INFIX:
            sign, level = _INFIX[fn]
            left = args[0].at(level + 1 if level == COMPARE else level)
            right = args[1].at(level if fn in ("and", "or") else level + 1)
            if fn in ("add", "mul") and args[1].level == level and args[1].tensor:
                right = args[1].at(level + 1)
            return Piece(f"{left} {sign} {right}", dims, expr.kind, level)
        if fn == "neg":
            return Piece(f"-{args[0].at(UNARY)}", dims, expr.kind, UNARY)
        if fn == "not":
            return Piece(f"~{args[0].at(UNARY)}", dims, expr.kind, UNARY)
        if fn == "softplus" and args[0].tensor:
            code = f"-torch.nn.functional.logsigmoid(-{args[0].at(UNARY)})"
            return Piece(code, dims, Kind.REAL, UNARY)
        if fn in ("max", "min") and any(not a.tensor for a in args):
            number, tensor = sorted(args, key=lambda a: a.tensor)
            side = "min" if fn == "max" else "max"
            code = f"torch.clamp({tensor.code}, {side}={number.code})"
            return Piece(code, dims, expr.kind)
        if any(not a.tensor for a in args) and fn != "pow":
            args = [
                a if a.tensor else replace(a, code=self.as_tensor(a.code, Kind.REAL)) for a in args
            ]
        text = _NAMED.get(fn, f"torch.{fn}({', '.join(a.code for a in args)})")
        piece = Piece(text.format(*(a.code for a in args)), dims, Kind.REAL)
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
            chain = "".join(f".prod({n + len(x.dims)})" for n in reversed(places))
            return Piece(x.at(ATOM) + chain, kept, x.kind)
        axes = str(places[0]) if len(places) == 1 else f"({', '.join(map(str, places))})"
        return Piece(f"{x.at(ATOM)}.{_REDUCE.get(op, op)}({axes})", kept, x.kind)

    def _admitted(self, op: str, x: Piece, where: Piece) -> Piece:
        if op in ("any", "all"):
            code = where if op == "any" else Piece(f"~{where.at(UNARY)}", where.dims, level=UNARY)
            dims = self.order.of({*x.dims, *where.dims})
            a, b = self.order.aligned(x, dims), self.order.aligned(code, dims)
            sign, level = ("&", AND) if op == "any" else ("|", OR)
            return Piece(f"{a.at(level)} {sign} {b.at(level)}", dims, Kind.BOOL, level)
        return self.chosen(where, x, _nothing(op, x.kind))

    def chosen(self, where: Piece, x: Piece, otherwise: str) -> Piece:
        """The piece where a condition holds, else a number."""
        dims = self.order.of({*x.dims, *where.dims})
        where, x = self.short([where, x])
        condition, value = self.order.aligned(where, dims), self.order.aligned(x, dims)
        text = value.code if value.tensor else self.as_tensor(value.code, Kind.REAL)
        return Piece(f"torch.where({condition.code}, {text}, {otherwise})", dims, x.kind)

    def both(self, a: Piece, b: Piece) -> Piece:
        """Where two conditions hold."""
        dims = self.order.of({*a.dims, *b.dims})
        left, right = self.order.aligned(a, dims), self.order.aligned(b, dims)
        return Piece(f"{left.at(AND)} & {right.at(AND)}", dims, Kind.BOOL, AND)

    def _member(self, dim: str, index: Piece) -> Piece:
        position = self._index(dim)
        dims = self.order.of({*index.dims, *position.dims})
        left, right = self.order.aligned(index, dims), self.order.aligned(position, dims)
        return Piece(f"{left.at(SUM)} == {right.at(SUM)}", dims, Kind.BOOL, COMPARE)

    def contracted(self, factors: Sequence[Piece], over: Sequence[str]) -> Piece:
        """The sum of a product: by einsum where several factors have axes."""
        numbers = [f for f in factors if not f.dims]
        tensors = [f.of_kind(Kind.REAL) for f in factors if f.dims]
        missing = [dim for dim in over if not any(dim in f.dims for f in tensors)]
        numbers += [Piece(self.sizes.get(dim, dim), tensor=False) for dim in missing]
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
        code = " * ".join(t.at(PRODUCT) if n == 0 else t.at(UNARY) for n, t in enumerate(texts))
        tensor = any(f.tensor for f in factors)
        level = PRODUCT if len(factors) > 1 else texts[0].level
        return Piece(code, dims, Kind.REAL, level, tensor)

    def _einsum(self, factors: Sequence[Piece], over: Sequence[str]) -> Piece:
        kept = self.order.of({dim for f in factors for dim in f.dims} - {*over})
        letters = _letters(dict.fromkeys(dim for f in factors for dim in f.dims))
        terms = ",".join("".join(letters[dim] for dim in f.dims) for f in factors)
        result = "".join(letters[dim] for dim in kept)
        listed = ", ".join(f.code for f in self.short(factors))
        return Piece(f'torch.einsum("{terms}->{result}", {listed})', kept)

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
        listed = [self.order.aligned(place, index_dims).code for place in places.values()]
        inside = all(self._inside(dim, index) for dim, index in at.items())
        if inside and len(places) == 1 and (direct := self._direct(x, places)) is not None:
            return direct
        table = self.order.permuted(x.at(ATOM), x.dims, (*places, *free))
        if inside:
            code = f"{table}[{', '.join(listed)}]"
        else:
            self.used.add("read")
            code = f"read({table}, [{', '.join(listed)}], {expr.fill!r})"
        made = (*index_dims, *free)
        wanted = self.order.of(made)
        if made != wanted and len(code) > _WIDEST:
            code = self.keep("part", code)
        return Piece(self.order.permuted(code, made, wanted), wanted, x.kind)

    def _direct(self, x: Piece, places: Mapping[str, Piece]) -> Piece | None:
        """``x[:, place]``, where that leaves all axes in order."""
        ((dim, place),) = places.items()
        axis = x.dims.index(dim)
        dims = (*x.dims[:axis], *place.dims, *x.dims[axis + 1 :])
        if dims != self.order.of(dims) or len(place.dims) > 1 < len(dims):
            return None
        return Piece(f"{x.at(ATOM)}[{':, ' * axis}{place.code}]", dims, x.kind)

    def _placed(self, place: Piece) -> Piece:
        code = place.code if place.tensor else self.as_tensor(place.code)
        return replace(
            place, code=code, tensor=True, level=ATOM if not place.tensor else place.level
        )

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
        return Piece(self.order.permuted(x.at(ATOM), dims, wanted), wanted, x.kind)

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
        code = x.at(ATOM)
        if expr.reverse:
            code = f"{code}.flip({axis}).cumsum({axis}).flip({axis})"
        else:
            code = f"{code}.cumsum({axis})"
        if not expr.exclusive:
            return Piece(code, x.dims, x.kind)
        return Piece(f"{code} - {x.at(PRODUCT)}", x.dims, x.kind, SUM)

    def _solve(self, expr: Solve) -> Piece:
        matrix = self.expanded(self.write(expr.matrix).of_kind(Kind.REAL), [expr.left, expr.right])
        vector = self.expanded(self.write(expr.vector).of_kind(Kind.REAL), [expr.left])
        batch = self.order.of({*matrix.dims} - {expr.left, expr.right})
        sides = self.order.of({*vector.dims} - {expr.left, *batch})
        if len(sides) > 1:
            raise UnsupportedError(f"right-hand sides with several axes: {expr}")
        matrix, vector = self.short([matrix, self.expanded(vector, batch)])
        a = self.order.permuted(matrix.code, matrix.dims, (*batch, expr.left, expr.right))
        b = self.order.permuted(vector.at(ATOM), vector.dims, (*batch, expr.left, *sides))
        code = f"torch.linalg.solve({a}, {b})"
        if not sides:
            code = f"torch.linalg.solve({a}, {b}[..., None])[..., 0]"
        made = (*batch, expr.right, *sides)
        return Piece(self.order.permuted(code, made, self.order.of(made)), self.order.of(made))


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


__all__ = ["Keep", "Terms", "factors_of"]
