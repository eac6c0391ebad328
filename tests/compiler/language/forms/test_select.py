"""What the select form refuses, with the place and the words."""

import pytest

from mixc.compiler.language.every_error import every_error
from mixc.compiler.language.load import load_text
from mixc.ir.errors import SpecError, VerificationError
from mixc.ir.expression import Index, Kind, Ref
from mixc.ir.stages import changed
from mixc.ir.verify_mixer import verify_mixer

SPEC = """\
mixer: chosen
inputs:
  x: [B, I, N]
  u: [B, I]
params: {kept: 3, alpha: 0.5}
dims: {S: kept}
select:
  over: N
  score: x
  among: n <= i
  keep: {top: kept}
  always: n == i
  output: chosen_blocks
  list: {name: blocks, axis: S}
outputs: {chosen_blocks: [B, I, N], blocks: [B, I, S]}
"""
WRONG = {
    "no rule": ("{top: kept}", "{}", "11:3", "`keep` has no rule", "exactly one of top, above"),
    "two rules": ("{top: kept}", "{top: 1, above: 2}", "11:3", "`keep` has top and above"),
    "unknown rule": ("{top: kept}", "{to: 1}", "11:10", "unknown key `to`", "did you mean `top`"),
    "real top": ("{top: kept}", "{top: alpha}", "11:15", "`top` is a real number", "floor"),
    "bound of a position": ("top: kept", "above: x", "11:17", "`above` has the axis N"),
    "score without the axis": ("score: x", "score: u", "9:10", "lacks the axis N", "B, I"),
    "number for among": ("n <= i", "n - i", "10:10", "`among` is a number, not a condition"),
    "number for always": ("n == i", "n - i", "12:11", "`always` is a number"),
    "unknown axis": ("over: N", "over: K", "8:9", "`K` is no dim of this spec"),
    "axis twice": ("over: N", "over: [N, N]", "8:13", "the axis N is here twice"),
    "no axis": ("over: N", "over: []", "8:3", "`over` is empty"),
    "over a mapping": ("over: N", "over: {N: 1}", "8:9", "a mapping where an axis, or a list"),
    "list along a row": ("axis: S", "axis: I", "14:30", "the list is along I, an axis that"),
    "list of nothing": (
        "axis: S",
        "axis: Z",
        "14:30",
        "`Z` is no dim of this spec",
        "do: give the places of the list a size: `dims: {Z: …}`",
    ),
    "one name": ("name: blocks", "name: chosen_blocks", "14:16", "is made twice by this stage"),
    "name of an input": ("output: chosen_blocks", "output: x", "13:11", "`x` is declared already"),
    "annotation": ("score: x", "score[I, N]: x", "9:9", "B should not be there"),
    "no keep": ("  keep: {top: kept}\n", "", "8:3", "a selection has no `keep`"),
    "output of a mapping": ("output: chosen_blocks", "output: {a: x}", "13:11", "a mapping where"),
}


@pytest.mark.parametrize("case", WRONG)
def test_an_error_says_where_and_what(case):
    old, new, place, *words = WRONG[case]
    assert SPEC.count(old) == 1
    with pytest.raises(SpecError) as error:
        load_text(SPEC.replace(old, new))
    assert f"<text>:{place}: " in str(error.value)
    for word in words:
        assert word in str(error.value)


def test_every_error_is_found_at_once():
    text = SPEC.replace("top: kept", "top: alpha").replace("n <= i", "n - i")
    assert [error.line for error in every_error(text)] == [10, 11]
    text = SPEC.replace("output: chosen_blocks", "output: x").replace("{S: kept}", "{S: kep}")
    assert [error.line for error in every_error(text)] == [6, 13, 15]


def test_the_default_name_and_a_suffix():
    text = """
mixer: twice
inputs: {x: [I, N], y: [I, N]}
stages:
  - name: first
    select: {over: N, score: x, keep: {top: 1}}
  - like: first
    suffix: _y
    with: {x: y}
outputs: {selected: [I, N], selected_y: [I, N]}
"""
    assert [o.name for o in load_text(text).outputs] == ["selected", "selected_y"]
    with pytest.raises(SpecError, match="stage `first` and by stage 2"):
        load_text(text.replace("    suffix: _y\n", "").replace(", selected_y: [I, N]", ""))


def test_the_verifier_sees_what_does_not_fit():
    from dataclasses import replace

    mixer = load_text(SPEC)
    (stage,) = mixer.stages
    verify_mixer(mixer)
    broken = {
        "is no number of a row": replace(stage, bound=Index("N")),
        "is over an axis twice": replace(stage, over=("N", "N")),
        "is not boolean": replace(stage, among=Index("N")),
        "lacks its name": replace(stage, listed=None),
        "is along I": replace(stage, slots="I"),
        "is read before": changed(stage, lambda _: Ref("z", frozenset("N"), Kind.REAL)),
    }
    for words, wrong in broken.items():
        with pytest.raises(VerificationError, match=words):
            verify_mixer(replace(mixer, stages=(wrong,)))
