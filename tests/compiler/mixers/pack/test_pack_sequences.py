"""A packed row gives each document what it gives alone, on the reference."""

from __future__ import annotations

from itertools import accumulate
from math import inf
from pathlib import Path

import pytest
import torch
from torch import Tensor

import mixc
from mixc.autotune.checking.sampling import default_sizes, sample_inputs
from mixc.backends.reference.evaluate import run
from mixc.compiler.analysis.facts import facts_of
from mixc.compiler.analysis.masks.ranges import key_ranges
from mixc.compiler.language.load import load_file, load_text
from mixc.compiler.mixers.pack.pack_sequences import pack_sequences, packing
from mixc.compiler.mixers.pack.packing_plan import families_of
from mixc.ir.errors import UnsupportedError
from mixc.ir.key_ranges import Trend
from mixc.ir.mixer import Attention, Layout, Mixer
from mixc.runtime.packing import document_edges, document_tables

LENGTHS = (5, 1, 0, 7, 4)
HEAD = """
mixer: packed_example
inputs: {q: [B, H, I, D], k: [B, G, J, D], v: [B, G, J, E], x: [B, T, C]}
dims: {I: T, J: T}
heads: {G: H}
"""


def attention(mask: str, score: str = "sum(q * k, D)", rest: str = "") -> Mixer:
    return load_text(
        HEAD
        + rest
        + f"attention:\n  over: J\n  score: {score}\n  mask: {mask}\n  output: {{o: v}}\n"
        + "outputs: {o: [B, H, I, E]}\n"
    )


def mapped(value: str, rest: str = "") -> Mixer:
    spec = "mixer: packed_example\ninputs: {x: [B, T, C]}\n"
    return load_text(f"{spec}{rest}map:\n  y: {value}\noutputs: {{y: [B, T, C]}}\n")


MASKS = [
    "j <= i",
    "j <= i and i - j < 3",
    "j <= i and (j < 2 or i - j < 2)",
    "j < 3 or j <= i",
    "i // 2 == j // 2",
    "abs(i // 2 - j // 2) <= 1 and (i + j) % 3 != 0",
    "j >= T // 2",
    "j == T - 1 or i == 0",
]


@pytest.mark.parametrize("mask", MASKS)
def test_masks(mask: str) -> None:
    check(attention(mask))


MAPS = {
    "positions": "x * t",
    "lengths": "x / T + (T - t)",
    "shifted": "shift(x, T, 2) + shift(x, T, -1)",
    "reversed": "flip(x, T)",
    "first row": "x - x[T=0]",
    "last row": "x - x[T=T - 1]",
    "running sum": "cumsum(x, T)",
    "running sums": "cumsum(x, T, reverse=true) + cumsum(x, T, exclusive=true)",
    "running extremes": "cummax(x, T) + cummin(x, T, reverse=true)",
    "end to end": "x + mean(concat(U, x, T, x * x, T), U, T=min(u, T - 1))",
    "sum of shifted rows": "cumsum(x[T=t - 1] + cumsum(x, T), T)",
    "running positions": "x * cumsum(t, T)",
    "outside": "at(x, T=t + 3, fill=7)",
}


@pytest.mark.parametrize("name", MAPS)
def test_maps(name: str) -> None:
    check(mapped(MAPS[name]))


def test_running_sums_of_what_lines_and_stages_make() -> None:
    lines = "stages:\n  - map: {z: tanh(x), c: 'cumsum(z, T)', y: 'c * z + r'}\n"
    spec = "mixer: packed_example\ninputs: {x: [B, T, C]}\nlet: {r: 'exp(-cumsum(x * x, T))'}\n"
    check(load_text(f"{spec}{lines}outputs: {{y: [B, T, C], r: [B, T, C]}}\n"))


