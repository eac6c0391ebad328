"""Which dims of a result are cut into tiles."""

import pytest

from mixc.compiler.planning.tiled_dims import tiled_dims
from mixc.ir.expression import Kind, Reduce, Ref, call


def _sum(*factors):
    """The sum over D of a product of tensors with these axes."""
    refs = [Ref(f"x{n}", frozenset(axes), Kind.REAL) for n, axes in enumerate(factors)]
    product = refs[0]
    for ref in refs[1:]:
        product = call("mul", product, ref)
    return Reduce("sum", product, ("D",))


@pytest.mark.parametrize(
    ("expr", "order", "dims"),
    [
        (_sum("GRTD", "GND"), "GNRT", "NT"),  # a product of matrices: N from one, T from the other
        (_sum("RTD", "RND"), "NRT", "NT"),
        (_sum("RTD", "RTD"), "NRT", "RT"),  # the factors have the same axes
        (_sum("RTD", "RND"), "NRTE", "T"),  # columns of a fixed size are a tile's own
        (_sum("D"), "E", ""),
    ],
)
def test_two_dims_are_those_that_make_a_product_of_matrices(expr, order, dims):
    assert "".join(tiled_dims(expr, tuple(order), {*"NRT"}, {*"DE"})) == dims
