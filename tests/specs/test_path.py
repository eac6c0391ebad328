"""PaTH against flash-linear-attention's naive function; its kernels against a rewritten cache."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, normalize

import mixc
from mixc.backends.cpu.run import CpuRunner
from mixc.compiler.language.find import find_spec
from mixc.compiler.language.load import load_file
from mixc.compiler.pipeline import lower

from .independent import (
    assert_matches,
    assert_same_gradients,
    kept_in_float64,
    normal,
    reference,
)

B, H, G, D, E = 2, 4, 2, 16, 24


def _given(rows: int, groups: int, values: int) -> dict[str, Tensor]:
    torch.manual_seed(0)
    given = {
        "q": normal(B, rows, H, D),
        "k": normal(B, rows, groups, D),
        "v": normal(B, rows, groups, values),
        "w": normalize(normal(B, rows, groups, D), dim=-1),
        "beta": 2 * torch.rand(B, rows, groups, dtype=torch.float64),
        "g": logsigmoid(normal(B, rows, H)),
    }
    return {name: x.requires_grad_() for name, x in given.items()}


@pytest.mark.parametrize("groups", [1, 4])
def test_matches_fla(groups: int) -> None:
    naive = pytest.importorskip("fla.ops.path_attn.naive").naive_path_attn
    given = _given(128, groups, D)
    found = reference("path", given)["o"]
    with kept_in_float64():
        expected = naive(*given.values(), scale=D**-0.5)
    expected = expected[0] if isinstance(expected, tuple) else expected
    assert expected.dtype == torch.float64
    assert_matches(found, expected)
    assert_same_gradients(found, expected, given)


def _by_rows(q: Tensor, k: Tensor, v: Tensor, w: Tensor, beta: Tensor, g: Tensor) -> Tensor:
    """Each new token rewrites every cached key (section 4 of the paper), then attends to them."""
    k, v, w, beta = (x.repeat_interleave(H // G, 2) for x in (k, v, w, beta))
    c, rows = g.cumsum(1), []
    cache = k[:, :0]
    for t in range(q.shape[1]):
        turned = (w[:, t, None] * cache).sum(-1, keepdim=True) * w[:, t, None]
        cache = torch.cat((cache - beta[:, t, None, :, None] * turned, k[:, t : t + 1]), 1)
        scores = (q[:, t, None] * cache).sum(-1) + c[:, t, None] - c[:, : t + 1]
        shares = (D**-0.5 * scores).softmax(1)
        rows.append((shares[..., None] * v[:, : t + 1]).sum(1))
    return torch.stack(rows, 1)


@pytest.mark.parametrize("backend", ["cpu", "interpreter"])
def test_kernels_of_both_passes(backend: str) -> None:
    """Across blocks of keys and chunks of rows that do not end together."""
    exact = list(_given(70, G, E).values())
    given = [x.detach().float().requires_grad_() for x in exact]
    found, expected = mixc.load("path", backend=backend)(*given), _by_rows(*exact)
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)
    above = torch.randn_like(expected)
    slopes = zip(
        torch.autograd.grad(found, given, above.float()),
        torch.autograd.grad(expected, exact, above),
        strict=True,
    )
    for slope, want in slopes:
        torch.testing.assert_close(slope.double(), want, rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize("backend", ["cpu", "cpu in chunks", "interpreter"])
def test_padding_that_nobody_sees_reaches_no_row(backend: str) -> None:
    """In chunks a product picks the rows that are keys; what one holds is no other's."""
    given = {name: x.detach().float() for name, x in _given(40, G, E).items()}
    expected = _by_rows(*given.values())
    given["k"][:, 20], given["v"][:, 20] = torch.nan, torch.inf  # amid a chunk and a block of keys
    if backend == "cpu in chunks":
        found = CpuRunner(load_file(find_spec("path")), lower, {"by_rows": 0})(given)["o"]
    else:
        found = mixc.load("path", backend=backend)(*given.values())
    torch.testing.assert_close(found[:, :20], expected[:, :20], rtol=1e-5, atol=1e-5)
    assert found[:, 20:].isnan().all()
