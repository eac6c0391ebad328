"""Every character of a scalar is found again in the file, in each of YAML's styles."""

import pytest

from mixc.compiler.language.load import load_text
from mixc.compiler.language.text.compose import read_document
from mixc.compiler.language.text.positions import Block, Items, Text
from mixc.compiler.language.text.source import Source
from mixc.ir.errors import SpecError

STYLES = {
    "plain": "x + wrong * 2",
    "plain over lines": "x +\n      wrong * 2",
    "single quotes": "'x + wrong * 2'",
    "double quotes": '"x + wrong * 2"',
    "escapes": r'"x \u002b wrong * 2"',
    "double quotes over lines": '"x +\n\n     wrong * 2"',
    "literal block": "|\n      x +\n        wrong * 2",
    "folded block": ">-  # a comment\n\n      x +\n      wrong\n      * 2\n",
}


@pytest.mark.parametrize("style", STYLES)
def test_a_name_in_each_style(style):
    text = f"mixer: m\ninputs: {{x: [B]}}\nmap:\n  o: {STYLES[style]}\noutputs: {{o: [B]}}\n"
    with pytest.raises(SpecError) as caught:
        load_text(text)
    error = caught.value
    assert text.split("\n")[error.line - 1][error.column - 1 :].startswith("wrong")
    assert "unknown name `wrong`" in str(error)


def test_places_in_flow_mappings():
    text = "mixer: m\ninputs: {x: [B]}\nmap: {o: x, p: 'max(x, wrong)'}\noutputs: {o: [B]}\n"
    with pytest.raises(SpecError, match=r"^<text>:3:24: unknown name `wrong`"):
        load_text(text)


def test_windows_line_ends_and_wide_characters():
    text = (
        "mixer: m\r\nabout: ünïcödé\r\ninputs: {x: [B]}\r\nmap: {o: wrong}\r\noutputs: {o: [B]}\r\n"
    )
    with pytest.raises(SpecError) as caught:
        load_text(text)
    assert str(caught.value).split("\n")[:3] == [
        "<text>:4:10: unknown name `wrong`",
        "  4 | map: {o: wrong}",
        "    |          ^^^^^",
    ]


def test_scalars_stay_text():
    document = read_document(Source("t", "a: 1e-6\nb: [yes, ~x, 0x10, 'null']\nc: {d: 010}"))
    assert isinstance(document, Block)
    (_, a), (_, b), (_, c) = document.pairs
    assert isinstance(a, Text)
    assert a.value == "1e-6"
    assert isinstance(b, Items)
    assert [item.value for item in b.items] == ["yes", "~x", "0x10", "null"]
    assert isinstance(c, Block)
    assert c.pairs[0][1].value == "010"


def test_numbers_go_through_the_grammar():
    mixer = load_text(
        "mixer: m\ninputs: {x: {dims: [B], default: -inf}}\nparams: {eps: 1e-6, n: 010, on: true}\n"
        "map: {o: x}\noutputs: {o: [B]}"
    )
    assert [(p.name, p.value.value, p.flag) for p in mixer.params] == [
        ("eps", 1e-6, False),
        ("n", 10, False),
        ("on", True, True),
    ]
    assert mixer.inputs[0].default == float("-inf")


def test_a_long_line_is_cut_around_the_place():
    text = f"mixer: m\ninputs: {{x: [B]}}\nmap:\n  o: {'x + ' * 80}wrong\noutputs: {{o: [B]}}"
    with pytest.raises(SpecError) as caught:
        load_text(text)
    _, line, caret = str(caught.value).split("\n")[:3]
    assert len(line) < 180
    assert line[caret.index("^") :].startswith("wrong")
