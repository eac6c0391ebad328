"""Random attentions in parts, with keys that steps change, and with values fed back."""

from __future__ import annotations

from typing import Any

from .attentions import Attention, start
from .choices import Choices
from .draft import Draft
from .maps import finish
from .terms import Term

_ORDER = "B G H I J E D".split()


def carried_draft(choices: Choices) -> Draft:
    """One attention whose keys or values change along the sequence, or one of several parts."""
    draft = start(choices)
    if "T" not in draft.sizes or choices.chance(40):
        _parts(choices, draft)
    else:
        kinds = {_age: 3, _factor: 2, _reflected: 3, _fed: 3}
        attention = Attention(choices, draft, True)
        draft.stages.append({"attention": choices.often(kinds)(choices, draft, attention)})
    finish(choices, draft)
    return draft


def _score(attention: Attention) -> tuple[str, Term, Term]:
    q, k = attention.query(), attention.key()
    return f"D ** -0.5 * sum({q} * {k}, D)", q, k


def _mask(choices: Choices, attention: Attention, seen: str = "j <= i") -> Term:
    if choices.chance(60):
        return Term(seen, frozenset("IJ"))
    other = attention.atom()
    return Term(f"{seen} and ({other})", attention.terms.together(other, Term("", frozenset("IJ"))))


def _body(
    choices: Choices, draft: Draft, attention: Attention, score: Term, seen: str = "j <= i"
) -> dict[str, Any]:
    """Mask, normaliser, gain and the outputs of an attention with this score."""
    mask = _mask(choices, attention, seen)
    body: dict[str, Any] = {"over": "J", "score": score.text, "mask": mask.text}
    queries = attention.terms.together(score, mask)
    if choices.chance(35):
        normalize, more = attention.normalizer(score)
        if normalize is not None:
            body["normalize"] = normalize
            queries = attention.terms.together(Term("", queries | more))
    if choices.chance(15):
        gain = attention.gain()
        body["gain"] = gain.text
        queries = attention.terms.together(Term("", queries), gain)
    v = attention.value()
    body["output"] = {"o": v.text}
    axes = attention.terms.together(Term("", queries), v) - {"J"}
    draft.outputs["o"] = sorted(axes, key=_ORDER.index)
    softmax = body.get("normalize", "softmax")
    if choices.chance(25) and (softmax == "softmax" or "softmax" in softmax):
        body["lse"] = "lse_"
        draft.outputs["lse_"] = sorted(queries - {"J"}, key=_ORDER.index)
    return body


def _step(attention: Attention, *axes: str, name: str) -> Term:
    """An input with a row for each step."""
    return attention.terms.input([*attention.batch, "T", *axes], name=name)


def _age(choices: Choices, draft: Draft, attention: Attention) -> dict[str, Any]:
    """A number that each step adds to."""
    text, q, k = _score(attention)
    heads = choices.some(attention.heads)
    g = _step(attention, *heads, name="g")
    first = attention.terms.input([*attention.batch, *heads, "J"], name="age")
    each = choices.pick(("logsigmoid({g})", "{g} / 4", "-0.1", "-abs({g})")).format(g=g)
    axes = attention.terms.together(q, k, first, g if "g" in each else Term("")) - {"D", "T"}
    score = Term(f"{text} + age", axes | frozenset("IJ"))
    body = _body(choices, draft, attention, score)
    body["carry"] = {first.text: f"{first} + {each}"}
    return body


def _factor(choices: Choices, draft: Draft, attention: Attention) -> dict[str, Any]:
    """Keys that each step scales, whole or by entry; each query has all of them then."""
    if draft.sizes["T"] > 130:
        draft.sizes["T"] = 65
    text, q, k = _score(attention)
    g = _step(attention, *choices.some([*attention.groups, "D"]), name="g")
    by = choices.pick(("exp(-abs({g}) / 8)", "sigmoid({g})", "0.9")).format(g=g)
    axes = attention.terms.together(q, k, g if "g" in by else Term("")) - {"D", "T"}
    body = _body(choices, draft, attention, Term(text, axes | frozenset("IJ")))
    body["carry"] = {k.text: choices.pick(("{k} * {by}", "{by} * {k}")).format(k=k, by=by)}
    return body