@pytest.mark.parametrize("gate", [-inf, -1e6])
def test_a_running_sum_knows_nothing_of_other_documents(gate: float) -> None:
    """In float32, to the bit: a shut gate (-inf) was NaN in every later document, a large one
    took the last digits of their sums."""
    fox = mixc.load("fox", backend="cpu")
    q, k, v = torch.randn(3, 1, 24, 2, 16)
    gates = -torch.rand(1, 24, 2)
    shut = gates.clone()
    shut[:, 4] = gate
    ends = torch.tensor([0, 9, 24], dtype=torch.int32)
    before, after = (fox(q, k, v, g, cu_seqlens=ends)[:, 9:] for g in (gates, shut))
    assert torch.isfinite(before).all()
    assert torch.equal(before, after)


def test_lengths_reach_params_and_lets_without_a_position() -> None:
    check(
        attention("i - j < span and j <= i", "sharp * sum(q * k, D)", """
params:
  span: max(2, T // 2)
let:
  sharp: log(T + 1) / span
""")
    )  # fmt: skip


def test_lets_of_pairs_are_bounded() -> None:
    mixer = attention("near or j == 0", rest="let:\n  near: abs(i - j) <= 1\n")
    check(mixer)
    packed = pack_sequences(mixer)
    (stage,) = packed.stages
    assert isinstance(stage, Attention)
    ranges = key_ranges(stage.mask, "J", "I", facts_of(packed))
    assert all(disjunct.exact and disjunct.upper for disjunct in ranges.disjuncts)


def test_scores_that_compare_positions() -> None:
    check(attention("j <= i", "sum(q * k, D) - 0.3 * abs(i - j) + 0.1 * j"))
    check(attention("j <= i", "sum(rope(q, i, D) * rope(k, j, D), D)"))


def test_a_score_of_keys_alone_that_sums_over_all_of_them() -> None:
    """It is each document's own, so that the score has the query's axis in a packed row."""
    check(attention("j <= i", "softmax(cumsum(sum(k, D), J) / 8, J) + sum(q, D) / 9"))


def test_other_normalisers_see_the_document_only() -> None:
    text = (
        HEAD
        + """
attention:
  over: J
  score: sum(q * k, D)
  mask: j <= i
  normalize:
    weight: relu((i + 1) * sigmoid(score) / sum(sigmoid(score), J) - 0.5)
    denominator: total + T
  output: {o: v}
outputs: {o: [B, H, I, E]}
"""
    )
    check(load_text(text))


def test_reductions_with_another_position() -> None:
    check(mapped("x * p", "dims: {J: T}\nlet:\n  p[T]: sum(where(j <= t, j + 1, 0), J)\n"))


def test_blocks_of_a_sequence() -> None:
    check(
        mapped(
            "x - m[N=t // 3]",
            "dims: {N: (T + 2) // 3}\nlet:\n  m[B, N, C]: mean(x, T, N=t // 3)\n",
        )
    )


def test_query_and_key_axes_of_their_own() -> None:
    mixer = load_text("""
mixer: across
inputs: {q: [B, H, I, D], k: [B, H, J, D], v: [B, H, J, E]}
attention:
  over: J
  score: sum(q * k, D) / J - 0.1 * i
  mask: j < i + 2
  output: {o: v}
outputs: {o: [B, H, I, E]}
""")
    assert packing(mixer).axes == ("I", "J")
    check(mixer)


LIBRARY = ["anchor", "bigbird", "block_sparse", "fox", "landmark", "longformer", "xlnet"]


@pytest.mark.parametrize("name", LIBRARY)
def test_library_specs(name: str) -> None:
    from mixc.compiler.language.find import find_spec

    check(load_file(Path(find_spec(name))))


def test_documents_become_ranges_of_keys() -> None:
    """Bounds in closed form, monotone in the query: no search and no table of blocks."""
    packed = pack_sequences(attention("j <= i and (j < 2 or i - j < 3)"))
    (stage,) = packed.stages
    assert isinstance(stage, Attention)
    ranges = key_ranges(stage.mask, "J", "I", facts_of(packed))
    found = [
        ([str(b.loose) for b in d.lower], [str(b.loose) for b in d.upper]) for d in ranges.disjuncts
    ]
    first, end = "first_t[T=i]", "end_t[T=i]"
    assert found == [
        ([first], ["i + 1", f"{first} + 2", end]),
        (["i - 2", first], ["i + 1", end]),
    ]
    for disjunct in ranges.disjuncts:
        assert disjunct.exact
        assert all(bound.trend is Trend.RISING for bound in disjunct.bounds)


