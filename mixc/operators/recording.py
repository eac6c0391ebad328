"""What an operator of PyTorch runs: a mixer that is told by its text, on tensors in a list."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..compiler.language.load import load_text
from ..ir.binding import Number, bind_sizes
from ..ir.expression import Kind
from ..ir.mixer import Layout, Mixer
from ..runtime.arguments import by_name, device_of, working_dtype
from ..runtime.outline import outline, packed_outline
from ..runtime.running import Execution
from ..runtime.training import shapes_of, with_zeros
from .signature import Call, manner_of, part_text, read_call

if TYPE_CHECKING:
    from ..runtime.passes import Passes
    from ..stepping.stepping import Stepping


@lru_cache(maxsize=256)
def execution_of(text: str) -> Execution:
    """The mixer that a text tells, with its kernels."""
    backend, kept, part = manner_of(text)
    if part == "whole":
        return Execution(load_text(text), backend, kept=kept)  # type: ignore[arg-type]
    if part == "packed":
        whole = execution_of(part_text(text, "whole"))
        return Execution(whole.packed().mixer, whole.backend, tuned=whole.mixer, part=part)
    return stepping_of(part_text(text, "whole")).part(part)


@lru_cache(maxsize=256)
def stepping_of(text: str) -> Stepping:
    """The mixer that a text tells over segments, with the kernels of its parts."""
    from ..stepping.stepping import Stepping

    return Stepping(load_text(text), manner_of(text).backend)  # type: ignore[arg-type]


@lru_cache(maxsize=1024)
def recording_of(mixer: str, call: str) -> Recording:
    """Calls of one mixer on tensors of the same names."""
    return Recording(execution_of(mixer), read_call(call))


class Recording:
    """Calls of a mixer, forward and backward, on tensors in a list."""

    def __init__(self, execution: Execution, call: Call) -> None:
        """``call`` names the tensors."""
        self.execution, self.call, self.mixer = execution, call, execution.mixer
        self.real = tuple(o.name for o in self.mixer.outputs if o.kind is Kind.REAL)

    # ------------------------------------------------------------------------------ forward

    def forward(self, tensors: list[Tensor], params: list[float]) -> list[Tensor]:
        """The outputs, then what is kept for a backward pass by kernels."""
        given, numbers = self._inputs(tensors), self.call.numbers(self.mixer, params)
        passes = self._passes(given, numbers)
        with torch.no_grad():
            if passes is None:
                made = self.execution.directly(given, numbers, self.call.cu_seqlens(tensors))
            else:
                made = dict(passes.run_forward(given, numbers))
        return _apart([made[name] for name, _ in self._made(passes)], tensors)

    def outline(self, tensors: list[Tensor], params: list[float]) -> list[Tensor]:
        """The same without values."""
        given, numbers = self._inputs(tensors), self.call.numbers(self.mixer, params)
        by_name(self.mixer, (), given)
        self.execution.check_device(device_of(given))
        passes, cuts = self._passes(given, numbers), self.call.cu_seqlens(tensors)
        dtype = working_dtype(self.mixer, given)
        if cuts is not None:
            made = packed_outline(self.mixer, given, numbers, cuts, dtype)
        else:
            mixer = self.mixer if passes is None else passes.derivative.forward
            made = outline(mixer, given, numbers, dtype)
        return [made[name] for name, _ in self._made(passes)]

    def saved(
        self, tensors: list[Tensor], params: list[float], made: list[Tensor], wanted: Sequence[str]
    ) -> tuple[list[Tensor], Call]:
        """What the backward pass needs, and its call; of ``wanted`` it gives gradients."""
        given = self._inputs(tensors)
        passes = self._passes(given, self.call.numbers(self.mixer, params))
        dtypes = tuple(str(tensor.dtype).removeprefix("torch.") for tensor in given.values())
        if passes is None:
            return tensors, replace(self.call, dtypes=dtypes, gradients=tuple(wanted))
        derivative = passes.derivative
        known = {**given, **dict(zip((n for n, _ in self._made(passes)), made, strict=True))}
        output = {name: f"={output}" for output, name in derivative.cotangents.items()}
        read = tuple(f"{i.name}{output.get(i.name, '')}" for i in derivative.backward.inputs)
        own = tuple(name for name in self.call.wanted if name in derivative.gradients)
        call = replace(self.call, dtypes=dtypes, given=read, gradients=own)
        return [known[name] for name in read if name in known], call

    # ----------------------------------------------------------------------------- backward

    def with_cotangents(
        self, saved: Sequence[Tensor], cotangents: Sequence[Tensor]
    ) -> list[Tensor]:
        """The tensors of the backward pass in its order, of which some were saved."""
        above = dict(zip((o.name for o in self.mixer.outputs), cotangents, strict=False))
        if not self.call.given:
            return [*saved, *(above[name] for name in self.real)]
        rest = iter(saved)
        outputs = [name.partition("=")[2] for name in self.call.given]
        return [above[output] if output else next(rest) for output in outputs]

    def by_input(self, made: Sequence[Tensor]) -> list[Tensor | None]:
        """The gradients in the order of the tensors that the call had."""
        found = dict(zip(self.call.gradients, made, strict=True))
        return [found.get(name) for name in self.call.inputs] + [None] * len(self.call.cuts)

    def backward(self, tensors: list[Tensor], params: list[float]) -> list[Tensor]:
        """The gradients of those of ``call.gradients``."""
        numbers = self.call.numbers(self.mixer, params)
        if not self.call.given:
            return _apart(self._recomputed(tensors, numbers), tensors)
        given = self._read(tensors)
        made = self._passes_again(given, numbers).run_backward(given, numbers)
        return _apart(self._as_inputs(made), tensors)

    def outline_backward(self, tensors: list[Tensor], params: list[float]) -> list[Tensor]:
        """The same without values."""
        if not self.call.given:
            inputs = self._inputs(tensors)
            return [inputs[name].new_empty(inputs[name].shape) for name in self.call.gradients]
        given, numbers = self._read(tensors), self.call.numbers(self.mixer, params)
        derivative = self._passes_again(given, numbers).derivative
        made = outline(derivative.backward, given, numbers, torch.float32)
        return self._as_inputs({n: made[own] for n, own in derivative.gradients.items()})

    def _recomputed(self, tensors: list[Tensor], numbers: Mapping[str, Number]) -> list[Tensor]:
        """The gradients by going forward once more, and back through what that records."""
        given = {name: tensor.detach() for name, tensor in self._inputs(tensors).items()}
        wanted = [given[name].requires_grad_() for name in self.call.gradients]
        cotangents = tensors[len(self.call.inputs) + len(self.call.cuts) :]
        with _under_autograd():
            made = self.execution.directly(given, numbers, self.call.cu_seqlens(tensors))
            outputs = [made[name] for name in self.real]
            pairs = [p for p in zip(outputs, cotangents, strict=True) if p[0].requires_grad]
            if not pairs:
                return [torch.zeros_like(tensor) for tensor in wanted]
            reached, above = zip(*pairs, strict=True)
            return list(torch.autograd.grad(reached, wanted, above, materialize_grads=True))

    # ------------------------------------------------------------------------------- common

    def layouts(
        self, tensors: list[Tensor], params: list[float]
    ) -> tuple[Mixer, list[Layout | None], list[Layout]]:
        """The axes of a call's tensors and of what it returns, and the mixer that they are of.

        None: boundaries of documents.
        """
        known = {entry.name: entry.layout for entry in self.mixer.inputs}
        inputs: list[Layout | None] = [known[name] for name in self.call.inputs]
        inputs += [None] * len(self.call.cuts)
        if not self.call.dtypes:
            given, numbers = self._inputs(tensors), self.call.numbers(self.mixer, params)
            return self.mixer, inputs, [x for _, x in self._made(self._passes(given, numbers))]
        gradients = [known[name] for name in self.call.gradients]
        if not self.call.given:
            outputs = {output.name: output.layout for output in self.mixer.outputs}
            return self.mixer, [*inputs, *(outputs[name] for name in self.real)], gradients
        numbers = self.call.numbers(self.mixer, params)
        backward = self._passes_again(self._read(tensors), numbers).derivative.backward
        return backward, [entry.layout for entry in backward.inputs], gradients

    def _inputs(self, tensors: list[Tensor]) -> dict[str, Tensor]:
        return dict(zip(self.call.inputs, tensors, strict=False))

    def _read(self, tensors: list[Tensor]) -> dict[str, Tensor]:
        """What a backward pass by kernels reads."""
        names = (name.partition("=")[0] for name in self.call.given)
        return dict(zip(names, tensors, strict=True))

    def _dtypes(self) -> dict[str, torch.dtype]:
        """Those of the inputs, in a call of the backward pass."""
        named = zip(self.call.inputs, self.call.dtypes, strict=True)
        return {name: getattr(torch, dtype) for name, dtype in named}

    def _as_inputs(self, gradients: Mapping[str, Tensor]) -> list[Tensor]:
        """Gradients in order, each in the dtype of its input."""
        dtypes = self._dtypes()
        return [gradients[name].to(dtypes[name]) for name in self.call.gradients]

    def _made(self, passes: Passes | None) -> list[tuple[str, Layout]]:
        """What the forward pass returns, with its axes."""
        mixer = self.mixer if passes is None else passes.derivative.forward
        return [(output.name, output.layout) for output in mixer.outputs]

    def _passes(self, given: Mapping[str, Tensor], params: Mapping[str, Number]) -> Passes | None:
        """The two passes by kernels; None where the backward pass goes forward once more."""
        if not self.call.wanted or self.call.cuts:
            return None
        dtypes = {name: tensor.dtype for name, tensor in given.items()}
        shapes = {name: tuple(tensor.shape) for name, tensor in given.items()}
        return self.execution.passes(
            dtypes,
            self.call.wanted,
            device_of(given),
            lambda _: bind_sizes(self.mixer, shapes, params),
        )

    def _passes_again(self, given: Mapping[str, Tensor], params: Mapping[str, Number]) -> Passes:
        """The same, from what the backward pass by kernels reads."""
        shapes = {name: tuple(tensor.shape) for name, tensor in given.items()}
        passes = self.execution.passes(
            self._dtypes(),
            self.call.wanted,
            device_of(given),
            lambda derivative: bind_sizes(derivative.backward, shapes, params),
        )
        assert passes is not None, "a call by kernels has some"
        return passes


def keep_for_backward(
    ctx: Any,
    mixer: str,
    call: str,
    tensors: Sequence[Tensor],
    params: list[float],
    made: Sequence[Tensor],
    needs: Sequence[bool],
) -> None:
    """Save in an autograd context what the backward pass of a call needs that made ``made``."""
    recording = recording_of(mixer, call)
    named = zip(recording.call.inputs, needs, strict=False)
    wanted = [name for name, needed in named if needed]
    saved, later = recording.saved(list(tensors), params, list(made), wanted)
    ctx.save_for_backward(*saved)
    ctx.mixer, ctx.later, ctx.params, ctx.shapes = mixer, str(later), params, shapes_of(tensors)


def gradients_in(
    ctx: Any,
    cotangents: Sequence[Tensor],
    needs: Sequence[bool],
    backward: Callable[[list[Tensor]], Sequence[Tensor]],
) -> list[Tensor | None]:
    """The gradients of a call's tensors, by the context that ``keep_for_backward`` has filled."""
    recording = recording_of(ctx.mixer, ctx.later)
    given = recording.with_cotangents(ctx.saved_tensors, cotangents)
    made = backward(given) if recording.call.gradients else ()
    return with_zeros(needs, ctx.shapes, recording.by_input(made))


def _apart(results: Sequence[Tensor], inputs: Sequence[Tensor]) -> list[Tensor]:
    """The results in memory of their own, dense: operators promise that."""
    taken = {tensor.untyped_storage().data_ptr() for tensor in inputs} - {0}
    made = []
    for result in results:
        own = result.contiguous()
        if own.untyped_storage().data_ptr() in taken:
            own = own.clone()
        taken |= {own.untyped_storage().data_ptr()} - {0}
        made.append(own)
    return made


@contextmanager
def _under_autograd() -> Iterator[None]:
    """Record for a backward pass inside an operator, below which PyTorch turns that off."""
    excluded = torch._C._dispatch_tls_local_exclude_set()
    for key in ("AutogradFunctionality", "AutogradOther", "AutogradNestedTensor"):
        excluded = excluded.remove(getattr(torch._C.DispatchKey, key))
    included = torch._C._dispatch_tls_local_include_set()
    with torch._C._ForceDispatchKeyGuard(included, excluded), torch.enable_grad():
        yield


__all__ = ["Recording", "gradients_in", "keep_for_backward", "recording_of", "stepping_of"]
