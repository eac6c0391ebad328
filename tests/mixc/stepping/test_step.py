"""Segment by segment and row by row: any split of a sequence gives what one pass gives."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

import mixc
from mixc.api import LoadedMixer
from mixc.autotune.checking.proportions import default_sizes, resized
from mixc.autotune.checking.sampling import VerificationCase, sample_inputs
from mixc.compiler.language.load import load_file, load_text
from mixc.compiler.mixers.resume.continue_sequence import Continued, continue_sequence
from mixc.compiler.mixers.resume.sequence_axis import sequence_axis
from mixc.ir.errors import ArgumentError, UnsupportedError
from mixc.ir.expression import Kind, Literal
from mixc.ir.mixer import Mixer, Recurrence
from mixc.runtime.overrides import override
from mixc.verifying.stepped_case import stepped_case

ROWS = 7
LIBRARY = Path(mixc.__file__).parents[1] / "specs"
SPECS = sorted((LIBRARY / "recurrence").glob("*.yaml"))
OWN = {
    "short convolution before the recurrence": """
inputs: {u: [B, T, C], w: [C, L], g: [B, T, C]}
let:
  x: silu(sum(at(u, T=t - l) * w, L))
recurrence:
  over: T
  state: {s: [C]}
  step:
    - s = sigmoid(g) * s + x
    - y = s + shift(x, T, 2)
outputs: {y: [B, T, C], s: [B, C]}
""",
    "position, running sum and reset": """
inputs: {x: [B, T, C], ends: {dims: [B, T], dtype: bool}, s0: [B, C]}
let:
  z: cumsum(x, T) - cumsum(x, T, exclusive=true) / (t + 1)
recurrence:
  over: T
  state: {s: [C]}
  initial: {s: s0}
  reset: ends
  step:
    - s = where(t % 3 == 0, 0.5, 0.9) * s + z
    - y = s
outputs: {y: [B, T, C]}
""",
    "later stages read earlier rows": """
inputs: {x: [B, T, C]}
stages:
  - recurrence:
      over: T
      state: {s: [C], n: []}
      step:
        - n = n + 1
        - s = 0.5 * s + x
        - a = s / n
  - map:
      y: cumsum(shift(a, T, 1) * a, T) + a[T=max(t - 3, 0)]
outputs: {y: [B, T, C]}
""",
    "two recurrences and an inner loop": """
inputs: {k: [B, T, R, C], x: [B, T, C]}
stages:
  - recurrence:
      over: T
      state: {s: [C]}
      step:
        - over: R
          step:
            - s = 0.7 * s + k * tanh(s)
        - s = s + x
        - a = s
  - recurrence:
      over: T
      state: {r: [C]}
      initial: {r: -inf}
      step:
        - r = max(r, a)
        - y = r * a
outputs: {y: [B, T, C]}
""",
    "rows of several heads in one axis": """
inputs: {x: [B, T*R, C], g: [B, T]}
recurrence:
  over: T
  state: {s: [R, C]}
  step:
    - s = g * s + x
    - y = s
outputs: {y: [B, T*R, C]}
""",
    "earlier rows of truth values, and a fill": """
inputs: {x: [B, T, C], ends: {dims: [B, T], dtype: bool}}
recurrence:
  over: T
  state: {s: [C]}
  reset: shift(ends, T, 1)
  step:
    - s = max(s, x)
    - y = max(s, at(x * x, T=t - 2, fill=-inf))
outputs: {y: [B, T, C]}
""",
    "keys of a recurrence, and values of another attention": """
inputs: {q: [B, I, D], k: [B, T, D], v: [B, T, E], g: [B, T]}
dims: {I: T, J: T}
stages:
  - recurrence:
      over: T
      state: {s: [D]}
      step:
        - s = sigmoid(g) * s + k
        - a = s
  - attention:
      over: J
      score: sum(q * a[T=j], D) - abs(i - j)
      mask: j <= i and (j % 3 != 1 or i == j)
      output: {near: "v[T=j] * (1 + j)"}
  - attention:
      over: J
      score: sum(q * a[T=j], D)
      mask: j < i
      normalize: none
      output: {y: "cumsum(near, I)[I=j] + near[I=j - 1]"}
