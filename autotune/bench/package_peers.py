"""Recurrences as published packages compute them in torch: flash-linear-attention, transformers.

Which function computes a spec is found out: its arguments have to be the spec's inputs by name, and
its results on a small sample what the reference says. The packages are optional.
"""

from __future__ import annotations

import importlib
import inspect
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from ...backends.reference.evaluate import run
from ...ir.binding import Number, param_values
from ...ir.errors import UnsupportedError
from ...ir.mixer import Mixer, Recurrence
from ..checking.proportions import Proportions, default_sizes
from ..checking.sampling import sample_inputs

# Functions over whole sequences, by chunks where a package has them so.
FUNCTIONS: Mapping[str, tuple[tuple[str, str], ...]] = {
    "fla": (
        ("fla.ops.simple_gla.naive", "naive_chunk_simple_gla"),
        ("fla.ops.gla.naive", "naive_recurrent_gla"),
        ("fla.ops.delta_rule.naive", "delta_rule_chunkwise"),
        ("fla.ops.gated_delta_rule.naive", "naive_chunk_gated_delta_rule"),
        ("fla.ops.kda.naive", "naive_chunk_kda"),
        ("fla.ops.comba.naive", "naive_chunk_comba"),
        ("fla.ops.hgrn.naive", "naive_recurrent_hgrn"),
        ("fla.ops.path_attn.naive", "naive_path_attn"),
        ("fla.ops.log_linear_attn.naive", "naive_log_linear_attn"),
    ),
    "transformers": (
        ("transformers.models.mamba.modeling_mamba", "mamba_selective_scan"),
        ("transformers.models.mamba2.modeling_mamba2", "mamba2_chunk_scan"),
        ("transformers.models.qwen3_next.modeling_qwen3_next", "torch_chunk_gated_delta_rule"),
        ("transformers.models.kimi_linear.modeling_kimi_linear", "chunk_kimi_delta_attention"),
        ("transformers.models.rwkv.modeling_rwkv", "rwkv_linear_attention_cpu"),
        ("transformers.models.xlstm.modeling_xlstm", "mlstm_recurrent_sequence_native"),
    ),
}
# What a package calls an input that is called otherwise here.
_NAMES = {
    "query": "q",
    "key": "k",
    "value": "v",
    "gk": "g",
    "hidden_states": "x",
    "B": "Bt",
    "C": "Ct",
    "D": "skip",
    "delta_bias": "bias",
    "igate": "i_gate",
    "fgate": "f_gate",
    "time_decay": "w",
    "time_first": "u",
    "level_scales": "weight",
}
_FLAGS = frozenset(
    "output_final_state return_last_state return_last_states return_final_states return_state "
    "dt_softplus delta_softplus".split()
)
_CHUNK = 64
_SMALL = Proportions(lengths=(_CHUNK + 37,), features=(8, 4, 9), ratio=1, batch=(1, 2))


