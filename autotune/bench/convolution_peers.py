"""Convolutions as torch users have them: by torch.fft, or channel by channel by conv1d.

The mixer's equations as straight torch code under torch.compile, in which every sum over lags is
one call. Sequences lie with their positions last, which is how both have them quickest; that copy
is made before the call.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, reduce
from itertools import product
from math import prod

import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn import functional

from ...backends.reference.axes import contract
from ...backends.reference.elementwise import apply
from ...backends.reference.evaluate import run
from ...backends.reference.scope import Scope, Sums
from ...backends.reference.values import Value
from ...compiler.analysis.lag_sums import LagSum, lag_sums, with_numbers
from ...ir.binding import param_values
from ...ir.errors import UnsupportedError
from ...ir.expression import Call, Reduce
from ...ir.host import evaluate_host
from ...ir.mixer import Map
from ...ir.optional import expressions
from ...ir.rewriting import walk
from .measuring import second_call_s
from .peers import Call as PeerCall
from .peers import Setting


@dataclass(frozen=True)
class Taps:
    """``y[t] = sum over l of kernel[l] * signal[t + ahead - l]`` for the first ``rows`` t.

    Both have their axes in one order, those that one lacks of extent 1, and positions last; of the
    axes before them the results are summed along ``summed``.
    """

    kernel: Tensor
    signal: Tensor
    ahead: int
    rows: int
    summed: tuple[int, ...]


Convolve = Callable[[Taps], Tensor]


def by_fft(taps: Taps) -> Tensor:
    """A product of spectra, as long as both together so that nothing comes around the end."""
    length = _quick_length(taps.kernel.shape[-1] + taps.signal.shape[-1] - 1)
    spectrum = torch.fft.rfft(taps.signal, n=length) * torch.fft.rfft(taps.kernel, n=length)
    if taps.summed:
        spectrum = spectrum.sum(taps.summed, keepdim=True)
    whole = torch.fft.irfft(spectrum, n=length)
    before, after = max(-taps.ahead, 0), max(taps.ahead + taps.rows - length, 0)
    first = max(taps.ahead, 0)
    rows = whole[..., first : first + taps.rows - before - after]
    return functional.pad(rows, (before, after)) if before or after else rows


@cache
def _quick_length(least: int) -> int:
    """The shortest even length of small factors that is long enough."""
    powers = [[base**n for n in range(21)] for base in (2, 3, 5)]
    return min(2 * n for n in map(prod, product(*powers)) if 2 * n >= least)


def by_conv1d(taps: Taps) -> Tensor:
    """torch's conv1d, a group for each channel.

    Raises:
        UnsupportedError: taps for something else than channels of the signal.
    """
    kernel, signal, lags = taps.kernel, taps.signal, taps.kernel.shape[-1]
    axes = range(signal.ndim - 1)
    if taps.summed or any(kernel.shape[n] not in (1, signal.shape[n]) for n in axes):
        raise UnsupportedError("its taps are not for each channel of a signal")
    channels = [n for n in axes if kernel.shape[n] > 1]
    batch = [n for n in axes if n not in channels]
    before = lags - 1 - taps.ahead
    padded = functional.pad(signal, (before, taps.rows + lags - 1 - before - signal.shape[-1]))
    order = [*batch, *channels]
    moved = padded.permute(*order, -1)
    extents = moved.shape[:-1]
    count = prod(extents[len(batch) :])
    weight = kernel.permute(*order, -1).reshape(count, 1, lags).flip(-1)
    found = functional.conv1d(moved.reshape(-1, count, moved.shape[-1]), weight, groups=count)
    return found.reshape(*extents, taps.rows).permute(*[order.index(n) for n in axes], -1)


def convolution(what: str, convolve: Convolve) -> Callable[[Setting], PeerCall]:
    """The peer whose sums over lags are made by ``convolve``."""

    def make(setting: Setting) -> PeerCall:
        mixer, dtype = setting.mixer, setting.compute or torch.float32
        sums = {n for e in expressions(mixer) for n in walk(e) if isinstance(n, Reduce)}
        if not all(isinstance(stage, Map) for stage in mixer.stages):
            raise UnsupportedError("it has other forms than maps and convolutions")
        numbers = param_values(mixer, setting.sizes, setting.params)
        if not any(lag_sums(with_numbers(node, numbers)) for node in sums):
            raise UnsupportedError("it has no sum over lags, one apart")
        names = list(setting.tensors)
        given = [_positions_last(setting, name) for name in names]

        def step(*tensors: Tensor) -> tuple[Tensor, ...]:
            found = run(
                mixer,
                dict(zip(names, tensors, strict=True)),
                setting.params,
                dtype=dtype,
                sums=_sums(convolve),
            )
            return tuple(found[o.name].to(setting.dtype) for o in mixer.outputs)

        how, compiled = _compiled(step, given)

        def call() -> Sequence[Tensor]:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message=".*complex operators.*")
                made: Sequence[Tensor] = compiled(*given)
            return made

        outputs = [o.name for o in mixer.outputs]
        return PeerCall(
            f"{what}{how}",
            call,
            lambda found: dict(zip(outputs, found, strict=True)),
            operands=tuple(given),
        )

    return make


def _compiled(
    step: Callable[..., Sequence[Tensor]], given: Sequence[Tensor]
) -> tuple[str, Callable[..., Sequence[Tensor]]]:
    """What to say of it, and the step: under torch.compile where that can and is quicker."""
    try:
        straight = make_fx(step)(*given)
    except UnsupportedError:
        raise
    except RuntimeError:  # what it does depends on what tensors hold
        return "", step
    compiled: Callable[..., Sequence[Tensor]] = torch.compile(straight, dynamic=False)
    if second_call_s(lambda: compiled(*given)) < second_call_s(lambda: straight(*given)):
        return ", compiled", compiled
    return "", straight


def _positions_last(setting: Setting, name: str) -> Tensor:
    """An input whose longest axis lies innermost in memory, its axes in the spec's order."""
    tensor = setting.tensors[name]
    if tensor.ndim < 2:
        return tensor
    along = max(range(tensor.ndim), key=lambda n: tensor.shape[n])
    return tensor.movedim(along, -1).contiguous().movedim(-1, along)


