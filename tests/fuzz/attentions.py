"""Random attentions: scores, masks made of atoms, normalisers, gains, several outputs."""

from __future__ import annotations

from typing import Any

from .choices import Choices
from .draft import Axes, Draft
from .maps import FEATURES, FEW, LENGTHS, add, finish
from .terms import Term, Writer


def sizes(choices: Choices) -> dict[str, int]:
    """Heads in groups, queries and keys, a feature of the keys and one of the values."""
    length = choices.often(LENGTHS)
    long = length >= 300
    few = {1: 3, 2: 1} if long else FEW
    return {
        "B": choices.often(few),
        "G": choices.often({1: 3, 2: 1} if long else FEW),
        "H": choices.pick((1, 2, 3) if not long else (1, 2)),
        "T": length,
        "D": choices.pick(FEATURES[:4] if long else FEATURES),
        "E": choices.pick((5, *FEATURES[:4]) if long else (5, *FEATURES)),
        "R": choices.pick((4, 13)),
    }


class Attention:
    """One attention over J, its terms written by a ``Writer``."""

    def __init__(self, choices: Choices, draft: Draft, related: bool) -> None:
        self.choices, self.draft = choices, draft
        self.terms = Writer(choices, draft, reads=False)
        self.related = related
        batch = ["B"] if "B" in draft.sizes else []
        self.heads = ["H"] if "H" in draft.sizes else []
        self.groups = ["G"] if "G" in draft.heads else self.heads
        self.batch = batch
        self.pair: Axes = frozenset([*batch, *self.heads, "I", "J"])

    def stage(self, outputs: dict[str, str]) -> dict[str, Any]:
        """The stage; what it makes is declared as outputs of the draft."""
        score, mask = self.score(), self.mask()
        body: dict[str, Any] = {"over": "J", "score": score.text}
        queries = score.axes
        if mask is not None:
            body["mask"], queries = mask.text, self.terms.together(score, mask)
        normalize, axes = self.normalizer(score)
        if normalize is not None:
            body["normalize"] = normalize
            queries = self.terms.together(Term("", queries | axes))
        if self.choices.chance(20):
            gain = self.gain()
            body["gain"] = gain.text
            queries = self.terms.together(Term("", queries), gain)
        queries = queries - {"J"}
        self._outputs(body, queries, outputs)
        return {"attention": body}

    def _outputs(self, body: dict[str, Any], queries: Axes, names: dict[str, str]) -> None:
        made, found = {}, dict[str, Axes]()
        for name in ("o", "u")[: 2 if self.choices.chance(15) else 1]:
            value = self.value()
            made[name] = value.text
            found[names.get(name, name)] = self.terms.together(Term("", queries), value) - {"J"}
        for name, axes in found.items():  # none is there while the values are written
            self._declare(name, axes)
        body["output"] = {names.get(name, name): text for name, text in made.items()}
        softmax = body.get("normalize", "softmax")
        if self.choices.chance(15) and (softmax == "softmax" or "softmax" in softmax):
            self._named(body, "lse", names, queries)
        if self.choices.chance(12) and self.terms.fits(queries | {"J"}):
            self._named(body, "weights", names, queries | {"J"})

    def _named(self, body: dict[str, Any], what: str, names: dict[str, str], axes: Axes) -> None:
        body[what] = names.get(what, f"{what}_")
        self._declare(body[what], axes)

    def _declare(self, name: str, axes: Axes) -> None:
        order = sorted(axes, key="B G H I J E D".split().index)
        keep = self.choices.chance(70) or not order
        self.draft.outputs[name] = order if keep else self.choices.shuffled(order)
        self.terms.names.append(Term(name, axes))

    # ------------------------------------------------------------------------------- scores

    def score(self) -> Term:
        """A sum of one to three terms."""
        kinds = {"dot": 8, "additive": 1, "distance": 1, "free": 2, "key": 1}
        term = getattr(self, "_" + self.choices.often(kinds))()
        while self.choices.chance(40):
            more = getattr(
                self, "_" + self.choices.often({"bias": 3, "slope": 3, "key": 1, "free": 1})
            )()
            if not self.terms.fits(self.terms.together(term, more)):
                break
            term = Term(f"{term} + {more}", self.terms.together(term, more))
        if self.choices.chance(12):
            form = self.choices.pick(("5 * tanh(({s}) / 5)", "-softplus({s})", "({s}) / 2 - 0.5"))
            term = Term(form.format(s=term.text), term.axes)
        return term if "J" in term.axes else Term(f"{term} + 0.1 * j", term.axes | {"J"})

    def query(self) -> Term:
        return self.terms.input([*self.batch, *self.heads, "I", "D"], name="q")

    def key(self) -> Term:
        return self.terms.input([*self.batch, *self.groups, "J", "D"], name="k")

    def _dot(self) -> Term:
        q, k = self._turned(self.query(), "i"), self._turned(self.key(), "j")
        scale = self.choices.pick(("D ** -0.5 * ", "0.1 * ", "scale * "))
        if scale.startswith("scale"):
            self.draft.params["scale"] = "D ** -0.5"
        return Term(f"{scale}sum({q} * {k}, D)", self.terms.together(q, k) - {"D"})

    def _turned(self, x: Term, at: str) -> Term:
        if self.terms.size("D") % 2 or not self.choices.chance(12):
            return x
        how = self.choices.pick((f"rope({x}, {at}, D)", f"l2norm({x}, D, eps=1e-3)"))
        return Term(how, x.axes)

    def _additive(self) -> Term:
        if not self.terms.fits(self.pair | {"D"}):
            return self._dot()
        w = self.terms.input([*self.heads, "D"])
        q, k = self.query(), self.key()
        axes = self.terms.together(w, q, k) - {"D"}
        return Term(f"sum({w} * tanh({q} + {k}), D) * D ** -0.5", axes)

    def _distance(self) -> Term:
        if not self.terms.fits(self.pair | {"D"}):
            return self._dot()
        q, k = self.query(), self.key()
        axes = self.terms.together(q, k) - {"D"}
        return Term(f"-sum(({q} - {k}) ** 2, D) / (D)", axes)

    def _free(self) -> Term:
        allowed = self.pair if self.terms.fits(self.pair) else frozenset("IJ")
        return self.terms.real(allowed, 2, frozenset("J"))

    def _key(self) -> Term:
        return self.terms.input([*self.batch, "J"])

    def _bias(self) -> Term:
        """A table by distance, or by query and key."""
        if self.choices.chance(40) or not self.related:
            return self.terms.input([*self.heads, "I", "J"])
        table = self.terms.input([*self.heads, "R"])
        distance = self.choices.pick(("clip(i - j, 0, R - 1)", "abs(i - j) % R", "i - j"))
        return Term(f"{table}[R={distance}]", table.axes - {"R"} | frozenset("IJ"))

    def _slope(self) -> Term:
        slope = self.terms.input(self.heads) if self.choices.chance(70) else Term("0.1")
        ramp = self.choices.pick(("(j - i) / 8", "-abs(i - j) / 8", "j / 16"))
        return Term(f"{slope} * {ramp}", slope.axes | frozenset("IJ" if "i" in ramp else "J"))

    # -------------------------------------------------------------------------------- masks

    def mask(self) -> Term | None:
        """Atoms put together with and, or, not."""
        if self.choices.chance(20):
            return None
        term = self.atom()
        while self.choices.chance(45):
            other = self.atom()
            form = self.choices.often(
                {"({a}) and ({b})": 5, "({a}) or ({b})": 3, "({a}) and not ({b})": 1}
            )
            term = Term(form.format(a=term, b=other), self.terms.together(term, other))
        return term

    def atom(self) -> Term:
        """A condition that masks are made of."""
        near = frozenset("IJ")
        n = self.choices.pick((1, 3, 4, 16, 64, 7))
        plain: dict[str, Axes] = {
            "j <= i": near, "j < i": near, f"i - j < {n}": near, f"abs(i - j) <= {n}": near,
            f"j // {n} == i // {n}": near, f"j // {n} <= i // {n}": near,
            f"(i - j) % {n} == 0": near, f"j < {n}": frozenset("J"), f"j >= {n}": frozenset("J"),
            f"i >= {n}": frozenset("I"), "j >= i": near, f"j % {n} == 0": frozenset("J"),
            f"i < j + {n}": near, f"i // {n} - j // {n} < 2": near, "j < J - 3": frozenset("J"),
            "2 * j <= i": near, "j <= 2 * i + 1": near, "j != i": near,
        }  # fmt: skip
        if self.choices.chance(60):
            text = "j <= i" if self.choices.chance(30) else self.choices.pick(list(plain))
            return Term(text, plain[text])
        kind = self.choices.often({"kept": 3, "segments": 3, "lengths": 2, "spans": 2, "tables": 2})
        return getattr(self, f"_{kind}")()

    def _kept(self) -> Term:
        return self.terms.input([*self.batch, "J"], "bool", grad=False)

    def _segments(self) -> Term:
        """Equal ids, of one list where queries and keys are of one sequence."""
        more = {"sorted": True} if self.choices.chance(60) else {}
        if self.related:
            ids = self.terms.input([*self.batch, "T"], "int", name="seg", grad=False, **more)
            relation = self.choices.pick(("==", "==", "<=", "!="))
            return Term(f"{ids}[j] {relation} {ids}[i]", ids.axes - {"T"} | frozenset("IJ"))
        a = self.terms.input([*self.batch, "I"], "int", name="seg_i", grad=False, **more)
        b = self.terms.input([*self.batch, "J"], "int", name="seg_j", grad=False, **more)
        return Term(f"{a} == {b}", a.axes | b.axes)

    def _lengths(self) -> Term:
        count = self.terms.input(self.batch, "int", name="kept_keys", grad=False)
        return Term(f"j < {count}", count.axes | {"J"})

    def _spans(self) -> Term:
        spans = self.terms.input(self.heads, "int", name="spans", grad=False)
        return Term(f"i - j <= {spans}", spans.axes | frozenset("IJ"))

    def _tables(self) -> Term:
        """Blocks of queries and keys, as a table says."""
        block = self.choices.pick((4, 16, 32))
        for dim, of in (("M", "I"), ("N", "J")):
            known = self.draft.dims.setdefault(dim, f"({of} + {block - 1}) // {block}")
            block = int(known.rpartition(" ")[2])
        table = self.terms.input([*self.heads, "M", "N"], "bool", grad=False)
        text = f"{table}[M=i // {block}, N=j // {block}]"
        return Term(text, table.axes - frozenset("MN") | frozenset("IJ"))

    # ------------------------------------------------------------------- normalisers and values

    def normalizer(self, score: Term) -> tuple[Any, Axes]:
        """How weights are made of scores, and the axes that this adds."""
        kind = self.choices.often({"": 6, "softmax": 3, "none": 2, "sink": 2, "weight": 4})
        if kind == "sink":
            sink = self.terms.input(self.heads) if self.choices.chance(70) else Term("0.5")
            return {"softmax": {"sink": sink.text}}, sink.axes
        if kind != "weight":
            return (kind or None), frozenset()
        weight = self.choices.pick(
            ("sigmoid(score)", "relu(score)", "softplus(score)", "exp(score)", "score ** 2",
             "exp(-abs(score))", "sigmoid(score - 1)", "tanh(score)", "relu(score) ** 2")
        )  # fmt: skip
        body = {"weight": weight}
        if self.choices.chance(70):
            body["denominator"] = self.choices.pick(
                ("total + 1", "max(abs(total), 1)", "1 + total ** 2", "J", "abs(total) + 0.1")
            )
        return body, frozenset()

    def gain(self) -> Term:
        """A factor after normalising."""
        x = self.terms.input([*self.batch, *self.heads, self.choices.pick(("I", "J"))])
        text = self.choices.pick(("sigmoid({x})", "{x}", "tanh({x})", "exp(-abs({x}))", "abs({x})"))
        return Term(text.format(x=x), x.axes)

    def value(self) -> Term:
        """What is summed."""
        kind = self.choices.often({"plain": 8, "tame": 3, "number": 1, "query": 1, "free": 1})
        v = self.terms.input([*self.batch, *self.groups, "J", "E"], name="v")
        match kind:
            case "tame":
                form = self.choices.pick(("silu({v})", "{v} / 2", "-{v}", "{v} * {w}", "{v} + {w}"))
                w = self.terms.input([*self.batch, self.choices.pick(("J", "E"))])
                return Term(form.format(v=v, w=w), v.axes | (w.axes if "{w}" in form else set()))
            case "number":
                return self.terms.input([*self.batch, "J"])
            case "query":
                return self.terms.input([*self.batch, "I", "E"])
            case "free":
                allowed = frozenset([*self.batch, *self.heads, "J", "E"])
                return self.terms.real(allowed, 2, frozenset("J"))
        return v


