"""Random recurrences: matrix, elementwise, max-plus and coupled states, inner loops, systems."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .choices import Choices
from .draft import Draft
from .maps import FEATURES, FEW, LENGTHS, add, finish
from .terms import Term, Writer

STATES = (16, 64, 128)


def sizes(choices: Choices) -> dict[str, int]:
    """A batch, heads, a sequence, and the axes of states."""
    length = choices.often(LENGTHS)
    long = length >= 300
    few = {1: 3, 2: 1} if long else FEW
    return {
        "B": choices.often(few),
        "H": choices.often(few),
        "T": length,
        "D": choices.pick(FEATURES[:3] if long else FEATURES),
        "E": choices.pick((5, *FEATURES[:3]) if long else (5, *FEATURES)),
        "C": choices.pick((5, *FEATURES[:3])),
        "Q": choices.pick(STATES[:2] if long else STATES),
        "R": choices.pick((2, 3)),
    }


class Steps:
    """The lines of a step; every state has the batch and the heads beside its own axes."""

    def __init__(self, choices: Choices, draft: Draft, suffix: str = "") -> None:
        self.choices, self.draft, self.suffix = choices, draft, suffix
        self.terms = Writer(choices, draft, reads=False)
        self.lead = [dim for dim in "BH" if dim in draft.sizes]
        self.states: dict[str, list[str]] = {}
        self.initial: dict[str, str] = {}
        self.lines: list[Any] = []
        self.rows: list[Term] = []

    def stage(self) -> dict[str, Any]:
        """The stage; what it makes is declared as outputs of the draft."""
        kinds: dict[Callable[[], None], int] = {
            self.matrix: 6, self.elementwise: 4, self.extreme: 2, self.cell: 2,
            self.momentum: 1, self.rounds: 2, self.system: 1, self.normalised: 2,
        }  # fmt: skip
        self.choices.often(kinds)()
        self._read_after()
        body: dict[str, Any] = {"over": "T", "state": self.states, "step": self.lines}
        if self.initial:
            body["initial"] = self.initial
        if self.choices.chance(15):
            body["reset"] = self._reset()
        if self.choices.chance(20):
            body["direction"] = "backward"
        for name, own in self.states.items():
            if self.choices.chance(50):
                self.draft.outputs[name] = [*self.lead, *own]
        for row in self.rows:
            self.draft.outputs[row.text] = sorted(row.axes, key="B T H D E C Q R".split().index)
        return {"recurrence": body}

    # ------------------------------------------------------------------------------- pieces

    def row(self, name: str, *own: str, lead: bool = True) -> Term:
        """An input with a row per position."""
        return self.terms.input([*(self.lead if lead else ()), "T", *own], name=name + self.suffix)

    def name(self, letter: str) -> str:
        """A name of this stage's own."""
        return letter + self.suffix

    def state(self, letter: str, *own: str) -> str:
        """A state, 0 at first or given."""
        name = self.name(letter)
        self.states[name] = list(own)
        if self.choices.chance(30):
            first = self.terms.input([*self.lead, *own], name=f"{name}_0")
            if self.choices.chance(50):
                self.draft.inputs[first.text].more["default"] = 0
            self.initial[name] = first.text
        elif self.choices.chance(10):
            self.initial[name] = "0.5"
        return name

    def decay(self, *axes: str) -> str:
        """What is kept of a state: a number, or one per entry of an axis."""
        form = self.choices.often(
            {"exp({g})": 5, "sigmoid({g})": 3, "0.9": 2, "exp(-softplus({g}))": 1, "(1 - {b})": 1,
             "exp(-exp({a}) * softplus({g}))": 1, "{b}": 1, "1": 1}
        )  # fmt: skip
        own = self.choices.some(axes, 0, 1)
        text = form
        if "{g}" in form:
            text = text.replace("{g}", self.row("gate", *own).text)
        if "{b}" in form:
            text = text.replace("{b}", f"sigmoid({self.row('share', *own)})")
        if "{a}" in form:
            text = text.replace(
                "{a}", self.terms.input(self.lead[1:], name=f"rate{self.suffix}").text
            )
        return text

    def line(self, target: str, value: str) -> None:
        """A line of the step."""
        self.lines.append(f"{target} = {value}")

    def output(self, value: str, *own: str) -> None:
        """A row that the stage gives."""
        name = self.name(f"o{len(self.rows)}_")
        self.line(name, value)
        self.rows.append(Term(name, frozenset([*self.lead, "T", *own])))

    def _read_after(self) -> None:
        """Now and then a row made of the one before, with gates from outside the step."""
        if self.rows and self.choices.chance(25):
            row = self.choices.pick(self.rows)
            own = row.axes - {"T", *self.lead}
            gate = self.row("z", *sorted(own)[:1])
            form = self.choices.pick(("silu({z}) * {o}", "{o} + {z}", "tanh({o}) * {z}"))
            self.output(form.format(z=gate, o=row), *own)

    def _reset(self) -> str:
        if self.choices.chance(50):
            axes = [*self.lead[:1], "T"]
            return self.terms.input(axes, "bool", name=f"starts{self.suffix}", grad=False).text
        return f"t % {self.choices.pick((3, 16, 50))} == {self.choices.whole(0, 2)}"

    # -------------------------------------------------------------------------------- kinds

    def matrix(self) -> None:
        """S' = decay S + k v, with corrections of low rank; read before or after."""
        s = self.state("S", "D", "E")
        q, k, v = self.row("q", "D"), self.row("k", "D"), self.row("v", "E")
        scale = self.choices.pick(("", "D ** -0.5 * ", "0.1 * "))
        read = f"{scale}sum({q} * {s}, D)"
        kept = f"{self.decay('D', 'E')} * {s}"
        write = self.choices.often(
            {f"{k} * {v}": 5, f"{{b}} * {k} * ({v} - sum({k} * {s}, D))": 4,
             f"(1 - {{b}}) * {k} * {v}": 1, f"{k} * ({v} - sum({k} * {s}, D))": 1,
             f"{{b}} * {k} * {v} - {{u}} * sum({{w}} * {s}, D)": 1}
        )  # fmt: skip
        write = write.replace("{b}", f"sigmoid({self.row('beta')})")
        if "{u}" in write:
            write = write.replace("{u}", self.row("u", "D").text)
            write = write.replace("{w}", self.row("w", "D").text)
        before = self.choices.chance(25)
        if before:
            self.output(read, "E")
        if self.choices.chance(50):
            self.line(s, kept)
            self.line(s, f"{s} + {write}")
        else:
            self.line(s, f"{kept} + {write}")
        if not before or self.choices.chance(20):
            bonus = f" + {self.row('skip', lead=True)} * {v}" if self.choices.chance(15) else ""
            self.output(read + bonus, "E")
        if self.choices.chance(10):
            self.output(f"sum({self.row('r', 'E')} * {s}, E)", "D")

    def normalised(self) -> None:
        """A matrix state and a normaliser beside it, some with a maximum taken off."""
        q, k, v = self.row("q", "D"), self.row("k", "D"), self.row("v", "E")
        s, z = self.state("S", "D", "E"), self.state("Z", "D")
        if self.choices.chance(50):
            decay = self.decay()
            self.line(s, f"{decay} * {s} + {k} * {v}")
            self.line(z, f"{decay} * {z} + {k}")
            self.output(f"sum({q} * {s}, D) / max(abs(sum({q} * {z}, D)), 1)", "E")
            return
        m, gate, write = (
            self.state(
                "L",
            ),
            self.row("gate"),
            self.row("i_"),
        )
        self.initial.pop(m, None)
        self.line("m1", f"max(logsigmoid({gate}) + {m}, {write})")
        for state, put in ((s, f"{k} * {v}"), (z, k.text)):
            self.line(
                state,
                f"exp(logsigmoid({gate}) + {m} - m1) * {state} + exp({write} - m1) * {put}",
            )
        self.line(m, "m1")
        self.output(f"sum({q} * {s}, D) / max(abs(sum({q} * {z}, D)), exp(-{m}))", "E")

    def elementwise(self) -> None:
        """h' = a h + x entry by entry, with an axis of its own at times."""
        axes = ("C", "Q") if self.choices.chance(50) else ("C",)
        h = self.state("W", *axes)
        x = self.row("x", "C")
        if len(axes) == 2:
            a = self.terms.input(["C", "Q"], name=f"a_{self.suffix}")
            dt = self.row("dt", *(["C"] if self.choices.chance(60) else []))
            b, c = self.row("b_", "Q"), self.row("c_", "Q")
            kept = self.choices.pick((f"exp(-softplus({dt}) * abs({a}))", self.decay("C", "Q")))
            self.line(h, f"{kept} * {h} + softplus({dt}) * {b} * {x}")
            self.output(f"sum({c} * {h}, Q)", "C")
            return
        kept = self.decay("C")
        form = self.choices.pick(
            ("{k} * {h} + {x}", "{k} * {h} + (1 - {k}) * {x}", "{k} * ({h} + {x})")
        )
        self.line(h, form.format(k=kept, h=h, x=x))
        self.output(h if self.choices.chance(60) else f"tanh({h}) * {x}", "C")

    def extreme(self) -> None:
        """Running maxima and log-sums."""
        h, x = self.state("L", "C"), self.row("x", "C")
        form = self.choices.pick(
            ("max({h} - 0.1, {x})", "max({h}, {x})", "min({h} + abs({g}), {x})",
             "logaddexp({h} - abs({g}), {x})", "max({h} - abs({g}), {x})")
        )  # fmt: skip
        self.line(h, form.format(h=h, x=x, g=self.row("gate")))
        self.output(h, "C")

    def cell(self) -> None:
        """A nonlinear cell, elementwise or with a matrix over its own last value."""
        h, x = self.state("W", "D"), self.row("x", "D")
        how = self.choices.pick(("elementwise", "mixing", "mixing"))
        own = f"{h} / 2"
        if how == "mixing":
            heads = self.lead[1:] if self.choices.chance(50) else []
            w = self.terms.input([*heads, "P", "D"], name=f"R_{self.suffix}")
            self.draft.sizes["P"] = self.draft.sizes["D"]
            own = f"0.5 * (D) ** -0.5 * sum({w} * {h}[D=p], P)"
        form = self.choices.pick(
            ("tanh({x} + {own})", "sigmoid({z}) * {h} + (1 - sigmoid({z})) * tanh({x} + {own})",
             "relu({x} + {own}) / 2", "{x} / 2 + sin({own})")
        )  # fmt: skip
        self.line(h, form.format(x=x, own=own, z=self.row("z", "D"), h=h))
        self.output(h, "D")

    def momentum(self) -> None:
        """Two matrix states of one shape, coupled."""
        s, w = self.state("S", "D", "E"), self.state("W", "D", "E")
        q, k, v = self.row("q", "D"), self.row("k", "D"), self.row("v", "E")
        self.line("err", f"sum(l2norm({k}, D, eps=1e-3) * {w}, D) - {v}")
        rate = f"sigmoid({self.row('beta')})"
        self.line(s, f"{self.decay()} * {s} - {rate} * l2norm({k}, D, eps=1e-3) * err")
        self.line(w, f"(1 - 0.1 * sigmoid({self.row('z')})) * {w} + {s}")
        self.output(f"sum(l2norm({q}, D, eps=1e-3) * {w}, D)", "E")

    def rounds(self) -> None:
        """Several corrections per position."""
        s = self.state("S", "D", "E")
        q = self.row("q", "D")
        lead = self.lead
        order = [*lead, "T*R"]
        for name, own in (("k", ["D"]), ("v", ["E"]), ("beta", [])):
            self.draft.inputs[name + self.suffix] = _declared([*order, *own])
        k, v, beta = (name + self.suffix for name in ("k", "v", "beta"))
        if self.choices.chance(60):
            self.line(s, f"{self.decay()} * {s}")
        write = f"sigmoid({beta}) * {k} * ({v} - sum({k} * {s}, D))"
        if self.choices.chance(30):
            write = f"{k} * {v}"
        self.lines.append({"over": "R", "step": [f"{s} = {s} + {write}"]})
        self.output(f"sum({q} * {s}, D)", "E")

    def system(self) -> None:
        """A ridge regression on the rows so far."""
        size = self.draft.sizes["D"] = min(self.draft.sizes["D"], 64)
        self.draft.sizes["P"] = size
        k, v, q = self.row("k", "D"), self.row("v", "E"), self.row("q", "D")
        a, s = self.state("W", "D", "P"), self.state("S", "P", "E")
        self.initial.clear()
        decay = self.decay()
        self.line(a, f"{decay} * {a} + l2norm({k}, D, eps=1e-3) * l2norm({k}, D, eps=1e-3)[D=p]")
        self.line(s, f"{decay} * {s} + l2norm({k}, D, eps=1e-3)[D=p] * {v}")
        self.line("sol", f"solve({a} + where(d == p, 1, 0), {q}, D=P)")
        self.output(f"sum(sol * {s}, P)", "E")


def _declared(layout: list[str]) -> Any:
    from .draft import Declared

    return Declared(layout)


def start(choices: Choices) -> Draft:
    """The dims of a recurrence."""
    draft = Draft(sizes(choices))
    if choices.chance(15):
        del draft.sizes["H"]
    elif choices.chance(10):
        del draft.sizes["B"]
    return draft


def recurrence_draft(choices: Choices) -> Draft:
    """One recurrence, or two in a row, with a map after them at times."""
    draft = start(choices)
    one = Steps(choices, draft)
    draft.stages.append(one.stage())
    if choices.chance(15):
        draft.stages.append(Steps(choices, draft, "_2").stage())
    if choices.chance(20):
        after = choices.pick(one.rows)
        terms = Writer(choices, draft, [*one.rows])
        equations: dict[str, str] = {}
        add(terms, equations, "out", terms.real(after.axes, 2, after.axes))
        draft.stages.append({"map": equations})
    finish(choices, draft)
    return draft