def _sums(convolve: Convolve) -> Sums:
    def made(expr: Reduce, scope: Scope) -> Value | None:
        found = lag_sums(with_numbers(expr, scope.setting.params))
        if found is None:
            return _contracted(expr, scope)
        terms = []
        for one in found:
            values = [scope.value(one.factor), _convolved(one, scope, convolve)]
            terms.append(apply(scope.setting, Call("mul", (one.factor, expr)), values))
        both = Call("add", (expr, expr))
        return reduce(lambda a, b: apply(scope.setting, both, [a, b]), terms)

    return made


def _contracted(expr: Reduce, scope: Scope) -> Value | None:
    """A sum of products, which nobody would look through for what is not finite."""
    factors = scope.factors(expr.x) if expr.op == "sum" else []
    if len(factors) < 2 or expr.where is not None or expr.group:
        return None
    return contract(scope.setting, [scope.value(f) for f in factors], expr.over)


def _convolved(one: LagSum, scope: Scope, convolve: Convolve) -> Value:
    if one.row_sign < 0:
        raise UnsupportedError("its rows go against its signal")
    setting = scope.setting
    kernel, signal = scope.value(one.kernel), scope.value(one.signal)
    own = setting.ordered({*kernel.dims, *signal.dims} - {one.lag, one.over})
    ahead = int(evaluate_host(one.offset, setting.lengths, setting.params))
    taps = _last(kernel, own, one.lag)
    if one.lag_sign > 0:
        taps, ahead = taps.flip(-1), ahead + taps.shape[-1] - 1
    summed = tuple(own.index(dim) for dim in one.summed)
    rows = setting.sizes[one.row]
    made = convolve(Taps(taps, _last(signal, own, one.over), ahead, rows, summed))
    for place in sorted(summed, reverse=True):
        made = made.squeeze(place)
    return setting.reordered(Value(made, (*(d for d in own if d not in one.summed), one.row)))


def _last(value: Value, own: Sequence[str], along: str) -> Tensor:
    """Its axes among ``own``, those that it lacks of extent 1, and ``along`` last."""
    present = [d for d in own if d in value.dims]
    tensor = value.tensor.permute([value.dims.index(d) for d in (*present, along)])
    for place, dim in enumerate(own):
        if dim not in value.dims:
            tensor = tensor.unsqueeze(place)
    return tensor


__all__ = ["by_conv1d", "by_fft", "convolution"]
