"""A mixer over a segment: what is handed over, and what can't be stepped."""

from __future__ import annotations

import pytest

from mixc.compiler.language.load import load_text
from mixc.compiler.mixers.resume.continue_sequence import continue_sequence
from mixc.ir.errors import UnsupportedError
from mixc.ir.expression import Kind
from mixc.ir.mixer import Mixer, Recurrence
from mixc.ir.verify_mixer import verify_mixer


def mapped(value: str, rest: str = "") -> Mixer:
    """``y`` from ``x`` along T, weights ``w`` along L."""
    return load_text(
        "mixer: example\ninputs: {x: [B, T, C], w: [C, L]}\n"
        f"{rest}map:\n  y: {value}\noutputs: {{y: [B, T, C]}}\n"
    )


def stepped(step: str, rest: str = "", state: str = "{s: [C]}", more: str = "") -> Mixer:
    """``y`` by a recurrence with the state ``s``, from ``x`` and ``s0``."""
    lines = "".join(f"    - {line}\n" for line in step.split("; "))
    return load_text(
        f"mixer: example\ninputs: {{x: [B, T, C], s0: [B, C]}}\n{rest}"
        f"recurrence:\n  over: T\n  state: {state}\n{more}  step:\n{lines}"
        "outputs: {y: [B, T, C]}\n"
    )


def equations(mixer: Mixer) -> dict[str, str]:
    """The last stage's, as text."""
    return {e.name: str(e.value) for e in mixer.stages[-1].equations}


def test_a_state_goes_in_where_the_initial_value_was():
    mixer = stepped("s = 0.5 * s + x; y = s", more="  initial: {s: 2 * s0}\n")
    continued = continue_sequence(mixer)
    verify_mixer(continued.start)
    verify_mixer(continued.more)
    assert continued.start.stages == mixer.stages
    assert continued.only_first == ("s0",)
    assert [i.name for i in continued.more.inputs] == ["x", "s_before"]
    (stage,) = continued.more.stages
    assert isinstance(stage, Recurrence)
    assert str(stage.states[0].initial) == "s_before"
    assert [o.name for o in continued.more.outputs] == ["y", "s"]
    assert continued.more.outputs[1].layout == (("B",), ("C",))
    assert {o.dtype for o in continued.more.outputs} == {None, "float32"}


def test_the_last_rows_of_what_is_read_are_kept():
    continued = continue_sequence(mapped("sum(at(x, T=t - 2 * l) * w, L) + shift(x, T, 3)"))
    verify_mixer(continued.more)
    (rows,) = continued.carried
    assert (rows.name, rows.layout) == ("x_rows", (("B",), ("Back",), ("C",)))
    assert [(d, str(n)) for d, n in continued.more.sizes] == [("Back", "max(2 * L - 2, 3)")]
    read = "where(t - 3 >= 0, x[T=t - 3], x_rows_before[Back=t + Back - 3])"
    assert read in str(continued.more.stages[0].equations[0].value)
    after = equations(continued.more)["x_rows_after"]
    place = "back + T - Back"
    assert after == f"where({place} >= 0, x[T={place}], x_rows_before[Back=back + T])"
    assert equations(continued.start)["x_rows_after"] == f"x[T={place}]"
    assert continued.rows_before is None


def test_running_sums_and_positions_go_on():
    continued = continue_sequence(mapped("cumsum(x, T) / (t + 1)"))
    verify_mixer(continued.more)
    value = str(continued.more.stages[0].equations[0].value)
    assert value == "(x_sum_before + cumsum(x, T)) / (t + t_before + 1)"
    assert equations(continued.more)["x_sum_after"] == "x_sum_before + sum(x, T)"
    assert continued.rows_before == "t_before"
    assert [(c.name, c.kind) for c in continued.carried] == [("x_sum", Kind.REAL)]


