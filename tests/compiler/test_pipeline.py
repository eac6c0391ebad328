"""Lowering as a whole: its levels as text, its checks, and what it leaves alone."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from mixc.compiler.language.find import find_spec, library
from mixc.compiler.language.load import load_file, load_text
from mixc.compiler.pipeline import PASSES, lower, lower_on
from mixc.ir.data_text import read_data
from mixc.ir.errors import ArgumentError, UnsupportedError, VerificationError
from mixc.ir.expression import Kind, Ref
from mixc.ir.mixer import Map
from mixc.ir.text import write_mixer
from mixc.ir.tile import DType
from mixc.ir.tile_text import write_plan

MIXER = load_text(
    "mixer: m\ninputs: {x: [T, D], causal: {dims: [T], dtype: bool}}\nparams: {flag: true}\n"
    "stages:\n  - map: {y: 'where(flag, sum(x, D), 0)'}\noutputs: {y: [T]}"
)


def test_equal_mixers_give_equal_plans() -> None:
    for name in ("causal", "bigbird", "landmark"):
        path = find_spec(name)
        assert lower(load_file(path), {}) == lower(load_file(path), {})


def test_lengths_have_no_influence() -> None:
    mixer = load_file(find_spec("causal"))
    short, long = (lower(mixer, {"D": 64, "E": 64, "I": n, "J": n}) for n in (1, 100_000))
    assert write_plan(short) == write_plan(long)


def test_flags_are_decided() -> None:
    plan = lower(MIXER, {"D": 16})
    assert "= where(" not in write_plan(plan)
    assert "param flag" not in write_plan(plan)


@pytest.mark.parametrize(
    ("name", "dtype"),
    [("bf16", DType.BFLOAT16), ("float16", DType.FLOAT16), ("fp32", DType.FLOAT32)],
)
def test_dtypes_by_either_name(name: str, dtype: DType) -> None:
    plan = lower(MIXER, {}, name)
    assert plan.dtype is dtype
    assert plan.buffer("x").dtype is dtype
    assert plan.buffer("y").dtype is dtype


def test_a_dtype_that_kernels_do_not_have() -> None:
    with pytest.raises(ArgumentError, match=r"dtype: expected one of fp32, .*, got 'float64'"):
        lower(MIXER, {}, "float64")


def test_a_broken_mixer_is_found_before_anything_else() -> None:
    (stage,) = MIXER.stages
    assert isinstance(stage, Map)
    nobody = replace(stage.equations[0], value=Ref("nobody", frozenset("T"), Kind.REAL))
    with pytest.raises(VerificationError, match="nobody"):
        lower(replace(MIXER, stages=(Map((nobody,)),)), {})


def test_levels_are_dumped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "dump"
    monkeypatch.setenv("MIXC_DUMP", str(folder))
    plan = lower(MIXER, {"D": 16})
    names = sorted(path.name for path in folder.iterdir())
    passes = [f"m_{n:02}_{one.name}.txt" for n, one in enumerate(PASSES, 3)]
    assert names == ["m_01_mixer.txt", "m_02_plan.txt", *passes]
    texts = [(folder / name).read_text() for name in names]
    assert read_data(texts[0]) == MIXER
    assert texts[0].startswith("# " + write_mixer(MIXER).splitlines()[0])
    assert read_data(texts[-1]) == plan
    assert lower_on(texts[0], {"D": 16}) == plan
    assert all(lower_on(text) == plan for text in texts[1:])
    with pytest.raises(ArgumentError, match="made for D = 16: sizes are for a mixer"):
        lower_on(texts[1], {"D": 32})


def test_every_spec_lowers_with_its_keys_in_shares():
    # seqpe has a param called `share`, as shares of the keys once were in a kernel's body
    for path in library():
        lower(load_file(path), {"D": 64, "E": 64}, "bfloat16", splits=4)


PLANS = """
from mixc.compiler.language.find import library
from mixc.compiler.language.load import load_file
from mixc.compiler.pipeline import PASSES, lower, lower_on
from mixc.ir.data_text import read_data
from mixc.ir.tile_text import write_plan

for path in library():
    print(write_plan(lower(load_file(path), {})))
"""


def test_a_spec_gives_the_same_kernels_in_every_process() -> None:
    """Sets have another order in each: what is kept by content would be built again."""
    made = [
        subprocess.run(
            [sys.executable, "-c", PLANS],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "3")
    ]
    assert made[0] == made[1]


def test_what_no_kernel_computes_is_shown_in_the_spec() -> None:
    text = """mixer: m
inputs: {A: [B, I, J], v: [B, I]}
dims: {I: T, J: T}
map:
  o: 2 * solve(A, v, I=J)
outputs: {o: [B, J]}
"""
    with pytest.raises(UnsupportedError) as refused:
        lower(load_text(text, "m.yaml"), {}, "float32")
    first, line, caret = str(refused.value).splitlines()
    assert first.startswith("m.yaml:5:10: `solve` along I, an axis of any length")
    assert line == "    o: 2 * solve(A, v, I=J)"
    assert caret.index("^") == line.index("solve")


def test_a_step_that_mixes_along_a_long_axis_is_shown_in_the_spec() -> None:
    text = """mixer: m
inputs: {x: [B, T, D], w: [D, P]}
dims: {R: 2}
recurrence:
  over: T
  state: {h: [D]}
  step:
    - over: R
      step:
        - h = tanh(x + sum(w * h[D=p], P))
outputs: {h: [B, D]}
"""
    with pytest.raises(UnsupportedError) as refused:
        lower(load_text(text, "m.yaml"), {"D": 4096, "P": 4096}, "float32")
    first, line, caret = str(refused.value).splitlines()
    assert first == "m.yaml:10:33: m: the step mixes along D, which is too long to hold"
    assert caret.index("^") == line.index("[D=p]")
