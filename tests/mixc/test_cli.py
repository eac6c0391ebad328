"""The command line, through click's runner and, where time counts, as a process."""

import json
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from mixc.backends.cpu.build import find_compiler
from mixc.cli import MODULES, commands


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Run ``mixc ARGS`` in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return lambda *args: CliRunner().invoke(commands, [str(arg) for arg in args])


BROKEN = """\
mixer: broken
inputs: {q: [B, I, D], k: [B, J, D], v: [B, J, E]}
attention:
  over: J
  score: sum(q * kk, D)
  output: {o: v}
outputs: {o: [B, I, E]}
"""


@pytest.fixture
def broken(tmp_path):
    path = tmp_path / "broken.yaml"
    path.write_text(BROKEN)
    return path


def test_help_names_every_command(run):
    result = run("--help")
    assert result.exit_code == 0
    assert all(f"\n  {name} " in result.output for name in MODULES)


@pytest.mark.parametrize("name", MODULES)
def test_every_command_has_help_and_json(run, name):
    result = run(name, "--help")
    assert result.exit_code == 0
    assert "--json" in result.output


def test_an_unknown_command_is_answered_with_the_nearest(run):
    result = run("chekc", "dense")
    assert result.exit_code == 2
    assert "did you mean 'check'?" in result.output


def test_the_list_reads_what_the_specs_say():
    from mixc.commands.list_specs import library_systems
    from mixc.compiler.language.load import load_file
    from mixc.show.known_states import known_states_of

    for system in library_systems(known_states_of)[::4]:
        mixer = load_file(Path(system.path))
        assert (system.name, system.about, system.source) == (
            mixer.name,
            mixer.about,
            mixer.source,
        )
        assert mixer.about.startswith(system.title)


def test_the_list_says_what_runs_a_spec(run):
    rows = {row["name"]: row for row in json.loads(run("list", "--json").output)["specs"]}
    kernels = {"forward": "kernels", "backward": "kernels", "steps": True}
    assert kernels.items() <= rows["gla"].items()
    assert rows["ttm"]["backward"] == "torch"
    assert not rows["dense"]["steps"]


def test_a_state_is_found_once_for_a_spec_and_a_compiler(tmp_path, monkeypatch):
    from mixc.show import known_states

    monkeypatch.setenv("MIXC_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "spec.yaml"
    path.write_text("mixer: spec\ninputs: {x: [B, T]}\nmap: {o: 2 * x}\noutputs: {o: [B, T]}\n")
    (state,) = known_states.states_of([path])
    assert (state.form, state.steps) == ("map", True)
    monkeypatch.setattr(known_states, "ProcessPoolExecutor", None)
    assert known_states.states_of([path]) == [state]
    path.write_text(path.read_text().replace("2 * x", "flip(x, T)"))
    with pytest.raises(TypeError):  # it would have to be found anew
        known_states.states_of([path])


def test_the_list_lowers_nothing_that_is_as_it_was_released(tmp_path, monkeypatch):
    from mixc.compiler.language.find import find_spec
    from mixc.show import known_states

    monkeypatch.setenv("MIXC_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(known_states, "ProcessPoolExecutor", None)
    gla, changed = find_spec("gla"), tmp_path / "gla.yaml"
    assert known_states.known_states_of([gla])[0].steps
    changed.write_text(gla.read_text() + "# another")
    with pytest.raises(TypeError):  # it would have to be found
        known_states.known_states_of([changed])


def test_no_spec_is_a_usage_error(run):
    result = run("check")
    assert result.exit_code == 2
    assert "Missing argument 'SPEC...'" in result.output


def test_list_has_the_library_with_what_each_computes(run):
    result = run("list", "--json")
    assert result.exit_code == 0
    rows = {row["name"]: row for row in json.loads(result.output)["specs"]}
    assert rows["causal"]["family"] == "attention"
    assert all(row["about"] and row["path"].endswith(f"{name}.yaml") for name, row in rows.items())


def test_list_prints_a_table_per_family(run):
    result = run("list")
    assert result.exit_code == 0
    assert "positions" in result.output
    assert "alibi" in result.output


def test_new_writes_a_spec_that_checks(run, tmp_path):
    result = run("new", "my_mixer")
    assert result.exit_code == 0
    assert "my_mixer.yaml" in result.output
    assert (tmp_path / "my_mixer.yaml").read_text().count("mixer: my_mixer") == 1
    assert run("check", "my_mixer.yaml").exit_code == 0


def test_new_leaves_a_file_that_is_there(run, tmp_path):
    (tmp_path / "mine.yaml").write_text("precious")
    result = run("new", "mine")
    assert result.exit_code == 2
    assert "is there already" in result.output
    assert (tmp_path / "mine.yaml").read_text() == "precious"


@pytest.mark.parametrize("name", ["My", "a b", "../up", "", "1st", "x" * 65])
def test_new_refuses_names_that_are_none(run, tmp_path, name):
    assert run("new", name).exit_code == 2
    assert list(tmp_path.iterdir()) == []


def test_check_says_ok(run):
    result = run("check", "causal", "dense")
    assert result.exit_code == 0
    assert result.output == "causal: ok\ndense: ok\n"


@pytest.mark.parametrize("command", ["check", "show", "compile", "verify"])
def test_a_bad_spec_is_one_error_with_its_place(run, broken, tmp_path, command):
    result = run(command, broken)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert f"{broken}:5:18" in result.stderr
    assert "^^" in result.stderr
    assert "Traceback" not in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["broken.yaml"]


@pytest.mark.parametrize("command", ["show", "compile", "verify"])
def test_a_bad_spec_in_json(run, broken, command):
    result = run(command, broken, "--json")
    assert result.exit_code == 2
    answer = json.loads(result.stdout)
    assert answer["ok"] is False
    assert f"{broken}:5:18" in answer["error"]


def test_check_json_has_the_place_of_each_error(run, broken):
    result = run("check", "causal", broken, "--json")
    assert result.exit_code == 2
    answer = json.loads(result.stdout)
    assert answer["ok"] is False
    good, bad = answer["specs"]
    assert good == {"spec": "causal", "ok": True, "name": "causal", "warnings": []}
    assert (bad["line"], bad["column"]) == (5, 18)


def test_an_unknown_spec_is_answered_with_the_nearest(run):
    result = run("check", "causla")
    assert result.exit_code == 2
    assert "causal" in result.stderr


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"", b"mixer: [", b"{" * 2000])
@pytest.mark.parametrize("command", ["check", "compile"])
def test_files_that_are_no_spec(run, tmp_path, content, command):
    path = tmp_path / "odd.yaml"
    path.write_bytes(content)
    started = time.process_time()
    result = run(command, path)
    assert result.exit_code == 2
    assert "odd.yaml" in result.stderr
    assert "Traceback" not in result.stderr
    assert time.process_time() - started < 1
    assert [path.name for path in tmp_path.iterdir()] == ["odd.yaml"]


