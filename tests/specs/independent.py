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
    """Inside, code that casts to float32 (``x.float()``, softmax with a dtype) stays in float64."""
    softmax = functional.softmax

    def same_dtype(x: Tensor, dim: int | None = None, **_: object) -> Tensor:
        return softmax(x, dim=dim)

    with (
        mock.patch.object(Tensor, "float", Tensor.double),
        mock.patch.object(functional, "softmax", same_dtype),
    ):
        yield


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
    ours = torch.autograd.grad(actual, leaves, cotangent, retain_graph=True)
    theirs = torch.autograd.grad(expected, leaves, cotangent, retain_graph=True)
    for name, mine, other in zip(names, ours, theirs, strict=True):
        torch.testing.assert_close(
            mine, other, rtol=tolerance, atol=tolerance, msg=lambda m, n=name: f"d{n}: {m}"
        )
