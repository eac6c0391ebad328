"""Recurrences by torch's own layers, and by its FFT: what a user has without writing a loop.

Weights are laid out, and what depends on them alone is made, before the call. Which layer computes
a spec is found out: it takes the spec's inputs by name, and gives its results on a small sample.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor, nn

from ...backends.reference.evaluate import run
from ...ir.errors import UnsupportedError
from ..checking.proportions import Proportions, default_sizes
from ..checking.sampling import sample_inputs
from .peers import Call, Setting

_SMALL = Proportions(lengths=(37,), features=(8, 4, 6), ratio=1, batch=(2, 3))

Layered = Callable[[Tensor], Sequence[Tensor]]


@dataclass(frozen=True)
class Layer:
    """A function of x that gives the spec's outputs in order; it may lack the last of them.

    ``timed`` stands in for it on the clock, where ``exact`` has more to do than the spec;
    ``weights`` are what it is trained by, beside x.
    """

    what: str
    exact: Layered
    timed: Layered | None = None
    weights: tuple[Tensor, ...] = ()


def layer(setting: Setting) -> Call:
    """The layer that computes the spec."""
    mixer, sizes = setting.mixer, setting.sizes
    make, lacks = _known(setting)
    made = _made(make, setting)
    given = setting.tensors["x"].reshape([sizes[d] for d in mixer.input("x").dims])
    timed = made.timed or made.exact
    return Call(
        made.what,
        lambda: timed(given),
        lambda found: _results(setting, found),
        lacks=lacks,
        checked=lambda: made.exact(given),
        operands=(given, *made.weights),
    )


def _known(setting: Setting) -> tuple[Callable[..., Layer], tuple[str, ...]]:
    """What makes the layer, and the outputs that it lacks."""
    mixer, params = setting.mixer, setting.params
    sizes = default_sizes(mixer, _SMALL, params)
    tensors = sample_inputs(mixer, sizes, torch.float32, params=params)
    small = Setting(mixer, sizes, tensors, torch.float32, params)
    for make in LAYERS:
        if {*inspect.signature(make).parameters} != {*tensors}:
            continue
        try:
            x = tensors["x"].reshape([sizes[d] for d in mixer.input("x").dims])
            found = _results(small, _made(make, small).exact(x))
        except (RuntimeError, ValueError, IndexError):  # it is for other shapes
            continue
        wanted = run(mixer, tensors, params)
        if all(_close(found[name], wanted[name]) for name in found):
            return make, tuple(name for name in wanted if name not in found)
    raise UnsupportedError("no layer of torch computes it")


def _close(found: Tensor, wanted: Tensor) -> bool:
    return found.shape == wanted.shape and torch.allclose(found.double(), wanted, 1e-3, 1e-3)


def _made(make: Callable[..., Layer], setting: Setting) -> Layer:
    dtype = setting.compute or setting.dtype
    inputs = {}
    for declared in setting.mixer.inputs:
        tensor = setting.tensors[declared.name]
        inputs[declared.name] = tensor.reshape([setting.sizes[d] for d in declared.dims]).to(dtype)
    return make(**inputs)


def _results(setting: Setting, found: Sequence[Tensor]) -> dict[str, Tensor]:
    made = {}
    for declared, tensor in zip(setting.mixer.outputs, found, strict=False):
        shape = [prod(setting.sizes[d] for d in axis) for axis in declared.layout]
        made[declared.name] = tensor.reshape(shape)
    return made


def lstm(x: Tensor, R: Tensor) -> Layer:
    """torch.nn.LSTM for each head."""
    return _by_heads(nn.LSTM, x, R.transpose(0, 1).flatten(1, 2))


def gru(x: Tensor, R: Tensor, b: Tensor) -> Layer:
    """torch.nn.GRU for each head; b is the recurrent bias of the new state."""
    bias = torch.cat([b.new_zeros(b.shape[0], 2 * b.shape[1]), b], 1)
    return _by_heads(nn.GRU, x, R.transpose(0, 1).flatten(1, 2), bias)


def rnn(x: Tensor, R: Tensor) -> Layer:
    """torch.nn.RNN for each head."""
    return _by_heads(nn.RNN, x, R)


def s4d_by_fft(
    x: Tensor,
    log_dt: Tensor,
    log_A_real: Tensor,
    A_imag: Tensor,
    C_real: Tensor,
    C_imag: Tensor,
    skip: Tensor,
) -> Layer:
    """S4D as a long convolution, the spectrum of its kernel made once; it gives no last state."""
    length = x.shape[-1]
    pole = torch.complex(-log_A_real.double().exp(), A_imag.double())
    log_decay = log_dt.double().exp()[:, None] * pole
    weight = torch.complex(C_real.double(), C_imag.double()) * log_decay.exp().sub(1) / pole
    places = torch.arange(length, device=x.device)
    kernel = torch.zeros(x.shape[1], length, dtype=torch.float64, device=x.device)
    for n in range(pole.shape[1]):
        kernel += 2 * (weight[:, n, None] * (log_decay[:, n, None] * places).exp()).real
    spectrum = torch.fft.rfft(kernel.float(), n=2 * length)
    through = skip[:, None].float()

    def convolved(x: Tensor) -> list[Tensor]:
        rows = x.float()
        found = torch.fft.irfft(torch.fft.rfft(rows, n=2 * length) * spectrum, n=2 * length)
        return [torch.addcmul(found[..., :length], rows, through).to(x.dtype)]

    return Layer("torch.fft, a long convolution by a kernel kept", convolved)


def plane_by_fft(x: Tensor) -> Layer:
    """The real part of a Fourier transform along the last two axes."""

    def transformed(x: Tensor) -> list[Tensor]:
        return [torch.fft.fft2(x.float()).real.to(x.dtype)]

    return Layer("torch.fft.fft2, its real part", transformed)


LAYERS: tuple[Callable[..., Layer], ...] = (lstm, gru, rnn, s4d_by_fft, plane_by_fft)


def _by_heads(
    kind: type[nn.RNNBase], x: Tensor, weights: Tensor, biases: Tensor | None = None
) -> Layer:
    """A layer per head of x [B, T, ..., H, D], for weights [H, gates * D, D].

    A layer projects its input, and ours is projected already: the identity gives the numbers, and
    one feature in place of them all is timed, which leaves the recurrence.
    """
    heads, width, features = weights.shape
    none = torch.zeros(heads, width, device=x.device)
    layers = [
        (_cell(kind, width, w, b), _cell(kind, 1, w, b))
        for w, b in zip(weights, none if biases is None else biases, strict=True)
    ]
    dtype = weights.dtype

    def exact(x: Tensor) -> list[Tensor]:
        return _stacked(
            [cell(x[..., n, :].flatten(2).to(dtype)) for n, (cell, _) in enumerate(layers)], x.dtype
        )

    def timed(x: Tensor) -> list[Tensor]:
        rows = x.reshape(*x.shape[:2], -1, heads, features)[:, :, 0]
        return _stacked(
            [cell(rows[..., n, :1].to(dtype)) for n, (_, cell) in enumerate(layers)], x.dtype
        )

    trained = tuple(cell.get_parameter("weight_hh_l0") for _, cell in layers)
    return Layer(f"torch.nn.{kind.__name__}, of one input feature", exact, timed, trained)


def _cell(kind: type[nn.RNNBase], given: int, weight: Tensor, bias: Tensor) -> nn.RNNBase:
    """Always with biases: without them torch is four times slower on a CPU."""
    width, features = weight.shape
    make: Callable[..., nn.RNNBase] = kind
    cell = make(given, features, batch_first=True).to(weight).requires_grad_(False)
    cell.get_parameter("weight_ih_l0").copy_(torch.eye(width, given))
    cell.get_parameter("weight_hh_l0").copy_(weight)
    cell.get_parameter("bias_ih_l0").zero_()
    cell.get_parameter("bias_hh_l0").copy_(bias)
    return cell


def _stacked(
    found: Sequence[tuple[Tensor, Tensor | tuple[Tensor, ...]]], dtype: torch.dtype
) -> list[Tensor]:
    """Rows [B, T, H, D], then the last states [B, H, D]."""
    rows = torch.stack([rows for rows, _ in found], 2)
    states = [last if isinstance(last, tuple) else (last,) for _, last in found]
    last = [torch.cat(parts).transpose(0, 1) for parts in zip(*states, strict=True)]
    return [tensor.to(dtype) for tensor in (rows, *last)]
