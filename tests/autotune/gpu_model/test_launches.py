"""The model's times of recorded machine code, against the script that it was written from."""

import json
import lzma
from dataclasses import replace
from pathlib import Path

import pytest

from mixc.autotune.gpu_model.calibration import H100
from mixc.autotune.gpu_model.instructions import read_instructions
from mixc.autotune.gpu_model.launches import KernelModel, Launch, extended
from mixc.autotune.gpu_model.machines import MACHINES
from mixc.autotune.gpu_model.paths import Paths

RECORDED = Path(__file__).parent / "recorded"
ROWS = {row["name"]: row for row in json.loads((RECORDED / "launches.json").read_text())}


def program(name):
    text = lzma.decompress((RECORDED / f"{name}.sass.xz").read_bytes()).decode()
    return read_instructions(text)


def launch(row):
    work = tuple((count, tuple(turns)) for count, turns in row["work"])
    numbers = (row[name] for name in ("warps", "registers", "shared_bytes", "memory_bytes"))
    return Launch(work, *numbers)


@pytest.fixture(scope="module")
def estimates():
    machine = MACHINES["cuda:90"]
    return {
        name: KernelModel(program(name), machine, row["warps"]).estimate(launch(row))
        for name, row in ROWS.items()
    }


def rank_correlation(first, second):
    ranks = [[sorted(values).index(v) for v in values] for values in (first, second)]
    count = len(first)
    apart = sum((a - b) ** 2 for a, b in zip(*ranks, strict=True))
    return 1 - 6 * apart / (count * (count**2 - 1))


def test_it_ranks_as_the_script_did(estimates):
    ours = [estimates[name].time_us for name in ROWS]
    theirs = [row["tool_us"] for row in ROWS.values()]
    assert len(ours) >= 8
    assert rank_correlation(ours, theirs) >= 0.9
    for own, other in zip(ours, theirs, strict=True):
        assert own == pytest.approx(other, rel=0.1)


def test_recurrences_of_small_chunks_wait_and_are_not_bound_by_bytes(estimates):
    for name in ("gla_o-default", "gated_delta_o-default"):
        assert estimates[name].bound.startswith("latency")
        assert estimates[name].compute_us > 10 * estimates[name].memory_us


def test_what_costs_time_does():
    row = ROWS["mamba_o-default"]
    model = KernelModel(program(row["name"]), MACHINES["cuda:90"], row["warps"])
    usual = launch(row)
    plain = model.estimate(usual)
    more_bytes = model.estimate(replace(usual, memory_bytes=50 * usual.memory_bytes))
    assert more_bytes.bound == "bytes: memory"
    assert more_bytes.time_us > plain.time_us
    large = replace(usual, registers=255, shared_bytes=200 << 10)
    assert model.resident(large) == 1 < model.resident(usual)
    assert model.estimate(large).time_us > plain.time_us


def test_an_older_machine_is_slower():
    row = ROWS["simple_gla_o-default"]
    times = [
        KernelModel(program(row["name"]), MACHINES[name], row["warps"])
        .estimate(launch(row))
        .time_us
        for name in ("cuda:80", "cuda:90")
    ]
    assert times[0] > times[1]


def test_long_loops_lie_on_a_line():
    asked = []

    def value(turns):
        asked.append(turns)
        return 7.0 + 2.0 * turns[0] * turns[1]

    assert extended(value, (100.0, 2.5)) == pytest.approx(507.0)
    assert max(max(turns) for turns in asked) <= 6


def test_control_codes_loops_and_traces():
    found = program("gla_o-default")
    assert {one.stall for one in found} <= set(range(1, 16))
    assert any(one.waits for one in found)
    assert any(one.done is not None for one in found)
    paths = Paths(found)
    outer, inner = paths.loops.items()
    assert outer[0] < inner[0] < inner[1] < outer[1]
    once, twice = (len(paths.trace((n, 1))) for n in (1, 2))
    assert len(paths.trace((3, 1))) - twice == twice - once > 0
    assert not set(range(*inner)) & set(paths.trace((1, 0)))


def test_the_calibration_is_of_published_times():
    ratios = [row.ratio for row in H100 if row.ratio is not None]
    assert len(ratios) >= 6
    assert all(0.48 < ratio < 2.1 for ratio in ratios)
    assert sorted(ratios)[len(ratios) // 2] == pytest.approx(1.0, abs=0.3)
