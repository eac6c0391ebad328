"""What is tried next: a small space whole, single steps at the end, and replays on grids."""

import random
from itertools import product
from statistics import fmean

import optuna
import pytest

from mixc.autotune.search.kernels import Space
from mixc.autotune.search.order import Order, key, neighbours
from mixc.autotune.search.search import Search
from mixc.autotune.search.trial import Outcome
from mixc.ir.knob import Knob

from .replay import FOLDER, STRATEGIES, Grid, median_regret, ours, read_grid

KNOBS = (Knob("rows", (16, 32, 64, 128), 64, "test"), Knob("keys", (16, 32, 64), 32, "test"))
DEFAULT = {"rows": 64, "keys": 32}


def refusal(configuration):
    return "too large" if configuration["rows"] * configuration["keys"] > 4096 else None


SPACE = Space(KNOBS, refusal, "source")


def test_neighbours_are_one_step_of_one_knob_away():
    assert list(neighbours(SPACE, DEFAULT)) == [
        {"rows": 32, "keys": 32}, {"rows": 128, "keys": 32}, {"rows": 64, "keys": 16},
        {"rows": 64, "keys": 64},
    ]  # fmt: skip
    assert list(neighbours(SPACE, {"rows": 64, "keys": 64})) == [
        {"rows": 32, "keys": 64}, {"rows": 64, "keys": 32},
    ]  # fmt: skip


def test_the_last_fifth_is_steps_from_the_best_then_from_the_next():
    order = Order(SPACE, 10, random.Random(0))
    seen = {key(DEFAULT)}
    assert order.planned([DEFAULT], 3, seen) is None
    near = {key(c) for c in neighbours(SPACE, DEFAULT)}
    assert key(order.planned([DEFAULT], 2, seen)) in near
    other = {"rows": 16, "keys": 16}
    assert order.planned([DEFAULT, other], 2, seen | near) in list(neighbours(SPACE, other))


def test_a_space_within_the_budget_is_tried_whole():
    order = Order(SPACE, 11, random.Random(0))
    assert order.is_grid  # 12 are there, one is refused
    assert not Order(SPACE, 10).is_grid
    seen = set()
    while (chosen := order.planned([], 11 - len(seen), seen)) is not None:
        seen.add(key(chosen))
    assert len(seen) == 11


def test_the_sampler_learns_where_kernels_are_refused_or_wrong():
    """As constraints, which a sampler avoids; a repetition is none."""
    study = optuna.storages.InMemoryStorage()

    def evaluate(configuration, best_us):
        return Outcome("failed", "wrong") if configuration["rows"] == 16 else Outcome("ok", "", 1.0)

    search = Search(SPACE, study, "study", 0)
    search.run(evaluate, 9, [{"rows": 128, "keys": 64}])
    trials = optuna.load_study(study_name="study", storage=study).trials
    told = {name: [t for t in trials if t.constraints.get(name) == 1.0] for name in
            ("fits the target", "is right")}  # fmt: skip
    assert {key(t.params) for t in told["fits the target"]} == {(("keys", 64), ("rows", 128))}
    assert all(t.params["rows"] == 16 for t in told["is right"])
    assert search.history().number("failed") == len(told["is right"]) > 0


# ------------------------------------------------------------------------------------- replays


def synthetic(seed):
    """A bowl with one interaction and some noise, somewhere in 720 configurations."""
    draw = random.Random(seed)
    knobs = {"rows": (16, 32, 64, 128), "keys": (16, 32, 64, 128, 256), "warps": (1, 2, 4, 8),
             "stages": (1, 2, 3), "splits": (1, 2, 4)}  # fmt: skip
    goal = {name: draw.random() * (len(values) - 1) for name, values in knobs.items()}
    steep = {name: draw.choice([0.02, 0.05, 0.1]) for name in knobs}
    rows = []
    for values in product(*knobs.values()):
        chosen = dict(zip(knobs, values, strict=True))
        off = {name: knobs[name].index(chosen[name]) - goal[name] for name in knobs}
        time = 1 + sum(steep[name] * off[name] ** 2 for name in knobs)
        time += 0.04 * abs(off["rows"] * off["keys"]) + 0.03 * draw.random()
        rows.append((chosen, 100 * time))
    default = {"rows": 64, "keys": 64, "warps": 4, "stages": 2, "splits": 1}
    return Grid("synthetic", default, rows)


@pytest.mark.parametrize("seed", [1])
def test_thirty_trials_get_close_to_the_best_and_beat_others(seed):
    grid = synthetic(seed)
    regret = {name: median_regret(grid, way, 30, seeds=5) for name, way in STRATEGIES.items()}
    assert regret["mixc"] < 0.03
    assert regret["mixc"] <= min(regret["plain TPE"], regret["random"])


def test_what_is_written_of_a_grid_is_read_back(tmp_path):
    grid = synthetic(0)
    (tmp_path / "grid.csv").write_text(grid.text)
    again = read_grid(tmp_path / "grid.csv")
    assert (again.about, again.default, len(again.times)) == ("synthetic", grid.default, 720)
    assert ours(again, 5, seed=1)[0] == pytest.approx(grid.times[key(grid.default)], rel=1e-5)


def test_on_recorded_grids_thirty_trials_get_close_and_beat_others():
    """Two of a thousand differ on a machine; so no grid by itself tells searches apart."""
    grids = [read_grid(path) for path in sorted(FOLDER.glob("*.csv"))]
    assert len(grids) >= 6
    assert all(len(grid.rows) >= 150 for grid in grids)
    regrets = {
        name: [median_regret(grid, way, 30, seeds=5) for grid in grids]
        for name, way in STRATEGIES.items()
    }
    assert max(regrets["mixc"]) < 0.03
    assert fmean(regrets["mixc"]) < min(fmean(regrets["plain TPE"]), fmean(regrets["random"]))


def test_a_hundred_trials_find_the_best_of_a_recorded_grid():
    grid = read_grid(FOLDER / "gated_delta-float32.csv")
    assert median_regret(grid, ours, 100, seeds=3) < 0.01
