"""Formulas and their disjunctive normal form, against the truth table."""

from __future__ import annotations

from itertools import product

from hypothesis import given, settings
from hypothesis import strategies as st

from mixc.compiler.analysis.masks.normal_form import (
    FALSE,
    TRUE,
    Atom,
    Conjunction,
    Every,
    Formula,
    Some,
    absorbed,
    disjuncts,
    formula,
)
from mixc.compiler.analysis.pointwise import Values, value_at
from mixc.ir.expression import Expr, Index, Kind, Literal, Scalar, call

NAMES = ("a", "b", "c", "d")
ATOMS = {name: Scalar(name, Kind.BOOL) for name in NAMES}

truths = st.recursive(
    st.one_of(st.sampled_from(list(ATOMS.values())), st.booleans().map(Literal)),
    lambda inner: st.one_of(
        st.builds(lambda x: call("not", x), inner),
        st.builds(call, st.sampled_from(["and", "or", "eq", "ne"]), inner, inner),
        st.builds(lambda *x: call("where", *x), inner, inner, inner),
    ),
    max_leaves=8,
)


def other(value: Expr) -> Formula:
    return Atom(value)


def compare(fn: str, a: Expr, b: Expr) -> Formula:
    return Atom(call(fn, a, b))


def holds(conjunctions: tuple[Conjunction, ...], values: Values) -> bool:
    return any(all(value_at(a.content, {}, values) for a in one) for one in conjunctions)  # type: ignore[arg-type]


@settings(max_examples=80, deadline=None)
@given(truths, st.booleans())
def test_the_normal_form_means_the_same(expr: Expr, negated: bool) -> None:
    found = disjuncts(formula(expr, compare, other, negated), 1000)
    assert found is not None
    for row in product([False, True], repeat=len(NAMES)):
        values = Values({}, dict(zip(NAMES, row, strict=True)))
        assert holds(found, values) is (bool(value_at(expr, {}, values)) != negated)


def test_comparisons_are_negated() -> None:
    i, j = Index("I"), Index("J")
    found = formula(call("not", call("and", call("lt", i, j), call("eq", i, 3))), compare, other)
    assert found == Some((Atom(call("ge", i, j)), Atom(call("ne", i, 3))))


def test_what_another_covers_is_gone() -> None:
    a, b, c = (Atom(name) for name in "abc")
    assert absorbed([(a, b), (c,), (a,), (a, b, c)]) == [(c,), (a,)]
    assert disjuncts(Every((Some((a, b)), a))) == ((a,),)


def test_constants() -> None:
    assert disjuncts(TRUE) == ((),)
    assert disjuncts(FALSE) == ()
    assert disjuncts(Every((TRUE, FALSE))) == ()
    assert disjuncts(Some((Atom("a"), TRUE))) == ((),)


def test_too_many_disjuncts() -> None:
    wide = Every(tuple(Some((Atom(f"a{n}"), Atom(f"b{n}"))) for n in range(6)))
    assert disjuncts(wide, limit=63) is None
    assert len(disjuncts(wide, limit=64) or ()) == 64


def test_what_doubles_is_opened_some_levels_deep() -> None:
    """A chain of a hundred equalities would have as many atoms as 2 ** 100."""
    expr: Expr = ATOMS["a"]
    for _ in range(100):
        expr = call("where", call("eq", expr, ATOMS["b"]), ATOMS["c"], ATOMS["d"])
    found = disjuncts(formula(expr, compare, other))
    assert found is not None
    assert len(found) <= 64
