"""What a recurrence becomes in the mixer: states and their axes, lines, names, hoisted rows."""

from dataclasses import replace

import pytest

from mixc.compiler.language.load import load_report, load_text
from mixc.ir.errors import SpecError
from mixc.ir.expression import Kind, Literal, Read, Ref
from mixc.ir.mixer import Map, Mixer, Recurrence, Rounds
from mixc.ir.text import write_mixer
from mixc.ir.verify_mixer import verify_mixer

DELTA = """
mixer: gated_delta_rule
inputs: {q: [B, T, H, D], k: [B, T, H, D], v: [B, T, H, E], g: [B, T, H], beta: [B, T, H],
  S0: {dims: [B, H, D, E], default: 0}}
recurrence:
  over: T
  state: {S: [D, E]}
  initial: {S: S0}
  step:
    - S = exp(g) * S
    - S = S + beta * k * (v - sum(k * S, D))
    - o = D ** -0.5 * sum(q * S, D)
outputs: {o: [B, T, H, E], S: [B, H, D, E]}
"""
MLSTM = """
mixer: mlstm
inputs: {q: [B, H, T, D], k: [B, H, T, D], v: [B, H, T, E], i_gate: [B, H, T], f: [B, H, T]}
recurrence:
  over: T
  state: {m: [], C: [D, E], n: [D]}
  step:
    - m1 = max(logsigmoid(f) + m, i_gate)
    - C = exp(logsigmoid(f) + m - m1) * C + exp(i_gate - m1) * k * v
    - n = exp(logsigmoid(f) + m - m1) * n + exp(i_gate - m1) * k
    - m = m1
    - o = sum(q * C, D) / max(abs(sum(q * n, D)), exp(-m))
outputs: {o: [B, H, T, E]}
"""
MAMBA = """
mixer: selective_scan
inputs: {x: [B, T, C], dt: [B, T, C], A: [C, N], Bt: [B, T, N], Ct: [B, T, N], skip: [C]}
recurrence:
  over: T
  state: {h: [C, N]}
  step:
    - h = exp(dt * A) * h + dt * Bt * x
    - y = sum(Ct * h, N) + skip * x
outputs: {y: [B, T, C]}
"""
LIKE = """
mixer: both_ways
inputs: {x: [B, T, C], a: [C], ar: [C]}
stages:
  - name: fwd
    recurrence:
      over: T
      state: {h: [C]}
      step:
        - h = a * h + x
        - y = h * 2
  - {name: bwd, like: fwd, suffix: _r, with: {a: ar}, direction: backward}
  - map: {o: y + y_r, end: last(h_r), row: "last(y)"}
outputs: {o: [B, T, C], h: [B, C], end: [B, C], row: [B, C]}
"""
SAME_NAMES = """
mixer: same_names
inputs: {x: [B, T, C], a: [C]}
stages:
  - recurrence:
      over: T
      state: {h: [C]}
      step: [h = a * h + x, y = h]
  - recurrence:
      over: T
      direction: backward
      state: {h: [C]}
      step: [h = a * h + y, z = h]
outputs: {z: [B, T, C]}
"""
HIDES = """
mixer: hides
inputs: {x: [B, T, C], a: [C], h: [B, C]}
recurrence:
  over: T
  state: {h: [C]}
  initial: {h: h}
  step: [x = x * 2, h = a * h + x, y = h]
outputs: {y: [B, T, C]}
"""
GROUPED = """
mixer: grouped
inputs: {q: [B, T, H, D], k: [B, T, G, D], v: [B, T, G, E], g: [B, T, H]}
heads: {G: H}
recurrence:
  over: T
  state: {S: [D, E], P: [D, E]}
  step:
    - S = S + k * v
    - P = P + k * v
    - P = exp(g) * P
    - o = sum(q * S, D) + sum(q * P, D)
outputs: {o: [B, T, H, E], S: [B, G, D, E], P: [B, H, D, E]}
"""
PRODUCT = """
mixer: delta_product
inputs: {q: [B, T, H, D], k: [B, T, R, H, D], v: [B, T, R, H, E], beta: [B, T, R, H]}
recurrence:
  over: T
  state: {S: {dims: [D, E], dtype: float64}}
  step:
    - over: R
      step:
        - u = beta * (v - sum(k * S, D))
        - S[B, H, D, E] = S + k * u
    - total[B, H, E] = sum(u, R)
    - o[B, T, H, E] = sum(q * S, D) + total
outputs: {o: [B, T, H, E], S: [B, H, D, E], u: [B, T, R, H, E]}
"""
ROWS = """
mixer: rows
inputs: {x: [B, T, C], w: [L, C]}
stages:
  - map: {z: x * 2}
  - recurrence:
      over: T
      state: {h: [C]}
      step:
        - u = sum(x[T=t - l] * w, L)
        - h = h + u * shift(z, T, 1)
        - y = h
outputs: {y: [B, T, C]}
"""
COUNTER = """
mixer: counter
inputs: {x: [B, T, C], doc: {dims: [B, T], dtype: int32}}
recurrence:
  over: T
  state: {n: [], alive: [], h: [C]}
  initial: {n: 0, alive: true}
  reset: doc != doc[T=t - 1]
  step:
    - n = n + 1
    - alive = alive and any(x > 0, C)
    - h = where(alive, h + x / n, h)
    - o = h
outputs: {o: [B, T, C], n: [B]}
"""
ITERATED = """
mixer: iterated
inputs: {x: [B, N], A: [N, M]}
dims: {R: rounds, M: (N)}
params: {rounds: 3}
recurrence:
  over: R
  state: {y: [N]}
  initial: {y: x}
  step:
    - y = y + 0.1 * sum(A * y[N=m], M)
    - o = y
outputs: {y: [B, N], o: [R, B, N]}
"""
COMPLEX = """
mixer: lru
inputs: {x: [B, T, C], nu: [N], th: [N], Br: [N, C], Bi: [N, C]}
let:
  lam: exp(complex(-exp(nu), th))
stages:
  - map: {u: "sum(complex(Br, Bi) * x, C)"}
  - recurrence:
      over: T
      state: {h: [N]}
      step:
        - h = lam * h + u
        - z = conj(h) * h / (2 + abs(h))
        - y = real(z) + imag(h[N=n])
  - map: {w: "real(last(h)) + abs(last(z))"}
outputs: {y: [B, T, N], w: [B, N], z_re: [B, T, N], h_im: [B, N]}
"""
LATE_AXES = """
mixer: late_axes
inputs: {x: [B, T, G, C], q: [B, T, H, C]}
heads: {G: H}
recurrence:
  over: T
  state: {a: [C], b: [C]}
  step:
    - r = sum(b, B) + sum(a[G=h // (H // G)] * q, C)
    - b = 0.5 * b + a
    - a = 0.5 * a + x
    - y = r * q
outputs: {y: [B, T, H, C]}
"""
TRAINED = """
mixer: trained
inputs: {k: [B, T, D], v: [B, T, E], W0: {dims: [B, D, E], default: 0}}
recurrence:
  over: T
  state: {W: [D, E]}
  initial: {W: W0}
  step:
    - a = 2
    - p = sum(k * W, D) * a
    - a = 3
    - loss = sum((p - v) ** 2, E) * a
    - W = W - 0.1 * grad(loss, W)
    - o = p
outputs: {o: [B, T, E], W: [B, D, E]}
"""
ALL = (DELTA, MLSTM, MAMBA, LIKE, SAME_NAMES, HIDES, GROUPED, PRODUCT, ROWS, COUNTER, ITERATED)
ALL = {text.split()[1]: text for text in (*ALL, COMPLEX, LATE_AXES, TRAINED)}


