"""Calls that gradients go through: forward and backward by generated kernels, under autograd."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..compiler.mixers.derivative.differentiate import Derivative, differentiate
from ..compiler.mixers.derivative.in_segments import in_segments
from ..compiler.pipeline import lower
from ..ir.binding import Number, bind_sizes
from ..ir.errors import UnsupportedError
from ..ir.mixer import Mixer
from ..ir.optional import without_inputs
from ..ir.roles import feature_dims
from .kept import Kept
from .passes import Passes
from .segmenting import Segmenting, is_little

if TYPE_CHECKING:
    from .backends import Runner
    from .segmented import SegmentedPasses

    # The kernels of a mixer; with another mixer, in the configuration that is stored for that.
    MakeRunner = Callable[..., Runner]

_MOST_SHAPES = 256


class Training:
    """A mixer that is trained through; kernels are made once for each set of inputs that want a
    gradient.

    ``runner`` makes the kernels of a mixer; with ``tuned``, whose configuration the forward pass
    takes, it is asked for those in the configuration that is stored for a second mixer.
    ``narrow``: their products take 16 bits, so backward passes need not work in float32. ``kept``
    is as for ``mixc.load``.
    """

    def __init__(
        self,
        mixer: Mixer,
        runner: MakeRunner,
        narrow: bool = False,
        kept: Kept = "all",
        tuned: Mixer | None = None,
    ) -> None:
        self.mixer = mixer
        self.runner = runner
        self.narrow = narrow
        self.kept: Kept = kept
        self.tuned = tuned
        self.passes: dict[object, Passes | str] = {}
        self.segmented: dict[object, Segmenting | None] = {}
        self.chosen: dict[object, Passes | SegmentedPasses] = {}  # by shapes

    def __call__(
        self, tensors: Mapping[str, Tensor], params: Mapping[str, Number]
    ) -> dict[str, Tensor]:
        """The outputs by name, with a backward pass.

        Raises:
            UnsupportedError: a derivative that is not there, or that no kernel computes.
        """
        wanted = tuple(name for name, tensor in tensors.items() if tensor.requires_grad)
        dtypes = {name: tensor.dtype for name, tensor in tensors.items()}
        shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        key = (tuple(dtypes.items()), wanted, tuple(shapes.values()))
        if key not in self.chosen:
            if len(self.chosen) >= _MOST_SHAPES:
                self.chosen.clear()
            self.chosen[key] = self._chosen(dtypes, wanted, shapes, params)
        passes = self.chosen[key]
        names = tuple(output.name for output in self.mixer.outputs)
        apply: Callable[..., tuple[Tensor, ...]] = _Pass.apply
        made = apply(passes, params, names, tuple(tensors), *tensors.values())
        return dict(zip(names, made, strict=True))

    def _chosen(
        self,
        dtypes: Mapping[str, torch.dtype],
        wanted: tuple[str, ...],
        shapes: Mapping[str, tuple[int, ...]],
        params: Mapping[str, Number],
    ) -> Passes | SegmentedPasses:
        """The passes of a call: for all rows at once, or by segments of them."""
        whole = self.of(dtypes, wanted, lambda _: bind_sizes(self.mixer, shapes, params))
        if self.kept == "all" or whole.backward_plan is None:
            return whole
        sizes = bind_sizes(self.mixer, shapes, params)
        if self.kept == "auto" and is_little(whole, sizes, self.narrow):
            return whole
        segmenting = self._segments(dtypes, wanted, sizes)
        return whole if segmenting is None else segmenting.passes(whole, sizes, self.kept)

    def keeps_less(
        self,
        whole: Passes,
        dtypes: Mapping[str, torch.dtype],
        wanted: tuple[str, ...],
        sizes: Callable[[Derivative], Mapping[str, int]],
    ) -> bool:
        """Whether less than all is asked for whatever the sizes, and segments can do it."""
        if self.kept in ("all", "auto") or whole.backward_plan is None:
            return False
        return self._segments(dtypes, wanted, sizes(whole.derivative)) is not None

    def _segments(
        self,
        dtypes: Mapping[str, torch.dtype],
        wanted: tuple[str, ...],
        sizes: Mapping[str, int],
    ) -> Segmenting | None:
        """The passes of segments, made once; ``sizes`` have those of features."""
        key = (tuple(dtypes.items()), wanted)
        if key not in self.segmented:
            self.segmented[key] = self._segmenting(dtypes, wanted, sizes)
        return self.segmented[key]

    def of(
        self,
        dtypes: Mapping[str, torch.dtype],
        wanted: tuple[str, ...],
        sizes: Callable[[Derivative], Mapping[str, int]],
    ) -> Passes:
        """The two passes for inputs of these dtypes, of which some want a gradient.

        ``sizes`` gives those of a call, of which kernels need to know the features.

        Raises:
            UnsupportedError: there are none; the reason is found once.
        """
        key = (tuple(dtypes.items()), wanted)
        if key not in self.passes:
            self.passes[key] = self._made(dtypes, wanted, sizes)
        passes = self.passes[key]
        if isinstance(passes, str):
            raise UnsupportedError(passes)
        return passes

    def _made(
        self,
        dtypes: Mapping[str, torch.dtype],
        wanted: tuple[str, ...],
        sizes: Callable[[Derivative], Mapping[str, int]],
    ) -> Passes | str:
        """The passes; or why there are none."""
        try:
            derivative = differentiate(self._given(dtypes), wanted)
            whole = self.tuned is self.mixer  # of other forms, of documents say, none is stored
            return self._passes(derivative, dtypes, wanted, sizes(derivative), whole)
        except UnsupportedError as error:
            return str(error)

    def _segmenting(
        self,
        dtypes: Mapping[str, torch.dtype],
        wanted: tuple[str, ...],
        sizes: Mapping[str, int],
    ) -> Segmenting | None:
        """The passes of segments; None where the mixer has none."""
        mixer = self._given(dtypes)
        try:
            derivative = in_segments(mixer, wanted)
            both = (derivative.first, derivative.later)
            first, later = (self._passes(one, dtypes, wanted, sizes, False) for one in both)
        except UnsupportedError:
            return None
        return Segmenting(mixer, derivative, first, later)

    def _given(self, dtypes: Mapping[str, torch.dtype]) -> Mixer:
        """The mixer with the inputs that are given."""
        absent = [i.name for i in self.mixer.inputs if i.name not in dtypes]
        return without_inputs(self.mixer, absent)

    def _passes(
        self,
        derivative: Derivative,
        dtypes: Mapping[str, torch.dtype],
        wanted: tuple[str, ...],
        sizes: Mapping[str, int],
        is_stored: bool,
    ) -> Passes:
        """``is_stored``: a configuration may be stored for the backward pass."""
        in_float32 = derivative.in_float32 and not self.narrow
        dtype = torch.float32 if in_float32 else None
        fixed = {d: int(sizes[d]) for d in feature_dims(derivative.backward) if d in sizes}
        first = next(dtypes[name] for name in wanted)
        plan = None
        if derivative.gradients:
            plan = lower(derivative.backward, fixed, str(dtype or first).removeprefix("torch."))
        backward_tuned = derivative.backward if is_stored else None
        forward = self._kernels(derivative.forward, self.tuned)
        backward = self._kernels(derivative.backward, backward_tuned)
        return Passes(self.mixer.name, derivative, forward, backward, dtype, plan)

    def _kernels(self, mixer: Mixer, tuned: Mixer | None) -> Runner:
        return self.runner(mixer) if tuned is None else self.runner(mixer, tuned)


class _Pass(torch.autograd.Function):
    """One call of the forward kernels, and of the backward kernels where a gradient is asked."""

    @staticmethod
    def forward(
        ctx: Any,
        passes: Passes | SegmentedPasses,
        params: Mapping[str, Number],
        outputs: tuple[str, ...],
        names: tuple[str, ...],
        *tensors: Tensor,
    ) -> tuple[Tensor, ...]:
        given = dict(zip(names, tensors, strict=True))
        made = passes.run_forward(given, params)
        kept = {name: made[name] for name in passes.kept}
        saved = {n: t for n, t in {**given, **kept}.items() if n in passes.needed}
        ctx.save_for_backward(*saved.values())
        ctx.passes, ctx.params, ctx.names, ctx.saved = passes, params, names, tuple(saved)
        ctx.outputs, ctx.dtypes = outputs, {n: t.dtype for n, t in given.items()}
        ctx.shapes = shapes_of(tensors)
        results = tuple(made[name] for name in outputs)
        ctx.mark_non_differentiable(*(r for r in results if not r.is_floating_point()))
        return results

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Tensor | None, ...]:
        passes: Passes | SegmentedPasses = ctx.passes
        above = dict(zip(ctx.outputs, cotangents, strict=True))
        given = dict(zip(ctx.saved, ctx.saved_tensors, strict=True))
        given |= {name: above[output] for output, name in passes.cotangents.items()}
        with torch.no_grad():
            made = passes.run_backward(given, ctx.params)
            found = {name: tensor.to(ctx.dtypes[name]) for name, tensor in made.items()}
        if torch.is_grad_enabled():  # the caller means to differentiate the gradients
            leaves = (tensor.requires_grad_() for tensor in found.values())
            once: Callable[..., tuple[Tensor, ...]] = _Once.apply
            found = dict(zip(found, once(passes.name, *leaves), strict=True))
        gradients = [found.get(name) for name in ctx.names]
        return (
            None,
            None,
            None,
            None,
            *with_zeros(ctx.needs_input_grad[4:], ctx.shapes, gradients),
        )


def shapes_of(tensors: Sequence[Tensor]) -> list[tuple[Any, ...]]:
    """What a gradient of each tensor is like."""
    return [(tuple(t.shape), t.dtype, t.device) for t in tensors]


def with_zeros(
    needs: Sequence[bool], shapes: Sequence[tuple[Any, ...]], gradients: Sequence[Tensor | None]
) -> list[Tensor | None]:
    """The gradients, 0 where one is needed of an input that outputs are step functions of."""
    return [
        torch.zeros(shape, dtype=dtype, device=device) if gradient is None and needed else gradient
        for gradient, needed, (shape, dtype, device) in zip(gradients, needs, shapes, strict=True)
    ]


class _Once(torch.autograd.Function):
    """Gradients that are not differentiated again."""

    @staticmethod
    def forward(ctx: Any, name: str, *gradients: Tensor) -> tuple[Tensor, ...]:
        ctx.name = name
        return tuple(gradient.detach() for gradient in gradients)

    @staticmethod
    def backward(ctx: Any, *above: Tensor) -> None:
        raise second_derivative(ctx.name)


def second_derivative(name: str) -> UnsupportedError:
    """What is said where gradients are differentiated once more."""
    return UnsupportedError(
        f"{name}: kernels compute no gradient of a gradient; load it with backend='reference', "
        "which torch differentiates as often as one likes"
    )


__all__ = ["Training", "second_derivative", "shapes_of", "with_zeros"]
