"""SDPA piece by piece: where masks are cut, and that the pieces are the whole."""

from __future__ import annotations

import pytest
import torch

from mixc.autotune.bench import block_peers
from mixc.autotune.bench.block_peers import blocks
from mixc.autotune.bench.peers import Setting
from mixc.autotune.bench.timed_inputs import timed_inputs
from mixc.autotune.checking.shapes import CPU_PROPORTIONS, timed_sizes
from mixc.autotune.checking.tolerances import error_limit, error_of
from mixc.backends.reference.evaluate import run
from mixc.compiler.language.find import find_spec
from mixc.compiler.language.load import load_text
from mixc.ir.errors import UnsupportedError
from mixc.ir.optional import without_inputs

WINDOW = {"window": 24}


def setting(name, dtype=torch.float32, params=None, mask=None, **changed):
    text = find_spec(name).read_text()
    if mask is not None:
        (own,) = [line for line in text.splitlines() if line.startswith("  mask:")]
        text = text.replace(own, f"  mask: {mask}")
    mixer = load_text(text)
    if name == "packed":
        mixer = without_inputs(mixer, ["length"])
    known = {"T": 192, "H": 4, "G": 2, "B": 2, "D": 16, "E": 8, **changed}
    sizes = timed_sizes(mixer, CPU_PROPORTIONS, known)
    tensors = timed_inputs(mixer, sizes, dtype, params=params or {})
    return Setting(mixer, sizes, tensors, dtype, params or {})


def pieces_of(monkeypatch, given):
    """The pieces of the quickest call; they compute what the spec says."""
    found = []
    over = block_peers._over
    monkeypatch.setattr(block_peers, "_BLOCKS", (64,))
    monkeypatch.setattr(block_peers, "_over", lambda o, p: found.extend(p) or over(o, p))
    call = blocks(given)
    results = call.results(call.run())
    plain = run(given.mixer, given.tensors, given.params, dtype=given.dtype)
    for name, wanted in run(given.mixer, given.tensors, given.params).items():
        limit = error_limit(given.dtype, error_of(plain[name], wanted))
        assert error_of(results[name], wanted) <= limit
    return found


def test_documents_are_pieces_that_are_causal(monkeypatch):
    found = pieces_of(monkeypatch, setting("packed"))
    assert [(p.batch.start, p.rows.start, p.rows.stop) for p in found] == [
        (b, n, n + 48) for b in range(2) for n in range(0, 192, 48)
    ]
    assert all(p.causal and p.mask is None and p.keys == p.rows for p in found)
    full = pieces_of(monkeypatch, setting("packed", params={"causal": False}))
    assert all(not p.causal and p.mask is None for p in full)


def test_a_window_is_cut_into_blocks_that_share_masks(monkeypatch):
    found = pieces_of(monkeypatch, setting("alibi_window", params=WINDOW))
    assert [(p.keys.start, p.keys.stop) for p in found] == [(0, 64), (41, 128), (105, 192)]
    assert found[1].mask is found[2].mask
    assert found[1].mask.shape == (1, 4, 64, 87)


def test_a_window_that_leaves_little_out_is_cut_all_the_same(monkeypatch):
    """The short sequence that a peer is checked on is not much longer than the window."""
    found = pieces_of(monkeypatch, setting("alibi_window", params={"window": 100}))
    assert [(p.keys.start, p.keys.stop) for p in found] == [(0, 64), (0, 128), (29, 192)]


@pytest.mark.parametrize(
    "mask", ["j <= i and i - j < 9 and i > 70", "abs(i - j) < 5 + 9 * (h % 2)"]
)
def test_rows_that_see_nothing_and_heads_of_their_own(monkeypatch, mask):
    pieces_of(monkeypatch, setting("causal", mask=mask))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("causal", "nothing out"),
        ("dense", "hides nothing"),
        ("sink", "a sink"),
        ("softcap", "linear"),
    ],
)
def test_what_pieces_say_nothing_of(name, message):
    with pytest.raises(UnsupportedError, match=message):
        blocks(setting(name))