def test_differences_of_positions_stay_as_they_are() -> None:
    packed = pack_sequences(attention("j <= i", "sum(q * k, D) - 0.3 * (i - j)"))
    (stage,) = packed.stages
    assert isinstance(stage, Attention)
    assert str(stage.score).endswith("- 0.3 * (i - j)")
    assert "first_t" not in str(stage.score)


def test_new_names_do_not_clash() -> None:
    mixer = mapped("x * first_t * t", "params: {first_t: 2}\n")
    assert [i.name for i in pack_sequences(mixer).inputs] == ["x", "first_t_"]
    check(mixer)


REFUSED = {
    "x - mean(x, T)": r"sum\(x, T\)",
    "x / sqrt(sum(x * x, T, C))": r"sum\(x \* x, T, C\)",
    "x * scale": r"run-time param scale",
}


@pytest.mark.parametrize("value", REFUSED)
def test_values_of_a_whole_sequence_are_refused(value: str) -> None:
    rest = "params: {scale: {default: 1 / T, runtime: true}}\n" if "scale" in value else ""
    with pytest.raises(UnsupportedError, match=REFUSED[value]) as caught:
        pack_sequences(mapped(value, rest))
    assert "packed_example" in str(caught.value)
    assert "without cu_seqlens" in str(caught.value)


@pytest.mark.parametrize(
    ("inputs", "outputs", "says"),
    [
        ("x: [B, T], w: [B, C*N]", "{o: [B, T]}", "w has N inside of C.N.*write the axis as N.C"),
        ("x: [B, T], w: [B, N, C]", "{m: [B, C*N]}", "m has N inside of C.N"),
    ],
)
def test_products_with_documents_inside_are_refused(inputs: str, outputs: str, says: str) -> None:
    text = f"""mixer: m
inputs: {{{inputs}}}
dims: {{N: (T + 3) // 4}}
map: {{m: "w * 2", o: "x * sum(m[N=t // 4], C)"}}
outputs: {outputs}
check: {{T: 8, C: 3}}
"""
    with pytest.raises(UnsupportedError, match=f"(?s){says}"):
        pack_sequences(load_text(text))


def test_states_for_each_document_have_an_axis_for_them() -> None:
    text = """mixer: m
inputs: {x: [B, H, T, D], S0: {dims: [B*H, D], default: 0}}
recurrence: {over: T, state: {S: [D]}, initial: {S: S0}, step: [S = S / 2 + x, o = S]}
outputs: {o: [B, H, T, D]}
"""
    with pytest.raises(UnsupportedError, match=r"(?s)its B is part of a product.*an axis B"):
        pack_sequences(load_text(text))


def test_nothing_to_pack_is_refused() -> None:
    mixer = load_text("mixer: plain\ninputs: {x: [B, C]}\nmap: {y: 2 * x}\noutputs: {y: [B, C]}\n")
    with pytest.raises(UnsupportedError, match="no axis to pack"):
        pack_sequences(mixer)


def test_queries_without_a_place_in_the_row_are_refused() -> None:
    """Slots, so many as a param says, serve one document: boundaries cut only what is given."""
    spec = """mixer: slots
inputs: {x: [B, T, C]}
dims: {N: slots}
params: {slots: 4}
attention: {over: T, score: "where(t % slots == n, 1, 0)", normalize: none, output: {y: x}}
outputs: {y: [B, N, C]}
"""
    with pytest.raises(UnsupportedError, match=r"<text>:5: slots can't .*over T has no position"):
        pack_sequences(load_text(spec))


