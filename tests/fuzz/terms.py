"""Random expressions with their axes and kinds: every one that this writes, the language takes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from math import prod

from .choices import Choices
from .draft import Axes, Declared, Draft

# The most elements of a value on the way: the reference keeps them all, and tile programs are
# executed op by op.
ROOM = 200_000
MOST_INPUTS = 9

# What keeps a number in bounds, whatever it is.
_TAME = (
    "tanh({x}) sigmoid({x}) relu({x}) abs({x}) silu({x}) gelu({x}) gelu_tanh({x}) elu({x}) "
    "softplus({x}) logsigmoid({x}) erf({x}) sin({x}) cos({x}) exp(-abs({x})) log1p(abs({x})) "
    "-({x}) ({x})/2 detach({x}) exp2(-relu({x})) expm1(-abs({x})) log2(2+abs({x})) "
    "sqrt(1+abs({x})) rsqrt(1+({x})**2) 1/(1+exp({x})) ({x})/(1+abs({x})) ({x})**2 ({x})**3 "
    "clip({x},-1,1) min({x},0.5) max({x},-0.5) log(1+({x})**2) acos(0.9*sin({x})) "
    "where({x}>=0,{x},0.1*({x})) (2+tanh({x}))**0.5 (1+abs({x}))**-1 1-({x})"
).split()
# Steps: of what is exact in every precision, so that no rounding crosses one.
_STEPPED = ("floor(2*{x})", "ceil({x})", "round({x})", "sign({x})", "floor({x}) % 3")
_PAIRED = (
    "({a} + {b})",
    "({a} * {b})",
    "({a} - {b})",
    "max({a}, {b})",
    "min({a}, {b})",
    "({a} / (1 + abs({b})))",
    "logaddexp({a}, {b})",
    "({a} * sigmoid({b}))",
    "({a} * 2 + {b} / 2)",
)


@dataclass(frozen=True)
class Term:
    """An expression, safe to put in parentheses' place, and the axes that it has."""

    text: str
    axes: Axes = frozenset()

    def __str__(self) -> str:
        return self.text