def recurrence(mixer: Mixer) -> Recurrence:
    return next(stage for stage in mixer.stages if isinstance(stage, Recurrence))


def state_dims(mixer: Mixer) -> dict[str, str]:
    stages = [stage for stage in mixer.stages if isinstance(stage, Recurrence)]
    return {s.name: "".join(sorted(s.dims)) for stage in stages for s in stage.states}


def lines(mixer: Mixer) -> list[str]:
    return [f"{e.name} = {e.value}" for e in recurrence(mixer).step]


@pytest.mark.parametrize("name", ALL)
def test_it_verifies_and_its_dump_reads_back_as_the_same(name):
    mixer, warnings = load_report(ALL[name])
    verify_mixer(mixer)
    assert not warnings
    again = load_text(write_mixer(mixer))
    assert replace(again, text="", path="") == replace(mixer, text="", path="")


def test_batch_and_heads_flow_into_states():
    assert state_dims(load_text(DELTA)) == {"S": "BDEH"}
    assert state_dims(load_text(MLSTM)) == {"m": "BH", "C": "BDEH", "n": "BDH"}
    assert state_dims(load_text(MAMBA)) == {"h": "BCN"}


def test_states_start_as_they_are_told_or_at_zero():
    (state,) = recurrence(load_text(DELTA)).states
    assert state.initial == Ref("S0", frozenset("BHDE"), Kind.REAL)
    assert state.listed == ("D", "E")
    assert {s.initial for s in recurrence(load_text(MLSTM)).states} == {Literal(0.0)}


