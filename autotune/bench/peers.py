"""What a user of torch would run instead: SDPA, compiled FlexAttention, compiled eager code; for a
recurrence its parallel form, compiled. The reference stands beside them, compared to nothing.

Each is derived from the spec's expressions; what a peer can't say is said so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import torch
from torch import Tensor

from ...backends.reference.evaluate import evaluate, run
from ...backends.reference.values import Value
from ...ir.binding import Number
from ...ir.errors import UnsupportedError
from ...ir.expression import Expr, Kind
from ...ir.mixer import Mixer, Recurrence
from .dot_product import DotProduct, dot_product
from .peer_text import TorchText

# A mask or a bias of every pair in memory, at most.
LARGEST_BIAS_BYTES = 1 << 30


@dataclass(frozen=True)
class Setting:
    """What a peer is made for. It computes in ``compute`` if given, from and to ``dtype``."""

    mixer: Mixer
    sizes: Mapping[str, int]
    tensors: Mapping[str, Tensor]
    dtype: torch.dtype
    params: Mapping[str, Number]
    compute: torch.dtype | None = None


@dataclass(frozen=True)
class Call:
    """A peer ready to run: ``run`` is what is timed, ``results`` arranges what it gave by name.

    ``compared``: it is what a user would write, so that our time is compared to its time.
    ``lacks``: outputs that it does not give, which makes it only quicker.
    ``checked``: gives the results where ``run`` leaves out work that is not the spec's.
    ``operands``: the tensors that it reads, of which those that are real have gradients; of what
    it makes of others beforehand (a mask with a bias) it has none, which makes it only quicker.
    """

    what: str
    run: Callable[[], Any]
    results: Callable[[Any], dict[str, Tensor]]
    compared: bool = True
    lacks: tuple[str, ...] = ()
    checked: Callable[[], Any] | None = None
    operands: tuple[Tensor, ...] = ()


Peer = Callable[[Setting], Call]


class Operands:
    """Query, key and value as [batch, heads, positions, features], contiguous, and the way back."""

    def __init__(self, setting: Setting, form: DotProduct) -> None:
        """Copies are made here, outside of what is timed."""
        self.setting, self.form = setting, form
        self.query, self.key, self.value = (
            self._arranged(name) for name in (form.query, form.key, form.value)
        )

    @property
    def compute(self) -> torch.dtype:
        """What is computed in."""
        return self.setting.compute or self.setting.dtype

    def cast(self) -> tuple[Tensor, Tensor, Tensor]:
        """Query, key and value as they are computed with: a part of the call."""
        query, key, value = (t.to(self.compute) for t in (self.query, self.key, self.value))
        return query, key, value

    @property
    def read(self) -> tuple[Tensor, Tensor, Tensor]:
        """What a call reads."""
        return self.query, self.key, self.value

    @property
    def grouped(self) -> bool:
        """Whether several query heads share a key head."""
        return self.query.shape[1] != self.key.shape[1]

    @property
    def device(self) -> torch.device:
        """Where the tensors lie."""
        return self.query.device

    def _arranged(self, name: str) -> Tensor:
        setting = self.setting
        order = [dim for dim in self.form.axes[name] if dim is not None]
        dims = [dim for dim in setting.mixer.input(name).dims if dim in order]
        tensor = setting.tensors[name].reshape([setting.sizes[d] for d in dims])
        tensor = tensor.permute([dims.index(dim) for dim in order])
        for place, dim in enumerate(self.form.axes[name]):
            if dim is None:
                tensor = tensor.unsqueeze(place)
        return tensor.contiguous()

    def results(self, output: Tensor) -> dict[str, Tensor]:
        """[batch, heads, positions, features] in the spec's layout."""
        setting, form = self.setting, self.form
        declared = setting.mixer.outputs[0]
        batch, head, row, _ = form.axes[form.query]
        feature = form.axes[form.value][3]
        named = (batch, head, row, feature)
        flat = output.to(setting.dtype).reshape([setting.sizes[d] for d in named if d is not None])
        present = [d for d in named if d is not None]
        flat = flat.permute([present.index(d) for d in declared.dims if d in present])
        shape = [prod(setting.sizes[d] for d in axis) for axis in declared.layout]
        return {form.output: flat.reshape(shape)}

    def expanded(self, expr: Expr, dtype: torch.dtype) -> Tensor:
        """A mask or bias for every pair, [batch or 1, heads or 1, queries or 1, keys or 1]."""
        setting, dims = self.setting, self.form.index_dims
        count = prod(setting.sizes[d] for d in dims if d is not None and d in expr.axes)
        if count * dtype.itemsize > LARGEST_BIAS_BYTES:
            gib = count * dtype.itemsize / (1 << 30)
            raise UnsupportedError(f"its mask or bias would take {gib:.1f} GiB")
        order = {d: setting.sizes[d] for d in dims if d is not None} | dict(setting.sizes)
        values = {n: _value(setting, n, order) for n in self.form.names}
        found = evaluate(expr, order, values, setting.params, torch.float32)
        tensor = found.tensor
        for place, dim in enumerate(dims):
            if dim is None or dim not in found.dims:
                tensor = tensor.unsqueeze(place)
        return tensor.to(dtype).contiguous().to(self.device)


