"""What spec tests share: the float64 reference by name, and implementations that are not ours."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from unittest import mock

import torch
from torch import Tensor
from torch.nn import functional

from mixc.backends.reference.evaluate import run
from mixc.compiler.language.find import find_spec
from mixc.compiler.language.load import load_file


def reference(
    name: str, tensors: Mapping[str, Tensor], params: Mapping[str, float] | None = None
) -> dict[str, Tensor]:
    """The outputs of the library spec ``name``, by mixc's float64 reference."""
    return run(load_file(find_spec(name)), tensors, params or {})


def normal(*shape: int, grad: bool = False) -> Tensor:
    """Float64 noise."""
    return torch.randn(*shape, dtype=torch.float64, requires_grad=grad)


def sdpa(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, scale: float | None = None
) -> Tensor:
    """PyTorch's own attention on [B, H, T, D]; ``mask``: boolean, or an additive float bias."""
    return functional.scaled_dot_product_attention(
        q, k, v, attn_mask=mask, scale=scale, enable_gqa=True
    )


def positions(queries: int, keys: int | None = None) -> tuple[Tensor, Tensor]:
    """i as a column and j as a row."""
    return torch.arange(queries)[:, None], torch.arange(queries if keys is None else keys)[None]


def rotate(x: Tensor, position: Tensor, base: float = 10000.0) -> Tensor:
    """Rotary embedding by complex numbers; pairs (d, d + D/2); position broadcasts to x[..., 0]."""
    half = x.shape[-1] // 2
    frequency = base ** (-torch.arange(half, dtype=torch.float64) / half)
    turn = torch.polar(torch.ones((), dtype=torch.float64), position[..., None] * frequency)
    turned = torch.complex(x[..., :half], x[..., half:]) * turn
    return torch.cat([turned.real, turned.imag], dim=-1)


@contextlib.contextmanager
def kept_in_float64() -> Iterator[None]:
    """Inside, code that casts to float32 (``x.float()``, ``x.to(torch.float32)``, softmax with a
    dtype) or makes new tensors stays in float64."""
    softmax, usual = functional.softmax, torch.get_default_dtype()

    def same_dtype(x: Tensor, dim: int | None = None, **_: object) -> Tensor:
        return softmax(x, dim=dim)

    with (
        mock.patch.object(Tensor, "float", Tensor.double),
        mock.patch.object(torch, "float32", torch.float64),
        mock.patch.object(torch, "float", torch.float64),
        mock.patch.object(functional, "softmax", same_dtype),
    ):
        torch.set_default_dtype(torch.float64)
        try:
            yield
        finally:
            torch.set_default_dtype(usual)


def assert_matches(actual: Tensor, expected: Tensor, tolerance: float = 1e-10) -> None:
    """Both agree in shape and to ``tolerance``, relative to values of order one."""
    assert torch.isfinite(expected).all(), "the independent result is not finite"
    torch.testing.assert_close(
        actual, expected.to(actual.dtype), rtol=tolerance, atol=tolerance, check_dtype=False
    )


def assert_same_gradients(
    actual: Tensor, expected: Tensor, inputs: Mapping[str, Tensor], tolerance: float = 1e-9
) -> None:
    """Both results have the same gradients by every input, for one random cotangent."""
    cotangent = torch.randn_like(expected)
    names = [name for name, x in inputs.items() if x.requires_grad]
    leaves = [inputs[name] for name in names]
    ours = _gradients(actual, leaves, cotangent)
    theirs = _gradients(expected, leaves, cotangent)
    for name, mine, other in zip(names, ours, theirs, strict=True):
        torch.testing.assert_close(
            mine, other, rtol=tolerance, atol=tolerance, msg=lambda m, n=name: f"d{n}: {m}"
        )


def _gradients(result: Tensor, leaves: list[Tensor], cotangent: Tensor) -> tuple[Tensor, ...]:
    return torch.autograd.grad(
        result, leaves, cotangent, retain_graph=True, materialize_grads=True, allow_unused=True
    )


def assert_agrees(
    name: str,
    inputs: Mapping[str, Tensor],
    expected: Mapping[str, Tensor],
    params: Mapping[str, float] | None = None,
    tolerance: float = 1e-9,
) -> None:
    """The library spec ``name`` gives ``expected``, output by output, gradients too."""
    ours = reference(name, inputs, params)
    for output, theirs in expected.items():
        assert theirs.dtype == torch.float64, "the independent result has lost precision"
        assert_matches(ours[output], theirs, tolerance)
        assert_same_gradients(ours[output], theirs, inputs, tolerance)
