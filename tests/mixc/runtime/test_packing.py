"""``cu_seqlens``: documents end to end give what each gives alone."""

import pytest
import torch

import mixc
from mixc.autotune.checking.sampling import verification_cases
from mixc.backends.reference.evaluate import run
from mixc.compiler.language.load import load_text
from mixc.ir.errors import ArgumentError
from mixc.verifying.packed_case import packed_case
from mixc.verifying.worker import default_runner


def rows(*shapes):
    return [torch.randn(shape, dtype=torch.float64) for shape in shapes]


def cuts(*edges):
    return torch.tensor(edges, dtype=torch.int32)


@pytest.mark.parametrize("name", ["causal", "alibi_window", "rope", "fox"])
def test_a_library_mixer_document_by_document(name):
    attend = mixc.load(name)
    sizes = {"B": 1, "H": 4, "G": 2, "D": 8, "E": 6, "I": 21, "J": 21, "T": 21}
    inputs = {
        entry.name: torch.randn([sizes[dim] for dim in entry.dims], dtype=torch.float64)
        for entry in attend.mixer.inputs
    }
    edges = [0, 1, 8, 8, 21]
    whole = attend(**inputs, cu_seqlens=cuts(*edges))
    axis = attend.mixer.outputs[0].dims.index("I")
    for start, end in ((0, 1), (1, 8), (8, 21)):
        alone = attend(
            **{
                entry.name: cut(entry.dims, inputs[entry.name], start, end)
                for entry in attend.mixer.inputs
            }
        )
        torch.testing.assert_close(whole.narrow(axis, start, end - start), alone)


def cut(dims, tensor, start, end):
    places = [place for place, dim in enumerate(dims) if dim in ("I", "J", "T")]
    for place in places:
        tensor = tensor.narrow(place, start, end - start)
    return tensor


def test_cross_attention_takes_boundaries_for_each_axis():
    attend = mixc.load("cross")
    q, k, v = rows((1, 4, 7, 8), (1, 2, 9, 8), (1, 2, 9, 6))
    o, lse = attend(q, k, v, cu_seqlens={"I": cuts(0, 3, 7), "J": cuts(0, 5, 9)})
    alone = attend(q[:, :, 3:], k[:, :, 5:], v[:, :, 5:])
    torch.testing.assert_close(o[:, :, 3:], alone.o)
    torch.testing.assert_close(lse[:, :, 3:], alone.lse)


BLOCKS = """\
mixer: block_means
inputs: {q: [B, I, D], k: [B, J, D], v: [B, J, E]}
dims:
  I: T
  J: T
  N: (T + block - 1) // block
params: {block: 4}
let:
  centre: mean(k, J, N=j // block)
  value: mean(v, J, N=j // block)
attention:
  over: N
  score: sum(q * centre, D)
  mask: n <= i // block
  normalize: softmax
  output: {o: value}
outputs: {o: [B, I, E]}
"""


def test_derived_axes_are_counted_per_document(tmp_path):
    path = tmp_path / "block_means.yaml"
    path.write_text(BLOCKS)
    attend = mixc.load(path)
    q, k, v = rows((1, 15, 8), (1, 15, 8), (1, 15, 6))
    whole = attend(q, k, v, cu_seqlens=cuts(0, 6, 15))
    torch.testing.assert_close(whole[:, :6], attend(q[:, :6], k[:, :6], v[:, :6]))
    torch.testing.assert_close(whole[:, 6:], attend(q[:, 6:], k[:, 6:], v[:, 6:]))


@pytest.mark.parametrize(
    ("edges", "message"),
    [
        (cuts(0, 4, 3, 9), "that start at 0 and never fall, got [0, 4, 3, 9]"),
        (cuts(1, 9), "that start at 0 and never fall"),
        (cuts(0, 8), "expected boundaries that end at T = 9 as I in q, got 8"),
        (torch.tensor([0.0, 9.0]), "expected a tensor of int32 or int64, got torch.float32"),
        ([0, 9], "expected a tensor of int32 or int64, got list"),
        (cuts(), "expected [documents + 1] boundaries, got [0]"),
        ({"T": cuts(0, 9), "J": cuts(0, 9)}, "expected one for each of T, got ['T', 'J']"),
    ],
)
def test_wrong_boundaries(edges, message):
    q, k, v = rows((1, 2, 9, 8), (1, 1, 9, 8), (1, 1, 9, 6))
    with pytest.raises(ArgumentError) as caught:
        mixc.load("causal")(q, k, v, cu_seqlens=edges)
    assert message in str(caught.value)


def test_cross_attention_needs_both():
    q, k, v = rows((1, 2, 9, 8), (1, 1, 9, 8), (1, 1, 9, 6))
    with pytest.raises(ArgumentError, match="expected one for each of I, J"):
        mixc.load("cross")(q, k, v, cu_seqlens=cuts(0, 9))
    with pytest.raises(ArgumentError, match="as many documents along each axis, got I 1, J 2"):
        mixc.load("cross")(q, k, v, cu_seqlens={"I": cuts(0, 9), "J": cuts(0, 4, 9)})


@pytest.mark.parametrize("name", ["causal", "cross", "pointer", "bigbird"])
def test_the_case_of_packed_documents_is_right_by_the_reference(name):
    mixer = mixc.load(name).mixer
    trial = verification_cases(mixer, limit=1)[0]
    case = packed_case(mixer, trial, "reference", default_runner("reference"), torch.float32)
    assert case.ok, case.message
    assert case.error > 0


PICTURE = """
mixer: picture
inputs: {x: [B, T, C]}
dims: {S: T, E: C}
map: {y: "sum(x * cos(2 * pi * s * t / T) * cos(2 * pi * e * c / C), C, T)"}
outputs: {y: [B, S, E]}
"""


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_lengths_are_those_of_the_documents_along_their_own_axis(backend):
    """Of two sequences in one row: a length counts along its own, wherever the other is."""
    mixer = load_text(PICTURE)
    trial = verification_cases(mixer, limit=1)[0]
    case = packed_case(mixer, trial, backend, default_runner(backend), torch.float32)
    assert case.ok, case.message


def test_documents_that_see_each_other_are_found_out():
    mixer = mixc.load("dense").mixer
    trial = verification_cases(mixer, limit=1)[0]
    case = packed_case(
        mixer, trial, "careless", lambda _, given, __: run(mixer, only(mixer, given)), torch.float32
    )
    assert not case.ok
    assert "limit" in case.message


def only(mixer, inputs):
    return {entry.name: inputs[entry.name] for entry in mixer.inputs}


def test_a_mean_over_the_sequence_has_no_packed_case():
    mixer = mixc.load("linformer").mixer
    trial = verification_cases(mixer, limit=1)[0]
    run = default_runner("reference")
    assert packed_case(mixer, trial, "reference", run, torch.float32) is None