def _value(setting: Setting, name: str, order: Mapping[str, int]) -> Value:
    dims = setting.mixer.input(name).dims
    tensor = setting.tensors[name].cpu().reshape([setting.sizes[d] for d in dims])
    arranged = sorted(dims, key=list(order).index)
    tensor = tensor.permute([dims.index(d) for d in arranged])
    if setting.mixer.input(name).kind is Kind.REAL:
        tensor = tensor.float()
    return Value(tensor, tuple(arranged))


def flex(setting: Setting) -> Call:
    """torch's FlexAttention, compiled, with its block mask made beforehand."""
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    form = dot_product(setting.mixer, setting.sizes, setting.params)
    _refuse_sink(form)
    operands = Operands(setting, form)
    query, key, value = operands.query, operands.key, operands.value
    linear = form.factor_and_bias
    plain = linear is not None and linear[1] is None
    names = dict(zip(form.index_dims, ("b", "h", "q_idx", "kv_idx"), strict=True))
    captured = captured_inputs(setting, form)
    score_mod = None
    if not plain:
        score_mod = function_of("score, b, h, q_idx, kv_idx", form.score, setting, names, captured)
    blocks = None
    if form.mask is not None:
        mask_mod = function_of("b, h, q_idx, kv_idx", form.mask, setting, names, captured)
        batch, head, *_ = form.index_dims
        blocks = create_block_mask(
            mask_mod,
            query.shape[0] if _varies(form.mask, batch) else None,
            query.shape[1] if _varies(form.mask, head) else None,
            query.shape[2],
            key.shape[2],
            device=str(operands.device),
        )
    compiled = torch.compile(flex_attention, dynamic=False)
    grouped, factor = operands.grouped, linear[0] if linear is not None and plain else 1.0

    def call() -> Any:
        return compiled(
            query,
            key,
            value,
            score_mod=score_mod,
            block_mask=blocks,
            scale=factor,
            enable_gqa=grouped,
        )

    return Call(
        "torch FlexAttention, compiled",
        call,
        operands.results,
        lacks=form.lacks,
        operands=operands.read,
    )


def _refuse_sink(form: DotProduct) -> None:
    if form.sink is not None:
        raise UnsupportedError("it has a sink")


def _varies(expr: Expr, dim: str | None) -> bool:
    return dim is not None and dim in expr.axes


def captured_inputs(setting: Setting, form: DotProduct) -> dict[str, Tensor]:
    """The inputs that score and mask read, real ones in float32 as one would pass them."""
    found = {}
    for name in form.names:
        entry = setting.mixer.input(name)
        tensor = setting.tensors[name].reshape([setting.sizes[d] for d in entry.dims])
        found[name] = tensor.float() if entry.kind is Kind.REAL else tensor
    return found


def function_of(
    signature: str,
    expr: Expr,
    setting: Setting,
    names: Mapping[str | None, str],
    captured: Mapping[str, Tensor],
) -> Callable[..., Tensor]:
    """A torch function of the text of an expression; the text is made of our own terms only."""
    variables = {dim: "0" for dim, size in setting.sizes.items() if size == 1}
    variables |= {dim: name for dim, name in names.items() if dim is not None}
    dims = {name: setting.mixer.input(name).dims for name in captured}
    text = TorchText(setting.mixer, variables, dims, setting.sizes).write(expr)
    scope: dict[str, Any] = {"torch": torch, **captured}
    exec(compile(f"def made({signature}):\n    return {text}\n", "<peer>", "exec"), scope)
    made: Callable[..., Tensor] = scope["made"]
    return made


