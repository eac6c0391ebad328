"""The results that come with mixc are of the library as it is: others would never be found."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mixc.autotune.checking.sampling import VerificationCase
from mixc.autotune.results.result import Result
from mixc.autotune.results.stored import spec_hash
from mixc.autotune.results.validation import read_result
from mixc.autotune.search.backward import backward_problem
from mixc.compiler.language.find import find_spec
from mixc.compiler.language.load import load_file
from mixc.compiler.mixers.derivative.differentiate import BACKWARD
from mixc.ir.mixer import Mixer
from mixc.runtime.overrides import override
from mixc.verifying.checks import Check
from mixc.verifying.worker import problem_of

ROOT = Path(__file__).parents[3]
FILES = sorted((ROOT / "specs" / "tuned").glob("*/*.yaml"))


def _mixers(spec: str) -> list[Mixer]:
    """As the library has it, and with the params of commands in the README."""
    mixer = load_file(find_spec(spec))
    page = (ROOT / "README.md").read_text(encoding="utf-8")
    own = re.findall(rf"^\| `mixc bench {spec} ([^`]*)`", page, re.MULTILINE)
    given = [dict(re.findall(r"-p (\w+)=(\d+)", words)) for words in own]
    return [override(mixer, {n: int(v) for n, v in each.items()}) for each in ({}, *given)]


def _hash(mixer: Mixer, result: Result, backward: bool) -> str:
    if not backward:
        return spec_hash(mixer)
    sizes = dict(result.sizes)
    check = Check(mixer, "cpu", result.key.dtype, VerificationCase("tuned", sizes))
    return spec_hash(backward_problem(problem_of(check)).mixer)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_result_is_of_a_spec_as_it_is(path: Path) -> None:
    result = read_result(path)
    spec, backward = result.key.spec.removesuffix(BACKWARD), result.key.spec.endswith(BACKWARD)
    assert result.key.hash in {_hash(mixer, result, backward) for mixer in _mixers(spec)}
