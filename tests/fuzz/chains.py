"""Random chains: stages of several forms, each of rows that those before it made."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .choices import Choices
from .draft import Draft
from .maps import FEW, LENGTHS, finish
from .terms import Term, Writer

CHANNELS = (16, 5, 40, 64)
_ROWS = frozenset("BTC")


def sizes(choices: Choices) -> dict[str, int]:
    """A batch, a sequence, channels, and taps."""
    length = choices.often({n: times for n, times in LENGTHS.items() if n <= 130})
    return {
        "B": choices.often(FEW),
        "T": length,
        "C": choices.pick(CHANNELS),
        "K": choices.pick((1, 2, 4, 9)),
    }


class Chain:
    """Rows [B, T, C] that each stage reads and makes."""

    def __init__(self, choices: Choices, draft: Draft) -> None:
        self.choices, self.draft = choices, draft
        self.terms = Writer(choices, draft)
        self.rows = ["x"]
        draft.inputs.clear()
        self.terms.input(_ROWS, name="x")
        draft.dims |= {"I": "T", "J": "T"}

    def link(self) -> None:
        """A stage more."""
        kinds: dict[Callable[[str], dict[str, Any]], int] = {
            self.attention: 3, self.recurrence: 3, self.convolution: 2, self.map: 4,
            self.selection: 2, self.matrix: 2, self.summary: 2,
        }  # fmt: skip
        name = f"y{len(self.rows)}"
        self.draft.stages.append(self.choices.often(kinds)(name))
        self.rows.append(name)
        self.terms.names.append(Term(name, _ROWS))
        if self.choices.chance(30):
            self.keep(name)

    def keep(self, name: str) -> None:
        """An output."""
        axes = ["B", "T", "C"]
        self.draft.outputs[name] = axes if self.choices.chance(70) else self.choices.shuffled(axes)

    def some(self) -> str:
        """Rows that are there, the latest most often."""
        return self.rows[-1] if self.choices.chance(65) else self.choices.pick(self.rows)

    def own(self, axes: str, name: str) -> Term:
        """An input of a stage."""
        return self.terms.input(axes, name=f"{name}{len(self.rows)}")

    # -------------------------------------------------------------------------------- stages

    def attention(self, name: str) -> dict[str, Any]:
        """Of rows to rows; what it makes has I, and is read at t."""
        q, k, v = self.some(), self.some(), self.some()
        mask = self.choices.pick(("j <= i", "i - j < 7 and j <= i", "abs(i - j) <= 3", "j < i"))
        score = f"C ** -0.5 * sum({q}[T=i] * {k}[T=j], C)"
        if self.choices.chance(30):
            score += f" + {self.own('BT', 'bias')}[T=j]"
        body: dict[str, Any] = {
            "over": "J",
            "score": score,
            "mask": mask,
            "output": {f"{name}_at": f"{v}[T=j]"},
        }
        if self.choices.chance(25):
            body["normalize"] = self.choices.pick(
                ["none", {"weight": "sigmoid(score)", "denominator": "total + 1"}]
            )
        if body.get("normalize") == "none":
            body["gain"] = "0.1"
        self.draft.stages.append({"attention": body})
        return {"map": {name: f"{name}_at[I=t]"}}

    def recurrence(self, name: str) -> dict[str, Any]:
        """A state for each channel."""
        x, state = self.some(), f"h{len(self.rows)}"
        gate = self.choices.pick(
            (f"sigmoid({self.some()})", f"exp(-softplus({self.own('C', 'a')}))", "0.9", "0.5")
        )
        inside = self.choices.often({"{g} * {h} + {x}": 5, "tanh({g} * {h} + {x})": 1,
                                     "max({h} - 0.1, {x})": 1})  # fmt: skip
        step = [f"{state} = {inside.format(g=gate, h=state, x=x)}", f"{name} = {state} / 2"]
        body: dict[str, Any] = {"over": "T", "state": {state: ["C"]}, "step": step}
        if self.choices.chance(20):
            body["direction"] = "backward"
        return {"recurrence": body}

    def matrix(self, name: str) -> dict[str, Any]:
        """A memory of channels by channels, written with rows and read by rows."""
        q, k, v = self.some(), self.some(), self.some()
        state, write = f"S{len(self.rows)}", f"l2norm({k}, C, eps=1e-2)"
        self.draft.dims["P"] = "C"
        lines = [f"{state} = 0.9 * {state}"]
        if self.choices.chance(50):
            lines.append(
                f"{state} = {state} + w{len(self.rows)}[C=p] * "
                f"({v} - sum(w{len(self.rows)}[C=p] * {state}, P))"
            )
        else:
            lines.append(f"{state} = {state} + w{len(self.rows)}[C=p] * {v}")
        lines.append(f"{name} = C ** -0.5 * sum({q}[C=p] * {state}, P)")
        self.draft.stages.append({"map": {f"w{len(self.rows)}": write}})
        return {"recurrence": {"over": "T", "state": {state: ["P", "C"]}, "step": lines}}

    def convolution(self, name: str) -> dict[str, Any]:
        """Taps, of every channel or of all."""
        taps = self.own(self.choices.pick(("CK", "K")), "taps")
        if self.choices.chance(50):
            return {"map": {name: f"sum({taps} * {self.some()}[T=t - k], K)"}}
        body: dict[str, Any] = {"over": "T", "lag": "K", "kernel": taps.text}
        body |= {"signal": self.some(), "output": name}
        if self.choices.chance(30):
            body["causal"] = False
        return {"convolution": body}

    def map(self, name: str) -> dict[str, Any]:
        """Row by row, or of neighbours."""
        a, b = self.some(), self.some()
        form = self.choices.pick(
            ("{a} + {b}", "{a} * sigmoid({b})", "rmsnorm({a}, C, eps=1e-2)", "silu({a}) - {b} / 2",
             "{a} - shift({b}, T, 1)", "{a} * softmax({b}, C)", "cumsum({a}, T) / 8",
             "flip({a}, T) + {b}", "{a} * max({b}, C) / 4", "rope({a}, t, C)", "{a}[T=t // 2]",
             "where({b} > 0.1, {a}, 0)", "{a} * (sum({b} * {b}, C) > 3)", "detach({a}) * {b}")
        )  # fmt: skip
        if "rope" in form and self.terms.size("C") % 2:
            form = "{a} + {b}"
        return {"map": {name: form.format(a=a, b=b)}}

    def summary(self, name: str) -> dict[str, Any]:
        """A block's mean, or one number of the sequence's, given back to its rows."""
        a, b = self.some(), self.some()
        self.draft.dims["N"] = "(T + 3) // 4"
        forms = (
            "{a} - at(mean({b}, T, N=t // 4), N=t // 4)",
            "{a} + at(max({b}, T, N=t // 4), N=t // 4 - 1)",
            "{a} - sum({b}, T) / T",
            "{a} / (1 + norm({b}, T))",
            "{a} * softmax({b}, T)",
        )
        form = self.choices.pick(forms)
        return {"map": {name: form.format(a=a, b=b)}}

    def selection(self, name: str) -> dict[str, Any]:
        """Rows or channels that an input likes best, the others 0."""
        over = self.choices.pick(("T", "C"))
        chosen = f"chosen{len(self.rows)}"
        liking = self.own("BT" if over == "T" else "BTC", "liking")
        keep = {"top": str(self.choices.pick((1, 3, 8)))}
        body = {"over": over, "score": liking.text, "output": chosen, "keep": keep}
        self.draft.stages.append({"select": body})
        return {"map": {name: f"where({chosen}, {self.some()}, {self.some()} / 4)"}}


def chain_draft(choices: Choices) -> Draft:
    """Two to four stages."""
    draft = Draft(sizes(choices))
    chain = Chain(choices, draft)
    for _ in range(choices.whole(2, 4)):
        chain.link()
    chain.keep(chain.rows[-1])
    finish(choices, draft)
    return draft
