"""The measure of error and the table of limits."""

import math

import pytest
import torch

from mixc.autotune.checking.tolerances import FLOORS, error_limit, error_of, errors_of, scales_of


def test_errors_are_relative_to_the_largest_value():
    reference = torch.tensor([0.001, -0.004])
    assert error_of(torch.tensor([0.001, -0.003]), reference) == pytest.approx(0.25)
    assert error_of(torch.tensor([5.0]), torch.tensor([0.0])) == 5.0
    assert error_of(torch.zeros(0), torch.zeros(0)) == 0.0


@pytest.mark.parametrize(
    "found",
    [[1.0, math.nan, 2.0], [1.0, math.inf, 2.0], [1.0, 3.0, 2.0], [-math.inf, -math.inf, 2.0]],
)
def test_infinities_and_nans_must_agree(found):
    reference = torch.tensor([1.0, -math.inf, 2.0])
    assert error_of(torch.tensor(found), reference) == math.inf
    assert error_of(torch.tensor([1.0, -math.inf, 3.0]), reference) == 0.5
    both = torch.tensor([math.nan, 1.0])
    assert error_of(both.clone(), both) == 0.0
    assert error_of(torch.tensor([-math.inf]), torch.tensor([-math.inf])) == 0.0


def test_integers_must_be_equal():
    assert error_of(torch.tensor([3, 4]).int(), torch.tensor([3, 4])) == 0.0
    assert error_of(torch.tensor([3, 5]), torch.tensor([3, 4])) == math.inf
    chosen = {"some": torch.tensor([True, False]), "count": torch.tensor([-7])}
    assert scales_of(torch.float32, chosen) == {"some": 1.0, "count": 1.0}
    assert errors_of(torch.float32, chosen, chosen) == {"some": 0.0, "count": 0.0}


def test_a_gradient_that_lost_half_of_its_digits_is_measured_by_the_largest():
    wanted = {"a": torch.tensor([4.0, -8.0]), "b": torch.tensor([1e-6]), "c": torch.tensor([0.01])}
    assert scales_of(torch.float32, wanted) == {
        "a": 8.0,
        "b": pytest.approx(1e-6),
        "c": pytest.approx(0.01),
    }
    largest = {"a": 8.0, "b": 8.0, "c": pytest.approx(0.01)}
    assert scales_of(torch.float32, wanted, gradients=True) == largest
    assert scales_of(torch.bfloat16, wanted, gradients=True)["c"] == 8.0
    assert scales_of(torch.float32, {"a": torch.zeros(2)}, gradients=True) == {"a": 1.0}
    found = {**wanted, "b": torch.tensor([3e-6])}
    assert errors_of(torch.float32, found, wanted, gradients=True)["b"] == pytest.approx(2.5e-7)


def test_limits():
    assert error_limit(torch.float32, 1e-3) == 2e-3 + FLOORS[torch.float32]
    assert error_limit(torch.float16, math.inf) == FLOORS[torch.float16]
    assert FLOORS[torch.float64] < FLOORS[torch.float32] < FLOORS[torch.float16]
    assert FLOORS[torch.float16] < FLOORS[torch.bfloat16] < 0.01