outputs: {y: [B, I, E]}
""",
    "keys over the sequence itself, and a normaliser of its own": """
inputs: {q: [B, I, H, D], k: [B, T, D], ids: {dims: [B, T], dtype: int32}, bias: [H]}
dims: {I: T}
attention:
  over: T
  score: bias * sum(q * layernorm(k, D), D)
  mask: t <= i and i - t < 5 and ids == ids[i]
  normalize:
    weight: exp(score - max(score, T))
    denominator: total + 1
  output: {o: k}
outputs: {o: [B, I, H, D]}
""",
    "counts are integers": """
inputs: {x: {dims: [B, T], dtype: int32}, v: [B, T]}
recurrence:
  over: T
  state: {s: []}
  step:
    - s = s + v * (cumsum(x, T) % 3) + shift(x, T, 2)
    - y = s
outputs: {y: [B, T]}
""",
}


def own(name: str) -> Mixer:
    return load_text(f"mixer: example\n{OWN[name]}")


def small(mixer: Mixer) -> Mixer:
    """With chunks and the like that a few rows fill."""
    long = [p.name for p in mixer.params if p.kind is Kind.INT and isinstance(p.value, Literal)]
    return override(mixer, {name: 3 for name in long if mixer.param(name).value != Literal(1)})


def inputs_of(mixer: Mixer, continued: Continued, dtype: torch.dtype) -> dict[str, Tensor]:
    root = continued.axis.root
    sizes = resized(mixer, default_sizes(mixer), {root: ROWS}, {})
    return sample_inputs(mixer, sizes, dtype, seed=3)


def rows_of(
    mixer: Mixer,
    continued: Continued,
    inputs: dict[str, Tensor],
    first: int,
    end: int,
    starts: bool,
) -> dict[str, Tensor]:
    """A segment of the inputs; what only the first segment takes is for that one."""
    found = {}
    for entry in mixer.inputs:
        place = next(
            (p for p, d in enumerate(entry.layout) if d and continued.axis.has(d[0])), None
        )
        tensor = inputs[entry.name]
        if not starts and entry.name in continued.only_first:
            continue
        if place is not None:
            inner = tensor.shape[place] // ROWS
            tensor = tensor.narrow(place, first * inner, (end - first) * inner)
        found[entry.name] = tensor
    return found


def several(result: object) -> tuple[Tensor, ...]:
    return result if isinstance(result, tuple) else (result,)


def check_split(
    mixer: LoadedMixer, cuts: list[int], dtype: torch.dtype = torch.float64, limit: float = 1e-10
) -> None:
    """One pass against segments that end at ``cuts``, a segment of one row by ``step``."""
    continued = continue_sequence(mixer.mixer)
    inputs = inputs_of(mixer.mixer, continued, dtype)
    plain = several(mixer(**inputs))
    whole, at_end = mixer(**inputs, return_state=True)
    parts, state = [], None
    for first, end in zip([0, *cuts], [*cuts, ROWS], strict=True):
        own = rows_of(mixer.mixer, continued, inputs, first, end, state is None)
        if end == first + 1:
            made, state = mixer.step(**own, state=state)
        else:
            made, state = mixer(**own, state=state, return_state=True)
        assert state.t == end
        parts.append(several(made))
    for place, output in enumerate(mixer.mixer.outputs):
        along = next(
            (p for p, d in enumerate(output.layout) if d and continued.axis.has(d[0])), None
        )
        pieces = [part[place] for part in parts]
        found = pieces[-1] if along is None else torch.cat(pieces, along)
        for expected in (plain[place], several(whole)[place]):
            torch.testing.assert_close(found, expected, rtol=limit, atol=limit)
    for name in at_end:
        torch.testing.assert_close(state[name], at_end[name], rtol=limit, atol=limit)


# An axis that is a product with the sequence's does not tell its other factor where it has no rows.
def cuts_of(mixer: Mixer, drawn: list[int]) -> list[int]:
    products = any(len(axis) > 1 for i in mixer.inputs for axis in i.layout)
    return sorted({*drawn} - {0, ROWS}) if products else sorted(drawn)


def runs_backward(mixer: Mixer) -> bool:
    axis = sequence_axis(mixer, "stepped")
    return any(isinstance(s, Recurrence) and s.reverse and axis.has(s.over) for s in mixer.stages)


splits = st.lists(st.integers(0, ROWS), min_size=1, max_size=5)
few = settings(
    max_examples=2, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)


@pytest.mark.parametrize("path", SPECS, ids=lambda path: path.stem)
def test_any_split_of_a_library_recurrence_gives_what_one_pass_gives(path):
    mixer = small(load_file(path))
    if runs_backward(mixer):
        with pytest.raises(UnsupportedError, match="runs backward begins with the last row"):
            continue_sequence(mixer)
        return
    loaded = LoadedMixer(mixer, "reference")

    @few
    @given(splits)
    def any_split(drawn):
        check_split(loaded, cuts_of(mixer, drawn))

    any_split()


@pytest.mark.parametrize("name", OWN)
def test_any_split_gives_what_one_pass_gives(name):
    mixer = own(name)
    loaded = LoadedMixer(mixer, "reference")

    @settings(few, max_examples=12)
    @given(splits)
    def any_split(drawn):
        check_split(loaded, cuts_of(mixer, drawn))

    any_split()
    check_split(loaded, list(range(1, ROWS)))


ON_THE_CPU = [
    "short convolution before the recurrence",
    "later stages read earlier rows",
    "keys over the sequence itself, and a normaliser of its own",
]


@pytest.mark.parametrize("name", ON_THE_CPU)
def test_native_kernels_go_segment_by_segment(name):
    mixer = own(name)
    trial = VerificationCase("stepped", resized(mixer, default_sizes(mixer), {"T": 23}, {}))
    case = stepped_case(mixer, trial, "cpu", torch.float32)
    assert case is not None
    assert case.ok, case.message


def test_a_step_like_an_earlier_one_goes_straight_to_its_kernel():
    (path,) = (path for path in SPECS if path.stem == "gated_delta")
    mixer = LoadedMixer(load_file(path), "cpu")
    row = [torch.randn(2, 3, 8), *(torch.randn(2, 3, 8) / 3 for _ in range(2))]
    row += [-torch.rand(2, 3), torch.rand(2, 3)]
    _, first = mixer.step(*row)
    checked, state = mixer.step(*row, state=first)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mixc.stepping.stepping.bind_sizes", None)  # nothing is checked again
        repeated, again = mixer.step(*row, state=first)
        named = dict(zip("q k v g beta".split(), row, strict=True))
        turned = dict(reversed(named.items()))
        assert mixer._stepping._repeated((), turned, first, one_row=True) is None
    assert torch.equal(checked.o, repeated.o)
    assert torch.equal(state["S"], again["S"])
    assert (again.t, first.t) == (2, 1)
    (runner,) = mixer._stepping._execution(False, 1)._runners.values()
    calls = [call for kept in runner.prepared.values() for call in kept._calls.values()]
    assert {call.threads for call in calls} == {1}  # so little: no second thread
    assert mixer._stepping._repeated((*row, *row), {}, first, one_row=True) is None
    assert mixer._stepping._repeated(tuple(row), {"q": row[0]}, first, one_row=True) is None
    with pytest.raises(ArgumentError, match="q is given twice"):
        mixer.step(*row, q=row[0], state=first)
    mixer.step(**turned, state=first)
    assert mixer._stepping._repeated((), turned, first, one_row=True) is not None


EMA = """
mixer: average
inputs: {x: [B, T, C], decay: [C], s0: {dims: [B, C], default: 0}}
params: {gain: 1.0}
recurrence:
  over: T
  state: {s: [C]}
  initial: {s: s0}
  step:
    - s = decay * s + gain * x
    - y = s