def test_channels_that_share_positions_hold_no_documents() -> None:
    mixer = load_text("""mixer: residual
inputs: {x: [B, T, C], w: {dims: [C, O], weight: true}}
dims: {I: T, O: C}
map: {y: "x[C=o] + sum(shift(x, T, 1) * w, C)"}
outputs: {y: [B, T, O]}
""")
    assert families_of(mixer).base == ("T",)
    check(mixer)


# What follows runs a mixer on each document alone, and on all of them packed.


def check(mixer: Mixer) -> None:
    packed = packing(mixer)
    cuts = {
        axis: torch.tensor([0, *accumulate(n + 2 * place for n in LENGTHS)], dtype=torch.int32)
        for place, axis in enumerate(packed.axes)
    }
    edges = document_edges(packed, mixer, cuts, {})
    documents = [sampled(mixer, edges, number) for number in range(len(LENGTHS))]
    for document in documents:  # what has no packed axis is the same for all
        document.update(
            (i.name, documents[0][i.name]) for i in mixer.inputs if not packed_axes(mixer, i.layout)
        )
    row = {
        i.name: joined(mixer, i.layout, [document[i.name] for document in documents])
        for i in mixer.inputs
    }
    tables = document_tables(packed, mixer, cuts, row)
    results = run(packed.mixer, {**row, **tables}, {}, torch.float64)
    for number, document in enumerate(documents):
        alone = run(mixer, document, {}, torch.float64)
        for output in mixer.outputs:
            own = cut(mixer, output.layout, results[output.name], edges, number)
            torch.testing.assert_close(own, alone[output.name], rtol=1e-9, atol=1e-9)


def sampled(mixer: Mixer, edges: dict[str, list[int]], number: int) -> dict[str, Tensor]:
    """Inputs of one document."""
    sizes = {**default_sizes(mixer), "B": 1}
    families = families_of(mixer)
    for dim in {*sizes, *edges}:
        family = families.of(dim)
        if family is not None:
            sizes[dim] = edges[family][number + 1] - edges[family][number]
    return sample_inputs(mixer, sizes, torch.float64, seed=number)


def packed_axes(mixer: Mixer, layout: Layout) -> list[tuple[int, str]]:
    """The tensor axes with a packed dim, and its family."""
    families = families_of(mixer)
    found = ((place, families.of(dim)) for place, axis in enumerate(layout) for dim in axis)
    return [(place, family) for place, family in found if family is not None]


def joined(mixer: Mixer, layout: Layout, parts: list[Tensor]) -> Tensor:
    """The documents end to end; block-diagonal where two axes are packed."""
    places = [place for place, _ in packed_axes(mixer, layout)]
    if not places:
        return parts[0]
    if len(places) == 1:
        return torch.cat(parts, places[0])
    row, column = places
    blocks = []
    for number, part in enumerate(parts):
        wide = []
        for other, sized in enumerate(parts):
            shape = list(part.shape)
            shape[column] = sized.shape[column]
            wide.append(part if other == number else part.new_ones(shape))
        blocks.append(torch.cat(wide, column))
    return torch.cat(blocks, row)


def cut(
    mixer: Mixer, layout: Layout, whole: Tensor, edges: dict[str, list[int]], number: int
) -> Tensor:
    """The part of a packed result that belongs to one document."""
    for place, family in packed_axes(mixer, layout):
        first, end = edges[family][number : number + 2]
        whole = whole.narrow(place, first, end - first)
    return whole


def test_packing_has_a_name_in_the_api() -> None:
    """What the tests above do by hand is one argument of a call."""
    q = torch.randn(1, 2, 6, 4, dtype=torch.float64)
    cuts = torch.tensor([0, 2, 6], dtype=torch.int32)
    causal = mixc.load("causal", backend="reference")
    alone = [causal(*(3 * [q[:, :, a:b]])) for a, b in ((0, 2), (2, 6))]
    torch.testing.assert_close(causal(q, q, q, cu_seqlens=cuts), torch.cat(alone, 2))