def test_lines_stand_in_order_and_keep_their_text():
    stage = recurrence(load_text(DELTA))
    assert [line.name for line in stage.step] == ["S", "S", "o"]
    assert [line.text for line in stage.step][:2] == [
        "exp(g) * S",
        "S + beta * k * (v - sum(k * S, D))",
    ]
    assert stage.step[1].span.line == 11
    assert stage.step[1].span.column == 7


def test_what_a_recurrence_walks_over_is_a_sequence():
    assert load_text(DELTA).sequences == (("T", "T"),)
    assert load_text(ITERATED).sequences == ()


def test_names_of_the_step_are_rows_and_states_their_last():
    results = {r.name: "".join(sorted(r.dims)) for r in recurrence(load_text(MLSTM)).results}
    assert results == {"m1": "BHT", "o": "BEHT", "m": "BH", "C": "BDEH", "n": "BDH"}


def test_a_stage_like_another_with_other_names_the_other_way_round():
    forward, backward, last = load_text(LIKE).stages
    assert not forward.reverse
    assert backward.reverse
    assert backward.name == "bwd"
    assert [f"{e.name} = {e.value}" for e in backward.step] == [
        "h_r = ar * h_r + x",
        "y_r = h_r * 2",
    ]
    end, row = last.equations[1:]
    assert end.value == Ref("h_r", frozenset("BC"), Kind.REAL)
    assert isinstance(row.value, Read)


def test_a_stage_like_another_whose_step_hides_an_input():
    text = """
mixer: m
inputs: {x: [B, T, C], z: [B, T, C], a: [C]}
stages:
  - name: one
    recurrence: {over: T, state: {h: [C]}, step: [x = x * 2, h = a * h + x, y = h]}
  - {name: two, like: one, suffix: _r, with: {x: z}}
outputs: {y: [B, T, C], y_r: [B, T, C]}
"""
    first, second = load_text(text).stages
    assert [f"{e.name} = {e.value}" for e in first.step][:2] == ["x_2 = x * 2", "h = a * h + x_2"]
    assert [f"{e.name} = {e.value}" for e in second.step][:2] == [
        "z_2 = z * 2",
        "h_r = a * h_r + z_2",
    ]


def test_names_of_the_mixer_are_unique():
    _, second = load_text(SAME_NAMES).stages
    assert [f"{e.name} = {e.value}" for e in second.step] == ["h_2 = a * h_2 + y", "z = h_2"]
    assert lines(load_text(HIDES)) == ["x_2 = x * 2", "h_2 = a * h_2 + x_2", "y = h_2"]


