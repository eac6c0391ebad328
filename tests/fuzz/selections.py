"""Random selections, and what reads them: masks of keys and of blocks, lists of blocks, maps."""

from __future__ import annotations

from typing import Any

from .attentions import Attention, start
from .choices import Choices
from .draft import Axes, Draft
from .maps import finish
from .terms import Term

_BLOCKS = (4, 16, 3, 8)


class Selection:
    """A choice of keys, or of blocks of keys, for each query, block of queries, or once for all.

    Scores are inputs or sums that are wide apart: rounding decides no choice.
    """

    def __init__(self, choices: Choices, draft: Draft, attention: Attention) -> None:
        self.choices, self.draft, self.attention = choices, draft, attention
        self.terms = attention.terms
        self.block = choices.pick(_BLOCKS)
        self.over = choices.often({"N": 6, "J": 3})
        self.rows = choices.often({"I": 6, "": 1, "M": 2})
        if self.over == "N":
            draft.dims["N"] = f"(J + {self.block - 1}) // {self.block}"
        if self.rows == "M":
            draft.dims["M"] = f"(I + {self.block - 1}) // {self.block}"
        self.listed = False

    @property
    def row(self) -> str:
        """The first query of a row of the choice, as an expression."""
        return {"I": "i", "M": f"m * {self.block}", "": "J - 1"}[self.rows]

    @property
    def place(self) -> str:
        """The first key of a candidate."""
        return "j" if self.over == "J" else f"n * {self.block}"

    def stage(self, axes_of: Axes) -> tuple[dict[str, Any], Axes]:
        """The stage and the axes of what it makes."""
        score = self.score()
        axes = score.axes
        body: dict[str, Any] = {"over": self.over, "score": score.text, "output": "selected"}
        for key, percent in (("among", 60), ("always", 15)):
            if self.choices.chance(percent):
                condition = self.condition(key)
                body[key], axes = condition.text, axes | condition.axes
        keep, more = self.keep()
        body["keep"], axes = keep, axes | more
        axes = axes - {small for small, large in self.draft.heads.items() if large in axes}
        is_fixed = str(keep.get("top")).isdigit() and "always" not in body
        if is_fixed and self.choices.chance(35):
            self.listed = True
            self.draft.dims["S"] = str(keep["top"])
            body["list"] = {"name": "places", "axis": "S"}
        return {"select": body}, axes

    def score(self) -> Term:
        """What candidates are liked by."""
        lead = [*self.choices.some([*self.attention.batch, *self.attention.heads])]
        rows = [self.rows] if self.rows else []
        kinds = {"input": 4, "dot": 3, "free": 2}
        if (
            not self.terms.fits([*lead, *self.attention.heads, *rows, self.over, "D"])
            or self.rows != "I"
        ):
            kinds = {"input": 1}
        kind = self.choices.often(kinds)
        if kind == "dot":
            q, k = self.attention.query(), self.attention.key()
            fn = self.choices.pick(("mean", "sum", "max"))
            key = f"{fn}({k}, J, N=j // {self.block})" if self.over == "N" else k.text
            axes = self.terms.together(q, k) - {"D", "J"} | {self.over}
            term = Term(f"sum({q} * {key}, D)", axes)
            if "H" in axes and self.choices.chance(20):
                term = Term(f"sum({term}, H)", axes - {"H"})
        elif kind == "free":
            x = self.terms.input([*lead, "I", "E"], name="asked")
            y = self.terms.input([*lead, self.over, "E"], name="liked")
            term = Term(f"sum({x} * {y}, E)", self.terms.together(x, y) - {"E"})
        else:
            term = self.terms.input([*lead, *rows, self.over], name="liking")
        if self.choices.chance(25) and self.rows:
            row = f"{self.row} // {self.block}" if self.over == "N" else self.row
            forced = f"{self.over.lower()} == {row}"
            axes = term.axes | {self.rows}
            term = Term(f"where({forced}, {self.choices.pick(('inf', '9'))}, {term})", axes)
        return term

    def condition(self, key: str) -> Term:
        """Who may be chosen, or who is always."""
        own = frozenset([self.over])
        rows = frozenset([self.rows]) if self.rows else frozenset()
        if key == "always":
            text = self.choices.pick((f"{self.place} == 0", f"{self.place} < 7"))
            return Term(text, own)
        texts = [f"{self.place} <= {self.row}", f"{self.place} < {self.row}"]
        texts += [f"{self.place} + {self.block} <= {self.row}", f"{self.place} >= 4"]
        if self.choices.chance(25):
            return self.terms.input([*self.attention.batch, self.over], "bool", grad=False)
        text = self.choices.pick(texts)
        return Term(text, own if text.endswith(">= 4") else own | rows)

    def keep(self) -> tuple[dict[str, Any], Axes]:
        """How many."""
        rows = frozenset([self.rows]) if self.rows else frozenset()
        kind = self.choices.often({"top": 6, "row": 2, "above": 1, "mass": 1})
        if kind == "above":
            return {"above": self.choices.pick(("0", "0.5", "-1"))}, frozenset()
        if kind == "mass":
            return {"mass": self.choices.pick(("0.9", "0.5"))}, frozenset()
        if kind == "row" and self.rows:
            text = self.choices.pick((f"1 + {self.row} // 8", f"{self.row} % 4", "N // 2 + 1"))
            if not text.startswith("N"):
                return {"top": text}, rows
            return {"top": text.replace("N", self.over)}, frozenset()
        return {"top": str(self.choices.often({1: 2, 2: 3, 3: 3, 5: 2, 16: 1, 40: 1}))}, frozenset()


