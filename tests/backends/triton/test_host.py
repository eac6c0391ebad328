"""The Python that an emitted module runs on the host."""

from __future__ import annotations

import pytest
import torch

from mixc.backends.triton.emit import emit_module
from mixc.backends.triton.run import import_source
from mixc.compiler.language.find import find_spec
from mixc.compiler.language.load import load_file, load_text
from mixc.compiler.pipeline import lower

SPEC = """
mixer: m
inputs: {q: [B, I, G*R, D], k: [B, J, G, D], v: [B, J, G, E]}
dims: {N: J // 4}
params: {gain: {default: 2.0, runtime: true}}
stages:
  - attention: {over: J, score: "gain * sum(q * k, D)", normalize: softmax, output: {o: v}}
outputs: {o: [B, I, G*R*E]}
"""


def test_sizes_strides_and_shapes_of_products() -> None:
    text = emit_module(lower(load_text(SPEC), {"D": 32, "E": 16}))
    host = text[text.index("def m(") :]
    assert host.startswith("def m(q, k, v, *, gain=2.0):")
    assert "    R = q.shape[2] // G\n" in host
    assert "q.stride(2) * R" in host
    assert "N =" not in host  # nothing reads it
    assert "return o.reshape([B, I, G * R * 16])" in host


def refused(*tensors: torch.Tensor) -> str:
    """What the emitted causal attention for bfloat16 and D = E = 64 says of tensors."""
    source = emit_module(lower(load_file(find_spec("causal")), {"D": 64, "E": 64}, "bfloat16"))
    function = import_source(source, "causal").causal
    with pytest.raises((ValueError, RuntimeError)) as caught:
        function(*tensors)
    return str(caught.value)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"q": (1, 4, 5, 32)}, "q: expected [B, H, I, D] = [1, 4, 5, 64], got [1, 4, 5, 32]"),
        ({"v": (1, 2, 6, 64)}, "v: expected [B, G, J, E] = [1, 2, 5, 64], got [1, 2, 6, 64]"),
        ({"k": (2, 5, 64)}, "k: expected 4 axes, got the shape [2, 5, 64]"),
        ({"k": (1, 3, 5, 64), "v": (1, 3, 5, 64)}, "heads: G must divide H, got 3 and 4"),
    ],
)
def test_an_emitted_function_refuses_other_shapes(changed: dict, message: str) -> None:
    shapes = {"q": (1, 4, 5, 64), "k": (1, 2, 5, 64), "v": (1, 2, 5, 64), **changed}
    device = "meta"  # nothing is launched
    tensors = [torch.empty(s, dtype=torch.bfloat16, device=device) for s in shapes.values()]
    assert refused(*tensors) == message


def test_an_emitted_function_refuses_other_dtypes_and_devices() -> None:
    q, k = torch.empty(1, 4, 5, 64).bfloat16(), torch.empty(1, 2, 5, 64).bfloat16()
    assert refused(q, k.float(), k) == "k: expected torch.bfloat16, got torch.float32"
    assert refused(q, k, k.to("meta")) == "v: expected a tensor on cpu, got one on meta"
    assert "interpreter multiplies bfloat16 wrongly" in refused(q, k, k)


LATE = """
mixer: m
inputs: {x: [B, T, C]}
dims: {N: (T + length - 1) // length}
params: {parts: 3, length: T // parts + 1}
map: {y: "max(x, T, N=t // length)"}
outputs: {y: [B, N, C]}
"""


def test_a_param_that_depends_on_a_length_is_there_for_the_sizes_made_of_it() -> None:
    text = emit_module(lower(load_text(LATE), {"C": 32}))
    assert "    length = T // parts + 1\n    N = (T + length - 1) // length\n" in text