def test_schema_is_json(run):
    result = run("schema")
    assert result.exit_code == 0
    assert "attention" in json.dumps(json.loads(result.output))


def test_doctor_reports_versions(run):
    result = run("doctor", "--json")
    answer = json.loads(result.output)
    found = {finding["name"]: finding for finding in answer["findings"]}
    assert found["Python"]["found"].startswith("3.")
    assert found["torch"]["ok"]
    if "CPU" in found:
        assert found["CPU"]["found"].startswith(f"{find_compiler().target.name}: ")
    assert answer["ok"] is (result.exit_code == 0)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (["-p", "window"], "-p takes NAME=VALUE"),
        (["-p", "window=wide"], "takes a number, true or false"),
        (["-p", "widnow=3"], "did you mean 'window'?"),
        (["-p", "window=0.5"], "window: expected an integer, got 0.5"),
        (["-p", "window=1", "-p", "window=2"], "given twice"),
        (["--size", "D=0"], "--size D takes a positive integer"),
        (["--size", "Z=8"], "Z"),
    ],
)
def test_wrong_options_are_one_error(run, option, message):
    result = run("show", "alibi_window", *option)
    assert result.exit_code == 2
    assert message in result.stderr


def test_verify_json_has_every_case(run):
    result = run("verify", "causal", "--backend", "reference", "--cases", "2", "--json")
    assert result.exit_code == 0
    answer = json.loads(result.stdout)
    assert answer["ok"] is True
    first, second = answer["cases"]
    wanted = {"name", "backend", "dtype", "sizes", "status", "error", "limit"}
    assert set(first) == set(second) == wanted
    assert (first["backend"], first["dtype"]) == ("reference", "float32")
    assert 0 <= first["error"] <= first["limit"] < 1e-4
    assert first["sizes"]["I"] == first["sizes"]["J"]


def test_verify_runs_the_kernels_and_takes_sizes(tmp_path):
    asked = ["verify", "causal", "--cases", "2", "--size", "D=16", "-p", "scale=0.5", "--json"]
    process = subprocess.run(
        [sys.executable, "-m", "mixc.cli", *asked], cwd=tmp_path, capture_output=True, check=True
    )
    answer = json.loads(process.stdout)
    assert answer["cases"][1]["sizes"]["D"] == 16
    assert answer["ok"] is True
    backends = {case["backend"] for case in answer["cases"]}
    assert backends == {"triton"} or "interpreter" in backends
    assert ("cpu" in backends) == (backends != {"triton"} and shutil.which("c++") is not None)


