"""Whatever the text, loading gives a mixer that verifies or one SpecError, and soon."""

import re
import time
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from mixc.compiler.language.every_error import every_error
from mixc.compiler.language.find import library
from mixc.compiler.language.load import load_text
from mixc.ir.errors import SpecError
from mixc.ir.mixer import Mixer
from mixc.ir.text import write_mixer
from mixc.ir.verify_mixer import verify_mixer

SPECS = [path.read_text() for path in library()]
PIECES = (
    "( ) [ ] { } , : - + * / // % ** < <= == and or not where sum( max( mean( softmax( rank( at( "
    "rope( stack( cumsum( exp( B T H I J D E G N i j t h n 0 1 2 1e-6 inf true score: mask: let: "
    "define: f(x): outputs: stages: heads: dims: params: over: J where= N= D= q k v o & * ! | > "
    "' \" # --- ... ? @ % \\ ~ null {softmax: {sink: i}} x[T=e] index( like: suffix: with: name: "
    "recurrence: state: step: initial: reset: direction: backward S = last( grad( solve( complex( "
    "\n \n\n\t \x00 \ufeff \u2028 \ud800 é"
).split(" ")

words = st.lists(st.sampled_from(PIECES) | st.text(max_size=5), max_size=12).map(" ".join)


@st.composite
def damaged(draw):
    """A spec of the library with a few pieces put in, taken out or moved."""
    text = draw(st.sampled_from(SPECS))
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(text)))
        end = min(len(text), start + draw(st.integers(0, 12)))
        text = text[:start] + draw(words) + text[end:]
    return text


@st.composite
def swapped(draw):
    """A spec of the library with one of its words put in another's place."""
    tokens = draw(st.sampled_from(SPECS)).split(" ")
    here = draw(st.integers(0, len(tokens) - 1))
    tokens[here] = draw(st.sampled_from(tokens) | st.sampled_from(PIECES))
    return " ".join(tokens)


def load(text: str) -> Mixer | SpecError:
    try:
        return load_text(text, "fuzz.yaml")
    except SpecError as error:
        return error


def check(text: str) -> None:
    start = time.process_time()
    found = load(text)
    assert time.process_time() - start < 1
    if isinstance(found, SpecError):
        assert re.match(r"fuzz\.yaml:[1-9]\d*:[1-9]\d*: ", str(found))
        str(found).encode()
        assert str(found) in map(str, every_error(text, "fuzz.yaml"))
    else:
        verify_mixer(found)
        # but for the sizes: a fresh position of a sequence reads back as one of the sequence
        again = load_text(write_mixer(found))
        assert replace(again, sizes=()) == replace(found, sizes=())


@settings(max_examples=60, deadline=None)
@given(damaged() | swapped())
def test_a_damaged_spec(text):
    check(text)


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=200) | words | words.map("mixer: m\nmap: {o: x}\nlet: {a: ".__add__))
def test_any_text(text):
    check(text)


@settings(max_examples=60, deadline=None)
@given(words)
def test_any_expression(text):
    spec = (
        "mixer: m\ninputs: {q: [B, T, D], k: [B, J, D], v: [B, J, E], n: {dims: [B]}}\n"
        "dims: {J: T}\nmap:\n  o: |\n    "
    )
    check(spec + text.replace("\n", "\n    ") + "\noutputs: {o: [B, T]}\n")
