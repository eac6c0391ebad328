"""Results of other machines join one's own; those that are of no use any more go."""

from dataclasses import replace

import pytest

from mixc.autotune.results.devices import Device
from mixc.autotune.results.result import Key, Result
from mixc.autotune.results.stored import save, stored_results
from mixc.autotune.results.upkeep import merge, stale

HERE = Device("cpu", "cpu:avx2", "Some CPU")
RESULT = Result(Key("causal", "ab" * 32, "bfloat16", {"D": 64}, {"T": 4096}, HERE), {"rows": 16}, 9)


@pytest.mark.parametrize(
    ("there", "comes", "stays"),
    [
        ({"time_us": 9.0}, {"time_us": 8.0}, "comes"),
        ({"time_us": 8.0}, {"time_us": 9.0}, "there"),
        ({"time_us": 8.0}, {"time_us": 7.0, "modelled": True}, "there"),
        ({"time_us": 7.0, "modelled": True}, {"time_us": 8.0}, "comes"),
    ],
)
def test_the_faster_stays_and_what_was_measured_before_what_was_modelled(
    tmp_path, there, comes, stays
):
    save(replace(RESULT, study="there", **there), tmp_path)
    written = merge([replace(RESULT, study="comes", **comes)], tmp_path)
    assert [result.study for _, result in stored_results([tmp_path])] == [stays]
    assert len(written) == (stays == "comes")


def test_other_work_and_other_devices_join(tmp_path):
    other = replace(RESULT, key=replace(RESULT.key, device=replace(HERE, name="Other CPU")))
    longer = replace(RESULT, key=replace(RESULT.key, lengths={"T": 8192}))
    path = save(RESULT, tmp_path)
    path.write_text("damaged")
    assert len(merge([RESULT, other, longer], tmp_path)) == 3
    assert len(list(stored_results([tmp_path]))) == 3


def test_what_is_damaged_or_of_another_version_is_stale(tmp_path):
    save(replace(RESULT, versions={"optuna": "0.0.1"}), tmp_path)
    save(replace(RESULT, key=replace(RESULT.key, dtype="float32"), versions={"no-such": "1"}),
         tmp_path)  # fmt: skip
    damaged = save(replace(RESULT, key=replace(RESULT.key, spec="gla")), tmp_path)
    damaged.write_text(damaged.read_text().replace("rows: 16", "rows: many"))
    found = {path.stem.partition("-")[0]: why for path, why in stale(tmp_path)}
    assert found["causal"].startswith("tuned with optuna 0.0.1, here is ")
    assert found["gla"].startswith("line 7: configuration.rows: ")
    assert len(found) == 2
