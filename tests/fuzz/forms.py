"""The forms that specs are made up in, and how an example of each is tried."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from hypothesis import strategies as st

from .attentions import attention_draft
from .carried import carried_draft
from .chains import chain_draft
from .choices import Choices, Draw
from .convolutions import convolution_draft
from .draft import Draft
from .judge import Trial
from .maps import map_draft
from .names import rename
from .recurrences import recurrence_draft
from .selections import selection_draft

FORMS: Mapping[str, Callable[[Choices], Draft]] = {
    "attention": attention_draft,
    "carried": carried_draft,
    "chain": chain_draft,
    "convolution": convolution_draft,
    "map": map_draft,
    "recurrence": recurrence_draft,
    "selection": selection_draft,
}
# Executing programs op by op takes too long beyond this many positions: native kernels run them.
LONGEST_BY_OPS = 100
SEQUENCES = ("packed", "in segments")  # in float64, by the reference
AS_CALLED = ("training", "hard inputs")  # native kernels
BACKWARD = ("backward", "backward tiles")  # in float64, by the reference, and op by op
ALL = (
    "cpu tiles", "gpu tiles", *BACKWARD, "cpu", "cpu as shipped", "cpu in chunks",
    "cpu elsewhere", "interpreter", *SEQUENCES, *AS_CALLED,
)  # fmt: skip
# Of a hundred examples, about how many are tried on what; a recurrence has two ways on a CPU.
FORWARD: Mapping[str, int] = {
    "cpu tiles": 33,
    "gpu tiles": 32,
    "cpu": 15,
    "cpu elsewhere": 4,
    "interpreter": 8,
}
IN_CHUNKS: Mapping[str, int] = {"cpu in chunks": 6}
# The same of a campaign, which has time for derivatives and builds for speed.
EVERY_WAY: Mapping[str, int] = {
    "cpu tiles": 18, "gpu tiles": 18, "backward": 4, "backward tiles": 14, "cpu": 12,
    "cpu as shipped": 2, "cpu elsewhere": 4, "interpreter": 8, "packed": 6, "in segments": 4,
    "training": 6, "hard inputs": 6,
}  # fmt: skip
_AWKWARD_NAMES = 12


@st.composite
def trials(
    draw: Draw,
    form: str,
    ways: Sequence[str] | Mapping[str, int] = FORWARD,
    dtypes: bool = True,
) -> Trial:
    """A random spec of a form; tried on all backends of ``ways``, or on one by their shares."""
    choices = Choices(draw)
    draft = FORMS[form](choices)
    if choices.chance(_AWKWARD_NAMES):
        rename(choices, draft)
    chosen = _one(choices, ways, form) if isinstance(ways, Mapping) else tuple(ways)
    if any(size > LONGEST_BY_OPS for size in (draft.sizes.get(d, 0) for d in "TIJ")):
        chosen = tuple(b for b in chosen if not b.endswith("tiles") and b != "interpreter")
        chosen = chosen or ("cpu",)
    halves = {"float32": 6, "bfloat16": 1, "float16": 1} if dtypes else {"float32": 1}
    if chosen == ("cpu elsewhere",):
        halves = {"float32": 1, "bfloat16": 3}
    if any(backend.endswith("tiles") for backend in chosen):
        halves = {"float32": 1}
    elif "interpreter" in chosen:  # it has no bfloat16 that rounds
        halves.pop("bfloat16", None)
    return Trial(draft.text(), chosen, choices.often(halves), choices.whole(0, 3), form)


def _one(choices: Choices, shares: Mapping[str, int], form: str) -> tuple[str, ...]:
    return (choices.often({**shares, **(IN_CHUNKS if form == "recurrence" else {})}),)