def test_show_has_axes_ranges_and_plan(run):
    result = run("show", "alibi_window", "-p", "window=128")
    assert result.exit_code == 0
    for line in (
        "  score[B, H, I, J] = scale * sum(q * k, D) - slope * (i - j)\n",
        "  window = 128\n",
        "  G  # divides H: head h reads group h // (H // G)\n",
        "alibi_window_o (flash): o\n",
    ):
        assert line in result.output


def test_show_has_the_plan_of_a_target(run):
    schedules = {}
    for target in ("cpu", "cuda:90"):
        plan = json.loads(run("show", "moba", "--target", target, "--json").output)
        schedules[target] = {kernel["name"]: kernel["schedule"] for kernel in plan["kernels"]}
    assert schedules["cpu"]["moba_o"] == "listed rows"
    assert schedules["cuda:90"]["moba_o"] == "flash"
    wrong = run("show", "moba", "--target", "cuda:9")
    assert wrong.exit_code == 2
    assert "did you mean 'cuda:90'?" in wrong.output
    assert "expected one of cpu, cuda:80" in wrong.output


def test_show_json_is_the_same_as_data(run):
    answer = json.loads(run("show", "alibi_window", "--json").output)
    assert answer["name"] == "alibi_window"
    (ranges,) = answer["ranges"]
    assert (ranges["over"], ranges["block"]) == ("J", "I")
    assert [kernel["schedule"] for kernel in answer["kernels"]] == ["flash"]
    titles = [section["title"] for section in answer["sections"]]
    assert titles == ["inputs", "dims", "params", "attention over J", "outputs"]


def test_a_defect_of_mixc_is_no_answer(run, monkeypatch):
    def broken(*args):
        raise KeyError("lost")

    monkeypatch.setattr("mixc.compiler.language.load.read_file", broken)
    result = run("show", "causal")
    assert result.exit_code == 3
    assert "A defect of mixc, not of the spec: KeyError: 'lost'" in result.stderr
    assert "Traceback" not in result.stderr


def answers_within(limit_s, *args):
    """Whether ``mixc ARGS`` takes less than ``limit_s`` of processor time, its workers included.

    That is what it takes on a machine with nothing else to do; the best of five runs counts.
    """
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-m", "mixc.cli", *args], check=True, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        if after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < limit_s:
            return True
    return False


def test_help_is_instant():
    assert answers_within(0.2, "--help")


def test_check_takes_less_than_a_second():
    assert answers_within(1, "check", "alibi_window")


def test_a_cold_compile_takes_less_than_four_seconds():
    assert answers_within(4, "compile", "alibi_window", "--json")


def test_the_commands_import_nothing_heavy():
    code = (
        "import sys, mixc, mixc.cli as c; c.commands(['check', 'causal'], standalone_mode=False);"
        "print(*{'torch', 'triton', 'sympy', 'optuna', 'matplotlib', 'networkx'} & {*sys.modules})"
    )
    result = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    assert result.stdout.decode().split() == ["causal:", "ok"]


def test_a_dumped_level_is_taken_up_again(run, tmp_path, monkeypatch):
    monkeypatch.setenv("MIXC_DUMP", "levels")
    assert run("compile", "retention", "--size", "D=16", "-o", "whole.py").exit_code == 0
    monkeypatch.delenv("MIXC_DUMP")
    level = "levels/retention_02_plan.txt"
    assert run("compile", level, "-o", "again.py").exit_code == 0
    assert (tmp_path / "again.py").read_text() == (tmp_path / "whole.py").read_text()
    for more, said in (
        (("--size", "D=32"), f"{level}: the plan is made for D = 16"),
        (("--param", "scale=1"), "no spec: its params are set"),
        (("--grad",), "a level of the IR is of one pass already"),
    ):
        result = run("compile", level, *more)
        assert result.exit_code == 2
        assert said in " ".join(result.output.split())
    result = run("compile", "none.txt")
    assert result.exit_code == 2
    assert "none.txt: can't be read: No such file or directory" in result.output


def test_show_says_what_a_backward_pass_takes_in_memory(run):
    said = run("show", "causal", "--grad").output
    assert "kept from the forward pass: 132 bytes for each B, H, T (o, o_lse)" in said
    data = json.loads(run("show", "mamba", "--grad", "--json").output)
    first = data["memory"][0]  # what the scans hold in every row, and delta, in float32
    held = 2 * 64 * 64 * 4 + 64 * 4
    assert (first["what"], first["axes"], first["bytes"]) == ("between kernels", ["B", "T"], held)