def _reflected(choices: Choices, draft: Draft, attention: Attention) -> dict[str, Any]:
    """Keys of which each step takes off a part along a vector."""
    if draft.sizes["T"] > 130:
        draft.sizes["T"] = 65
    text, q, k = _score(attention)
    w = _step(attention, *attention.groups, "D", name="w")
    draft.inputs["w"].layout.remove("D")
    draft.inputs["w"].layout.append("D")
    draft.inputs["w"].more["unit"] = True
    beta = attention.terms.input([*attention.batch, "T", *choices.some(attention.groups)])
    rate = choices.pick((f"sigmoid({beta})", f"2 * sigmoid({beta})", "0.5"))
    axes = attention.terms.together(q, k, w) - {"D", "T"}
    body = _body(choices, draft, attention, Term(text, axes | frozenset("IJ")))
    body["carry"] = {k.text: f"{k} - {rate} * {w} * sum({w} * {k}, D)"}
    return body


def _fed(choices: Choices, draft: Draft, attention: Attention) -> dict[str, Any]:
    """Values that read earlier results."""
    text, q, k = _score(attention)
    if draft.sizes["T"] > 130:
        draft.sizes["T"] = 65
    lead = [*attention.batch, *attention.heads]
    v = attention.terms.input([*lead, "J", "E"], name="v")
    beta = attention.terms.input([*choices.some(lead), "T"], name="beta")
    axes = attention.terms.together(q, k) - {"D"} | frozenset("IJ")
    mask = _mask(choices, attention, "j < i")
    body: dict[str, Any] = {"over": "J", "score": text, "mask": mask.text, "output": {"y": "u"}}
    body["feedback"] = {"u": choices.pick((f"{v} - sigmoid({beta}) * y", f"{v} / 2 + y / 4"))}
    queries = attention.terms.together(Term("", axes), mask) - {"J"}
    order = _ORDER.index
    draft.outputs["y"] = sorted(queries | {"E"} | set(lead), key=order)
    if choices.chance(50):
        made = (queries - {"I"}) | {"J", "E"} | set(lead)
        draft.outputs["u"] = sorted(made, key=order)
    return body


def _parts(choices: Choices, draft: Draft) -> None:
    """Keys, and slots or fresh tokens beside them, under one normaliser."""
    attention = Attention(choices, draft, "T" in draft.sizes)
    draft.sizes["M"] = choices.pick((1, 3, 16, 17, 40))
    q, v = (
        attention.query(),
        attention.terms.input([*attention.batch, *attention.groups, "J", "E"], name="v"),
    )
    score = attention.score()
    own: dict[str, Any] = {"over": "J", "score": score.text}
    queries = score.axes | q.axes - {"D"}
    if (mask := attention.mask()) is not None:
        own["mask"], queries = mask.text, attention.terms.together(Term("", queries), mask)
    own["output"] = {"o": v.text}
    slots = [*choices.some([*attention.batch, *attention.groups])]
    key = attention.terms.input([*slots, "M", "D"], name="k_slot")
    value = attention.terms.input([*slots, "M", "E"], name="v_slot")
    beside: dict[str, Any] = {"over": "M", "score": f"D ** -0.5 * sum({q} * {key}, D)"}
    other = attention.terms.together(q, key) - {"D"}
    if choices.chance(40):
        beside["mask"] = choices.pick(("m <= i", "m < 3", "m % 2 == i % 2", "i >= 4"))
        other = other | frozenset("I")
    beside["output"] = {"o": value.text}
    body: dict[str, Any] = {"parts": choices.shuffled([own, beside])}
    if choices.chance(50):
        normalize, more = attention.normalizer(score)
        if normalize is not None:
            body["normalize"] = normalize
            queries = attention.terms.together(Term("", queries | more))
    axes = attention.terms.together(Term("", queries | other), v, value) - {"J", "M"}
    draft.outputs["o"] = sorted(axes, key=_ORDER.index)
    softmax = body.get("normalize", "softmax")
    if choices.chance(25) and (softmax == "softmax" or "softmax" in softmax):
        body["lse"] = "lse_"
        rows = attention.terms.together(Term("", queries | other)) - {"J", "M"}
        draft.outputs["lse_"] = sorted(rows, key=_ORDER.index)
    draft.stages.append({"attention": body})
