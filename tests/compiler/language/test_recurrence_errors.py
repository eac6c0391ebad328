"""One small fault in a recurrence per case: its place, what was found, and what to do."""

import pytest
import torch

from mixc.backends.reference.evaluate import run
from mixc.compiler.language.load import load_text
from mixc.ir.errors import SpecError

GOOD = """\
mixer: m
inputs:
  q: [B, T, H, D]
  k: [B, T, H, D]
  v: [B, T, H, E]
  g: [B, T, H]
  S0: {dims: [B, H, D, E], default: 0}
recurrence:
  over: T
  state: {S: [D, E], n: [D]}
  initial: {S: S0}
  step:
    - S = exp(g) * S
    - u = v - sum(k * S, D)
    - S = S + k * u
    - n = n + k
    - o = sum(q * S, D)
outputs: {o: [B, T, H, E], n: [B, H, D]}
"""
LOOP = "n = n + k\n    - over: {}\n      step: [{}]\n"

# (what is replaced, by what, place, then phrases of the message)
CASES = {
    "before its value": (
        "    - u = v - sum(k * S, D)\n    - S = S + k * u\n",
        "    - S = S + k * u\n    - u = v - sum(k * S, D)\n",
        "14:19",
        "`u` is read before it has a value; line 15 assigns it",
        "or declare `u` under `state:`",
    ),
    "before its value, by itself": ("u = v", "u = u", "14:11", "`u` is read before it has"),
    "the row before": (
        "S = exp(g) * S",
        "S = exp(g) * S[t - 1]",
        "13:21",
        "`S` has one value here, no rows to read at",
        "so write `S`",
    ),
    "time axis": ("n: [D]", "n: [T, D]", "10:26", "the state `n` has T", "leave T out"),
    "never assigned": ("{o: [", "{y: [", "18:11", "nothing makes the output `y`", "u, o, S, n"),
    "state never assigned": ("    - n = n + k\n", "", "10:22", "no line of the step assigns"),
    "another state's axis": (
        "n = n + k",
        "n = n + k * v",
        "16:7",
        "changes the shape of the state `n`",
        "E should not be there",
        "`sum(…, E)`",
    ),
    "axis lost": ("n = n + k", "n = sum(n, D) + g", "16:7", "the shape of the", "D is missing"),
    "several axes lost": ("S = S + k * u", "S = g", "15:7", "the axes [B, H]; D, E are missing"),
    "initial with time": ("{S: S0}", "{S: k}", "11:16", "has T, the axis of the", "`x[T=0]`"),
    "initial of no state": ("{S: S0}", "{R: S0}", "11:13", "`R` is no state", "S, n"),
    "initial by itself": ("{S: S0}", "{S: S0, n: n}", "11:23", "later than it is read here"),
    "initial, another's axis": (
        "{S: S0}",
        "{n: S0}",
        "11:16",
        "the initial value of `n` has E, which the state does not list",
    ),
    "sum of rows": ("= n + k", "= n + sum(k * n, T)", "16:15", "this runs along T", "reads `n`"),
    "another row of a name": (
        "o = sum(q * S, D)",
        "o = sum(q * S, D) + u[T=t - 1]",
        "17:28",
        "this runs along T, the loop's own axis, and reads `u`",
        "carry what earlier rows give in a state",
    ),
    "another row of a state": ("= n + k", "= n[T=t - 1]", "16:13", "has no axis `T`"),
    "annotation": ("u = v", "u[B, H] = v", "14:9", "`u` has the axes [B, E, H]; E should not"),
    "annotation of a state": ("n = n", "n[B, D] = n", "16:9", "H should not be there"),
    "annotation, no dim": ("n = n", "n[B, X] = n", "16:12", "`X` is no dim of this spec"),
    "a mapping": ("n = n + k", "n: n + k", "16:7", "`n:` in a step", "write `n = …`"),
    "a comparison": ("n = n + k", "n == n + k", "16:9", "`==` where `=` is expected"),
    "no assignment": ("n = n + k", "n + k", "16:9", "`+` where `=` is expected"),
    "not a name": ("n = n + k", "3 = n + k", "16:7", "`3` where a name is expected"),
    "a dim": ("u = v", "T = v", "14:7", "`T` is a dim of this spec"),
    "a word": ("u = v", "pi = v", "14:7", "`pi` is a word of the language"),
    "unknown name": ("n = n + k", "n = n + kk", "16:15", "unknown name `kk`", "mean `k`?"),
    "hidden index": (
        "    - u = v",
        "    - e = g\n    - u = v[E=e] + v",
        "15:15",
        "`e` is a declared name here, a real number, and hides an index",
        "write `index(E)`",
    ),
    "unknown over": ("over: T", "over: Q", "9:9", "`Q` is no dim of this spec"),
    "list over": ("over: T", "over: [T]", "9:9", "a list where"),
    "no state": ("{S: [D, E], n: [D]}", "{}", "10:3", "the recurrence has no state"),
    "unknown key": ("  step:", "  steps:", "12:3", "unknown key `steps`", "mean `step`?"),
    "direction": ("  step:", "  direction: left\n  step:", "12:14", "`left`", "backward"),
    "reset": ("  step:", "  reset: g\n  step:", "12:10", "`reset` is a number"),
    "reset by a state": ("  step:", "  reset: n > 0\n  step:", "12:10", "later than it is read"),
    "state's dim": ("n: [D]", "n: [D, F]", "10:29", "`F` is no dim of this spec"),
    "state's product": ("n: [D]", "n: [D*H]", "10:26", "an axis of a state is one dim"),
    "state's dtype": ("n: [D]", "n: {dims: [D], dtype: f32}", "10:44", "unknown dtype `f32`"),
    "integer state": (
        "n: [D]",
        "n: {dims: [D], dtype: int32}",
        "16:7",
        "a real number for the state `n`, which is int32",
    ),
    "state's shape": ("n: [D]", "n: D", "10:25", "a list of axes"),
    "loop over the loop's axis": ("n = n + k\n", LOOP.format("T", "a = k"), "17:13", "over T"),
    "loop over a state's axis": (
        "n = n + k\n",
        LOOP.format("D", "a = k"),
        "17:13",
        "an inner loop over D, an axis of the state `S`",
    ),
    "carried without a state": (
        "n = n + k\n",
        "n = n + k\n    - c = 1\n" + LOOP.format("R", "c = c * 2")[10:],
        "20:14",
        "`c` has a value before this inner loop and is assigned in it",
        "declare `c` under `state:`",
    ),
    "complex for real": ("{S: S0}", "{S: 'tanh(complex(1, k))'}", "11:22", "`tanh` of a complex"),
    "complex output": ("o = sum(q", "o = complex(1, 2) * sum(q", "18:11", "`o` is complex", "o_re"),
    "complex comparison": (
        "sum(q * S, D)",
        "where(complex(q, 1) < 0, q, 0)",
        "17:31",
        "a comparison of a complex",
        "`real(z)` or `imag(z)`",
    ),
    "complex power": ("sum(q * S, D)", "real(complex(g, 1) ** 2)", "17:30", "`**` of a complex"),
    "complex reset": ("  step:", "  reset: complex(g, 1)\n  step:", "12:10", "a complex number"),
    "gradient of an input": ("sum(q * S, D)", "grad(sum(u, E), q)", "17:27", "no state and no"),
    "gradient by more": ("sum(q * S, D)", "grad(u, u + 1)", "17:21", "name it in a line before"),
    "gradient outside": ("{S: S0}", "{S: 'grad(S0, S0)'}", "11:17", "`grad` outside the step"),
    "an output without rows": (
        "{o: [B, T, H, E]",
        "{o: [B, H, E]",
        "18:11",
        "a row for each T",
        "`last(o)` in a later stage",
    ),
    "a state with rows": ("n: [B, H, D]", "n: [B, T, H, D]", "18:28", "is a state", "`rows = n`"),
    "solve without axes": ("sum(q * S, D)", "solve(S, v)", "17:11", "`solve` with no pair of axes"),
    "solve of less": ("sum(q * S, D)", "solve(S, g, D=E)", "17:20", "of a value without D"),
}


