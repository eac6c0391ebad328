"""``mixc verify``: each answer by a planted fault, in processes that may die of it."""

import json
import shutil
import stat

import pytest
from click.testing import CliRunner

from mixc.autotune.checking.published import THOROUGH, USUAL
from mixc.cli import commands
from mixc.compiler.language.load import load_text
from mixc.verifying import verification
from mixc.verifying.verification import left_out, planned_checks

SPEC = """\
mixer: NAME
inputs: {q: [B, H, I, D], k: [B, H, J, D], v: [B, H, J, E]}
dims: {I: T, J: T}
attention: {over: J, score: "sum(q * k, D)", mask: j <= i, normalize: softmax, output: {o: v}}
outputs: {o: [B, H, I, E]}
"""
DIVERGING = """\
mixer: diverging
inputs: {g: [B, T, C], x: [B, T, C]}
recurrence:
  over: T
  state: {h: [C]}
  step:
    - h = exp(1 + g * g) * h + x
outputs: {h: [B, C]}
"""
# A compiler that changes the entry point of kernels by the name of their mixer.
COMPILER = """\
#!/bin/sh
for word in "$@"; do case "$word" in */kernel.cpp) source="$word";; esac; done
plant() { sed -i "s/^extern .*mixc_$1.*{$/& $2/" "$source"; }
if [ -n "$source" ]; then
  plant crashing "__builtin_trap();"
  plant hanging "for (volatile int on = 1; on;) {}"
  plant silent "return;"
  plant late "static int calls; if (calls++) __builtin_trap();"
  if grep -q mixc_refused "$source"; then echo "no such thing;" >> "$source"; fi
fi
exec REAL "$@" -O0
"""


