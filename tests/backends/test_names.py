"""Names of a spec that are words of C++, of Python, of Triton, or of the emitted code itself."""

import ast
import functools
import keyword
import re
from collections import Counter

import pytest
import torch
from hypothesis import Phase, assume, given, settings
from hypothesis import strategies as st

from mixc.api import LoadedMixer
from mixc.backends.cpu.build import find_compiler
from mixc.backends.cpu.configure import configure, defaults
from mixc.backends.cpu.emit import emit_source, runtime_text
from mixc.backends.cpu.names import taken
from mixc.backends.triton import kernel_scope
from mixc.backends.triton.emit import emit_module
from mixc.backends.triton.names import TAKEN
from mixc.compiler.language.load import load_text
from mixc.compiler.pipeline import lower
from mixc.ir.errors import SpecError

# Names of the spec: {0} and so on in lower case, {A} and so on dims.
ATTENTION = """\
mixer: {0}
inputs: {{ {1}: [B, H, I, {A}], {2}: [B, H, J, {A}], {3}: [B, H, J, {B}], {4}: [H] }}
dims: {{I: T, J: T}}
params: {{ {5}: "{A} ** -0.5", {6}: {{default: 1.5, runtime: true}}, {7}: 100}}
let:
  {8}: {4} * 2
attention:
  over: J
  score: {5} * sum({1} * {2}, {A}) - {8} * (i - j) * {6}
  mask: j <= i and i - j < {7}
  output: {{ {9}: "{3}" }}
  lse: {10}
outputs: {{ {9}: [B, H, I, {B}], {10}: [B, H, I] }}
"""
RECURRENCE = """\
mixer: {0}
inputs: {{ {1}: [{C}, T, H, {A}], {2}: [{C}, T, H, {A}], {3}: [{C}, T, H, {B}], {4}: [{C}, T, H] }}
params: {{ {5}: "{A} ** -0.5", {6}: {{default: 1.5, runtime: true}}, {7}: 2.0}}
let:
  {8}: sigmoid({4}) * {6}
recurrence:
  over: T
  state: {{ {9}: [{A}, {B}] }}
  step:
    - "{9} = {8} * {9} / {7} + {2} * {3}"
    - "{10} = {5} * sum({1} * {9}, {A})"
outputs: {{ {10}: [{C}, T, H, {B}], {9}: [{C}, H, {A}, {B}] }}
"""
FORMS = {"attention": ATTENTION, "recurrence": RECURRENCE}
SAFE = [f"word{n}x" for n in range(11)], ["Dimxa", "Dimxb", "Dimxc"]
_IDENTIFIER = re.compile(r"(?<![\w.:])[A-Za-z_]\w*")


def spec(form, words, dims):
    return FORMS[form].format(*words, A=dims[0], B=dims[1], C=dims[2])


def emitted(text):
    """The identifiers of each emitted function, in order, and the words that they can't be."""
    target = find_compiler().target
    plan = lower(load_text(text), {}, "bfloat16")
    kernels = emit_source(configure(plan, defaults(target)), target).text
    kernels = kernels[kernels.index(runtime_text()[-40:]) + 40 :]
    with pytest.MonkeyPatch.context() as patch:  # long names would be inlined less
        patch.setattr(kernel_scope, "_WIDEST_INLINE", 1000)
        module = emit_module(plan)
    kernels = re.sub(r"//.*|#pragma.*|\"C\"", "", kernels)
    macros = taken(target)
    functions = [
        (macros, _IDENTIFIER.findall(part)) for part in re.split(r"\n(?=static|extern)", kernels)
    ]
    kinds = {ast.FunctionDef: "name", ast.arg: "arg", ast.Name: "id"}
    for function in ast.parse(module).body:
        nodes = [node for node in ast.walk(function) if type(node) in kinds]
        functions.append((TAKEN, [getattr(node, kinds[type(node)]) for node in nodes]))
    return functions


def words_of_emitted_code():
    target = find_compiler().target
    words = {*keyword.kwlist, *keyword.softkwlist, *TAKEN, *taken(target)}
    for form in FORMS:
        for _, found in emitted(spec(form, *SAFE)):
            words |= {*found}
    words = {w for w in words if len(w) <= 30 and "word" not in w and "Dimx" not in w}
    return sorted(w for w in words if "__" not in w and w[0] != "_")  # others change in any case


@functools.cache
def pool():
    words = words_of_emitted_code()
    small = [w for w in words if not w[0].isupper()]
    return small, [w for w in words if w[0].isupper()]


def plain(name):
    """A name that means nothing, in the same order among others: schedules may go by that."""
    return f"{name}q9z"


@settings(max_examples=10, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(data=st.data(), form=st.sampled_from(sorted(FORMS)))
def test_other_names_give_the_same_code(data, form):
    """Code for any names is that for plain ones, each identifier replaced by another of its own."""
    small, large = pool()
    both = st.one_of(st.sampled_from(small), st.sampled_from(large))
    words = data.draw(st.lists(both, min_size=11, max_size=11, unique=True))
    dims = data.draw(st.lists(st.sampled_from(large), min_size=3, max_size=3, unique=True))
    assume({"i", "j"}.isdisjoint(words))  # hidden, the spec's positions mean something else
    try:
        load_text(spec(form, words, dims))
    except SpecError:  # a word of the language, a dim's name
        assume(False)
    found = emitted(spec(form, words, dims))
    wanted = emitted(spec(form, [plain(w) for w in words], [plain(d) for d in dims]))
    assert len(found) == len(wanted)
    for (reserved, own), (_, safe) in zip(found, wanted, strict=True):
        assert len(own) == len(safe)
        pairs = set(zip(own, safe, strict=True))
        for side in (0, 1):
            seen = Counter(pair[side] for pair in pairs)
            assert not [pair for pair in pairs if seen[pair[side]] > 1]
        assert not [a for a, b in pairs if a != b and a in reserved]


WORDS = {
    "attention": (
        "do this in INT32_MAX threads int tl MIXC_LANES programs i_blocks def".split(),
        ["NULL", "MX_INLINE", "X"],
    ),
    "recurrence": (
        "lambda auto programs mx class float program debug while _s NULL".split(),
        ["None", "EOF", "UINT8_MAX"],
    ),
}


@pytest.mark.parametrize("backend", ["cpu", "interpreter"])
@pytest.mark.parametrize("form", FORMS)
def test_words_of_the_languages_are_names(form, backend):
    words, dims = WORDS[form]
    make = torch.Generator().manual_seed(0)
    lead = {"attention": (1, 2, 40), "recurrence": (1, 40, 2)}[form]
    tensors = [torch.randn(*lead, n, generator=make) for n in (16, 16, 32)]
    tensors.append(torch.rand(2 if form == "attention" else lead, generator=make))
    named = dict(zip(words[1:5], tensors, strict=True))
    text = spec(form, words, dims)
    wanted = LoadedMixer(load_text(text), "reference")(**named, **{words[6]: 1.25})
    found = LoadedMixer(load_text(text), backend)(**named, **{words[6]: 1.25})
    for name in words[9:]:
        torch.testing.assert_close(getattr(found, name), getattr(wanted, name))


@pytest.mark.parametrize("word", ["inside", "inside_3", "first", "t_next", "t_offset", "t_place"])
def test_names_that_passes_give_are_others(word):
    words, dims = SAFE
    for place in (3, 5, 6, 9):
        own = [*words[:place], word, *words[place + 1 :]]
        found, wanted = (emitted(spec("recurrence", names, dims)) for names in (own, words))
        assert [len(text) for _, text in found] == [len(text) for _, text in wanted]
