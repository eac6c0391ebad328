"""The attention to chosen keys by itself, as peers have it."""

from __future__ import annotations

import pytest
import torch

from mixc.autotune.bench.all_peers import PEERS
from mixc.autotune.bench.chosen_keys import among_chosen, to_all_keys, to_chosen_keys
from mixc.autotune.bench.peers import Setting
from mixc.autotune.bench.sdpa_peers import sdpa
from mixc.autotune.checking.sampling import default_sizes, sample_inputs
from mixc.backends.reference.evaluate import run
from mixc.compiler.language.find import find_spec
from mixc.compiler.language.load import load_file
from mixc.ir.errors import UnsupportedError
from mixc.ir.mixer import Attention


def setting(name: str, **fixed: int) -> Setting:
    mixer = load_file(find_spec(name))
    sizes = {**default_sizes(mixer, "one head per group"), **fixed}
    inputs = sample_inputs(mixer, sizes, torch.float32, seed=2)
    return Setting(mixer, sizes, inputs, torch.float32, {})


def test_given_what_was_chosen_it_is_the_mixers_result() -> None:
    given = setting("moba")
    alone = to_chosen_keys(given)
    assert len(alone.mixer.stages) == 1
    assert alone.tensors["selected"].dtype == torch.bool
    wanted = run(given.mixer, given.tensors)["o"]
    found = run(alone.mixer, alone.tensors)["o"]
    torch.testing.assert_close(found, wanted)


def test_a_peer_of_one_attention_computes_it() -> None:
    given = setting("moba")
    call = among_chosen(sdpa)(given)
    assert call.what.endswith("keys chosen beforehand")
    assert call.lacks == ()
    found = call.results(call.run())["o"]
    wanted = run(given.mixer, given.tensors)["o"]
    torch.testing.assert_close(found.double(), wanted, rtol=1e-4, atol=1e-4)


def test_a_branch_lacks_what_is_made_of_it() -> None:
    """NSA's output is the sum of three attentions; its heads are the rows of one group."""
    call = among_chosen(sdpa)(setting("nsa", B=1, G=1, R=4))
    assert call.lacks == ("o",)


def test_to_all_keys_the_order_remains() -> None:
    alone = to_all_keys(setting("moba")).mixer
    (stage,) = alone.stages
    assert isinstance(stage, Attention)
    assert str(stage.mask) == "j <= t"
    dense = PEERS["dense"](setting("moba"))
    assert dense.what == "torch SDPA, is_causal, nothing chosen"
    assert dense.results(dense.run()) == {}
    assert dense.lacks == ("o",)


@pytest.mark.parametrize(("name", "why"), [("hyena", "several stages"), ("causal", "no choice")])
def test_where_nothing_is_chosen_it_is_said_so(name: str, why: str) -> None:
    with pytest.raises(UnsupportedError, match=why):
        to_all_keys(setting(name))
