"""The backward pass of a mixer as a problem of its own: what a training step runs by default."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from ...compiler.mixers.derivative.differentiate import differentiate
from ...ir.errors import UnsupportedError
from ...ir.expression import Kind
from ...ir.mixer import Mixer
from ...ir.optional import without_inputs
from ..bench.timed_inputs import left_out
from ..checking.passes import Origin
from ..checking.shapes import known_sizes

if TYPE_CHECKING:
    from .trial import Problem


def backward_problem(problem: Problem) -> Problem:
    """The backward pass of a problem's mixer, without inputs that a typical call leaves out.

    Every real input that is no buffer wants a gradient. The dtype is the one that a training step
    works in.

    Raises UnsupportedError where the derivative is not there.
    """
    mixer = without_inputs(problem.mixer, left_out(problem.mixer))
    derivative = differentiate(mixer, trained(mixer))
    if not derivative.gradients:
        raise UnsupportedError(f"{mixer.name}: no output has a gradient by an input")
    backward = derivative.backward
    in_float32 = derivative.in_float32 and problem.device == "cpu"  # others round products alone
    return replace(
        problem,
        mixer=backward,
        dtype="float32" if in_float32 else problem.dtype,
        sizes=known_sizes(backward, problem.sizes),
        checked=known_sizes(backward, problem.checked),
        origin=Origin(derivative, problem.dtype, problem.sizes, problem.checked),
    )


def trained(mixer: Mixer) -> tuple[str, ...]:
    """The inputs that a training step takes gradients by."""
    real = (i for i in mixer.inputs if i.kind is Kind.REAL and i.grad)
    return tuple(i.name for i in real if i.held is None or i.held.trained)


__all__ = ["backward_problem", "trained"]
