"""Stored results: written whole, found again, by what falls back to what."""

import logging
import timeit
from dataclasses import replace

import pytest
import torch
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mixc.autotune.results.choice import TunedChoice
from mixc.autotune.results.devices import Device
from mixc.autotune.results.result import Key, Result
from mixc.autotune.results.stored import (
    key_of,
    look_up,
    save,
    say_once,
    spec_hash,
    stored_results,
)
from mixc.autotune.results.validation import ResultFault, read_result
from mixc.compiler.language.find import find_spec
from mixc.compiler.language.load import load_file
from mixc.ir.expression import Literal

HERE = Device("cpu", "cpu:avx512_bf16", "AMD EPYC, 2 cores")
OTHER = replace(HERE, name="AMD EPYC, 64 cores")
KEY = Key("causal", "ab" * 32, "bfloat16", {"D": 64, "E": 64}, {"T": 4096}, HERE)


def result(rows, **changed):
    return Result(replace(KEY, **changed), {"block_rows": rows}, 100.0)


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "tuned"


def found(folder, *others, key=KEY, **settings):
    return look_up(key, folders=[folder, *others], **settings)


def test_a_result_is_read_back_as_it_was(folder):
    whole = Result(
        KEY,
        {"block_rows": 16},
        12.5,
        0.5,
        20.0,
        1e-3,
        2e-2,
        False,
        30,
        "s",
        {"T": 4096},
        {"a": "1"},
    )
    path = save(whole, folder)
    assert path == folder / "cpu-avx512-bf16-amd-epyc-2-cores" / (
        "causal-abababab-bfloat16-D64-E64-T4096.yaml"
    )
    assert list(stored_results([folder])) == [(path, whole)]
    assert [p.name for p in path.parent.iterdir()] == [path.name]  # nothing was left aside
    assert list(yaml.safe_load(path.read_text()))[:5] == [
        "spec", "hash", "dtype", "features", "lengths",
    ]  # fmt: skip


def test_nothing_stored_is_the_default(folder):
    assert found(folder).how == "default"
    assert dict(found(folder).configuration) == {}


def test_exact_comes_before_same_architecture_before_nearest(folder):
    save(result(16, lengths={"T": 1024}), folder)
    assert (found(folder).how, found(folder).configuration["block_rows"]) == ("nearest", 16)
    save(result(32, device=OTHER), folder)
    assert found(folder).how == "same architecture"
    assert found(folder).configuration["block_rows"] == 32
    save(result(64), folder)
    assert (found(folder).how, found(folder).configuration["block_rows"]) == ("exact", 64)


def test_the_nearest_is_nearest_in_sizes(folder):
    save(result(16, lengths={"T": 65536}), folder)
    save(result(32, lengths={"T": 1024}), folder)
    save(result(64, lengths={"T": 4096}, features={"D": 128, "E": 128}), folder)
    assert found(folder).configuration["block_rows"] == 32


@pytest.mark.parametrize(
    "changed",
    [
        {"hash": "cd" * 32},
        {"dtype": "float32"},
        {"device": Device("gpu", "cuda:90", "NVIDIA H200")},
        {"lengths": {"I": 4096, "J": 4096}},
        {"spec": "dense", "hash": "cd" * 32},
    ],
)
def test_what_another_thing_is_tuned_for_is_of_no_use(folder, changed):
    save(result(16, **changed), folder)
    assert found(folder).how == "default"


def test_the_users_own_results_come_first(folder, tmp_path):
    shipped = tmp_path / "shipped"
    save(result(16), shipped)
    save(result(32), folder)
    assert found(folder, shipped).configuration["block_rows"] == 32
    assert look_up(KEY, folders=[tmp_path / "none", shipped]).how == "exact"


def test_what_is_only_modelled_runs_nowhere_and_starts_a_search_last(folder, tmp_path):
    save(replace(result(16), modelled=True), folder)
    assert found(folder).how == "default"
    assert found(folder, for_search=True).configuration["block_rows"] == 16
    save(result(32, lengths={"T": 64}), tmp_path / "shipped")
    assert found(folder, tmp_path / "shipped", for_search=True).configuration["block_rows"] == 32


def test_a_configuration_that_the_kernels_do_not_take_is_left_out(folder, caplog):
    """With its line where it is for this very key; once, though every call looks it up."""

    def fault(configuration):
        rows = configuration["block_rows"]
        return ("block_rows", f"block_rows: {rows} is odd") if rows % 2 else None

    path = save(result(17), folder)
    save(result(19, lengths={"T": 64}), folder)  # may well be right for T = 64
    with caplog.at_level(logging.WARNING, "mixc.tuned"):
        for _ in range(2):
            assert found(folder, fault=fault).how == "default"
    line = path.read_text().splitlines().index("configuration: {block_rows: 17}") + 1
    told = [record.getMessage() for record in caplog.records]
    assert told == [f"{path}:{line} is left out: block_rows: 17 is odd"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "spec: causal",
        "{",
        "a: &a [*a]",
        "spec: !!python/object:os.system x",
        "x" * 70000,
        "[" * 30000,
        "{[a]: 1}",
        "\0",
    ],
)
def test_a_file_that_is_no_result_is_said_and_left(folder, caplog, text):
    path = save(result(16), folder)
    path.write_text(text)
    with caplog.at_level(logging.WARNING, "mixc.tuned"):
        for _ in range(2):
            assert found(folder).how == "default"
    assert caplog.text.count("is left out") == 1


