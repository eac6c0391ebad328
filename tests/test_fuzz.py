"""Random valid specs of every form against the float64 reference, and damaged ones.

The same 500 examples each time; ``make fuzz`` looks at others. A failure prints the spec, which
`mixc verify` takes as it is.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from .fuzz.campaign import Batch, campaign
from .fuzz.damage import COMMANDS, command_line, damaged
from .fuzz.forms import AS_CALLED, BACKWARD, FORMS, SEQUENCES, trials
from .fuzz.judge import Trial, Verdict, judge
from .fuzz.worker import Worker

pytestmark = pytest.mark.timeout(900)  # a failure is made smaller before it is shown
QUICK = tuple(command for command in COMMANDS if command[0] != "compile")


@pytest.fixture(scope="module", autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MIXC_CACHE", str(tmp_path_factory.mktemp("fuzz")))
        yield


@pytest.fixture(scope="module")
def judges() -> Iterator[Worker]:
    worker = Worker(judge)
    yield worker
    worker.stop()


@pytest.fixture(scope="module")
def shell() -> Iterator[Worker]:
    worker = Worker(command_line, 30.0)
    yield worker
    worker.stop()


def examples(count: int) -> settings:
    return settings(
        max_examples=count,
        derandomize=True,
        deadline=None,
        print_blob=False,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )


def assert_right(judges: Worker, trial: Trial) -> None:
    ended, verdict = judges.ask(trial)
    if ended:
        verdict = Verdict({",".join(trial.backends): (ended, verdict)})
    assert not verdict.failures, f"{verdict.failures}, {trial.dtype}\n{trial.text}"


@examples(70)
@given(trials("map"))
def test_maps(judges: Worker, trial: Trial) -> None:
    assert_right(judges, trial)


@examples(70)
@given(trials("attention"))
def test_attentions(judges: Worker, trial: Trial) -> None:
    assert_right(judges, trial)


@examples(60)
@given(trials("recurrence"))
def test_recurrences(judges: Worker, trial: Trial) -> None:
    assert_right(judges, trial)


@examples(40)
@given(trials("convolution"))
def test_convolutions(judges: Worker, trial: Trial) -> None:
    assert_right(judges, trial)


@examples(40)
@given(trials("selection"))
def test_selections(judges: Worker, trial: Trial) -> None:
    assert_right(judges, trial)


@examples(40)
@given(trials("carried"))
def test_parts_carries_and_feedbacks(judges: Worker, trial: Trial) -> None:
    assert_right(judges, trial)


@examples(80)
@given(st.one_of(*(trials(form, BACKWARD[:1], dtypes=False) for form in sorted(FORMS))))
def test_derivatives(judges: Worker, trial: Trial) -> None:
    assert_right(judges, trial)


@examples(80)
@given(st.one_of(*(trials(form, SEQUENCES, dtypes=False) for form in sorted(FORMS))))
def test_documents_and_segments(judges: Worker, trial: Trial) -> None:
    assert_right(judges, trial)


@examples(24)
@given(st.one_of(*(trials(form, AS_CALLED) for form in sorted(FORMS))))
def test_training_and_hard_inputs(judges: Worker, trial: Trial) -> None:
    assert_right(judges, trial)


@examples(60)
@given(damaged(), st.sampled_from(QUICK))
def test_damaged_specs(shell: Worker, text: str, command: tuple[str, ...]) -> None:
    ended, answer = shell.ask((text, command))
    outcome, said = (ended, answer) if ended else answer
    assert not outcome, f"{' '.join(command)}: {outcome}: {said}\n{text}"


def test_a_campaign_goes_on_where_it_stopped(tmp_path: Path) -> None:
    first, second = Batch("map", 1, 2), Batch("attention", 2, 2, ("cpu", "interpreter"))
    campaign([first], tmp_path, 1)
    campaign([first, second], tmp_path, 1)
    results = tmp_path / "results.jsonl"
    done = [json.loads(line) for line in results.read_text().splitlines()]
    assert [entry["batch"] for entry in done] == [first.name, second.name]
    tried = [set(record["results"]) for entry in done for record in entry["records"]]
    assert [len(backends) for backends in tried[:2]] == [1, 1]
    assert all(backends <= {"cpu", "interpreter"} for backends in tried[2:])