def attention_draft(choices: Choices) -> Draft:
    """One attention, or two in stages with a map after them."""
    draft = start(choices)
    related = "T" in draft.sizes
    one = Attention(choices, draft, related)
    draft.stages.append(one.stage({}))
    if choices.chance(15):
        two = Attention(choices, draft, related)
        draft.stages.append(two.stage({"o": "y", "u": "z", "lse": "lse_y", "weights": "w_y"}))
        one.terms.names += two.terms.names
    if choices.chance(15):
        near = [t for t in one.terms.names if one.terms.fits(t.axes) and "J" not in t.axes]
        if near:
            after = choices.pick(near)
            equations: dict[str, str] = {}
            add(one.terms, equations, "after", one.terms.real(after.axes, 2, after.axes))
            draft.stages.append({"map": equations})
    finish(choices, draft)
    return draft


def start(choices: Choices) -> Draft:
    """The dims of an attention: one sequence or two, with heads or without."""
    made = sizes(choices)
    draft = Draft(made)
    how = choices.often({"grouped": 4, "heads": 3, "none": 1})
    if how == "grouped":
        made["H"] *= made["G"]
        draft.heads = {"G": "H"}
    else:
        del made["G"]
    if how == "none":
        del made["H"]
    if choices.chance(15):
        del made["B"]
    if choices.chance(25):
        made["I"], made["J"] = made.pop("T"), choices.often(LENGTHS)
        if made["I"] * made["J"] > 300_000:
            made["I"] = 17
    else:
        draft.dims = {"I": "T", "J": "T"}
    return draft
