"""Random masks, and the truth about a mask by brute force."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import strategies as st

from mixc.compiler.analysis.facts import Facts
from mixc.compiler.analysis.pointwise import Values, value_at
from mixc.ir.expression import Call, Expr, Index, Kind, Literal, Read, Ref, Scalar, Size, call

QUERY, KEY = Index("I"), Index("J")
FACTS = Facts(
    sorted=frozenset({("doc", "T"), ("doc_j", "J"), ("doc_i", "I"), ("when", "J")}),
    positive=frozenset({"block"}),
    sequences=(("I", "T"), ("J", "T")),
)
DOC = Ref("doc", frozenset({"T"}), Kind.INT)
DOC_J = Ref("doc_j", frozenset({"J"}), Kind.INT)
DOC_I = Ref("doc_i", frozenset({"I"}), Kind.INT)
WHEN = Ref("when", frozenset({"J"}), Kind.REAL)
ALPHA = Ref("alpha", frozenset({"H"}), Kind.REAL)  # may be infinite: no window for this head
BETA = Ref("beta", frozenset({"H"}), Kind.REAL)
START = Ref("start", frozenset({"I"}), Kind.INT)
GLOBAL_J = Ref("global_j", frozenset({"J"}), Kind.BOOL)
GLOBAL_I = Ref("global_i", frozenset({"I"}), Kind.BOOL)
PAIR = Ref("pair", frozenset({"I", "J"}), Kind.BOOL)
WINDOW, BLOCK = Scalar("window", Kind.INT), Scalar("block", Kind.INT)


@st.composite
def values(draw: st.DrawFn, equal: bool = True) -> Values:
    """Sizes, scalars and tensors for every name above."""
    rows = draw(st.integers(1, 9))
    columns = rows if equal else draw(st.integers(1, 9))

    def table(size: int, entries: st.SearchStrategy[object], ordered: bool = False) -> list[object]:
        found = draw(st.lists(entries, min_size=size, max_size=size))
        return sorted(found) if ordered else found  # type: ignore[type-var]

    small, truth = st.integers(-1, 6), st.booleans()
    real = st.sampled_from([-2.0, 0.0, 0.5, 1.0, 2.25, 3.0, 7.5, float("inf"), float("-inf")])
    return Values(
        {"I": rows, "J": columns, "T": rows, "H": 1},
        {"window": draw(st.integers(-2, 10)), "block": draw(st.integers(1, 4))},
        {
            "doc": (("T",), table(rows, small, ordered=True)),
            "doc_j": (("J",), table(columns, small, ordered=True)),
            "doc_i": (("I",), table(rows, small, ordered=True)),
            "when": (("J",), table(columns, real, ordered=True)),
            "alpha": (("H",), table(1, real)),
            "beta": (("H",), table(1, st.sampled_from([-1.5, 0.0, 0.75, 2.0]))),
            "start": (("I",), table(rows, small)),
            "global_j": (("J",), table(columns, truth)),
            "global_i": (("I",), table(rows, truth)),
            "pair": (("I", "J"), [table(columns, truth) for _ in range(rows)]),
        },
    )


_FACTORS = (1, 1, 1, -1, 2, -3, 0.5)
_OPAQUE = (GLOBAL_J, GLOBAL_I, PAIR, call("eq", call("mod", call("sub", QUERY, KEY), 3), 0))
_TABLES = (Read(DOC, (("T", KEY),)), Read(DOC, (("T", QUERY),)), DOC_J, DOC_I, WHEN, ALPHA)
_FREE = (ALPHA, WINDOW, BLOCK, START, DOC_I, Size("T"), Literal(2.5))


def _number(draw: st.DrawFn) -> Literal:
    return Literal(draw(st.integers(-6, 12)))


def _position(draw: st.DrawFn, depth: int) -> Expr:
    """A number made of the positions."""
    kind = draw(st.integers(0, 9)) if depth else 0
    if kind <= 1:
        term: Expr = draw(st.sampled_from((QUERY, KEY, KEY)))
        factor = draw(st.sampled_from(_FACTORS))
        return term if factor == 1 else call("mul", factor, term)
    inner = _position(draw, depth - 1)
    match kind:
        case 2 | 3:
            other = draw(st.sampled_from((_position(draw, depth - 1), BETA, *_FREE[1:])))
            return call(draw(st.sampled_from(("add", "sub"))), inner, other)
        case 4 | 5:
            other = draw(st.sampled_from((QUERY, KEY, WINDOW, BLOCK, Literal(3))))
            return call(draw(st.sampled_from(("max", "min"))), inner, other)
        case 6:
            return call("abs", inner)
        case 7:
            return call("div", inner, BLOCK)
        case 8:
            return call("where", draw(st.sampled_from((GLOBAL_I, window()))), inner, Literal(3))
        case _:
            whole = inner.kind <= Kind.INT
            return call("floordiv", inner, BLOCK) if whole else call("floor", inner)


def _comparison(draw: st.DrawFn) -> Expr:
    fn = draw(st.sampled_from(("lt", "le", "gt", "ge", "eq", "ne")))
    if draw(st.integers(0, 2)) == 0:
        other = draw(st.sampled_from((*_TABLES, _number(draw))))
        return call(fn, draw(st.sampled_from(_TABLES)), other)
    free = draw(st.sampled_from((*_FREE, _number(draw))))
    right = _position(draw, 1) if draw(st.booleans()) else free
    return call(fn, _position(draw, 3), right)


def _mask(draw: st.DrawFn, depth: int) -> Expr:
    kind = draw(st.integers(0, 8)) if depth else 0
    if kind <= 1:
        return _comparison(draw)
    if kind == 2:
        return draw(st.sampled_from(_OPAQUE))
    a = _mask(draw, depth - 1)
    if kind == 3:
        return call("not", a)
    b = _mask(draw, depth - 1)
    if kind == 4:
        return call("where", a, b, _mask(draw, depth - 1))
    return call("eq" if kind == 5 else ("and", "or")[kind % 2], a, b)


@st.composite
def masks(draw: st.DrawFn) -> Expr:
    """A truth value over I and J."""
    return _mask(draw, draw(st.integers(0, 3)))


def visible(mask: Expr, sizes_and_values: Values) -> list[list[bool]]:
    """The mask at every (i, j)."""
    sizes = sizes_and_values.sizes
    return [
        [
            bool(value_at(mask, {"I": i, "J": j, "H": 0}, sizes_and_values))
            for j in range(sizes["J"])
        ]
        for i in range(sizes["I"])
    ]


def causal() -> Call:
    return call("le", KEY, QUERY)


def window() -> Call:
    return call("lt", call("sub", QUERY, KEY), WINDOW)


def both(*parts: Expr) -> Expr:
    result = parts[0]
    for part in parts[1:]:
        result = call("and", result, part)
    return result


def either(*parts: Expr) -> Expr:
    result = parts[0]
    for part in parts[1:]:
        result = call("or", result, part)
    return result


def with_values(**values: float) -> Facts:
    """The facts, with the values of some params known."""
    return replace(FACTS, values=tuple(values.items()))


@st.composite
def numbers(draw: st.DrawFn) -> Expr:
    """A number over I and J."""
    return _position(draw, draw(st.integers(0, 4)))
