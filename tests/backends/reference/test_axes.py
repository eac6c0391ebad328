"""Reductions, reads and running sums, against loops over positions in plain Python."""

import itertools
import math

import pytest
import torch

from mixc.backends.reference import axes
from mixc.backends.reference.axes import contract
from mixc.backends.reference.evaluate import evaluate
from mixc.backends.reference.values import Setting, Value
from mixc.ir.expression import Cumsum, Index, Kind, Literal, Read, Reduce, Ref, Size, call

SIZES = {"B": 2, "I": 4, "J": 5, "N": 3}
PYTHON = {
    "sum": lambda xs: math.fsum(xs),
    "prod": math.prod,
    "max": lambda xs: max(xs, default=-math.inf),
    "min": lambda xs: min(xs, default=math.inf),
    "any": any,
    "all": all,
}


def ref(name, *dims, kind=Kind.REAL):
    return Ref(name, frozenset(dims), kind)


def normal(*dims, grad=False):
    shape = [SIZES[d] for d in dims]
    return Value(torch.randn(shape, dtype=torch.float64, requires_grad=grad), dims)


def check(expr, values, formula):
    """Compare with ``formula``, a function of one index per axis of the result."""
    found = evaluate(expr, SIZES, values)
    assert set(found.dims) == set(expr.axes)
    for place in itertools.product(*(range(SIZES[d]) for d in found.dims)):
        wanted = formula(**dict(zip((d.lower() for d in found.dims), place, strict=True)))
        assert found.tensor[place].item() == pytest.approx(wanted, rel=1e-12, abs=1e-13), place


@pytest.mark.parametrize("op", sorted(PYTHON))
@pytest.mark.parametrize("spoilt", [False, True])
def test_reductions_of_what_is_admitted(op, spoilt):
    x = normal("B", "I", "J")
    if op in ("any", "all"):
        x = Value(x.tensor > 0, x.dims)
    if spoilt and op not in ("any", "all"):
        x.tensor[:, 2, 3] = math.nan  # where nothing is admitted
    where = call("and", call("lt", Index("J"), Index("I")), call("lt", Index("I"), 2))
    term = ref("x", "B", "I", "J", kind=Kind.BOOL if op in ("any", "all") else Kind.REAL)

    def formula(b, i):
        return PYTHON[op]([x.tensor[b, i, j].item() for j in range(5) if j < i < 2])

    check(Reduce(op, term, ("J",), where), {"x": x}, formula)


@pytest.mark.parametrize("op", sorted(PYTHON))
def test_reductions_by_group(op):
    x = normal("B", "J")
    term = ref("x", "B", "J") if op not in ("any", "all") else call("gt", ref("x", "B", "J"), 0)
    # Groups of two; the last, 4 // 2 - 1 = 1, shares; position 0 falls outside.
    index = call("sub", call("floordiv", Index("J"), 2), 1)

    def formula(b, n):
        xs = [x.tensor[b, j].item() for j in range(5) if j // 2 - 1 == n]
        return PYTHON[op]([v > 0 for v in xs] if op in ("any", "all") else xs)

    check(Reduce(op, term, ("J",), None, (("N", index),)), {"x": x}, formula)


def test_reductions_by_two_groups_and_a_condition():
    x = normal("I", "J")
    group = (("N", call("floordiv", Index("J"), 2)), ("B", call("mod", Index("I"), 2)))
    where = call("ne", Index("I"), Index("J"))

    def formula(n, b):
        pairs = itertools.product(range(4), range(5))
        return math.fsum(
            x.tensor[i, j].item() for i, j in pairs if j // 2 == n and i % 2 == b and i != j
        )

    check(Reduce("sum", ref("x", "I", "J"), ("I", "J"), where, group), {"x": x}, formula)


def test_a_contraction_is_the_sum_of_the_product():
    x, y, z = normal("B", "I", "J"), normal("J", "N"), normal("B")
    product = call(
        "mul",
        call("mul", ref("x", "B", "I", "J"), ref("y", "J", "N")),
        call("mul", 2.5, ref("z", "B")),
    )

    def formula(b, i, n):
        terms = [x.tensor[b, i, j] * y.tensor[j, n] * 2.5 * z.tensor[b] for j in range(5)]
        return sum(terms).item()

    check(Reduce("sum", product, ("J",)), {"x": x, "y": y, "z": z}, formula)


def test_a_sum_over_an_axis_that_the_term_lacks_counts_it():
    check(
        Reduce("sum", ref("x", "I"), ("J",)),
        {"x": (x := normal("I"))},
        lambda i: 5 * x.tensor[i].item(),
    )
    check(Reduce("sum", Literal(2), ("J", "I")), {}, lambda: 40)


def test_integers_are_summed_as_integers():
    big = call("add", call("mul", Index("J"), 2**55), 1)
    found = evaluate(
        Reduce("sum", call("mul", big, call("le", Index("J"), Index("I"))), ("J",)), SIZES
    )
    assert found.tensor.dtype == torch.int64
    assert found.tensor.tolist() == [sum(j * 2**55 + 1 for j in range(i + 1)) for i in range(4)]


@pytest.mark.parametrize("op", sorted(PYTHON))
def test_no_positions_at_all(op):
    x = Value(
        torch.zeros(2, 0, dtype=torch.bool if op in ("any", "all") else torch.float64), ("B", "J")
    )
    term = ref("x", "B", "J", kind=Kind.BOOL if op in ("any", "all") else Kind.REAL)
    found = evaluate(Reduce(op, term, ("J",)), {"B": 2, "J": 0}, {"x": x}).tensor
    assert found.tolist() == [PYTHON[op]([])] * 2


def test_contracting_keeps_gradients():
    setting = Setting(SIZES, {}, torch.float64, torch.device("cpu"))
    a, b = normal("I", "J", grad=True), normal("J", grad=True)
    scale = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)

    def total(x, y, s):
        factors = [Value(x, ("I", "J")), Value(y, ("J",)), Value(s)]
        return contract(setting, factors, ["J", "B"]).tensor

    assert torch.autograd.gradcheck(total, (a.tensor, b.tensor, scale))


