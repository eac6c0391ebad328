"""What reductions of nothing give, beside torch's own."""

import pytest
import torch

from mixc.ir.expression import REDUCTIONS
from mixc.ir.host import FUNCTIONS
from mixc.ir.reductions import REPEATED, identity, whole_identity


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_the_identity_changes_nothing(reduction):
    truths = reduction in ("any", "all")
    for x in (False, True) if truths else (-7, -0.5, 0, 3, 1e300):
        assert FUNCTIONS[REPEATED[reduction]](identity(reduction), x) == x
        if isinstance(x, int):
            assert FUNCTIONS[REPEATED[reduction]](whole_identity(reduction, 32), x) == x


@pytest.mark.parametrize("reduction", ["sum", "prod", "any", "all"])
def test_torch_gives_the_same_for_nothing(reduction):
    assert identity(reduction) == getattr(torch.zeros(0), reduction)().item()


def test_the_ends_of_the_integers_can_be_negated():
    assert whole_identity("max", 64) == -whole_identity("min", 64) == -(2**63 - 1)
