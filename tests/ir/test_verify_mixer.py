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
    call,
)
from mixc.ir.mixer import Equation, Map
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
