"""Exported files look up what was tuned as the library does, without it."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
import torch

from mixc.autotune.results.devices import Device
from mixc.autotune.results.result import Key, Result
from mixc.autotune.results.stored import look_up, save, spec_hash
from mixc.compiler.language.find import find_spec
from mixc.compiler.language.load import load_file
from mixc.compiler.mixers.derivative.differentiate import differentiate
from mixc.export.exporting import Exported, export
from mixc.ir.mixer import Mixer

from .test_exporting import ALONE, lint

SIZES = {"D": 16, "E": 16}
HOPPER = Device("gpu", "cuda:90", "NVIDIA H200")


@pytest.fixture(autouse=True)
def own_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MIXC_DATA", str(tmp_path / "data"))
    return tmp_path


def store(
    mixer: Mixer,
    length: int,
    configuration: Mapping[str, int],
    device: Device = HOPPER,
    modelled: bool = False,
) -> Key:
    names = {mixer.sequence(d) or d for i in mixer.inputs for d in i.dims} & {"T"}
    key = Key(mixer.name, spec_hash(mixer), "float32", SIZES, dict.fromkeys(names, length), device)
    save(Result(key, configuration, 1.0, modelled=modelled))
    return key


def loaded(made: Exported, folder: Path) -> ModuleType:
    path = folder / "file.py"
    path.write_text(made.source)
    spec = importlib.util.spec_from_file_location(f"exported_{folder.name}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_nearest_result_is_found_as_in_the_library(
    own_results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    causal = load_file(find_spec("causal"))
    other = replace(HOPPER, name="NVIDIA H100")
    ampere = Device("gpu", "cuda:80", "NVIDIA A100")
    key = store(causal, 1024, {"block_rows": 64, "num_warps": 4})
    store(causal, 4096, {"block_rows": 128, "num_warps": 8})
    store(causal, 4096, {"block_rows": 32, "num_warps": 8}, other)
    store(causal, 2048, {"block_rows": 16}, ampere)
    store(causal, 512, {"block_rows": 16}, modelled=True)
    made = export(causal, SIZES, "float32")
    assert (made.tuned, made.left_out) == (4, ())
    file = loaded(made, own_results)
    places = [(d, n) for d in (HOPPER, other, ampere) for n in (64, 300, 1024, 3000, 9000, 99999)]
    for device, length in places:
        where = (device.architecture, device.name)
        monkeypatch.setattr(file, "architecture_of", lambda _, where=where: where)
        file.tuned.cache_clear()
        found = file.tuned(file.CAUSAL_FORWARD_TUNED, torch.device("cuda"), length)
        bucket = 1 << (length - 1).bit_length()
        wanted = look_up(replace(key, device=device, lengths={"T": bucket})).configuration
        default = dict(file.CAUSAL_FORWARD_TUNED[0])
        block = "causal_forward_o.BLOCK_I"
        assert found[block] == wanted.get("block_rows", default[block])
    file.tuned.cache_clear()
    assert file.tuned(file.CAUSAL_FORWARD_TUNED, torch.device("cpu"), 64) == default


def test_what_does_not_hold_for_the_file_is_left_out_and_said() -> None:
    causal = load_file(find_spec("causal"))
    store(causal, 1024, {"block_rows": 7})
    store(causal, 2048, {"splits": 4, "block_rows": 64})
    assert export(causal, {"D": 256, "E": 256}, "float32").left_out == ()  # they are too far
    made = export(causal, SIZES, "float32")
    assert made.tuned == 0
    first, second = made.left_out
    assert first.startswith("causal-")
    assert "T1024 on NVIDIA H200: block_rows: expected" in first
    assert second.endswith("T2048 on NVIDIA H200: it deals out keys, and the file's kernels do not")


def test_tables_of_both_passes_run_and_read_well(own_results: Path) -> None:
    causal = load_file(find_spec("causal"))
    backward = differentiate(causal).backward
    store(causal, 64, {"block_rows": 32, "block_keys": 16, "num_warps": 2})
    names = [f"{backward.name}_d_q.block_rows", f"{backward.name}_d_q.block_keys"]
    store(backward, 64, dict.fromkeys(names, 16))
    made = export(causal, SIZES, "float32")
    assert (made.tuned, made.left_out) == (2, ())
    path = own_results / "causal.py"
    assert made.source.count('knobs["causal_backward_d_q.BLOCK_I"]') == 2
    plain = 'if device.type != "cuda":\n        return "cpu", "cpu"'
    assert plain in made.source
    tuned = made.source.replace(plain, 'if device.type != "cuda":\n        return "cuda:90", ""')
    for text in (made.source, tuned):  # at the defaults, and at what was tuned
        path.write_text(text)
        assert lint(own_results) == ""
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", ALONE, str(path)],
            capture_output=True,
            text=True,
            env={**os.environ, "TRITON_INTERPRET": "1"},
        )
        assert done.returncode == 0, done.stdout + done.stderr


def test_without_results_there_is_no_table() -> None:
    assert "tuned(" not in export(load_file(find_spec("gla")), SIZES, "float32").source
