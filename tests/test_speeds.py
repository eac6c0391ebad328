"""The README's tables of speeds: written from what their own commands answer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mixc.campaign.record import Outcome

from .survey.speeds import README, commands, job_of, row_of, tables, written

PAGE = """
<!-- speeds cpu-here -->
| command | mixc | peers | ratio |
|---|---|---|---|
| `mixc bench gla --dtype fp32` | old | old | old |
| `mixc bench delta --peer parallel --grad` | old | old | old |
<!-- end of speeds -->
<!-- speeds cpu-elsewhere -->
| `mixc bench gla --dtype fp32` | old | old | old |
<!-- end of speeds -->
"""


def row(name: str, time_us: float, backward_us: float | None = None) -> dict[str, Any]:
    return {"name": name, "time_us": time_us, "backward_us": backward_us, "compared": True}


def answer(*rows: dict[str, Any], verdict: str = "faster", grad: bool = False) -> dict[str, Any]:
    return {"grad": grad, "verdict": verdict, "rows": list(rows)}


def test_only_rows_of_this_device_with_an_outcome_change() -> None:
    gla, delta = commands(*tables(PAGE, "cpu-here"))
    found = answer(row("mixc", 5000), row("fla", 250e3), row("chunks", 20e3))
    made = written(PAGE, "cpu-here", {job_of(gla).key: Outcome("done", 1.0, found)})
    changed = [line for line in made.splitlines() if line not in PAGE.splitlines()]
    assert changed == [f"| `{gla}` | 5.0 ms | chunks 20.0 ms, fla 250 ms | 4.0 |"]
    failed = {job_of(delta).key: Outcome("failed", 1.0)}
    assert written(PAGE, "cpu-here", failed) == PAGE


def test_a_tie_is_no_ratio_and_a_backward_pass_is_by_itself() -> None:
    close = answer(row("mixc", 5000), row("sdpa", 5001), verdict="tie")
    assert row_of("c", close).endswith("| a tie |")
    assert row_of("c", answer(row("mixc", 5000))).endswith("|  |  |")
    trained = answer(row("mixc", 9000, 4000), row("chunks", 9000, 2000), verdict="tie", grad=True)
    assert row_of("c", trained) == "| `c` | 4.0 ms | chunks 2.0 ms | 0.50 |"


def test_a_row_names_its_peer_or_has_all() -> None:
    gla, delta = (job_of(command) for command in commands(PAGE)[:2])
    assert (gla.kind, gla.arguments[-2:]) == ("bench", ("--peers", "--json"))
    assert (delta.kind, delta.arguments[-2:]) == ("train", ("--grad", "--json"))


def test_each_table_of_the_readme_says_its_device() -> None:
    page = Path(README).read_text(encoding="utf-8")
    marked = [c for part in tables(page, r"[a-z0-9-]+") for c in commands(part)]
    assert sorted(marked) == sorted(commands(page))
