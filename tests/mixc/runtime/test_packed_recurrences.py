"""``cu_seqlens`` for recurrences: a document's states are its own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

import mixc
from mixc.api import LoadedMixer
from mixc.autotune.checking.proportions import default_sizes, resized
from mixc.autotune.checking.sampling import VerificationCase, sample_inputs
from mixc.backends.reference.evaluate import run
from mixc.compiler.language.load import load_file, load_text
from mixc.compiler.mixers.pack.pack_sequences import last_outputs, pack_sequences
from mixc.compiler.mixers.resume.sequence_axis import sequence_axis
from mixc.ir.errors import ArgumentError, UnsupportedError
from mixc.ir.expression import Kind, Literal
from mixc.ir.mixer import Mixer, Recurrence
from mixc.ir.optional import without_inputs
from mixc.ir.verify_mixer import verify_mixer
from mixc.runtime.documents import cut
from mixc.runtime.overrides import override
from mixc.runtime.running import Execution, schedules
from mixc.verifying.packed_case import packed_case

SPECS = sorted((Path(mixc.__file__).parents[1] / "specs" / "recurrence").glob("*.yaml"))
CPU = torch.device("cpu")
HEAD = """
mixer: example
inputs: {x: [B, T, C], ends: {dims: [B, T], dtype: bool}, s0: [B, C], g: [C]}
"""
REST = "outputs: {y: [B, T, C]}\n"
OWN = {
    "an initial value for each document": """
let:
  begin: 2 * s0
recurrence:
  over: T
  state: {s: [C], m: []}
  initial: {s: begin + g, m: -inf}
  step:
    - s = g * s + x
    - m = max(m, sum(x, C))
    - y = s + m
""",
    "reset as the spec says, too": """
recurrence:
  over: T
  state: {s: [C]}
  initial: {s: s0}
  reset: ends
  step:
    - s = g * s + x * (t + 1)
    - y = s / T
""",
    "from the end": """
recurrence:
  over: T
  direction: backward
  state: {s: [C]}
  initial: {s: s0}
  reset: ends
  step:
    - y = s
    - s = g * s + shift(x, T, 1)
""",
    "over blocks of the sequence": """