def selection_draft(choices: Choices) -> Draft:
    """A choice, and an attention to what was chosen, or a map of it."""
    draft = start(choices)
    attention = Attention(choices, draft, "T" in draft.sizes)
    attention.query(), attention.key()
    selection = Selection(choices, draft, attention)
    stage, axes = selection.stage(attention.pair)
    draft.stages.append(stage)
    order = sorted(axes - {selection.over}, key="B G H I M".split().index)
    if choices.chance(40):
        draft.outputs["selected"] = [*order, selection.over]
    if selection.listed and choices.chance(60):
        draft.outputs["places"] = [*order, "S"]
    kinds = {"attention": 5, "map": 1}
    if selection.listed and selection.rows in ("I", "") and selection.over == "N":
        kinds["list"] = 9
    reads = choices.often(kinds)
    if reads == "map" or not selection.terms.fits(axes | {"I", "J"}):
        _summed(choices, draft, selection, axes)
    elif reads == "list":
        _to_listed(choices, draft, attention, selection, axes)
    else:
        _to_chosen(draft, attention, selection, axes)
    finish(choices, draft)
    return draft


def _summed(choices: Choices, draft: Draft, selection: Selection, axes: Axes) -> None:
    """The sum of what was chosen."""
    x = selection.terms.input([*choices.some([*selection.attention.batch]), "J"], name="x")
    chosen = f"selected[N=j // {selection.block}]" if selection.over == "N" else "selected"
    text = choices.pick(("sum(where({c}, {x}, 0), J)", "sum({x}, J, where={c})"))
    draft.stages.append({"map": {"o": text.format(x=x, c=chosen)}})
    left = selection.terms.together(Term("", axes), x) - {"J", "N"}
    draft.outputs["o"] = sorted(left, key="B G H I M".split().index)


def _to_chosen(draft: Draft, attention: Attention, selection: Selection, axes: Axes) -> None:
    """An attention whose mask is the choice, and maybe what else masks are made of."""
    at = [f"N=j // {selection.block}"] if selection.over == "N" else []
    at += [f"M=i // {selection.block}"] if selection.rows == "M" else []
    chosen = f"selected[{', '.join(at)}]" if at else "selected"
    made = attention.stage({})
    body = made["attention"]
    body["mask"] = f"({body['mask']}) and {chosen}" if "mask" in body else chosen
    more = (axes - {"N", "M"}) - {"J"} | ({"I"} if selection.rows == "M" else frozenset())
    _widen(draft, attention, more)
    draft.stages.append(made)


def _widen(draft: Draft, attention: Attention, more: Axes) -> None:
    """Outputs have the axes of the mask, too."""
    order = "B G H I J E D".split()
    for name in [n for n in draft.outputs if n not in ("selected", "places")]:
        axes = attention.terms.together(Term("", frozenset(draft.outputs[name]) | more))
        if axes != frozenset(draft.outputs[name]):
            draft.outputs[name] = sorted(axes, key=order.index)


def _to_listed(
    choices: Choices, draft: Draft, attention: Attention, selection: Selection, axes: Axes
) -> None:
    """An attention to the blocks that a list names, block by block."""
    draft.dims["L"] = str(selection.block)
    q, k = attention.query(), attention.key()
    v = attention.terms.input([*attention.batch, *attention.groups, "J", "E"], name="v")
    place = f"places * {selection.block} + l"
    mask = "places >= 0 and place < J"
    if choices.chance(60) and selection.rows:
        mask += " and place <= i"
    body = {
        "over": ["S", "L"],
        "score": f"D ** -0.5 * sum({q} * {k}[J=place], D)",
        "mask": mask,
        "output": {"o": f"{v}[J=place]"},
    }
    found = attention.terms.together(q, k, v, Term("", axes)) - {"J", "N", "D", "S"}
    if choices.chance(25):
        body["lse"] = "lse_"
        without = attention.terms.together(q, k, Term("", axes)) - {"J", "N", "D", "S"}
        draft.outputs["lse_"] = sorted(without, key="B G H I".split().index)
    draft.outputs["o"] = sorted(found, key="B G H I E".split().index)
    draft.stages.append({"attention": body, "let": {"place": place}})
