"""Products of every shape that blocks of rows and vectors leave over, against float64."""

from __future__ import annotations

import ctypes

import pytest
import torch
from torch import Tensor

from mixc.backends.cpu.build import build, find_compiler
from mixc.backends.cpu.emit import runtime_text

ROWS = (1, 5, 7, 13, 64)
VECTORS = (1, 3)  # of a row of the result
FEW = (3, 4)  # of which only the first are wanted
SUMMED = (1, 6)
STARTS = ("ZERO", "OUT", "ROWS_SCALED", "COLUMNS_SCALED")


@pytest.fixture(scope="module")
def products() -> ctypes.CDLL:
    lines = [
        f'extern "C" void dot_{m}_{v}_{k}_{start}(float* out, const float* a, const float* b, '
        f"const float* s) {{ mx::dot<mx::Floats, {m}, {v} * mx::LANES, {k}, 6, 2, "
        f"mx::Start::{start}>(out, a, 1, {m}, b, {v} * mx::LANES, s); }}"
        for m in ROWS
        for v in VECTORS
        for k in SUMMED
        for start in STARTS[:: 1 if k == 6 else 3]
    ]
    lines += [
        f'extern "C" void few_{v}_{start}(float* out, const float* a, const float* b, '
        f"const float* s, int rows, int columns) {{ mx::dot<mx::Floats, 16, {v} * mx::LANES, 6, "
        f"8, 2, mx::Start::{start}>(out, a, 1, 16, b, {v} * mx::LANES, s, rows, columns); }}"
        for v in FEW
        for start in STARTS
    ]
    lanes = find_compiler().target.lanes
    source = "\n".join([f"#define MIXC_LANES {lanes}", runtime_text(), *lines])
    return ctypes.CDLL(str(build(source, "products", ("-O1",))))


def started(out: Tensor, scale: Tensor, start: str) -> Tensor:
    match start:
        case "ZERO":
            return torch.zeros_like(out)
        case "ROWS_SCALED":
            return out * scale[: len(out), None]
        case "COLUMNS_SCALED":
            return out * scale[: out.shape[1]]
    return out


@pytest.mark.parametrize("rows", ROWS)
def test_no_row_and_no_column_is_left_out(products: ctypes.CDLL, rows: int) -> None:
    lanes = find_compiler().target.lanes
    generator = torch.Generator().manual_seed(0)
    for columns in (v * lanes for v in VECTORS):
        for k in SUMMED:
            for start in STARTS[:: 1 if k == 6 else 3]:
                a = torch.randn(k, rows, generator=generator)
                b = torch.randn(k, columns, generator=generator)
                out = torch.randn(rows, columns, generator=generator)
                scale = torch.randn(max(rows, columns), generator=generator)
                wanted = started(out.double(), scale.double(), start) + a.double().T @ b.double()
                call = getattr(products, f"dot_{rows}_{columns // lanes}_{k}_{start}")
                call(*(ctypes.c_void_p(t.data_ptr()) for t in (out, a, b, scale)))
                torch.testing.assert_close(out.double(), wanted, rtol=0, atol=2e-5)


@pytest.mark.parametrize("vectors", FEW)
def test_the_first_rows_or_columns_alone(products: ctypes.CDLL, vectors: int) -> None:
    """Those that are wanted are right, whole vectors and blocks of rows; others stay."""
    lanes = find_compiler().target.lanes
    columns = vectors * lanes
    generator = torch.Generator().manual_seed(0)
    for start in STARTS:
        for few in (0, 1, lanes, lanes + 1, 2 * lanes, columns - 1, columns):
            for rows in (16,) if few < columns else (0, 3, 8, 9, 16):
                a = torch.randn(6, 16, generator=generator)
                b = torch.randn(6, columns, generator=generator)
                out = torch.randn(16, columns, generator=generator)
                scale = torch.randn(columns, generator=generator)
                wanted = started(out.double(), scale.double(), start) + a.double().T @ b.double()
                wanted[-(-rows // 8) * 8 :] = out[-(-rows // 8) * 8 :].double()
                wanted[:, -(-few // lanes) * lanes :] = out[:, -(-few // lanes) * lanes :].double()
                given = [ctypes.c_void_p(t.data_ptr()) for t in (out, a, b, scale)]
                getattr(products, f"few_{vectors}_{start}")(*given, rows, few)
                torch.testing.assert_close(out.double(), wanted, rtol=0, atol=2e-5)