dims: {N: (T + 2) // 3}
stages:
  - map:
      m[B, N, C]: mean(x, T, N=t // 3)
  - recurrence:
      over: N
      state: {s: [C]}
      initial: {s: g}
      step:
        - s = 0.5 * s + m
        - a = s
  - map:
      y: x + a[N=t // 3]
""",
    "integers and what comes before": """
let:
  z: cumsum(x, T) + shift(x, T, 2)
recurrence:
  over: T
  state: {n: [], s: [C]}
  initial: {n: 3}
  step:
    - n = n + 1
    - s = s + z / n
    - y = s
""",
}


def packs(mixer: Mixer) -> None:
    """Three documents, one of them empty, against each alone, in float64."""
    case = VerificationCase("packed", sizes_of(mixer), seed=2)
    found = packed_case(mixer, case, "reference", lambda m, t, p: run(m, t, p), torch.float64)
    assert found is not None
    assert found.ok, found.message
    assert found.error < 1e-10


def one_by_one(mixer: Mixer) -> None:
    """Documents that can't lie in one row are called one by one."""
    sizes = {**sizes_of(mixer), "S": 6, "B": 1}
    inputs = sample_inputs(mixer, sizes, torch.float64)
    edges = {"S": [0, 2, 6], "T": [0, 5, 8]}
    cuts = {axis: torch.tensor(ends, dtype=torch.int32) for axis, ends in edges.items()}
    loaded = LoadedMixer(mixer, "reference")
    made = loaded(**inputs, cu_seqlens=cuts)
    for number in (0, 1):
        own = {
            entry.name: cut(mixer, entry.layout, inputs[entry.name], edges, number, sizes)
            for entry in mixer.inputs
        }
        (layout,) = (output.layout for output in mixer.outputs)
        torch.testing.assert_close(cut(mixer, layout, made, edges, number, sizes), loaded(**own))


def sizes_of(mixer: Mixer) -> dict[str, int]:
    axis = sequence_axis(mixer, "packed")
    return resized(mixer, default_sizes(mixer), {axis.root: 8}, {})


def small(mixer: Mixer) -> Mixer:
    """With chunks and the like that a few rows fill."""
    long = [p.name for p in mixer.params if p.kind is Kind.INT and isinstance(p.value, Literal)]
    return override(mixer, {name: 3 for name in long if mixer.param(name).value != Literal(1)})


@pytest.mark.parametrize("name", OWN)
def test_documents_end_to_end_give_what_each_gives(name):
    mixer = load_text(HEAD + OWN[name] + REST)
    verify_mixer(pack_sequences(mixer))
    packs(mixer)


@pytest.mark.parametrize("path", SPECS, ids=lambda path: path.stem)
def test_library_recurrences(path):
    mixer = small(load_file(path))
    last = last_outputs(mixer)
    if len(last) < len(mixer.outputs):
        packs(mixer)
    else:  # a decoder that begins with what the encoder of its document ends with
        one_by_one(mixer)


def test_a_state_starts_anew():
    mixer = load_text(HEAD + OWN["an initial value for each document"] + REST)
    packed = pack_sequences(mixer)
    (stage,) = packed.stages
    assert isinstance(stage, Recurrence)
    assert str(stage.reset) == "t == first_t"
    lines = [f"{e.name} = {e.value}" for e in stage.step[:2]]
    read = "s0[Documents=document_t]"
    assert lines == [
        f"s = s + where(t == first_t, 2 * {read} + g, 0.0)",
        "m = m + where(t == first_t, -inf, 0.0)",
    ]
    assert packed.input("s0").layout == (("Documents",), ("C",))
    assert packed.lets == ()


def test_zeros_need_no_line():
    mixer = load_text(
        "mixer: example\ninputs: {x: [B, T, C]}\nrecurrence:\n  over: T\n  state: {s: [C]}\n"
        "  step:\n    - s = s + x\n    - y = s\noutputs: {y: [B, T, C]}\n"
    )
    (stage,) = pack_sequences(mixer).stages
    assert stage.step == mixer.stages[0].step


LAST = HEAD + OWN["an initial value for each document"] + "outputs: {y: [B, T, C], s: [B, C]}\n"


def test_a_last_state_is_that_of_its_document():
    mixer = LoadedMixer(load_text(LAST), "reference")
    assert [o.name for o in last_outputs(mixer.mixer)] == ["s"]
    with pytest.raises(UnsupportedError, match="s needs a state after the last row"):
        pack_sequences(mixer.mixer)
    x, s0, g = torch.randn(1, 9, 4), torch.randn(3, 4), torch.rand(4)
    ends = torch.zeros(1, 9, dtype=torch.bool)
    cuts = torch.tensor([0, 4, 4, 9], dtype=torch.int32)
    y, s = mixer(x, ends, s0, g, cu_seqlens=cuts)
    assert s.shape == (3, 4)
    for number, (first, end) in enumerate(((0, 4), (4, 4), (4, 9))):
        alone = mixer(x[:, first:end], ends[:, first:end], s0[number : number + 1], g)
        torch.testing.assert_close(y[:, first:end], alone.y)
        torch.testing.assert_close(s[number], alone.s[0])


def test_no_documents_have_no_states():
    mixer = LoadedMixer(load_text(LAST), "reference")
    x, ends = torch.randn(1, 0, 4), torch.zeros(1, 0, dtype=torch.bool)
    cuts = torch.tensor([0], dtype=torch.int32)
    y, s = mixer(x, ends, torch.randn(0, 4), torch.rand(4), cu_seqlens=cuts)
    assert (y.shape, s.shape) == ((1, 0, 4), (0, 4))


@pytest.mark.parametrize("rest", [LAST, HEAD + OWN["from the end"] + REST])
def test_as_many_initial_values_as_documents(rest):
    mixer = LoadedMixer(load_text(rest), "reference")
    cuts = torch.tensor([0, 4, 9], dtype=torch.int32)

    def call(batch, documents):
        ends = torch.zeros(batch, 9, dtype=torch.bool)
        x = torch.randn(batch, 9, 4)
        return mixer(x, ends, torch.randn(documents, 4), torch.rand(4), cu_seqlens=cuts)

    with pytest.raises(ArgumentError, match=r"s0: with cu_seqlens its B is the documents: .*2, g"):
        call(1, 3)
    with pytest.raises(ArgumentError, match=r"x: documents lie in one row .*expected B = 1, got 2"):
        call(2, 2)


def test_initial_values_of_documents_keep_the_chunk_form():
    """Amid a row they would make a loop of it; so each document gets a call."""
    mixer = load_file(next(path for path in SPECS if path.stem == "gated_delta"))
    rows = replace(mixer, outputs=mixer.outputs[:1])
    execution = Execution(rows, "interpreter")
    x = {"q": torch.zeros(1, 4, 2, 8), "S0": torch.zeros(2, 2, 8, 8)}
    assert execution.is_one_by_one(x, CPU)
    assert not execution.is_one_by_one({"q"}, CPU)
    for backend in ("reference", "cpu"):  # which go row by row anyway
        assert not Execution(rows, backend).is_one_by_one(x, CPU)
    assert "chunk" in schedules(without_inputs(pack_sequences(rows), ["S0"]))