@pytest.mark.parametrize("name", CASES)
def test_one_fault(name):
    old, new, place, *phrases = CASES[name]
    text = GOOD.replace("  g: [", "  r: [R]\n  g: [") if "R" in new and "over" in new else GOOD
    assert old in text
    with pytest.raises(SpecError) as caught:
        load_text(text.replace(old, new, 1), "s.yaml")
    message = str(caught.value)
    assert message.startswith(f"s.yaml:{place}: "), message
    for phrase in phrases:
        assert phrase in message


def test_the_good_one_loads():
    load_text(GOOD)


def test_the_caret_stands_under_the_statement():
    with pytest.raises(SpecError) as caught:
        load_text(GOOD.replace("n = n + k", "n = n + k * v"), "s.yaml")
    assert str(caught.value).splitlines()[1:3] == [
        "  16 |     - n = n + k * v",
        "     |       ^",
    ]


def test_an_empty_step():
    text = GOOD[: GOOD.index("  step:")] + "  step: []\noutputs: {n: [B, H, D]}"
    with pytest.raises(SpecError, match=r"s.yaml:12:3: the step is empty"):
        load_text(text, "s.yaml")


def test_a_state_read_bare_in_a_later_stage():
    stages = GOOD.replace("recurrence:\n", "stages:\n- recurrence:\n").replace("\n  ", "\n    ")
    text = stages.replace("outputs:", "- map: {z: n * 2}\noutputs:")
    with pytest.raises(SpecError, match="`n` is a state of a recurrence, which has no rows") as e:
        load_text(text)
    assert "read `last(n)`" in str(e.value)


def test_a_gradient_through_an_inner_loop():
    text = """
mixer: m
inputs: {k: [B, T, R, D], v: [B, T, R]}
recurrence:
  over: T
  state: {w: [D]}
  step:
    - a = sum(w * w, D)
    - over: R
      step: ["p = sum(k * w, D) - v + a"]
    - w = w - grad(sum(p * p, R), a)
outputs: {w: [B, D]}
"""
    with pytest.raises(SpecError, match="an inner loop assigns `p` between `a` and the loss"):
        load_text(text)


WALKED = """
mixer: walked
inputs: {x: [B, T]}
dims: {I: T, J: T}
recurrence:
  over: J
  state: {s: []}
  initial: {s: inf}
  step:
    - s = min(s, where(j < i, x[T=j], 1))
    - o = s
outputs: {o: [B, I, J]}
"""


def test_a_state_of_each_row_that_is_walked_along_the_keys_is_said() -> None:
    with pytest.raises(SpecError, match=r"say so: `s\[B, I\] = …`"):
        load_text(WALKED)
    mixer = load_text(WALKED.replace("s = min", "s[B, I] = min"))
    x = torch.rand(2, 5, dtype=torch.float64)
    below = torch.ones(5, 5, dtype=torch.bool).tril(-1)
    seen = torch.where(below, x[:, None], 1.0).cummin(2).values
    torch.testing.assert_close(run(mixer, {"x": x})["o"], seen)