BOUNDED = {
    "x[T=max(t - 2, 0)]": "2",
    "x[T=t // 4 * 4]": "3",
    "x[T=t - t % 5]": "4",
    "sum(at(x, T=t + l - L + 1) * w, L)": "L - 1",
    "sum(at(x, T=t - gap * l) * w, L)": "3 * L - 3",
    "at(x, T=where(c > 2, t - 1, t - 6))": "6",
    "sum(at(x, T=t - lags) * w[L=0], S)": "7",
}


@pytest.mark.parametrize("value", BOUNDED)
def test_how_far_back_a_read_goes(value):
    rest = "params: {gap: 3, lags: {dims: [S], values: [0, 7, 2]}}\n"
    continued = continue_sequence(mapped(value, rest))
    ((dim, size),) = continued.more.sizes
    assert (dim, str(size)) == ("Back", BOUNDED[value])


def test_rows_of_a_let_and_of_a_step_are_kept():
    rest = "let:\n  z: x * shift(x, T, 1)\n"
    continued = continue_sequence(stepped("s = s + z + shift(z, T, 2); y = s", rest))
    verify_mixer(continued.more)
    assert {c.name for c in continued.carried} == {"s", "x_rows", "z_rows"}


def test_a_recurrence_along_another_axis_is_a_rows_own():
    mixer = load_text("""
mixer: rounds
inputs: {x: [B, T, C], g: [B, T, R, C]}
recurrence:
  over: R
  state: {s: [C]}
  initial: {s: 0}
  step:
    - s = g * s + x
outputs: {s: [B, T, C]}
""")
    assert continue_sequence(mixer).carried == ()


def test_only_what_a_later_segment_reads_is_asked_for():
    """An encoder whose last state is where the decoder begins is no part of a later segment."""
    mixer = load_text("""
mixer: encoded
inputs: {source: [B, S, C], x: [B, T, C]}
stages:
  - recurrence:
      over: S
      state: {e: [C]}
      step:
        - e = 0.5 * e + source
  - recurrence:
      over: T
      state: {s: [C]}
      initial: {s: last(e)}
      step:
        - s = 0.5 * s + x
        - y = s
outputs: {y: [B, T, C]}
""")
    continued = continue_sequence(mixer)
    verify_mixer(continued.more)
    assert continued.only_first == ("source",)
    assert len(continued.more.stages) == 1


REFUSED = {
    "x - mean(x, T)": (r"a reduction over T needs every row", r"sum\(x, T\)"),
    "shift(x, T, -1)": ("other than a bounded number of earlier ones", r"x\[T=t - -1\]"),
    "x - x[T=0]": ("other than a bounded number of earlier ones", r"x\[T=0\]"),
    "x[T=t // 2]": ("other than a bounded number of earlier ones", r"x\[T=t // 2\]"),
    "flip(x, T)": ("other than a bounded number of earlier ones", "x"),
    "cumsum(x, T, reverse=true)": ("a running sum from the end needs every row", "cumsum"),
    "x / T": ("this needs the length of the whole sequence", "T"),
    "x * width": ("the param width depends on the length of the whole sequence", "width"),
    "sum(where(j <= t, x[T=j], 0), J)": ("a reduction over J needs every row", "sum"),
    "x - m[N=t // 3]": ("its axis follows from the length of the sequence", r"sum\(x, T"),
}
REST = """
params: {width: T ** 0.5}
dims: {J: T, N: (T + 2) // 3}
let:
  m[B, N, C]: mean(x, T, N=t // 3)
"""


@pytest.mark.parametrize("value", REFUSED)
def test_what_needs_other_rows_is_refused(value):
    rest = REST if "N=" in value else "dims: {J: T}\nparams: {width: T ** 0.5}\n"
    mixer = mapped(value, rest)
    what, term = REFUSED[value]
    with pytest.raises(UnsupportedError, match="example can't be stepped: .*" + what) as caught:
        continue_sequence(mixer)
    with pytest.raises(UnsupportedError, match="found: .*" + term):
        continue_sequence(mixer)
    assert "call it with the whole sequence, without a state" in str(caught.value)


