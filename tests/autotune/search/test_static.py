"""Ranking for a GPU that is not here: the model's order, and one whole run with its compiler."""

from dataclasses import replace

import pytest

from mixc.autotune.checking.shapes import GPU_PROPORTIONS, timed_sizes
from mixc.autotune.results.stored import stored_results
from mixc.autotune.search.kernels import gpu_space
from mixc.autotune.search.modelled import modelled_best
from mixc.autotune.search.static import tune_static
from mixc.autotune.search.trial import Problem
from mixc.compiler.language.find import find_spec
from mixc.compiler.language.load import load_file
from mixc.compiler.pipeline import lower
from mixc.compiler.schedules.configurations import bind_configuration, knobs, refusal
from mixc.ir.errors import ArgumentError
from mixc.ir.targets import parse_target
from mixc.ir.verify_plan import verify_plan

CAUSAL = load_file(find_spec("causal"))
SIZES = timed_sizes(CAUSAL, GPU_PROPORTIONS)
PLAN = lower(CAUSAL, {"D": 128, "E": 128}, "bfloat16")


def test_a_plan_with_its_own_defaults_is_the_plan():
    for name in ("causal", "bigbird", "longformer"):
        plan = lower(load_file(find_spec(name)), {"D": 64, "E": 64}, "bfloat16")
        defaults = {knob.name: knob.default for knob in knobs(plan)}
        assert bind_configuration(plan, defaults) == plan


def test_what_was_tuned_for_one_kernel_holds_for_those_that_share_its_work():
    """By segments, a recurrence has kernels with knobs of their own."""
    mixer = load_file(find_spec("simple_gla"))
    sizes = {"D": 64, "E": 64}
    whole, shared = (lower(mixer, sizes, "bfloat16", splits=n) for n in (1, 4))
    assert {knob.name for knob in knobs(whole)} >= {"chunk"}
    assert "chunk" not in {knob.name for knob in knobs(shared)}
    for plan in (whole, shared):
        bound = bind_configuration(plan, {"chunk": 32, "num_warps": 2})
        default = bind_configuration(plan, {})
        assert bound != default
        for kernel in bound.kernels:
            if kernel.schedule == "chunk":
                assert kernel.program.tile("T").block == 32
                assert dict(kernel.program.launch)["num_warps"] == 2


def test_a_block_table_takes_the_blocks_of_its_reader():
    plan = lower(load_file(find_spec("bigbird")), {"D": 64, "E": 64}, "bfloat16")
    bound = bind_configuration(plan, {"block_rows": 32, "block_keys": 16, "num_warps": 2})
    verify_plan(bound)
    kinds = {kernel.schedule: kernel for kernel in bound.kernels}
    table, flash = kinds["block table"].program, kinds["flash"].program
    for dim in ("I", "J"):
        assert table.tile(dim).block == flash.tile(dim).block
    assert bound.block_count("J_blocks") == ("J", 16)
    assert dict(flash.launch)["num_warps"] == 2


def test_knobs_of_several_attentions_say_whose_they_are():
    plan = lower(load_file(find_spec("longformer")), {"D": 64, "E": 64}, "bfloat16")
    names = {knob.name for knob in knobs(plan)}
    programs = [k.program.name for k in plan.kernels if k.schedule == "flash"]
    assert len(programs) > 1
    assert {f"{program}.block_rows" for program in programs} <= names
    changed = bind_configuration(plan, {f"{programs[0]}.block_keys": 16})
    one, other = (k.program for k in changed.kernels if k.program.name in programs[:2])
    assert 16 in {tile.block for tile in one.tiles}
    assert other == next(k.program for k in plan.kernels if k.program.name == programs[1])


def test_tiling_of_a_spec_cuts_the_knobs():
    cut = lower(replace(CAUSAL, tiling=(("I", (64, 128)), ("warps", (4,)))), {}, "bfloat16")
    choices = {knob.name: knob.choices for knob in knobs(cut)}
    assert choices["block_rows"] == (64, 128)
    assert set(choices["num_warps"]) <= {4, 8}


def test_a_target_refuses_what_it_has_no_room_for():
    huge = bind_configuration(
        PLAN, {"block_rows": 128, "block_keys": 128, "num_stages": 4, "num_warps": 8}
    )
    assert "shared memory" in refusal(huge, parse_target("cuda:120"))
    assert refusal(PLAN, parse_target("cuda:120")) is None
    wide = bind_configuration(PLAN, {"block_rows": 256, "num_warps": 2, "num_stages": 1})
    assert "registers" in refusal(wide, parse_target("cuda:90"))


def test_a_target_that_is_not_there():
    with pytest.raises(ArgumentError, match="unknown target"):
        tune_static(Problem(CAUSAL, "bfloat16", "cuda", SIZES, SIZES), "cuda:91", 1)


def test_a_whole_ranking_is_kept_as_modelled(tmp_path, monkeypatch):
    monkeypatch.setenv("MIXC_DATA", str(tmp_path))
    sizes = timed_sizes(CAUSAL, GPU_PROPORTIONS, {"D": 64, "E": 64})
    problem = Problem(CAUSAL, "bfloat16", "cuda", sizes, sizes)
    tuned = tune_static(problem, "cuda:90", 3, seed=0)
    assert [t.outcome.message for t in tuned.history.trials if t.outcome.status != "ok"] == []
    assert tuned.history.trials[0].configuration == tuned.default
    assert tuned.result.modelled
    assert tuned.result.time_us <= tuned.result.default_time_us
    assert list(stored_results([tmp_path / "tuned"])) == [(tuned.path, tuned.result)]
    again = tune_static(problem, "cuda:90", 3, seed=0)
    assert again.fresh == 0


def test_the_models_best_start_a_search():
    sizes = timed_sizes(CAUSAL, GPU_PROPORTIONS, {"D": 64, "E": 64, "T": 256})
    problem = Problem(CAUSAL, "bfloat16", "cuda", sizes, sizes)
    space = gpu_space(CAUSAL, sizes, "bfloat16", "cuda:90")
    (best,) = modelled_best(problem, space, parse_target("cuda:90"), limit_s=0.0)
    assert space.admits(best)
    assert best != space.default
