"""Who wins the last race: compared in pairs, so that what slows all alike decides nothing."""

from mixc.autotune.bench.measuring import Clock
from mixc.autotune.search.race import winner
from mixc.autotune.search.trial import Outcome

DEFAULT, ONE, OTHER = {"rows": 64}, {"rows": 32}, {"rows": 16}
DRIFT = [100.0, 140.0, 90.0, 180.0, 120.0, 100.0, 150.0]


def outcome(times):
    return Outcome("ok", "", sorted(times)[len(times) // 2], 50.0, times_us=tuple(times))


def test_a_gap_within_a_drift_counts_where_each_pair_shows_it():
    won = winner([DEFAULT, ONE], [outcome(DRIFT), outcome([0.97 * t for t in DRIFT])])
    assert won.configuration == ONE
    assert won.default_us == 120.0


def test_a_gap_that_pairs_do_not_show_is_a_tie_that_the_default_wins():
    luck = [0.9, 1.1, 0.95, 1.08, 0.99, 1.02, 0.9]
    times = [t * by for t, by in zip(DRIFT, luck, strict=True)]
    assert winner([DEFAULT, ONE], [outcome(DRIFT), outcome(times)]).configuration == DEFAULT


def test_a_small_gain_in_a_wide_spread_counts_where_enough_turns_show_it():
    """A tenth of the time is noise; three per cent less in 20 of 25 turns are not."""
    noise = [1 + 0.1 * ((7 * turn) % 11 - 5) / 5 for turn in range(25)]
    gains = [1.02 if turn % 5 == 0 else 0.95 for turn in range(25)]
    times = [n * gain for n, gain in zip(noise, gains, strict=True)]
    assert winner([DEFAULT, ONE], [outcome(noise), outcome(times)]).configuration == ONE
    few = winner([DEFAULT, ONE], [outcome(noise[:5]), outcome(times[:5])])
    assert few.configuration == DEFAULT


def test_what_failed_in_the_race_does_not_win():
    failed = Outcome("failed", "wrong")
    slower, faster = outcome(DRIFT), outcome([0.8 * t for t in DRIFT])
    won = winner([DEFAULT, ONE, OTHER], [failed, slower, faster])
    assert (won.configuration, won.default_us) == (OTHER, None)
    assert winner([DEFAULT, ONE], [failed, failed]) is None


def test_turns_alternate():
    told = []
    calls = [lambda n=name: told.append(n) for name in "ab"]
    clock = Clock("cpu")
    clock.once = lambda call, calls=1: call() or 1e6  # seconds each, so that a batch is one call
    clock.interleaved(calls, rounds=3, alternating=True)
    assert "".join(told) == "ab" + "abbaab"
    told.clear()
    assert [len(own) for own in clock.interleaved(calls, rounds=4, few={1})] == [4, 2]
    assert "".join(told) == "ab" + "ababaa"