def test_a_name_of_two_stages_is_an_error_where_it_is_read():
    text = SAME_NAMES.replace("{z: [B, T, C]}", "{z: [B, T, C], h: [B, C]}")
    with pytest.raises(SpecError, match="`h` is made by stage 1 and by stage 2"):
        load_text(text)


def test_head_groups_are_kept_until_heads_come():
    mixer = load_text(GROUPED)
    assert state_dims(mixer) == {"S": "BDEG", "P": "BDEH"}
    assert lines(mixer)[3].count("G=h // (H // G)") == 1


def test_an_inner_loop():
    mixer = load_text(PRODUCT)
    stage = recurrence(mixer)
    rounds, total, _ = stage.step
    assert isinstance(rounds, Rounds)
    assert rounds.over == "R"
    assert state_dims(mixer) == {"S": "BDEH"}
    assert stage.states[0].dtype == "float64"
    assert Ref("u", frozenset("BTRHE"), Kind.REAL) in stage.own
    assert total.value.axes == set("BTHE")


def test_what_reads_other_rows_comes_before_the_loop():
    mixer = load_text(ROWS)
    (let,) = mixer.lets
    _, before, _ = mixer.stages
    assert (let.name, str(let.value)) == ("u_rows", "sum(x[T=t - l] * w, L)")
    assert isinstance(before, Map)
    assert [str(e.value) for e in before.equations] == ["z[T=t - 1]"]
    assert lines(mixer) == ["u = u_rows", "h = h + u * h_rows", "y = h"]


def test_kinds_of_states():
    kinds = {s.name: s.kind for s in recurrence(load_text(COUNTER)).states}
    assert kinds == {"n": Kind.INT, "alive": Kind.BOOL, "h": Kind.REAL}
    assert state_dims(load_text(COUNTER)) == {"n": "B", "alive": "B", "h": "BC"}


def test_a_fixed_number_of_rounds():
    mixer = load_text(ITERATED)
    assert recurrence(mixer).over == "R"
    assert [dim for dim, _ in mixer.sizes] == ["R", "M"]


def test_complex_names_become_pairs():
    mixer = load_text(COMPLEX)
    assert [let.name for let in mixer.lets] == ["lam_re", "lam_im"]
    assert state_dims(mixer) == {"h_re": "BN", "h_im": "BN"}
    assert lines(mixer)[:3] == [
        "h_new = lam_re * h_re - lam_im * h_im + u_re",
        "h_im = lam_re * h_im + lam_im * h_re + u_im",
        "h_re = h_new",
    ]


def test_axes_that_flow_in_late_can_be_read_and_summed():
    assert state_dims(load_text(LATE_AXES)) == {"a": "BCG", "b": "BCG"}


def test_a_derivative_reads_what_the_lines_read_then():
    step = lines(load_text(TRAINED))
    assert step[:4] == ["a = 2", "a_kept = a", "p = sum(k * W, D) * a", "a = 3"]
    assert "a_kept" in step[5]


def test_a_derivative_after_loops_keeps_what_they_left():
    text = """
mixer: m
inputs: {k: [B, T, R, D], v: [B, T, R]}
recurrence:
  over: T
  state: {w: [D], u: [D]}
  step:
    - over: R
      step: ["p = sum(k * w, D) - v", w = w - p * k]
    - loss = sum(w * u, D)
    - w = w + 1
    - u = u - grad(loss, u)
outputs: {w: [B, D]}
"""
    step = recurrence(load_text(text)).step
    assert [getattr(line, "name", "R") for line in step] == ["R", "w_kept", "loss", "w", "u"]
    assert str(step[-1].value) == "u - w_kept"


def test_the_states_of_a_trained_model_are_of_each_batch():
    text = TRAINED.replace(", W0: {dims: [B, D, E], default: 0}", "").replace("W0", "0")
    assert state_dims(load_text(text)) == {"W": "BDE"}