@pytest.mark.parametrize("grad", [False, True])
def test_an_infinite_factor_is_in_the_sums_that_it_takes_part_in(grad):
    a, b = normal("I", "J", grad=grad), normal("B", "J", grad=grad)
    with torch.no_grad():
        a.tensor[1, 2], a.tensor[2, 0], a.tensor[2, 1] = -math.inf, math.inf, -math.inf
        b.tensor[0, 2], b.tensor[:, 0], b.tensor[:, 1] = 0.0, 1.0, 2.0
    factors = call("mul", ref("a", "I", "J"), ref("b", "B", "J"))
    found = evaluate(Reduce("sum", factors, ("J",)), SIZES, {"a": a, "b": b})
    wanted = torch.einsum("ij,bj->bi", a.tensor, b.tensor)
    assert wanted[0, 1].isnan()
    assert wanted[1, 1].isinf()
    assert wanted[:, 2].isnan().all()
    torch.testing.assert_close(found.tensor, wanted, equal_nan=True)


@pytest.mark.parametrize("fill", [0.0, -1.0, -math.inf])
def test_reads_at_computed_places(fill):
    x = normal("B", "I", "N")
    place = call("sub", call("add", Index("I"), Index("J")), 2)

    def formula(b, n, i, j):
        at = i + j - 2
        return x.tensor[b, at, n].item() if 0 <= at < 4 else fill

    # The result's I is that of the place: x's own is gone.
    check(Read(ref("x", "B", "I", "N"), (("I", place),), fill), {"x": x}, formula)


def test_reads_in_step_with_the_axes_they_share():
    x = normal("B", "I", "N")
    where = Value(torch.tensor([[3, -1, 0, 9, 2], [0, 1, 2, 3, 4]]), ("B", "J"))
    expr = Read(ref("x", "B", "I", "N"), (("I", ref("where", "B", "J", kind=Kind.INT)),))

    def formula(b, j, n):
        at = int(where.tensor[b, j])
        return x.tensor[b, at, n].item() if 0 <= at < 4 else 0.0

    check(expr, {"x": x, "where": where}, formula)


def test_reads_at_several_places_exchange():
    sizes = {"P": 3, "D": 3}
    x = torch.randn(3, 3)
    found = evaluate(
        Read(ref("x", "P", "D"), (("D", Index("P")), ("P", Index("D")))),
        sizes,
        {"x": Value(x, ("P", "D"))},
    )
    assert found.dims == ("P", "D")
    assert torch.equal(found.tensor, x.T)


def test_reads_of_one_place_and_of_an_empty_table():
    x = normal("I", "J")
    last = call("sub", Size("J"), 1)
    check(Read(ref("x", "I", "J"), (("J", last),)), {"x": x}, lambda i: x.tensor[i, 4].item())
    empty = {"x": Value(torch.zeros(0, 3), ("J", "N"))}
    found = evaluate(
        Read(ref("x", "J", "N"), (("J", Index("I")),), 7.0), {"I": 2, "J": 0, "N": 3}, empty
    )
    assert found.tensor.tolist() == [[7.0] * 3] * 2


def test_reading_is_the_adjoint_of_adding_by_group():
    x = normal("J", grad=True)
    index = call("floordiv", Index("I"), 2)
    found = evaluate(Read(ref("x", "J"), (("J", index),)), SIZES, {"x": x}).tensor
    weights = torch.randn(4, dtype=torch.float64)
    (gradient,) = torch.autograd.grad(found @ weights, x.tensor)
    assert gradient.tolist() == pytest.approx(
        [weights[:2].sum().item(), weights[2:].sum().item(), 0, 0, 0]
    )


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("exclusive", [False, True])
def test_running_sums(reverse, exclusive):
    x = normal("B", "J")

    def formula(b, j):
        earlier = range(j + 1, 5) if reverse else range(j)
        return math.fsum(
            x.tensor[b, t].item() for t in ([*earlier] if exclusive else [*earlier, j])
        )

    check(Cumsum(ref("x", "B", "J"), "J", reverse, exclusive), {"x": x}, formula)


@pytest.mark.parametrize("op", ["max", "min", "sum", "any"])
def test_groups_some_after_others_give_the_same(op: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of many groups, each of many positions, not all fit into memory at once."""
    sizes = {"B": 2, "J": 13, "N": 5, "D": 3}
    setting = Setting(sizes, {}, torch.float64, torch.device("cpu"))
    x = Value(torch.randn(2, 13, 3, dtype=torch.float64), ("B", "J", "D"))
    group = [("N", Value(torch.arange(13) // 3, ("J",)))]
    where = Value(torch.arange(13) % 2 == 0, ("J",))
    wanted = axes.reduce(setting, op, x, ["J"], where, group)
    monkeypatch.setattr(axes, "_MOST_AT_ONCE", 200)
    found = axes.reduce(setting, op, x, ["J"], where, group)
    assert found.dims == wanted.dims
    torch.testing.assert_close(found.tensor, wanted.tensor, rtol=0, atol=0)