def test_a_line_that_is_no_yaml_is_named(folder, caplog):
    path = save(result(16), folder)
    path.write_text(path.read_text().replace("lengths: {T: 4096}", "lengths: {T: 4096"))
    with caplog.at_level(logging.WARNING, "mixc.tuned"):
        assert found(folder).how == "default"
    assert f"{path}:6 is left out" in caplog.text


@pytest.mark.parametrize(
    ("before", "after", "line", "why"),
    [
        ("block_rows: 16", "block_rows: '16'", 7, "configuration.block_rows: input should be a"),
        ("block_rows: 16", "block_rows: -16", 7, "configuration.block_rows: input should be gr"),
        ("time_us: 100.0", "time_us: .inf", 8, "time_us: input should be a finite number, got in"),
        ("kind: cpu", "kind: tpu", 6, "device.kind: string should match pattern"),
        ("trials: 0", "trial: 0", 14, "trial: extra inputs are not permitted, got 0"),
        ("spec: causal\n", "", 1, "spec: field required"),
        ("hash: abab", "hash: ../x", 2, "hash: string should match pattern"),
        ("lengths: {T: 4096}", "lengths: [4096]", 5, "lengths: input should be a valid dict"),
    ],
)
def test_a_field_that_is_wrong_is_said_with_its_line(folder, before, after, line, why):
    path = save(result(16), folder)
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after))
    with pytest.raises(ResultFault) as raised:
        read_result(path)
    assert (raised.value.line, str(raised.value)[: len(why)]) == (line, why)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_damage_crashes_a_look_up(folder, data):
    whole = save(result(16), folder).read_bytes()
    start = data.draw(st.integers(0, len(whole)))
    end = data.draw(st.integers(start, min(start + 20, len(whole))))
    path = save(result(16), folder)
    path.write_bytes(whole[:start] + data.draw(st.binary(max_size=20)) + whole[end:])
    assert found(folder).how in ("exact", "default", "same architecture", "nearest")


@pytest.mark.parametrize(
    ("sizes", "how"), [({"T": 1024}, "nearest"), ({"T": 512}, "default"), ({"T": 32768}, "default")]
)
def test_a_far_length_is_refused(folder, sizes, how):
    save(result(16, lengths=sizes), folder)
    assert found(folder).how == how
    assert found(folder, for_search=True).how == "nearest"


def test_what_a_call_adds_is_a_look_up_in_a_dictionary(monkeypatch, folder):
    mixer = load_file(find_spec("causal"))
    chosen = TunedChoice(mixer, "cpu")
    monkeypatch.setattr(chosen, "_look_up", lambda *_: {"block_rows": 16})
    sizes = {"B": 1, "H": 2, "G": 2, "I": 100, "J": 100, "T": 100, "D": 64, "E": 64}
    chosen(sizes, torch.float32)
    seconds = min(timeit.repeat(lambda: chosen(sizes, torch.float32), number=200, repeat=50))
    assert seconds / 200 < 5e-6


def test_the_hash_is_of_the_equations_and_params():
    mixer = load_file(find_spec("alibi_window"))
    assert spec_hash(replace(mixer, about="other", text="", source="")) == spec_hash(mixer)
    narrower = tuple(
        replace(p, value=Literal(512)) if p.name == "window" else p for p in mixer.params
    )
    assert spec_hash(replace(mixer, params=narrower)) != spec_hash(mixer)
    sizes = {"B": 1, "H": 8, "G": 8, "I": 3000, "J": 3000, "T": 3000, "D": 64, "E": 32}
    key = key_of(mixer, sizes, "bfloat16", HERE)
    assert (key.features, key.lengths) == ({"D": 64, "E": 32}, {"T": 4096})


def test_a_call_looks_up_once_and_says_a_fallback_once(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("MIXC_DATA", str(tmp_path))
    monkeypatch.setattr("mixc.autotune.results.choice.device_of_type", lambda *_: HERE)
    say_once.cache_clear()
    mixer = load_file(find_spec("causal"))
    sizes = {"B": 1, "H": 2, "G": 2, "I": 100, "J": 100, "T": 100, "D": 64, "E": 64}
    own = key_of(mixer, sizes, "bfloat16", OTHER)
    save(Result(own, {"block_rows": 32}, 1.0))
    monkeypatch.setattr("mixc.autotune.results.choice.space_of", lambda *_: Anything())
    with caplog.at_level(logging.WARNING, "mixc.tuned"):
        for _ in range(2):
            chosen = TunedChoice(mixer, "cpu")
            for length in (100, 101, 128):
                changed = sizes | dict.fromkeys("IJT", length)
                assert chosen(changed, torch.bfloat16) == {"block_rows": 32}
        assert TunedChoice(mixer, "cpu")(sizes, torch.float32) == {}
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 1  # of a spec, whatever the lengths and dtypes
    assert "(same architecture)" in told[0]


class Anything:
    def fault(self, configuration):
        return None
