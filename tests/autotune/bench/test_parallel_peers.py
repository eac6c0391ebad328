"""Recurrences in parallel forms by torch, the opponents in ``mixc bench``."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from mixc.autotune.bench.chunk_form import Chunks, Factors
from mixc.autotune.bench.parallel_peers import CHUNKS, ParallelForm, traced
from mixc.autotune.bench.scan_form import OPERATIONS, scan
from mixc.autotune.checking.sampling import default_sizes, sample_inputs
from mixc.backends.reference.evaluate import run
from mixc.compiler.analysis.recurrence.classify import classify
from mixc.compiler.analysis.recurrence.flatten import flatten
from mixc.compiler.language.find import library
from mixc.compiler.language.load import load_file
from mixc.ir.errors import UnsupportedError
from mixc.ir.mixer import Map, Mixer, Recurrence
from mixc.ir.recurrence_forms import Affine, Matrix


def library_of_forms() -> dict[str, tuple[Mixer, bool]]:
    """Every recurrence of the library, and whether all its states have a form that chunks or scans
    are for and no attention or selection stands beside it."""
    found = {}
    for path in library():
        if path.parent.name != "recurrence":
            continue
        mixer = load_file(path)
        stages = [s for s in mixer.stages if isinstance(s, Recurrence)]
        if not stages:  # running sums alone
            continue
        flat = [flatten(stage) for stage in stages]
        stages = [s if f is None else f.recurrence for s, f in zip(stages, flat, strict=True)]
        forms = [form for stage in stages for form in classify(stage).components]
        formed = all(isinstance(form, Matrix | Affine) for form in forms)
        alone = all(isinstance(stage, Recurrence | Map) for stage in mixer.stages)
        found[path.stem] = mixer, formed and alone
    return found


LIBRARY = library_of_forms()


def formed(mixer: Mixer, chunk: int | None = None) -> ParallelForm:
    sizes = default_sizes(mixer, "one head per group")
    inputs = sample_inputs(mixer, sizes, torch.float32)
    return ParallelForm(mixer, sizes, inputs, torch.float32, {}, chunk)


@pytest.mark.parametrize("name", [n for n, (_, ok) in LIBRARY.items() if ok])
def test_parallel_forms_compute_what_the_spec_says(name: str) -> None:
    mixer, _ = LIBRARY[name]
    form = formed(mixer)
    found = form.results(form.outputs(*form.arranged))
    wanted = run(mixer, sample_inputs(mixer, default_sizes(mixer, "one head per group")))
    for output, expected in wanted.items():
        size = float(expected.abs().max())
        torch.testing.assert_close(
            found[output].double(), expected, rtol=1e-4, atol=2e-5 * max(size, 1.0)
        )


@pytest.mark.parametrize("name", [n for n, (_, ok) in LIBRARY.items() if not ok])
def test_states_without_a_parallel_form_are_said_so(name: str) -> None:
    with pytest.raises(
        UnsupportedError, match=r"no parallel form|directions of time|no recurrence"
    ):
        formed(LIBRARY[name][0])


def test_the_traced_graph_computes_the_same() -> None:
    form = formed(LIBRARY["gated_delta"][0])
    for one, other in zip(form.outputs(*form.arranged), traced(form)(*form.arranged), strict=True):
        torch.testing.assert_close(one, other)


def by_rows(factors: Factors, length: int, after: bool) -> tuple[Tensor, Tensor]:
    """The states [X, T, K, V] that the step has before or after each row, and the last."""
    state, states = factors.start, []
    for t in range(length):
        before = state
        if factors.log_decay is not None:
            decay = factors.log_decay.expand(-1, length, -1)[:, t, :, None].exp()
            state = state * decay
        if factors.correction is not None:
            u, w = (x[:, t] for x in factors.correction)
            state = state + u[:, :, None] * (w[:, None] @ before)
        for k, v in factors.writes:
            state = state + k[:, t, :, None] * v[:, t, None]
        states.append(state if after else before)
    return torch.stack(states, 1), state


def noise(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


@pytest.mark.parametrize("after", [True, False])
@pytest.mark.parametrize("writes", [1, 2])
@pytest.mark.parametrize("corrected", ["no", "apart", "together"])
@pytest.mark.parametrize("decay", ["none", "constant", "rows", "channels"])
def test_chunks_compute_the_step(decay: str, corrected: str, writes: int, after: bool) -> None:
    if corrected == "together" and writes == 2:
        pytest.skip("the correction's key is that of one write")
    x, length, k, v = 2, 21, 4, 3
    shape = {
        "none": None,
        "constant": (x, 1, 1),
        "rows": (x, length, 1),
        "channels": (x, length, k),
    }
    gates = None if shape[decay] is None else -noise(*shape[decay]).exp()
    keys = [noise(x, length, k) for _ in range(writes)]
    u = keys[0] if corrected == "together" else noise(x, length, k)
    factors = Factors(
        gates,
        None if corrected == "no" else (u, -0.3 * noise(x, length, k)),
        tuple((key, noise(x, length, v)) for key in keys),
        noise(x, k, v),
        together=corrected == "together",
    )
    states, last = by_rows(factors, length, after)
    chunks = Chunks(factors, length, 8, torch.float64)
    query, other = noise(x, length, k), noise(x, length, v)
    for found, expected in (
        (chunks.last, last),
        (chunks.read(query, after), torch.einsum("xtk,xtkv->xtv", query, states)),
        (chunks.read_values(other, after), torch.einsum("xtv,xtkv->xtk", other, states)),
    ):
        torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-8)


def test_strong_gates_of_channels_are_not_split() -> None:
    factors = Factors(
        torch.where(noise(2, 32, 4) > 0, -60.0, -1e-3).double(),
        None,
        ((noise(2, 32, 4), noise(2, 32, 3)),),
        noise(2, 4, 3),
    )
    states, _ = by_rows(factors, 32, after=True)
    chunks = Chunks(factors, 32, CHUNKS[-1], torch.float64, split=False)
    query, other = noise(2, 32, 4), noise(2, 32, 3)
    torch.testing.assert_close(
        chunks.read(query, after=True), torch.einsum("xtk,xtkv->xtv", query, states)
    )
    torch.testing.assert_close(
        chunks.read_values(other, after=True), torch.einsum("xtv,xtkv->xtk", other, states)
    )


@pytest.mark.parametrize("length", [1, 2, 5, 64])
@pytest.mark.parametrize("plus", ["add", "max", "min", "logaddexp"])
def test_the_doubling_scan_computes_the_step(plus: str, length: int) -> None:
    """Two states; one coefficient is the semiring's zero, one does not change."""
    add, times = OPERATIONS[plus], OPERATIONS["mul" if plus == "add" else "add"]
    coefficients = [[noise(2, length, 3), None], [noise(2, length, 3), noise(2, 1, 3)]]
    offsets = [noise(2, length, 3), noise(2, length, 3)]
    starts = [noise(2, 1, 3), noise(2, 1, 3)]
    found = scan(coefficients, offsets, starts, 1, add, times)
    states = list(starts)
    for t in range(length):
        new = [offset[:, t, None] for offset in offsets]
        for i, j in itertools.product(range(2), range(2)):
            c = coefficients[i][j]
            if c is not None:
                new[i] = add(new[i], times(c[:, min(t, c.shape[1] - 1), None], states[j]))
        states = new
        for rows, state in zip(found, states, strict=True):
            torch.testing.assert_close(rows[:, t, None], state)
