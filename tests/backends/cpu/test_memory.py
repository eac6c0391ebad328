"""Tiles from memory: read along it, across it, and with a part that does not exist."""

from __future__ import annotations

import ctypes
import re

import pytest
import torch
from torch import Tensor

from mixc.backends.cpu.build import build, find_compiler
from mixc.backends.cpu.emit import runtime_text
from mixc.backends.cpu.run import CpuRunner
from mixc.compiler.language.find import find_spec
from mixc.compiler.language.load import load_file
from mixc.compiler.mixers.derivative.differentiate import differentiate
from mixc.compiler.pipeline import lower
from mixc.ir.expression import Kind

ROWS, COLUMNS, FILL = 32, 48, -7.0
TYPES = {"float": torch.float32, "mx::bf16": torch.bfloat16, "mx::fp16": torch.float16}


@pytest.fixture(scope="module")
def tiles() -> ctypes.CDLL:
    lines = [
        f'extern "C" void load_{n}(float* to, const {kind}* from, int64_t row_stride, '
        f"int64_t column_stride, int rows, int columns) {{ mx::load_tile<{ROWS}, {COLUMNS}>"
        f"(to, from, row_stride, column_stride, rows, columns, {FILL}f); }}"
        for n, kind in enumerate(TYPES)
    ]
    lanes = find_compiler().target.lanes
    source = "\n".join([f"#define MIXC_LANES {lanes}", runtime_text(), *lines])
    return ctypes.CDLL(str(build(source, "tiles")))


def loaded(tiles: ctypes.CDLL, x: Tensor, rows: int, columns: int) -> Tensor:
    to = torch.full((ROWS, COLUMNS), torch.nan)
    call = getattr(tiles, f"load_{[*TYPES.values()].index(x.dtype)}")
    strides = [ctypes.c_int64(stride) for stride in x.stride()]
    call(ctypes.c_void_p(to.data_ptr()), ctypes.c_void_p(x.data_ptr()), *strides, rows, columns)
    return to


@pytest.mark.parametrize("dtype", TYPES.values(), ids=str)
def test_every_number_that_exists_is_in_its_place(tiles: ctypes.CDLL, dtype: torch.dtype) -> None:
    along, across = torch.randn(ROWS, COLUMNS).to(dtype), torch.randn(COLUMNS, ROWS).to(dtype).T
    apart = torch.randn(ROWS, 2 * COLUMNS).to(dtype)[:, ::2]
    same = torch.randn(ROWS + COLUMNS).to(dtype).unfold(0, COLUMNS, 1)[:ROWS]  # both strides are 1
    for x in (along, across, apart, same):
        for rows in (0, 1, 8, 15, 17, 31, ROWS):
            for columns in (0, 1, 8, 13, 16, 33, COLUMNS):
                wanted = torch.full((ROWS, COLUMNS), FILL)
                wanted[:rows, :columns] = x[:rows, :columns].float()
                assert torch.equal(loaded(tiles, x, rows, columns), wanted)


@pytest.mark.parametrize(("spec", "near"), [("gla", {2}), ("delta", set())])
def test_rows_ahead_leave_the_first_cache_to_states_unless_rows_wait(spec, near) -> None:
    """Of gla's backward pass a walk has six tensors' rows beside its state; a delta rule waits."""
    mixer = load_file(find_spec(spec))
    if near:
        names = tuple(i.name for i in mixer.inputs if i.kind is Kind.REAL)
        mixer = differentiate(mixer, names).backward
    runner = CpuRunner(mixer, lower, choose=lambda sizes, dtype: {"rows_at_once": 2})
    text = runner.source({"D": 64, "E": 64}, torch.float32)
    asked = re.findall(r"mx::prefetch<64(?:, (\d))?>", text)
    assert "" in asked
    assert {int(n) for n in asked if n} == near