@dataclass
class Writer:
    """Writes terms of a draft, declaring inputs as it needs them.

    ``names`` are values at hand beside the inputs. ``grouped``: how many groups a dim of heads
    falls in, by its name; where a value meets both, the heads are what it has.
    """

    choices: Choices
    draft: Draft
    names: list[Term] = field(default_factory=list)
    groups: dict[str, Callable[[], str]] = field(default_factory=dict)
    reads: bool = True  # whether values may be read at other positions

    # -------------------------------------------------------------------------- sizes and axes

    def size(self, dim: str) -> int:
        """The length that a dim has in this draft."""
        of = self.draft.dims.get(dim)
        if of is None:
            return self.draft.sizes[dim]
        if of in self.draft.sizes:
            return self.draft.sizes[of]
        if of.isdigit():
            return int(of)
        length, block = of.removeprefix("(").partition(" ")[0], int(of.rpartition(" ")[2])
        return -(-self.size(length) // block)

    def fits(self, axes: Iterable[str]) -> bool:
        """Whether a value with these axes is small enough to try."""
        return prod(max(1, self.size(dim)) for dim in axes) <= ROOM

    def together(self, *terms: Term) -> Axes:
        """The axes of what terms make when they meet."""
        axes = frozenset[str]().union(*(t.axes for t in terms))
        return axes - {small for small, large in self.draft.heads.items() if large in axes}

    def within(self, axes: Axes, allowed: Axes) -> bool:
        """Whether a value with ``axes`` may stand where ``allowed`` are."""
        heads = {small for small, large in self.draft.heads.items() if large in allowed}
        return axes <= allowed | heads and self.fits(axes | allowed)

    # ------------------------------------------------------------------------------- leaves

    def input(
        self, axes: Iterable[str], kind: str = "real", name: str = "", **more: object
    ) -> Term:
        """An input with these axes, in any order; a new one, or one that is there."""
        dims = frozenset(axes)
        same = [
            n
            for n, d in self.draft.inputs.items()
            if d.dims == dims and d.more.get("dtype", "real") == _DTYPES[kind] and not name
        ]
        if same and (self.choices.chance(60) or len(self.draft.inputs) >= MOST_INPUTS):
            return Term(self.choices.pick(same), dims)
        name = name or f"{_LETTERS[kind]}{len(self.draft.inputs)}"
        order = sorted(dims, key=_ORDER.index) if self.choices.chance(70) else None
        layout = order or self.choices.shuffled(sorted(dims))
        if kind != "real":
            more = {"dtype": _DTYPES[kind], **more}
        self.draft.inputs[name] = Declared(layout, dict(more))
        return Term(name, dims)

    def leaf(self, allowed: Axes, needed: Axes = frozenset()) -> Term:
        """A name or an input, with ``needed`` and some of the other axes that are allowed."""
        near = [t for t in self.names if needed <= t.axes and self.within(t.axes, allowed)]
        if near and self.choices.chance(60):
            return self.choices.pick(near)
        axes = needed | set(self.choices.some(sorted(allowed - needed), 0, 4))
        small = {large: small for small, large in self.draft.heads.items()}
        axes = {
            small[d] if d in small and d not in needed and self.choices.chance(30) else d
            for d in axes
        }
        while axes and not self.fits(axes | allowed):
            axes = axes - {max(axes, key=self.size)}
        return self.input(axes)

    # -------------------------------------------------------------------------------- reals

    def real(self, allowed: Axes, depth: int = 2, needed: Axes = frozenset()) -> Term:
        """A number with ``needed`` among the axes ``allowed``."""
        if depth <= 0:
            return self.leaf(allowed, needed)
        kinds: dict[str, int] = {"pair": 6, "tame": 4, "leaf": 2, "reduced": 5, "where": 2}
        kinds |= {"along": 3, "stepped": 1, "index": 1, "stacked": 1}
        if self.reads:
            kinds |= {"read": 3, "grouped": 3}
        made = getattr(self, "_" + self.choices.often(kinds))(allowed, depth, needed)
        if made is None or not needed <= made.axes or not self.within(made.axes, allowed):
            return self._pair(allowed, depth, needed)
        term: Term = made
        return term

    def _leaf(self, allowed: Axes, depth: int, needed: Axes) -> Term:
        return self.leaf(allowed, needed)

    def _pair(self, allowed: Axes, depth: int, needed: Axes) -> Term:
        a = self.real(allowed, depth - 1, needed)
        b = self.real(allowed, depth - 2)
        text = self.choices.pick(_PAIRED).format(a=a, b=b)
        return Term(text, self.together(a, b))

    def _tame(self, allowed: Axes, depth: int, needed: Axes) -> Term:
        x = self.real(allowed, depth - 1, needed)
        return Term(f"({self.choices.pick(_TAME).format(x=x)})", x.axes)

    def _stepped(self, allowed: Axes, depth: int, needed: Axes) -> Term | None:
        if not needed and self.choices.chance(50):
            n = self.integer(allowed, 2)
            return Term(f"({n} / 4)", n.axes)
        x = self.input(needed | set(self.choices.some(sorted(allowed - needed), 0, 3)))
        return Term(f"({self.choices.pick(_STEPPED).format(x=x)})", x.axes)

    def _where(self, allowed: Axes, depth: int, needed: Axes) -> Term:
        condition = self.truth(allowed)
        a, b = self.real(allowed, depth - 1, needed), self.real(allowed, depth - 2)
        return Term(f"where({condition}, {a}, {b})", self.together(condition, a, b))

    def _index(self, allowed: Axes, depth: int, needed: Axes) -> Term | None:
        n = self.integer(allowed, 1)
        x = self.real(allowed, depth - 1, needed)
        return Term(f"({x} * ({n}) / 8)", self.together(x, n))

    def _stacked(self, allowed: Axes, depth: int, needed: Axes) -> Term | None:
        """A new axis, read again or kept."""
        axis, how = self.choices.pick(
            (("Y", "sum(stack(Y, {a}, {b}), Y)"), ("X", "max(stack(X, {a}, {b}, 0), X)"))
        )
        if axis in self.draft.dims or axis in self.draft.sizes:
            return None
        a, b = self.real(allowed, depth - 2, needed), self.real(allowed, depth - 2)
        return Term(how.format(a=a, b=b), self.together(a, b))

    # --------------------------------------------------------------------- sums over an axis

    def _free(self, allowed: Axes) -> list[str]:
        """Axes that a sum may add to those allowed."""
        return [
            dim
            for dim in self.summable()
            if dim not in allowed and dim not in self.draft.heads and self.fits(allowed | {dim})
        ]

    def summable(self) -> list[str]:
        """The dims whose sizes inputs give."""
        known = {dim for dim, of in self.draft.dims.items() if of in self.draft.sizes}
        return sorted({*self.draft.sizes, *known} - set(self.draft.dims.values()))

    def _reduced(self, allowed: Axes, depth: int, needed: Axes) -> Term | None:
        free = self._free(allowed)
        if not free:
            return None
        over = frozenset(self.choices.some(free, 1, 2 if self.choices.chance(20) else 1))
        if not self.fits(allowed | over):
            over = frozenset([sorted(over)[0]])
        inner = allowed | over
        dims = ", ".join(sorted(over))
        first = self.choices.pick(sorted(over))
        if self.choices.chance(50):
            a, b = self.real(inner, depth - 2, needed | over), self.leaf(inner, over)
            x = Term(f"{a} * {b}", self.together(a, b))
            fn = "sum" if self.choices.chance(80) else "mean"
        else:
            x = self.real(inner, depth - 1, needed | over)
            fn = self.choices.pick(("sum", "mean", "max", "min", "norm", "logsumexp", "softsum"))
        if fn == "softsum":
            v = self.leaf(inner, over)
            axes = self.together(x, v) - over
            return Term(f"sum(softmax({x}, {dims}) * {v}, {dims})", axes)
        if fn in ("sum", "norm") and self.choices.chance(60):
            count = max(1, prod(self.size(dim) for dim in over))
            return self._conditional(fn, x, dims, inner, over, first, f" / {count**0.5:.0f}")
        return self._conditional(fn, x, dims, inner, over, first, "")

    def _conditional(
        self, fn: str, x: Term, dims: str, inner: Axes, over: Axes, first: str, after: str
    ) -> Term:
        if not self.choices.chance(30):
            return Term(f"({fn}({x}, {dims}){after})", x.axes - over)
        condition = self.truth(inner, frozenset([first]))
        axes = self.together(x, condition) - over
        text = f"({fn}({x}, {dims}, where={condition}){after})"
        if fn in ("max", "min", "logsumexp"):  # of nothing it is infinite
            text = f"clip{text[:-1]}, -9, 9)" if not after else text
        return Term(text, axes)

    def _grouped(self, allowed: Axes, depth: int, needed: Axes) -> Term | None:
        """By group: out[n] of the positions with ``t // block == n``, kept or read back."""
        free = [dim for dim in (*self._free(allowed), *sorted(allowed)) if dim in self.groups]
        if not free:
            return None
        dim = self.choices.pick(free)
        group = self.groups[dim]()
        block = self.draft.dims[group].rpartition(" ")[2]
        inner = (allowed | {dim}) - {group}
        if not self.fits(inner | {group}):
            return None
        x = self.real(inner, depth - 2, (needed & inner) | {dim})
        fn = self.choices.pick(("mean", "sum", "max", "logsumexp"))
        key = f"{group}={position(dim)} // {block}"
        where = ""
        axes = x.axes
        if fn in ("mean", "sum") and self.choices.chance(30):
            condition = self.truth(inner, frozenset([dim]))
            where, axes = f", where={condition}", self.together(x, condition)
        made = Term(f"{fn}({x}, {dim}, {key}{where})", axes - {dim} | {group})
        if group in allowed:
            return made
        if dim in allowed and self.choices.chance(60):
            return Term(f"at({made}, {key})", made.axes - {group} | {dim})
        return Term(f"sum({made}, {group})", made.axes - {group})

    # --------------------------------------------------------------------- along an axis

    def _along(self, allowed: Axes, depth: int, needed: Axes) -> Term | None:
        axes = [dim for dim in sorted(allowed) if dim not in self.draft.heads]
        if not axes:
            return None
        dim = self.choices.pick(axes)
        x = self.real(allowed, depth - 1, needed | {dim})
        kinds = {"cumsum": 4, "softmax": 2, "layernorm": 2, "rmsnorm": 2, "l2norm": 2, "flip": 1}
        kinds |= {"shift": 2, "rank": 1, "last": 1, "rope": 1}
        return getattr(self, "_" + self.choices.often(kinds))(x, dim, allowed)

    def _cumsum(self, x: Term, dim: str, allowed: Axes) -> Term:
        flags = self.choices.pick(
            ("", ", exclusive=true", ", reverse=true", ", reverse=true, exclusive=true")
        )
        scale = max(1, round(self.size(dim) ** 0.5))
        return Term(f"(cumsum({x}, {dim}{flags}) / {scale})", x.axes)

    def _softmax(self, x: Term, dim: str, allowed: Axes) -> Term:
        if self.choices.chance(70):
            return Term(f"softmax({x}, {dim})", x.axes)
        condition = self.truth(allowed, frozenset([dim]))
        return Term(f"softmax({x}, {dim}, where={condition})", self.together(x, condition))

    def _norm_of(self, fn: str, x: Term, dim: str) -> Term:
        return Term(f"{fn}({x}, {dim}, eps={self.choices.pick(('1e-3', '0.1'))})", x.axes)

    def _layernorm(self, x: Term, dim: str, allowed: Axes) -> Term:
        return self._norm_of("layernorm", x, dim)

    def _rmsnorm(self, x: Term, dim: str, allowed: Axes) -> Term:
        return self._norm_of("rmsnorm", x, dim)

    def _l2norm(self, x: Term, dim: str, allowed: Axes) -> Term:
        return self._norm_of("l2norm", x, dim)

    def _flip(self, x: Term, dim: str, allowed: Axes) -> Term:
        return Term(f"flip({x}, {dim})", x.axes)

    def _shift(self, x: Term, dim: str, allowed: Axes) -> Term:
        return Term(f"shift({x}, {dim}, {self.choices.pick((1, 2, -1, 3, 16, 40))})", x.axes)

    def _last(self, x: Term, dim: str, allowed: Axes) -> Term:
        return Term(f"({x} - last({x}, {dim}))", x.axes) if len(x.text) < 200 else x

    def _rank(self, x: Term, dim: str, allowed: Axes) -> Term | None:
        """Of an input: values that rounding can't put in another order."""
        if self.size(dim) > 300:
            return None
        z = self.input(frozenset([dim]) | set(self.choices.some(sorted(allowed - {dim}), 0, 2)))
        if not self.fits([*z.axes, dim]) or prod(map(self.size, z.axes)) * self.size(dim) > ROOM:
            return None
        kept = self.choices.whole(1, 4)
        return Term(f"where(rank({z}, {dim}) < {kept}, {x}, 0)", self.together(z, x))

    def _rope(self, x: Term, dim: str, allowed: Axes) -> Term | None:
        """Turned by positions of another axis."""
        positions = [other for other in sorted(allowed) if other in "IJT"]
        if not positions or self.size(dim) % 2 or dim in "IJT":
            return None
        how = self.choices.pick(("", ", interleaved=true", ", base=100"))
        place = self.choices.pick(positions)
        axes = x.axes | {place}
        return Term(f"rope({x}, {place.lower()}, {dim}{how})", axes)

    # ------------------------------------------------------------------------------ reading

    def _read(self, allowed: Axes, depth: int, needed: Axes) -> Term | None:
        """x at computed positions of an axis, which the indices bring back or another axis does."""
        positions = [dim for dim in sorted(allowed) if dim not in self.draft.heads]
        free = self._free(allowed)
        if not positions:
            return None
        to = self.choices.pick(positions)
        dim = to if not free or self.choices.chance(60) else self.choices.pick(free)
        inner = (allowed - {to}) | {dim}
        x = self.leaf(inner, frozenset([dim]))
        if dim != to and to in x.axes:
            return None
        index = self.position(dim, to)
        axes = x.axes - {dim} | index.axes
        fill = self.choices.often({"": 4, ", fill=1": 1, ", fill=-0.5": 1})
        text = f"at({x}, {dim}={index}{fill})" if fill else f"{x}[{dim}={index}]"
        made = Term(text, axes)
        if needed <= axes:
            return made
        other = self.real(allowed, depth - 2, needed)
        return Term(f"({made} + {other})", self.together(made, other))

    def position(self, dim: str, to: str) -> Term:
        """An index into ``dim`` made of positions of ``to``, or of an input of integers."""
        at, last = position(to), f"({dim}) - 1"
        texts = (
            f"{at} - 1", f"{at} + 2", f"{at} // 2", f"clip({at} + 1, 0, {last})", f"{last} - {at}",
            f"2 * {at} + 1", f"{at} % 3", f"{at} // 4 * 4", f"min({at}, {last})", "0", f"{at} - 17",
        )  # fmt: skip
        if self.choices.chance(20) and self.size(to):
            ids = self.input(frozenset([to]), "int", grad=False)
            return Term(str(ids), ids.axes)
        text = self.choices.pick(texts)
        return Term(text, frozenset() if text == "0" else frozenset([to]))

    # -------------------------------------------------------------------- integers and truths

    def integer(self, allowed: Axes, depth: int = 2) -> Term:
        """A whole number, small enough for 32 bits."""
        dims = [dim for dim in sorted(allowed) if dim not in self.draft.heads]
        if depth <= 0 or not dims or self.choices.chance(25):
            if not dims or self.choices.chance(25):
                axes = self.choices.some(dims, 0, 2)
                ids = self.input(axes, "int", grad=False)
                return Term(f"({ids} % 7)", ids.axes)
            dim = self.choices.pick(dims)
            return Term(position(dim), frozenset([dim]))
        a, b = self.integer(allowed, depth - 1), self.integer(allowed, depth - 2)
        number = self.choices.pick((2, 3, 4, 7, 16))
        form = self.choices.pick(
            ("({a} + {b})", "({a} - {b})", "({a} // {n})", "({a} % {n})", "({a} * {n})",
             "abs({a} - {b})", "min({a}, {b})", "max({a} - {n}, {b})", "({a} % {n}) ** 2",
             "where({a} < {n}, {a}, {b})", "sign({a} - {b})", "(-{a} // {n})", "(-{a} % {n})")
        )  # fmt: skip
        axes = self.together(a, b) if "{b}" in form else a.axes
        return Term(form.format(a=a, b=b, n=number), axes)

    def truth(self, allowed: Axes, needed: Axes = frozenset(), depth: int = 1) -> Term:
        """A condition with ``needed`` among the axes ``allowed``."""
        if depth and self.choices.chance(25):
            a, b = self.truth(allowed, needed, 0), self.truth(allowed, frozenset(), 0)
            form = self.choices.pick(("({a} and {b})", "({a} or {b})", "(not ({a}) or {b})"))
            return Term(form.format(a=a, b=b), self.together(a, b))
        kind = self.choices.often({"index": 3, "real": 3, "bool": 2, "ids": 1})
        axes = needed | set(self.choices.some(sorted(allowed - needed), 0, 1))
        axes = axes - {small for small in self.draft.heads if self.draft.heads[small] in axes}
        if kind == "bool":
            return self.input(axes, "bool", grad=False)
        if kind == "ids":
            ids = self.input(axes, "int", grad=False)
            return Term(f"({ids} % 3 != {self.choices.whole(0, 2)})", axes)
        if kind == "index" and len(axes) == 1:
            (dim,) = axes
            if dim not in self.draft.heads:
                return self._positions(dim)
        x = self.input(axes)
        relation = self.choices.pick((">", "<", ">=", "<="))
        return Term(f"({x} {relation} {self.choices.pick(('0.25', '-0.5', '0', '1'))})", axes)

    def _positions(self, dim: str) -> Term:
        at = position(dim)
        texts = (f"{at} % 3 != 1", f"{at} > 2", f"{at} // 4 % 2 == 0", f"{at} < 9", f"{at} >= 0")
        return Term(f"({self.choices.pick(texts)})", frozenset([dim]))


def position(dim: str) -> str:
    """The index along a dim, which a value may be called like: queries are ``q``."""
    return f"index({dim})" if dim == "Q" else dim.lower()


_LETTERS = {"real": "x", "int": "n_", "bool": "b_"}
_DTYPES = {"real": "real", "int": "int32", "bool": "bool"}
_ORDER = "B K H G I T J Q C D P E N M R L S".split()
