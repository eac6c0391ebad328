"""Stretches of attentions along their sequence: the keys that a state has, and how they grow."""

from __future__ import annotations

import pickle

import pytest
import torch
from hypothesis import given
from torch import Tensor

import mixc
from mixc.api import LoadedMixer
from mixc.compiler.language.load import load_file
from mixc.compiler.mixers.resume.continue_sequence import continue_sequence
from mixc.ir.errors import ArgumentError, UnsupportedError

from .test_step import LIBRARY, check_split, few, small, splits

ATTENTIONS = sorted(
    [*(LIBRARY / "attention").glob("*.yaml"), *(LIBRARY / "positions").glob("*.yaml")]
)
# Attentions whose rows need what is still to come, and why.
NOT_CAUSAL = {
    **dict.fromkeys(
        "adem coverage cross edges lightnet_2d listed_blocks neighbor pointer relu "
        "set2set t2t word_pool".split(),
        "no sequence in it",
    ),
    "cif": "a reduction over T needs every row",
    **dict.fromkeys("combiner combiner_log".split(), "a reduction over J needs every row"),
    "fit": "attention over J needs every key",
    "structformer": "pairs rows of the sequence with each other",
    **dict.fromkeys("moa sigmoid".split(), "the length of the whole sequence"),
    "landmark": "its axis follows from the length of the sequence",
    "path": "its axis follows from the length of the sequence",
    **dict.fromkeys("combiner_axial window_2d".split(), "its recurrences run along Y and X"),
    "linformer": "a reduction over J needs every row",
    "dual": "a reduction over T needs every row",
    **dict.fromkeys(
        "bigbird block_sparse delete_gate dense disentangled fsmn longformer prefix_lm rope_orders "
        "t5 tree tupe urpe xlnet".split(),
        "no bound of its mask keeps j <= i",
    ),
}


@pytest.mark.parametrize("path", ATTENTIONS, ids=lambda path: path.stem)
def test_any_split_of_a_library_attention_gives_what_one_pass_gives(path):
    mixer = small(load_file(path))
    if path.stem in NOT_CAUSAL:
        with pytest.raises(UnsupportedError, match=NOT_CAUSAL[path.stem]):
            continue_sequence(mixer)
        return
    loaded = LoadedMixer(mixer, "reference")

    @few
    @given(splits)
    def any_split(drawn):
        check_split(loaded, sorted(drawn))

    any_split()


def causal_rows(rows: int, batch: int = 1) -> list[Tensor]:
    q, k, v = (torch.randn(batch, heads, rows, 8) for heads in (4, 2, 2))
    return [q, k, v]


def test_a_state_of_keys_is_extended_in_place_once_and_else_copied():
    mixer = mixc.load("causal", backend="reference")
    _, state = mixer(*causal_rows(5), return_state=True)
    assert repr(state) == (
        "<state of causal after 5 rows: k: [1, 2, 5, 8] float32, v: [1, 2, 5, 8] float32>"
    )
    before = state["k"].clone()
    left, right = ([x[:, :, 0] for x in causal_rows(1)] for _ in range(2))
    o, first = mixer.step(*left, state=state)
    assert o.shape == (1, 4, 8)
    _, second = mixer.step(*right, state=state)
    again, _ = mixer.step(*left, state=state)
    assert torch.equal(o, again)
    assert torch.equal(first["k"][:, :, :5], before)
    assert torch.equal(first["k"][:, :, 5], left[1])
    assert torch.equal(second["k"][:, :, 5], right[1])
    assert first["k"].data_ptr() == state["k"].data_ptr() != second["k"].data_ptr()
    stored = pickle.loads(pickle.dumps(first))
    assert stored["k"].untyped_storage().nbytes() == stored["k"].nbytes
    for kept in (stored, first.detach()):
        assert torch.equal(mixer.step(*left, state=kept)[0], mixer.step(*left, state=first)[0])


def test_keys_are_not_those_of_the_caller():
    mixer = mixc.load("causal", backend="reference")
    q, k, v = causal_rows(3)
    _, state = mixer(q, k, v, return_state=True)
    kept = k.clone()
    k.zero_()
    assert torch.equal(state["k"], kept)


def test_rows_are_copied_seldom():
    mixer = mixc.load("causal", backend="reference")
    _, state = mixer(*causal_rows(3), return_state=True)
    places = set()
    for _ in range(200):
        _, state = mixer.step(*causal_rows(1), state=state)
        places.add(state["k"].data_ptr())
    assert state.t == 203
    assert len(places) < 6


def test_gradients_flow_through_keys():
    mixer = mixc.load("causal", backend="reference")
    q, k, v = (x.double().requires_grad_() for x in causal_rows(4))
    _, state = mixer(*(x[:, :, :3] for x in (q, k, v)), return_state=True)
    o, _ = mixer.step(*(x[:, :, 3] for x in (q, k, v)), state=state)
    o.sum().backward()
    split, k.grad = k.grad, None
    mixer(q, k, v)[:, :, 3].sum().backward()
    torch.testing.assert_close(split, k.grad)


def test_keys_that_do_not_fit():
    mixer = mixc.load("causal", backend="reference")
    _, state = mixer(*causal_rows(3), return_state=True)
    with pytest.raises(
        ArgumentError, match=r"state: k does not fit .* \[1, 2, 3, 8\] .* \[2, 2, 1, 8"
    ):
        mixer.step(*causal_rows(1, batch=2), state=state)
    with pytest.raises(
        ArgumentError, match=r"state: k does not fit .* float32 on cpu, got .*bfloat16"
    ):
        mixer.step(*(x.bfloat16() for x in causal_rows(1)), state=state)
    cuts = torch.tensor([0, 1, 3], dtype=torch.int32)
    with pytest.raises(UnsupportedError, match="causal keeps keys, and those of documents differ"):
        mixer(*causal_rows(3), cu_seqlens=cuts, return_state=True)
