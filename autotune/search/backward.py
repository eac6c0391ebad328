"""The backward pass of a mixer as a problem of its own: what a training step runs by default."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from ...compiler.mixers.derivative.differentiate import differentiate
from ...ir.errors import UnsupportedError
from ...ir.expression import Kind
from ...ir.mixer import Mixer
from ...ir.optional import free_dims, without_inputs
from ..bench.timed_inputs import left_out
from ..checking.passes import Origin

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
        sizes=_known(backward, problem.sizes),
        checked=_known(backward, problem.checked),
        origin=Origin(derivative, problem.dtype, problem.sizes, problem.checked),
    )


def trained(mixer: Mixer) -> tuple[str, ...]:
    """The inputs that a training step takes gradients by."""
    real = (i for i in mixer.inputs if i.kind is Kind.REAL and i.grad)
    return tuple(i.name for i in real if i.held is None or i.held.trained)


def _known(mixer: Mixer, sizes: Mapping[str, int]) -> dict[str, int]:
    """The sizes of dims that a mixer has."""
    own = free_dims(mixer) | {name for pair in mixer.sequences for name in pair}
    own |= {dim for pair in mixer.heads for dim in pair} | {dim for dim, _ in mixer.sizes}
    return {dim: size for dim, size in sizes.items() if dim in own}


__all__ = ["backward_problem", "trained"]