def eager(setting: Setting) -> Call:
    """Attention as plain torch code under torch.compile; uncompiled where that fails."""
    form = dot_product(setting.mixer, setting.sizes, setting.params)
    _refuse_sink(form)
    operands = Operands(setting, form)
    how, run_it = _compiled(_dense(operands, form))
    what = f"eager torch code{how}"
    return Call(what, run_it, operands.results, lacks=form.lacks, operands=operands.read)


def reference(setting: Setting) -> Call:
    """The reading of the equations that all else is checked against.

    It is made to be right, and no user would write it: what it says of speed is how much there is
    to win over torch operations one by one.
    """
    if any(isinstance(stage, Recurrence) for stage in setting.mixer.stages):
        raise UnsupportedError("row after row in torch, it would take seconds")

    def step() -> dict[str, Tensor]:
        return run(setting.mixer, setting.tensors, setting.params, dtype=setting.dtype)

    read = tuple(setting.tensors.values())
    return Call("the reference", step, dict, compared=False, operands=read)


def _compiled(step: Callable[[], Any]) -> tuple[str, Callable[[], Any]]:
    """What to add to its name, and the step under torch.compile where that works."""
    compiled = torch.compile(step, dynamic=False)
    try:
        compiled()
    except Exception as error:  # whatever the compiler raises
        return f" (torch.compile fails: {type(error).__name__})", step
    return ", compiled", compiled


def _dense(operands: Operands, form: DotProduct) -> Callable[[], Any]:
    """Scores of all pairs, softmax, product: as one would write it."""
    setting = operands.setting
    query, key, value = operands.query, operands.key, operands.value
    names = dict(zip(form.index_dims, ("b", "h", "i", "j"), strict=True))
    captured = captured_inputs(setting, form)
    score_of = function_of("score, b, h, i, j", form.score, setting, names, captured)
    mask_of = None
    if form.mask is not None:
        mask_of = function_of("b, h, i, j", form.mask, setting, names, captured)
    repeats = query.shape[1] // max(key.shape[1], 1)
    extents = (*query.shape[:3], key.shape[2])
    device, dtype = operands.device, setting.dtype
    rows_may_be_empty = form.mask is not None and not form.is_causal

    def step() -> Tensor:
        k, v = (t.repeat_interleave(repeats, 1) if repeats > 1 else t for t in (key, value))
        places = [
            torch.arange(extent, device=device).view([-1 if axis == n else 1 for axis in range(4)])
            for n, extent in enumerate(extents)
        ]
        score = score_of((query @ k.transpose(-1, -2)).float(), *places)
        if mask_of is not None:
            score = score.masked_fill(~mask_of(*places), float("-inf"))
        weights = torch.softmax(score, -1)
        if rows_may_be_empty:
            weights = weights.nan_to_num(0.0)
        return weights.to(dtype) @ v

    return step


def parallel(setting: Setting) -> Call:
    """A recurrence by chunks or by a doubling scan, all rows at once, under torch.compile."""
    from .parallel_peers import ParallelForm, compiled

    form = ParallelForm(
        setting.mixer,
        setting.sizes,
        setting.tensors,
        setting.dtype,
        setting.params,
        products=setting.compute,
    )
    run_compiled, inputs = compiled(form), form.arranged
    what = f"{form.what}, compiled"
    return Call(what, lambda: run_compiled(*inputs), form.results, operands=tuple(inputs))


def package(name: str) -> Peer:
    """What a published package has for a recurrence in torch, as it is."""

    def make(setting: Setting) -> Call:
        from .package_peers import published

        mixer, sizes = setting.mixer, setting.sizes
        found = published(name, mixer, setting.params).at(mixer, sizes, setting.params)
        given = found.arranged(mixer, setting.tensors)
        return Call(
            found.name,
            found.bound(given, setting.compute),
            lambda made: found.results(mixer, sizes, made),
            operands=tuple(given.values()),
        )

    return make


def in_float32(peer: Peer) -> Peer:
    """A peer that computes in float32, casts of the inputs being a part of it.

    Quicker where a CPU has no products of 16 bits.
    """

    def make(setting: Setting) -> Call:
        device = next(iter(setting.tensors.values())).device.type
        if setting.dtype.itemsize != 2 or device != "cpu":
            raise UnsupportedError("it is for tensors of 16 bits on a CPU")
        made = peer(replace(setting, compute=torch.float32))
        return replace(made, what=f"{made.what}, cast to fp32")

    return make
