"""Random maps: reductions under conditions and by group, running sums, reads by index, norms."""

from __future__ import annotations

from .choices import Choices
from .draft import Draft
from .terms import Term, Writer

FEATURES = (16, 40, 64, 80, 96, 128, 192, 256)
LENGTHS = {17: 5, 1: 3, 2: 3, 16: 4, 5: 3, 33: 3, 65: 2, 130: 1, 1000: 1}
FEW = {1: 2, 2: 3, 3: 3}


def sizes(choices: Choices) -> dict[str, int]:
    """A batch, a sequence, heads and two features, as people use them."""
    length = choices.often(LENGTHS)
    small = length >= 300
    few = {1: 3, 2: 1} if small else FEW
    return {
        "B": choices.often(few),
        "H": choices.often(few),
        "T": length,
        "D": choices.pick(FEATURES[:4] if small else FEATURES),
        "E": choices.pick((5, 24, *FEATURES[:3]) if small else (5, 24, *FEATURES)),
    }


def writer(choices: Choices, draft: Draft) -> Writer:
    """A writer that can make groups of the sequence and of the features."""
    made = Writer(choices, draft)

    def grouped(dim: str, group: str) -> None:
        def declare() -> str:
            if group not in draft.dims:
                block = choices.pick((4, 8, 16, 3))
                draft.dims[group] = f"({dim} + {block - 1}) // {block}"
            return group

        made.groups[dim] = declare

    grouped("T", "N")
    grouped("D", "C")
    return made


def map_draft(choices: Choices) -> Draft:
    """A map of one to three equations, the later ones of the earlier ones too."""
    draft = Draft(sizes(choices))
    terms = writer(choices, draft)
    equations: dict[str, str] = {}
    for number in range(choices.whole(1, 3)):
        allowed = frozenset(choices.some("BTHDE", 1, 4))
        while not terms.fits(allowed):
            allowed = allowed - {max(allowed, key=terms.size)}
        term = terms.real(allowed, choices.whole(1, 4))
        add(terms, equations, f"o{number}", term)
    draft.stages.append({"map": equations})
    finish(choices, draft)
    return draft


def add(terms: Writer, equations: dict[str, str], name: str, term: Term) -> None:
    """An equation of a map, an output too, which later ones may use."""
    equations[name] = term.text
    order = sorted(term.axes)
    terms.draft.outputs[name] = terms.choices.shuffled(order) if order else []
    terms.names.append(Term(name, term.axes))


def finish(choices: Choices, draft: Draft) -> None:
    """Drop what is not used, and put some axes together as products."""
    draft.drop_unused()
    draft.fix_sizes()
    inputs = list(draft.inputs.values())
    for declared in inputs:
        if len(declared.layout) < 2 or not choices.chance(12):
            continue
        plain = {a for other in inputs if other is not declared for a in other.layout}
        place = choices.whole(0, len(declared.layout) - 2)
        pair = declared.layout[place : place + 2]
        if pair[1] in plain and pair[1] not in _SEQUENCES and "*" not in "".join(pair):
            declared.layout[place : place + 2] = ["*".join(pair)]
    for layout in draft.outputs.values():
        if len(layout) >= 2 and choices.chance(10) and layout[-1] not in _SEQUENCES:
            layout[-2:] = [f"{layout[-2]}*{layout[-1]}"]


_SEQUENCES = frozenset("T I J R".split())
