"""Heads that share keys as rows of one axis: the same mixer, whatever the score makes of a head."""

from __future__ import annotations

import pytest
import torch

from mixc.autotune.checking.proportions import Proportions, default_sizes
from mixc.autotune.checking.sampling import sample_inputs
from mixc.backends.reference.evaluate import run
from mixc.compiler.language.find import library
from mixc.compiler.language.load import load_file, load_text
from mixc.ir import grouping
from mixc.ir.grouping import QueryGroups
from mixc.ir.mixer import Mixer
from mixc.ir.verify_mixer import verify_mixer

# Tables of keys that every head has for itself, or keys that it chooses, leave nothing to share.
OF_A_HEAD = {"hip", "linformer", "rope_learned", "seqpe", "tupe"}
GROUPED = [p for p in library() if "heads: {G: H}" in p.read_text() and "{o: v}" in p.read_text()]
FEW = Proportions((9, 7), features=(6, 4), ratio=3, groups=2, batch=(2,), table=5)


@pytest.fixture
def any_lengths(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grouping, "_MANY_KEYS", 1)


def in_rows(mixer: Mixer, sizes: dict[str, int]) -> Mixer:
    return QueryGroups(mixer).grouped(sizes)[0]


@pytest.mark.usefixtures("any_lengths")
@pytest.mark.parametrize("path", GROUPED, ids=lambda path: path.stem)
def test_a_grouped_mixer_of_the_library_means_the_same(path):
    mixer = load_file(path)
    sizes = default_sizes(mixer, FEW)
    made, more = QueryGroups(mixer).grouped(sizes)
    verify_mixer(made)
    assert (made is mixer) == (path.stem in OF_A_HEAD)
    for rows, _ in made.sizes[len(mixer.sizes) :]:
        assert more[rows] % 3 == 0
    tensors = sample_inputs(mixer, sizes, torch.float64, seed=1)
    found, expected = (run(m, tensors, dtype=torch.float64) for m in (made, mixer))
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-12, atol=1e-12)


def spec(score: str = "sum(q * k, D)", k: str = "[B, J, D]", more: str = "") -> Mixer:
    return load_text(f"""mixer: example
inputs: {{q: [B, H, I, D], k: {k}, v: [B, J, E], w: [H]}}
attention:
  over: J
  score: {score}
  output: {{o: v}}
{more}
outputs: {{o: [B, H, I, E]}}""")


SIZES = {"B": 2, "H": 6, "I": 3, "J": 200, "D": 4, "E": 4}


def test_keys_without_heads_serve_all_of_them():
    made = in_rows(spec(), SIZES)
    assert [str(size) for _, size in made.sizes] == ["I * H"]
    (attention, _) = made.stages
    assert attention.queries == {"B", "HI"}


def test_what_a_head_adds_goes_with_its_row():
    made = in_rows(spec("w * sum(q * k, D) + h * j"), SIZES)
    assert "w[H=hi % H]" in str(made.stages[0].score)


@pytest.mark.parametrize(
    ("mixer", "sizes"),
    [
        (spec(k="[B, H, J, D]"), {}),  # every head has keys of its own
        (spec("sum(q * k, D) - max(sum(q * k, D), H)"), {}),  # a term along the heads
        (spec(more="  weights: p"), {}),
        (spec(), {"I": 17}),  # enough queries to fill a block
        (spec(), {"J": 100}),
        (spec(), {"H": 1}),
    ],
)
def test_what_is_left_alone(mixer, sizes):
    assert in_rows(mixer, {**SIZES, **sizes}) is mixer
