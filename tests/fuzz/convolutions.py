"""Random convolutions: taps or every lag, causal or to both sides, around the end, by sample."""

from __future__ import annotations

from typing import Any

from .choices import Choices
from .draft import Draft
from .maps import FEW, LENGTHS, add, finish
from .terms import Term, Writer

TAPS = (1, 2, 3, 4, 7, 16, 33, 65)
CHANNELS = (16, 5, 40, 64, 96, 128)


def sizes(choices: Choices) -> dict[str, int]:
    """A batch, a sequence, channels and taps; a second feature that sums may run over."""
    length = choices.often(LENGTHS)
    long = length >= 300
    return {
        "B": choices.often({1: 3, 2: 1} if long else FEW),
        "T": length,
        "C": choices.pick(CHANNELS[:3] if long else CHANNELS),
        "E": choices.pick((5, 16)),
        "K": choices.pick(TAPS[:6] if long else TAPS),
    }


class Convolution:
    """One convolution along T."""

    def __init__(self, choices: Choices, draft: Draft, name: str) -> None:
        self.choices, self.draft, self.name = choices, draft, name
        self.terms = Writer(choices, draft, reads=False)

    def stage(self) -> dict[str, Any]:
        """As the form, or as the map that it is; what it makes is an output of the draft."""
        if self.choices.chance(35):
            return self._as_map()
        signal = self.signal()
        every = self.choices.chance(35) and self.terms.fits([*signal.axes, "T", "B"])
        body: dict[str, Any] = {"over": "T", "lag": "L" if every else "K"}
        two_sided = self.choices.chance(30)
        kernel = self.every_lag() if every else self.taps()
        body |= {"kernel": kernel.text, "signal": signal.text}
        if two_sided:
            body["causal"] = False
        if self.choices.chance(20):
            body["mode"] = "circular"
        body["output"] = self.name
        self._declare(self.terms.together(signal, kernel) - {"K"})
        return {"convolution": body}

    def _as_map(self) -> dict[str, Any]:
        """Rows read at distances: dilated, centred, from the other end, around the end."""
        x = self.terms.input({"B", "T", *self.choices.some("C", 0)}, name=self._free("x"))
        taps = self.taps()
        n = self.choices.pick((2, 3, 7))
        place = self.choices.pick(
            ("t - k", "t - (K - 1 - k)", f"t - {n} * k", "t + k - K // 2", f"(t - {n} * k) % T",
             f"t - k - {n}", f"t + {n} * k", "T - 1 - t - k", f"t // {n} - k", f"{n} * t - k")
        )  # fmt: skip
        text = f"sum({taps} * {x}[T={place}], K)"
        self._declare(self.terms.together(x, taps) - {"K"})
        return {"map": {self.name: text}}

    def _declare(self, axes: frozenset[str]) -> None:
        order = sorted(axes, key="BTCE".index)
        keep = self.choices.chance(70)
        self.draft.outputs[self.name] = order if keep else self.choices.shuffled(order)
        self.terms.names.append(Term(self.name, axes))

    def _free(self, letter: str) -> str:
        return f"{letter}_{self.name}"

    def signal(self) -> Term:
        """Rows of the sequence, as they are or after a gate."""
        own = self.choices.some("BC", 0, 2)
        x = self.terms.input({"T", *own}, name=self._free("x"))
        if self.choices.chance(60):
            return x
        form = self.choices.pick(("silu({x})", "{x} / 2", "{x} * {z}", "where({b}, {x}, 0)"))
        z = self.terms.input({"T", *self.choices.some("BC", 0, 2)})
        b = self.terms.input({"B", "T"}, "bool", grad=False)
        axes = x.axes | (z.axes if "{z}" in form else set()) | (b.axes if "{b}" in form else set())
        return Term(form.format(x=x, z=z, b=b), axes)

    def taps(self) -> Term:
        """A number for each tap, by channel or by sample or by position, or what is made of one."""
        more = {frozenset("C"): 6, frozenset(): 2, frozenset("B"): 1, frozenset("BC"): 1}
        more |= {frozenset("T"): 1, frozenset("BT"): 1}
        axes = frozenset("K") | self.choices.often(more)
        if not self.terms.fits(axes | {"T", "C"}):
            axes = frozenset("KC")
        w = self.terms.input(axes, name=self._free("w"))
        form = self.choices.often(
            {"{w}": 6, "tanh({w})": 1, "{w} * 0.9 ** k": 1, "where(k % 3 != 1, {w}, 0)": 1,
             "softmax({w}, K)": 1, "{w}[K=K - 1 - k]": 2}
        )  # fmt: skip
        return Term(form.format(w=w), axes)

    def every_lag(self) -> Term:
        """A function of the lag."""
        a = self.terms.input(self.choices.some("C", 0), name=self._free("a"))
        form = self.choices.pick(
            ("exp(-abs(l) * sigmoid({a}))", "{a} * 0.9 ** abs(l)", "cos({a} * l) / (1 + abs(l))",
             "where(l < 5, {a}, 0)", "where(abs(l) % 3 == 1, {a}, 0.1) / 4")
        )  # fmt: skip
        return Term(form.format(a=a), a.axes)


def convolution_draft(choices: Choices) -> Draft:
    """One convolution, or two one after the other; now and then a map of what they make."""
    draft = Draft(sizes(choices))
    one = Convolution(choices, draft, "y")
    draft.stages.append(one.stage())
    if choices.chance(25):
        two = Convolution(choices, draft, "z")
        two.terms.names = one.terms.names
        draft.stages.append(two.stage())
    if choices.chance(30):
        equations: dict[str, str] = {}
        near = choices.pick(one.terms.names)
        add(one.terms, equations, "after", one.terms.real(near.axes, 2, near.axes))
        draft.stages.append({"map": equations})
    finish(choices, draft)
    return draft
