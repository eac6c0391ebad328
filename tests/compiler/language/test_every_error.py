"""All errors of a spec at once: the independent ones, in order, and none that only follows."""

import pytest

from mixc.compiler.language.every_error import every_error
from mixc.compiler.language.find import find_spec
from mixc.compiler.language.load import read_file

ATTENTION = """\
mixer: many
inputs:
  q: [B, H, I, D]
  k: [B, H, J, D]
  v: [B, H, J, e]
dims: {I: T, J: T}
params: {window: 12 +}
let:
  near: i - j =< window
  far: near and i > 3
  odd: sun(q, D)
attention:
  over: J
  score: sum(q * k, D)
  mask: j <= i and far and nothing
  output: {o: v}
outputs: {o: [B, H, I, E]}
"""
CLAUSES = """\
mixer: clauses
inputs: {q: [B, H, I, D], k: [B, H, J, D], v: [B, H, J, E]}
params: {scale: sqr(D)}
attention:
  over: J
  score: scale * sum(q * kk, D)
  mask: j =< i
  output: {o: v + w}
outputs: {o: [B, H, I, E]}
"""
RECURRENCE = """\
mixer: rows
inputs: {q: [B, T, D], k: [B, T, D], v: [B, T, E]}
recurrence:
  over: T
  state: {S: [D, E]}
  step:
    - S = expp(q) * S
    - u = v - sum(k * S, D
    - S = S + k * u
    - o = sum(q * S, D) + nix
outputs: {o: [B, T, E], S: [B, D, E], z: [B]}
bad: 3
"""


def found(text):
    errors = every_error(text, "s.yaml")
    return [(error.line, str(error).split(": ", 1)[1].split("\n")[0]) for error in errors]


def test_independent_errors_are_all_told_and_what_follows_from_them_is_not():
    told = found(ATTENTION)
    assert [line for line, _ in told] == [5, 7, 9, 11]
    for (_, message), part in zip(
        told, ["`e` is no axis", "ends", "`=` where", "`sun`"], strict=True
    ):
        assert part in message


def test_the_clauses_of_an_attention_are_told_each():
    told = found(CLAUSES)
    assert [line for line, _ in told] == [3, 6, 7, 8]
    for (_, message), part in zip(told, ["`sqr`", "`kk`", "`=` where", "`w`"], strict=True):
        assert part in message


def test_what_a_form_runs_over_is_not_told_where_its_score_is_faulty():
    told = found(CLAUSES.replace("sqr", "sqrt").replace("j =< i", "true").replace("v + w", "v"))
    assert [line for line, _ in told] == [6]


def test_lines_of_a_step():
    lines = [line for line, _ in found(RECURRENCE)]
    assert lines == sorted(set(lines))
    assert {7, 8, 12} <= set(lines)
    assert 5 not in lines  # the state, which a line that is wrong assigns


def test_lines_after_a_faulty_one_of_a_state():
    faulty = """\
mixer: two
inputs: {x: [B, T, D]}
recurrence:
  over: T
  state: {m: [D]}
  step:
    - m = tanhh(m) + x
    - y = m + z
    - w = sum(m, Q)
outputs: {y: [B, T, D], w: [B, T]}
"""
    assert [line for line, _ in found(faulty)] == [7, 8, 9]
    only_a_state = faulty.replace("m + z", "m").replace("Q", "D")
    assert [line for line, _ in found(only_a_state)] == [7]  # nor that an output lacks its B


def test_a_good_spec_has_none():
    assert every_error(read_file(find_spec("gla"))) == []


@pytest.mark.parametrize("text", ["", "a: [", "mixer: m", "- 1", "mixer: {}\nstages: [1, {}]"])
def test_no_document_is_too_damaged(text):
    assert every_error(text)


@pytest.mark.parametrize(
    ("score", "told"),
    [
        ("sum(q * kk, D) + tanhh(qq)", ["`kk`", "`tanhh`", "`qq`"]),
        ("sum(kk[J=nn] * k, D)", ["`kk`"]),  # an index of what is not there
        ("sum(q * kk, D) * v", ["`kk`"]),  # then it had an axis too many
        ("sum(kk * (qq + k), D)", ["`kk`", "`qq`"]),
    ],
)
def test_unknown_words_of_one_expression_are_told_each(score, told):
    text = CLAUSES.replace("sqr(D)", "D").replace("j =< i", "true").replace("v + w", "v")
    messages = found(text.replace("scale * sum(q * kk, D)", score))
    assert [line for line, _ in messages] == [6] * len(told), messages
    for (_, message), part in zip(messages, told, strict=True):
        assert part in message


def test_a_name_made_with_unknown_words_is_known():
    text = """\
mixer: two
inputs: {x: [B, T, D]}
let: {w: x * aa + bb}
map: {y: w + cc, z: "sum(w, D)"}
outputs: {y: [B, T, D], z: [B, T]}
"""
    assert [m.split("`")[1] for _, m in found(text)] == ["aa", "bb", "cc"]
