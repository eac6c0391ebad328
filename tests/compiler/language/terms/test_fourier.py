"""What `dft` and `idft` mean, as float64 tensors, and what they refuse."""

from __future__ import annotations

import pytest
import torch

from mixc.backends.reference.evaluate import run
from mixc.compiler.language.load import load_text
from mixc.ir.errors import SpecError

SPEC = """
mixer: spectra
inputs: {x: [B, T, C], w: [B, T, C]}
dims: {F: T}
map:
  z: dft(x, T=F)
  both: dft(complex(x, w), T=F)
  plane: "dft(x, C=E, T=F)"
  back: idft(both, F=T)
  mean: idft(x, T=F)
outputs:
  z_re: [B, F, C]
  z_im: [B, F, C]
  both_re: [B, F, C]
  both_im: [B, F, C]
  plane_re: [B, F, E]
  plane_im: [B, F, E]
  back_re: [B, T, C]
  back_im: [B, T, C]
  mean_re: [B, F, C]
  mean_im: [B, F, C]
"""


@pytest.mark.parametrize("length", [1, 2, 7, 12])
def test_they_are_those_of_torch(length: int) -> None:
    x, w = torch.randn(2, 2, length, 5, dtype=torch.float64)
    found = run(load_text(SPEC), {"x": x, "w": w})
    z = torch.complex(x, w)
    wanted = {
        "z": torch.fft.fft(x, dim=1),
        "both": torch.fft.fft(z, dim=1),
        "plane": torch.fft.fft2(x),
        "back": z,
        "mean": torch.fft.ifft(x, dim=1),
    }
    for name, value in wanted.items():
        torch.testing.assert_close(found[f"{name}_re"], value.real)
        torch.testing.assert_close(found[f"{name}_im"], value.imag)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ("dft(x)", "`dft` along no axis"),
        ("dft(x, T=T)", "`dft` along T to no axis of its own"),
        ("dft(x, T=C)", "`dft` along T to no axis of its own"),
        ("dft(x, F=T)", "`dft` along F to no axis of its own"),
        ("idft(sum(x, T), T=F)", "a value without T is transformed"),
        ("dft(x, T=2)", "`dft` along T to no axis of its own"),
        ("dft(x, U=F)", "`U` is no dim of this spec"),
    ],
)
def test_what_they_refuse(call: str, message: str) -> None:
    with pytest.raises(SpecError) as caught:
        load_text(SPEC.replace("dft(x, T=F)\n  both", f'"{call}"\n  both', 1))
    assert message in str(caught.value)
