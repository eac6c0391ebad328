"""A mixer that breaks a rule is named with the rule."""

from dataclasses import replace

import pytest

from mixc.compiler.language.load import load_text
from mixc.ir.errors import VerificationError
from mixc.ir.expression import (
    Call,
    Cumsum,
    Index,
    Kind,
    Literal,
    Read,
    Reduce,
    Ref,
    Scalar,
    Size,
    Solve,
    call,
)
from mixc.ir.mixer import Equation, Map, Rounds
from mixc.ir.verify_mixer import verify_mixer

MIXER = load_text(
    """
mixer: m
inputs: {x: [B, J, D], y: [B, I, D]}
params: {width: 3}
dims: {N: J // 2}
let: {c: x * 2}
stages:
  - attention: {over: J, score: "sum(c * y, D)", mask: j <= i, output: {o: x}, lse: l}
  - map: {p: o + 1}
outputs: {p: [B, I, D], l: [B, I]}
"""
)
X = Ref("x", frozenset("BJD"), Kind.REAL)
Y = Ref("y", frozenset("BID"), Kind.REAL)

BROKEN = {
    "is read before anything makes it": Ref("z", frozenset("B"), Kind.REAL),
    "has other axes or another kind": Ref("x", frozenset("B"), Kind.REAL),
    "is no param of this kind": Scalar("width", Kind.REAL),
    "is of an unknown dim Q": Index("Q"),
    "of an unknown dim R": Size("R"),
    "calls `exp` with 2 arguments": Call("exp", (X, X)),
    "calls `nothing`": Call("nothing", (X,)),
    "takes a number for a condition": call("where", X, 1, 0),
    "divides real numbers as integers": call("floordiv", X, 2),
    "has the unknown reduction": Reduce("median", X, ("J",)),
    "over one that is not there": Reduce("sum", X, ("I",)),
    "over a dim twice": Reduce("sum", X, ("J", "J")),
    "admits by a number": Reduce("sum", X, ("J",), X),
    "groups by a real number": Reduce("sum", X, ("J",), None, (("N", X),)),
    "groups along a dim that is there": Reduce("sum", X, ("J",), None, (("D", Index("J")),)),
    "has the unknown dim Z": Reduce("sum", X, ("J",), None, (("Z", Index("J")),)),
    "along one that is not there": Read(X, (("I", Index("J")),)),
    "reads at a real number": Read(X, (("J", X),)),
    "runs along I": Cumsum(X, "I"),
}


@pytest.mark.parametrize("rule", BROKEN)
def test_a_broken_expression(rule):
    broken = replace(MIXER, lets=(*MIXER.lets, Equation("bad", call("add", BROKEN[rule], 1))))
    with pytest.raises(VerificationError, match="mixer m: let bad: ") as caught:
        verify_mixer(broken)
    assert rule in str(caught.value)


def test_a_sound_mixer():
    verify_mixer(MIXER)


def test_stages():
    attention, after = MIXER.stages
    with pytest.raises(VerificationError, match="mask: is not boolean"):
        verify_mixer(replace(MIXER, stages=(replace(attention, mask=Index("J")), after)))
    with pytest.raises(VerificationError, match="sink: has the key axis J"):
        verify_mixer(replace(MIXER, stages=(replace(attention, sink=Index("J")), after)))
    with pytest.raises(VerificationError, match="weight: has axes"):
        verify_mixer(replace(MIXER, stages=(replace(attention, weight=X), after)))
    with pytest.raises(VerificationError, match="denominator: has axes"):
        verify_mixer(replace(MIXER, stages=(replace(attention, denominator=X), after)))
    with pytest.raises(VerificationError, match="`o` is read before anything makes it"):
        verify_mixer(replace(MIXER, stages=(after, attention)))