@dataclass(frozen=True)
class Published:
    """A function, and how the inputs of a spec are its arguments.

    ``heads_first``: it has time and heads the other way round; ``padded``: it wants whole chunks.
    """

    name: str
    function: Callable[..., Any]
    arguments: Mapping[str, str]  # of the function, to inputs
    flags: Mapping[str, Any]
    heads_first: bool = False
    padded: bool = False

    def at(self, mixer: Mixer, sizes: Mapping[str, int], params: Mapping[str, Number]) -> Published:
        """The function as it is called at these sizes, on which numbers that it takes depend."""
        flags = _flags(self.function, param_values(mixer, sizes, params))
        return replace(self, flags=flags)

    def arranged(self, mixer: Mixer, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The tensors as the function takes them, by its names for them."""
        return {n: self._arranged(mixer, tensors, i) for n, i in self.arguments.items()}

    def bound(
        self, made: Mapping[str, Tensor], compute: torch.dtype | None = None
    ) -> Callable[[], Any]:
        """The call with its tensors; in ``compute``, casts are a part of it."""
        if compute is None:
            return lambda: self.function(**made, **self.flags)
        own = {n: t.dtype for n, t in made.items()}

        def cast() -> list[Tensor]:
            given = {n: t.to(compute) if own[n].is_floating_point else t for n, t in made.items()}
            back = next(d for d in own.values() if d.is_floating_point)
            return [t.to(back) for t in _tensors(self.function(**given, **self.flags))]

        return cast

    def _arranged(self, mixer: Mixer, tensors: Mapping[str, Tensor], name: str) -> Tensor:
        if name == "A" and name not in tensors:  # kept as the logarithm of its negative
            return -tensors["A_log"].exp()
        tensor, dims = tensors[name], mixer.input(name).dims
        axis = _time(mixer, dims)
        if axis is not None and len(mixer.input(name).layout) == len(dims):
            room = -tensor.shape[axis] % _CHUNK if self.padded else 0
            tensor = functional.pad(tensor, (0, 0) * (tensor.ndim - 1 - axis) + (0, room))
            if self.heads_first and tensor.ndim > 2:
                tensor = tensor.transpose(1, 2)
        return tensor.contiguous()

    def results(self, mixer: Mixer, sizes: Mapping[str, int], made: Any) -> dict[str, Tensor]:
        """Its results by the names of the spec's outputs: rows first, then states in order."""
        rows, *states = _tensors(made)
        first, *others = mixer.outputs
        if self.heads_first:
            rows = rows.transpose(1, 2)
        axis = _time(mixer, first.dims)
        assert axis is not None
        found = {first.name: rows.narrow(axis, 0, sizes[first.dims[axis]])}
        for output, state in zip(others, states, strict=False):
            found[output.name] = state.reshape([sizes[d] for d in output.dims])
        return found


def published(package: str, mixer: Mixer, params: Mapping[str, Number]) -> Published:
    """The function of a package that computes the mixer.

    Raises UnsupportedError where the package is not there, or has none.
    """
    if not any(isinstance(stage, Recurrence) for stage in mixer.stages):
        raise UnsupportedError("it is no recurrence")
    sizes = default_sizes(mixer, _SMALL, params)
    tensors = sample_inputs(mixer, sizes, torch.float32, params=params)
    wanted: Mapping[str, Tensor] | None = None
    for candidate in _candidates(package, mixer, sizes, params):
        wanted = wanted or run(mixer, tensors, params)
        try:
            made = candidate.bound(candidate.arranged(mixer, tensors))()
            found = candidate.results(mixer, sizes, made)
        except Exception:  # it is for other shapes
            continue
        if all(n in found and _close(found[n], expected) for n, expected in wanted.items()):
            return candidate
    raise UnsupportedError(f"no function of {package} that is known here computes it")


def _close(found: Tensor, expected: Tensor) -> bool:
    return found.shape == expected.shape and torch.allclose(
        found.double(), expected, rtol=1e-3, atol=1e-3
    )


def _candidates(
    package: str, mixer: Mixer, sizes: Mapping[str, int], params: Mapping[str, Number]
) -> Iterator[Published]:
    try:
        importlib.import_module(package)
    except ImportError:
        raise UnsupportedError(f"{package} is not installed") from None
    inputs = {i.name for i in mixer.inputs}
    numbers = param_values(mixer, sizes, params)
    for module, name in FUNCTIONS[package]:
        try:
            function = inspect.unwrap(getattr(importlib.import_module(module), name))
        except (ImportError, AttributeError):  # another version
            continue
        arguments = _matched(function, inputs, numbers)
        if arguments is not None:
            flags = _flags(function, numbers)
            for padded, heads_first in itertools.product((False, True), repeat=2):
                yield Published(name, function, arguments, flags, heads_first, padded)


def _matched(
    function: Callable[..., Any], inputs: set[str], numbers: Mapping[str, Number]
) -> dict[str, str] | None:
    """Argument to input, where every input is an argument and no more than params are asked for."""
    found = {}
    for name, parameter in inspect.signature(function).parameters.items():
        own = _NAMES.get(name, name)
        if own in inputs or (own == "A" and "A_log" in inputs):
            found[name] = own
        elif own == "dt_bias" and "bias" in inputs:
            found[name] = "bias"
        elif _is_required(parameter) and name not in numbers:
            return None
    used = {("A_log" if n == "A" and n not in inputs else n) for n in found.values()}
    return found if used == inputs else None


def _is_required(parameter: inspect.Parameter) -> bool:
    """Whether a call has to give it, and it is none of those that are given anyway."""
    several = parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
    given = parameter.name in ("chunk_size", *_FLAGS)
    return parameter.default is parameter.empty and not several and not given


def _flags(function: Callable[..., Any], numbers: Mapping[str, Number]) -> dict[str, Any]:
    names = inspect.signature(function).parameters
    flags: dict[str, Any] = {name: True for name in names if name in _FLAGS}
    flags |= {n: numbers[n] for n in names if n in numbers and _is_required(names[n])}
    if "chunk_size" in names and names["chunk_size"].default is inspect.Parameter.empty:
        flags["chunk_size"] = _CHUNK
    return flags


def _time(mixer: Mixer, dims: Sequence[str]) -> int | None:
    """Which of the axes is of the sequence that the loop goes along."""
    over = next(s.over for s in mixer.stages if isinstance(s, Recurrence))
    return next((n for n, dim in enumerate(dims) if over in (dim, mixer.sequence(dim))), None)


def _tensors(made: Any) -> list[Tensor]:
    if isinstance(made, Tensor):
        return [made]
    return [t for part in made or () if part is not None for t in _tensors(part)]