outputs: {y: [B, T, C], s: [B, C]}
"""


@pytest.fixture
def average() -> LoadedMixer:
    return LoadedMixer(load_text(EMA), "reference")


def test_a_row_with_and_without_its_axis(average):
    x, decay = torch.randn(2, 3, 4), torch.rand(4)
    whole = average(x, decay)
    (y, _), state = average(x[:, :1], decay, return_state=True)
    (y, s), state = average.step(x[:, 1], decay, state=state)
    assert y.shape == (2, 4)
    (y, s), state = average.step(x[:, 2:], decay, state=state)
    assert y.shape == (2, 1, 4)
    torch.testing.assert_close(y[:, 0], whole.y[:, 2])
    torch.testing.assert_close(s, whole.s)


def test_the_first_row_may_be_a_step(average):
    x, decay, s0 = torch.randn(2, 1, 4), torch.rand(4), torch.randn(2, 4)
    result, state = average.step(x, decay, s0)
    torch.testing.assert_close(result.y, average(x, decay, s0).y)
    assert state.t == 1


def test_no_rows_give_the_initial_state(average):
    x, decay, s0 = torch.randn(2, 0, 4), torch.rand(4), torch.randn(2, 4)
    result, state = average(x, decay, s0, return_state=True)
    assert result.y.shape == (2, 0, 4)
    assert state.t == 0
    torch.testing.assert_close(state["s"], s0)


def test_a_state_is_named_immutable_and_can_be_kept(average):
    x, decay = torch.randn(2, 3, 4).bfloat16(), torch.rand(4).bfloat16()
    result, state = average(x, decay, return_state=True)
    assert repr(state) == "<state of average after 3 rows: s: [2, 4] float32>"
    assert (list(state), len(state), state.t, "s" in state) == (["s"], 1, 3, True)
    assert (result.s.dtype, state["s"].dtype) == (torch.bfloat16, torch.float32)
    with pytest.raises(TypeError):
        state.tensors["s"] = x
    with pytest.raises(AttributeError):
        state.t = 7
    before = state["s"].clone()
    first, again = (average.step(x[:, 0], decay, state=kept)[0] for kept in (state, state))
    assert torch.equal(first.y, again.y)
    assert torch.equal(state["s"], before)
    stored = pickle.loads(pickle.dumps(state))
    assert torch.equal(average.step(x[:, 0], decay, state=stored)[0].y, first.y)
    assert state.to("meta")["s"].device.type == "meta"


def test_a_state_serves_every_backend(average):
    x, decay = torch.randn(2, 3, 4), torch.rand(4)
    _, state = average(x, decay, return_state=True)
    by_default = LoadedMixer(average.mixer)
    made = by_default.step(x[:, 0], decay, state=state)[0].y
    torch.testing.assert_close(made, average.step(x[:, 0], decay, state=state)[0].y)


def test_gradients_flow_through_a_state(average):
    x, decay = torch.randn(1, 4, 2).double(), torch.rand(2).double().requires_grad_()
    _, state = average(x[:, :2], decay, return_state=True)
    average(x[:, 2:], decay, state=state).y.sum().backward()
    split, decay.grad = decay.grad, None
    average(x, decay).y[:, 2:].sum().backward()
    torch.testing.assert_close(split, decay.grad)
    assert not state.detach()["s"].requires_grad


def test_wrong_states(average):
    x, decay = torch.randn(2, 1, 4), torch.rand(4)
    _, state = average(x, decay, return_state=True)
    other = LoadedMixer(own("short convolution before the recurrence"), "reference")
    u, w = torch.randn(2, 1, 4), torch.randn(4, 3)
    with pytest.raises(ArgumentError, match="expected a state of example, got a state of average"):
        other.step(u, w, u, state=state)
    louder = LoadedMixer(override(average.mixer, {"gain": 2.0}), "reference")
    with pytest.raises(ArgumentError, match="as another spec or other params make it"):
        louder.step(x, decay, state=state)
    with pytest.raises(ArgumentError, match="expected what an earlier call returned, got dict"):
        average.step(x, decay, state={"s": x})
    with pytest.raises(ArgumentError, match=r"state: s does not fit the inputs: .*B = 3 as in x"):
        average.step(torch.randn(3, 1, 4), decay, state=state)
    with pytest.raises(ArgumentError, match=r"s does not fit the inputs: expected cpu as x, got m"):
        average.step(x, decay, state=state.to("meta"))
    with pytest.raises(ArgumentError, match="s0: it is what average starts from"):
        average.step(x, decay, torch.zeros(2, 4), state=state)


def test_more_than_one_row_is_no_step(average):
    x, decay = torch.randn(2, 3, 4), torch.rand(4)
    with pytest.raises(ArgumentError, match=r"a step is one row: expected \[B, T, C\] with T = 1"):
        average.step(x, decay)


def test_an_axis_is_left_out_by_all_or_by_none():
    mixer = LoadedMixer(own("short convolution before the recurrence"), "reference")
    with pytest.raises(
        ArgumentError, match="T in every input or in none, got it in u and not in g"
    ):
        mixer.step(torch.randn(2, 1, 4), torch.randn(4, 3), torch.randn(2, 4))


def test_documents_go_on_as_a_batch(average):
    cuts = torch.tensor([0, 2, 2, 7], dtype=torch.int32)
    x, decay, s0 = torch.randn(1, 7, 4), torch.rand(4), torch.randn(3, 4)
    (y, _), state = average(x, decay, s0, cu_seqlens=cuts, return_state=True)
    assert state.t == (2, 0, 5)
    assert "after 2 + 0 + 5 rows" in repr(state)
    more = torch.randn(3, 4)
    (last, _), state = average.step(more, decay, state=state)
    assert state.t == (3, 1, 6)
    for number, (first, end) in enumerate(((0, 2), (2, 2), (2, 7))):
        whole = torch.cat([x[:, first:end], more[number].view(1, 1, 4)], 1)
        alone = average(whole, decay, s0[number : number + 1]).y[0]
        torch.testing.assert_close(y[0, first:end], alone[:-1])
        torch.testing.assert_close(last[number], alone[-1])
    with pytest.raises(ArgumentError, match="documents begin anew, and a state continues"):
        average(x, decay, cu_seqlens=cuts, state=state)


def test_positions_of_documents_of_several_lengths():
    mixer = LoadedMixer(own("position, running sum and reset"), "reference")
    x, s0 = torch.randn(1, 6, 4), torch.randn(2, 4)
    ends = torch.zeros(1, 6, dtype=torch.bool)

    def after(*cuts):
        cut = torch.tensor(cuts, dtype=torch.int32)
        _, state = mixer(x, ends, s0, cu_seqlens=cut, return_state=True)
        return mixer.step(x[0, :2], ends[0, :2], state=state)

    y, state = after(0, 3, 6)
    assert state.t == 4
    _, state = mixer(x[:, 3:], ends[:, 3:], s0[1:], return_state=True)
    torch.testing.assert_close(y[1], mixer.step(x[:, 1], ends[:, 1], state=state)[0][0])
    with pytest.raises(UnsupportedError, match=r"example reads positions, .* have 2, 4 rows"):
        after(0, 2, 6)


def test_what_needs_the_whole_sequence_says_so():
    mixer = mixc.load("dense", backend="reference")
    q = torch.randn(1, 2, 3, 4)
    assert mixer(q, q, q).shape == q.shape
    with pytest.raises(UnsupportedError, match="dense can't be stepped: attention over J needs"):
        mixer.step(q[:, :, :1], q[:, :, :1], q[:, :, :1])


def test_heads_that_share_keys_beside_a_running_sum():
    """The gates' sums are a plan of their own, in which groups of heads have no part."""
    mixer = mixc.load("fox", backend="cpu")
    sizes = default_sizes(mixer.mixer, "standard")
    inputs = sample_inputs(mixer.mixer, sizes, torch.float32, seed=1)
    wanted = mixer(**inputs)
    first = {name: tensor[:, :30] for name, tensor in inputs.items()}
    found, state = mixer(**first, return_state=True)
    row, _ = mixer.step(**{name: tensor[:, 30] for name, tensor in inputs.items()}, state=state)
    torch.testing.assert_close(found, wanted[:, :30])
    torch.testing.assert_close(row, wanted[:, 30])