def test_declarations():
    twice = Map((Equation("p", Literal(1)),))
    with pytest.raises(VerificationError, match="c: declared twice"):
        verify_mixer(replace(MIXER, lets=MIXER.lets * 2))
    with pytest.raises(VerificationError, match="output p: has the axes"):
        verify_mixer(replace(MIXER, stages=(*MIXER.stages, twice)))
    with pytest.raises(VerificationError, match="output l: nothing makes it"):
        verify_mixer(replace(MIXER, stages=(Map((Equation("p", Y),)),)))
    with pytest.raises(VerificationError, match="size N: has the axes"):
        verify_mixer(replace(MIXER, sizes=(("N", Index("J")),)))


STEP = load_text(
    """
mixer: s
inputs: {k: [B, T, R, D], v: [B, T, R, E], done: {dims: [B, T], dtype: bool}}
dims: {P: (D)}
recurrence:
  over: T
  state: {S: [D, E], n: []}
  initial: {n: 0}
  reset: done
  step:
    - n = n + 1
    - over: R
      step:
        - u = v - sum(k * S, D)
        - S = S + k * u
    - o = sum(u, R) / n
outputs: {o: [B, T, E], S: [B, D, E]}
"""
)
K = Ref("k", frozenset("BTRD"), Kind.REAL)
S = Ref("S", frozenset("BDE"), Kind.REAL)
U = Ref("u", frozenset("BTRE"), Kind.REAL)


def in_step(*lines, at=0):
    (stage,) = STEP.stages
    step = (*stage.step[:at], *lines, *stage.step[at:])
    return replace(STEP, stages=(replace(stage, step=step),))


def of_state(**changes):
    (stage,) = STEP.stages
    states = (replace(stage.states[0], **changes), *stage.states[1:])
    return replace(STEP, stages=(replace(stage, states=states),))


BROKEN_STEPS = {
    "step u: `u` is read before anything makes it": in_step(Equation("u", U)),
    r"step p: `p` is read before": in_step(Equation("p", Ref("p", frozenset("B"), Kind.REAL))),
    "step of T, v: is a name outside the step too": in_step(Equation("v", Literal(1))),
    "step of T, k: is a name outside": in_step(Rounds("R", (Equation("k", Literal(1)),))),
    "step of T, w: .* runs along T, the loop's own axis": in_step(
        Equation("w", Reduce("sum", K, ("T",)))
    ),
    "step of T, x: .* runs along R": in_step(
        Rounds("R", (Equation("x", Read(K, (("R", Literal(0)),))),))
    ),
    r"step of T, S: gets the axes \['R'\]": in_step(
        Equation("S", Reduce("sum", call("mul", K, S), ("D",)))
    ),
    "step of T, n: gets a value of a larger kind": in_step(Equation("n", Literal(0.5))),
    "loop over R: is inside a loop over the same axis": in_step(Rounds("R", (Rounds("R", ()),))),
    "loop over T: is inside": in_step(Rounds("T", ())),
    "S: has the recurrence's own axis": of_state(dims=frozenset("BTDE")),
    "S: starts with axes that it does not have": of_state(initial=Reduce("max", K, ("T", "D"))),
    "initial S: `S` is read before": of_state(initial=S),
    "S: lists axes that it does not have": of_state(listed=("D", "R")),
    "S: has the unknown dim Q": of_state(dims=frozenset("BDEQ")),
    "reset: is not boolean": replace(STEP, stages=(replace(STEP.stages[0], reset=Literal(1)),)),
    "states: two have one name": replace(
        STEP, stages=(replace(STEP.stages[0], states=STEP.stages[0].states[:1] * 2),)
    ),
    "solves along D and P, which do not fit": in_step(Equation("y", Solve(K, K, "D", "P"))),
}


@pytest.mark.parametrize("rule", BROKEN_STEPS)
def test_a_broken_step(rule):
    with pytest.raises(VerificationError, match=rule):
        verify_mixer(BROKEN_STEPS[rule])


def test_a_step_that_keeps_the_rules():
    verify_mixer(STEP)
    verify_mixer(in_step(Equation("p", U), at=2))
    verify_mixer(in_step(Rounds("P", (Equation("p", Index("P")),)), Equation("q", Index("P"))))