def test_pairs_of_rows_are_refused():
    mixer = load_text(
        "mixer: example\ninputs: {x: [T]}\ndims: {J: T}\n"
        "map:\n  y: x - x[T=j]\noutputs: {y: [T, J]}\n"
    )
    with pytest.raises(UnsupportedError, match="this pairs rows of the sequence with each other"):
        continue_sequence(mixer)


def test_a_recurrence_from_the_end_is_refused():
    mixer = stepped("s = s + x; y = s", more="  direction: backward\n")
    with pytest.raises(UnsupportedError, match="runs backward begins with the last row"):
        continue_sequence(mixer)


def test_rows_that_read_the_last_state_are_refused():
    mixer = load_text("""
mixer: example
inputs: {x: [B, T, C]}
stages:
  - recurrence:
      over: T
      state: {s: [C]}
      step:
        - s = s + x
  - map:
      y: x * last(s)
outputs: {y: [B, T, C]}
""")
    with pytest.raises(UnsupportedError, match="y needs a state after the last row\n  found: s"):
        continue_sequence(mixer)


def attention(mask: str, score: str = "sum(q * k, D)", more: str = "") -> Mixer:
    return load_text(f"""
mixer: example
inputs: {{q: [B, I, D], k: [B, J, D], v: [B, J, E], g: [B, J]}}
dims: {{I: T, J: T}}
attention:
  over: J
  score: {score}
  mask: {mask}
  output: {{o: v}}
  {more}
outputs: {{o: [B, I, E]}}
""")


def test_attention_sees_every_key_so_far():
    continued = continue_sequence(attention("j <= i"))
    assert continued.parts == (continued.more,)
    assert [i.name for i in continued.more.inputs] == ["q", "g", "k_seen", "v_seen"]
    (stage,) = continued.more.stages
    assert (str(stage.score), str(stage.mask)) == (
        "sum(q * k_seen, D)",
        "seen <= i + (Seen - I)",
    )
    assert continued.only_first == ()


def test_rows_of_keys_that_are_made_from_others_are_made_first():
    continued = continue_sequence(attention("j <= i", "cumsum(g, J) * sum(q * tanh(k), D)"))
    for part in continued.parts:
        verify_mixer(part)
    first, last = continued.parts
    assert equations(first) == {
        "g_keys_after": "g_sum_before + cumsum(g, J)",
        "k_keys_after": "tanh(k)",
    }
    assert equations(last) == {"g_sum_after": "g_sum_before + sum(g, J)"}
    assert str(last.stages[0].score) == "g_keys_seen * sum(q * k_keys_seen, D)"
    assert [(k.name, k.seen.dtype) for k in continued.keys] == [
        ("g_keys", "float32"),
        ("k_keys", None),
        ("v", None),
    ]


@pytest.mark.parametrize("mask", ["true", "j <= i + 1", "j // 2 <= i // 2", "j <= i or j < 3"])
def test_attention_to_keys_that_are_still_to_come_is_refused(mask):
    with pytest.raises(UnsupportedError, match="no bound of its mask keeps j <= i"):
        continue_sequence(attention(mask))


def test_weights_of_every_pair_are_refused():
    with pytest.raises(UnsupportedError, match="attention over J needs every key"):
        continue_sequence(attention("j <= i", more="weights: p"))


def test_a_mixer_without_a_sequence_is_refused():
    mixer = load_text("mixer: plain\ninputs: {x: [B, C]}\nmap: {y: 2 * x}\noutputs: {y: [B, C]}\n")
    with pytest.raises(UnsupportedError, match="plain can't be stepped: no sequence in it"):
        continue_sequence(mixer)


def test_new_names_do_not_clash():
    rest = "let:\n  s_before: 2 * x\n"
    continued = continue_sequence(stepped("s = s + s_before; y = s", rest))
    verify_mixer(continued.more)
    assert [i.name for i in continued.more.inputs] == ["x", "s0", "s_before_"]
