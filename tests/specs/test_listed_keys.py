"""Keys that a table lists, and windows of pictures, against every pair and against unfold."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

import mixc
from mixc.compiler.language.find import find_spec
from mixc.compiler.language.load import load_file
from mixc.compiler.mixers.pack.pack_sequences import packing
from mixc.ir.errors import UnsupportedError

from .independent import assert_matches, assert_same_gradients, normal, reference

B, H, G, M, S, BLOCK, J, D, E = 2, 4, 2, 5, 3, 8, 37, 16, 24


def _lists() -> Tensor:
    """[H, M, S]: blocks 0 … 4, the last one cut by the end of the keys; some twice, some past the
    end, -1 for none, and one row that has nothing else."""
    torch.manual_seed(1)
    lists = torch.randint(-1, 7, (H, M, S), dtype=torch.int32)
    lists[0, 0], lists[1, 1] = -1, 2
    return lists


def _every_pair(q: Tensor, k: Tensor, v: Tensor, lists: Tensor) -> Tensor:
    """A key that is listed twice counts twice."""
    times = torch.zeros(H, M * BLOCK, J + 2 * BLOCK, dtype=q.dtype)
    for h, m, s in torch.cartesian_prod(torch.arange(H), torch.arange(M), torch.arange(S)).tolist():
        block = int(lists[h, m, s])
        if block >= 0:
            rows, keys = slice(m * BLOCK, (m + 1) * BLOCK), slice(block * BLOCK, block * BLOCK + 8)
            times[h, rows, keys] += 1
    times = times[..., :J]
    k, v = (x.repeat_interleave(H // G, 1) for x in (k, v))
    weights = times * (q @ k.mT * D**-0.5).exp()
    total = weights.sum(-1, keepdim=True)
    return torch.where(total > 0, weights / torch.where(total > 0, total, 1.0), 0.0) @ v


def test_listed_blocks() -> None:
    given = {
        "q": normal(B, H, M * BLOCK, D, grad=True),
        "k": normal(B, G, J, D, grad=True),
        "v": normal(B, G, J, E, grad=True),
    }
    expected = _every_pair(*given.values(), _lists())
    found = reference("listed_blocks", given | {"blocks": _lists()}, {"block": BLOCK})["o"]
    assert_matches(found, expected)
    assert_same_gradients(found, expected, given)


@pytest.mark.parametrize("backend", ["cpu", "interpreter"])
def test_kernels_of_listed_blocks(backend: str) -> None:
    """Both passes; the gradients of the keys are sums over the rows that list them."""
    torch.manual_seed(0)
    shapes = ((B, H, M * BLOCK, D), (B, G, J, D), (B, G, J, E))
    given = [torch.randn(*shape, requires_grad=True) for shape in shapes]
    exact = [x.detach().double().requires_grad_() for x in given]
    found = mixc.load("listed_blocks", block=BLOCK, backend=backend)(*given, _lists())
    expected = _every_pair(*exact, _lists())
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)
    above = torch.randn(found.shape)
    slopes = zip(
        torch.autograd.grad(found, given, above),
        torch.autograd.grad(expected, exact, above.double()),
        strict=True,
    )
    for slope, want in slopes:
        torch.testing.assert_close(slope.double(), want, rtol=1e-4, atol=1e-5)


def test_window_of_a_picture() -> None:
    """Torch's own neighbourhoods; what lies outside of the picture is not seen."""
    near, height, width = 2, 6, 7
    q, k = normal(B, H, height, width, D, grad=True), normal(B, G, height, width, D, grad=True)
    v = normal(B, G, height, width, E, grad=True)

    def around(x: Tensor) -> Tensor:
        """[B, G, Y, X, D] --> [B, H, Y, X, neighbours, D]."""
        side = 2 * near + 1
        flat = x.flatten(0, 1).movedim(-1, 1)
        found = functional.unfold(flat, side, padding=near)
        found = found.unflatten(1, (-1, side * side)).unflatten(-1, (height, width))
        return found.permute(0, 3, 4, 2, 1).unflatten(0, (B, G)).repeat_interleave(H // G, 1)

    inside = around(torch.ones_like(k[..., :1]))[..., 0] > 0
    scores = (q[..., None, :] * around(k)).sum(-1) * D**-0.5
    weights = scores.masked_fill(~inside, -torch.inf).softmax(-1)
    expected = (weights[..., None] * around(v)).sum(-2)
    given = {"q": q, "k": k, "v": v}
    found = reference("window_2d", given, {"near": near})["o"]
    assert_matches(found, expected)
    assert_same_gradients(found, expected, given)


def test_what_counts_several_axes_holds_no_documents() -> None:
    with pytest.raises(UnsupportedError, match="no axis to pack documents along"):
        packing(load_file(find_spec("listed_blocks")))
    with pytest.raises(UnsupportedError, match="N_P counts positions of X and Y together"):
        packing(load_file(find_spec("window_2d")))