@pytest.fixture
def planted(tmp_path, monkeypatch):
    """Write specs of these names, and let kernels be made by the compiler above."""
    real = shutil.which("g++") or shutil.which("c++")
    if real is None:
        pytest.skip("no C++ compiler")
    path = tmp_path / "compiler"
    path.write_text(COMPILER.replace("REAL", real))
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("CXX", str(path))
    monkeypatch.setenv("MIXC_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)

    def write(*names):
        for name in names:
            text = DIVERGING if name == "diverging" else SPEC.replace("NAME", name)
            (tmp_path / f"{name}.yaml").write_text(text)
        return [f"{name}.yaml" for name in names]

    return write


def run(*args):
    return CliRunner().invoke(commands, ["verify", *args])


ASKED = ("--backend", "cpu", "--dtype", "fp32", "--cases", "1")


def test_every_answer_is_a_case_and_the_others_go_on(planted):
    names = ("crashing", "silent", "refused", "diverging", "fine")
    result = run(*planted(*names), *ASKED, "--json")
    rows = {row["spec"]: row for row in json.loads(result.stdout)["specs"]}
    (found,) = zip(*(rows[name]["cases"] for name in names), strict=True)
    assert [case["status"] for case in found] == [
        "crashed",
        "wrong",
        "not compiled",
        "diverges",
        "right",
    ]
    assert result.exit_code == 3
    crashed, wrong, refused, diverging, right = found
    assert "the process crashed: SIG" in crashed["message"]
    assert wrong["message"].startswith("o: nan instead of")
    assert "the C++ compiler refuses a kernel" in refused["message"]
    assert "range: [-1, 0]" in diverging["message"]
    assert "message" not in right
    assert (crashed["backend"], crashed["dtype"], crashed["sizes"]["T"]) == ("cpu", "float32", 77)
    assert crashed["error"] is None
    assert [rows[name]["ok"] for name in names] == [False] * 4 + [True]


def test_a_crash_in_a_later_case_is_that_of_the_one_before(planted):
    asked = ("--backend", "cpu", "--dtype", "fp32", "--cases", "2", "--json")
    result = run(*planted("late"), *asked)
    first, second = json.loads(result.stdout)["cases"]
    assert (first["status"], second["status"]) == ("crashed", "right")
    assert "in the next case, strided, which is right by itself" in first["message"]
    assert result.exit_code == 3


def test_a_hang_is_stopped(planted):
    result = run(*planted("hanging"), *ASKED, "--time-limit", "5")
    assert result.exit_code == 1
    assert "stopped: it ran past its limit of 5 s" in result.stdout
    assert "hanging: 1 case: 1 stopped" in result.stdout


def test_a_person_reads_which_case_it_was(planted):
    result = run(*planted("silent"), *ASKED)
    assert result.exit_code == 1
    assert "silent, standard, cpu, float32, B=2 H=3 D=40 E=24 T=77: wrong: o: nan" in result.stdout
    assert "silent: 1 case: 1 wrong" in result.stdout


@pytest.mark.parametrize(
    ("line", "options", "code", "message"),
    [
        ("check: {T: 900000000}", (), 2, "big.yaml:6:1: `check`: to check needs"),
        ("", ("--size", "T=1000000000000"), 2, "big at T=1000000000000: to check needs"),
        ("", ("--size", "T=40"), 0, "2 cases, all right"),
    ],
)
def test_sizes_without_room_are_refused_before_anything_is_made(
    tmp_path, monkeypatch, line, options, code, message
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "big.yaml").write_text(SPEC.replace("NAME", "big") + line)
    result = run("big.yaml", "--backend", "reference", "--cases", "2", *options)
    assert (result.exit_code, message in result.output) == (code, True), result.output


def test_a_trial_that_nobody_asked_for_and_finds_no_room_is_stopped(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = SPEC.replace("NAME", "vast").replace("J: T}", "J: T, E: 10 ** 11}")
    (tmp_path / "vast.yaml").write_text(text)
    result = run("vast.yaml", "--backend", "reference", "--cases", "1")
    assert result.exit_code == 1, result.output
    assert "vast: 1 case: 1 stopped" in result.output
    assert "allocate memory" in result.output


def test_specs_or_all():
    assert "Name a SPEC, or --all" in run().output
    assert run("causal", "--all").exit_code == 2


@pytest.mark.parametrize(("effort", "wanted"), [("usual", USUAL), ("thorough", THOROUGH)])
def test_sizes_that_people_use_are_planned(effort, wanted):
    mixer = load_text(SPEC.replace("NAME", "plain"))
    checks = planned_checks(mixer, ("cpu",), ("float32",), effort=effort)
    made = {(c.trial.sizes["T"], c.trial.sizes["D"], c.trial.sizes["E"]) for c in checks}
    assert {(p.lengths[0], *p.features[:2]) for p in wanted.values()} <= made
    lengths, keys, values = (set(column) for column in zip(*made, strict=True))
    assert {1, 2, 16, 17, 1000} <= lengths
    assert {64, 80, 128} <= keys
    assert {64, 96, 128} <= values
    assert any(check.draw for check in checks)
    quick = planned_checks(mixer, ("cpu",), ("float32",), effort="quick")
    assert max(check.trial.sizes["D"] for check in quick) < 80


def test_gradients_are_planned_in_one_pass_and_for_documents():
    mixer = load_text(SPEC.replace("NAME", "plain"))
    checks = planned_checks(mixer, ("cpu",), ("float32",), grad=True)
    assert {check.mode for check in checks} == {"whole", "packed"}
    assert all(check.grad and not check.draw for check in checks)
    assert {1000, 197} <= {check.trial.sizes["T"] for check in checks}


def test_the_interpreter_takes_the_smallest_cases_of_gradients_unless_it_is_named(monkeypatch):
    monkeypatch.setattr(verification, "usual_backends", lambda: ("cpu", "interpreter"))
    mixer = load_text(DIVERGING)
    usual = planned_checks(mixer, grad=True)
    by_interpreter = [check for check in usual if check.backend == "interpreter"]
    assert [dict(check.trial.sizes)["T"] for check in by_interpreter] == [1, 2]
    assert [check for check in usual if check.backend == "cpu"] == planned_checks(
        mixer, ("cpu",), grad=True
    )
    assert "2 smallest cases" in str(left_out(usual))
    named = planned_checks(mixer, ("interpreter",), grad=True)
    assert len(named) > 10
    assert left_out(named, ("interpreter",)) is None
    assert left_out(planned_checks(mixer)) is None


def test_a_derivative_that_no_kernel_computes_is_unsupported():
    backends = ("--backend", "reference", "--backend", "cpu")
    found = run("ttm", "--grad", "--dtype", "fp32", "--cases", "1", *backends)
    assert found.exit_code == 1
    assert "ttm: 2 cases: 1 right, 1 unsupported" in found.output
    assert "ttm, standard, cpu, float32," in found.output
    assert "unsupported: a kernel would hold the axis B whole" in found.output


@pytest.mark.parametrize(
    ("words", "effort"),
    [
        (["--all", "--grad"], "quick"),  # of a hundred specs, two passes each
        (["--all", "--grad", "--usual"], "usual"),
        (["--all"], "usual"),
        (["causal", "--grad"], "usual"),
    ],
)
def test_gradients_of_the_whole_library_are_checked_at_small_sizes(monkeypatch, words, effort):
    asked = []
    monkeypatch.setattr(
        "mixc.verifying.verification.planned_checks", lambda *given: asked.append(given) or []
    )
    CliRunner().invoke(commands, ["verify", *words, "--json"])
    assert {given[6] for given in asked} == {effort}
