"""Large results of CPU kernels, in pages of 2 MiB."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest
import torch

import mixc
from mixc.backends.cpu.large_pages import AT_LEAST, in_large_pages

SETTING = Path("/sys/kernel/mm/transparent_hugepage/enabled")


def faults() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def needs_large_pages() -> None:
    if not SETTING.exists() or "[never]" in SETTING.read_text():
        pytest.skip("this system has no transparent large pages")


def test_memory_that_was_asked_for_in_large_pages_has_few_faults() -> None:
    needs_large_pages()
    tensor = torch.empty(3 * AT_LEAST, dtype=torch.uint8)
    in_large_pages(tensor)
    before = faults()
    tensor.fill_(1)
    assert faults() - before < tensor.nbytes / 4096 / 4


def test_less_than_a_page_is_left_alone() -> None:
    in_large_pages(torch.empty(0), torch.empty(3), torch.empty(1 << 20, dtype=torch.uint8))


def test_a_call_that_makes_much_asks_for_them() -> None:
    """Scores of path are stored, 64 MiB of them here."""
    needs_large_pages()
    size = 2048
    vectors = torch.randn(3, 1, size, 4, 16)
    unit = torch.nn.functional.normalize(torch.randn(1, size, 4, 16), dim=-1)
    beta = torch.rand(1, size, 4)
    attend = mixc.load("path", backend="cpu")
    found = attend(*vectors, unit, beta)
    for _ in range(2):
        before = faults()
        again = attend(*vectors, unit, beta)
        spent = faults() - before
    assert spent < 4 * size * size * 4 / 4096 / 4
    torch.testing.assert_close(again, found, rtol=0, atol=0)
