"""One small fault per case: its place, what was found, and what to do."""

import time

import pytest

from mixc.compiler.language.load import load_file, load_text
from mixc.ir.errors import SpecError

GOOD = """\
mixer: alibi_window
inputs:
  q: [B, H, I, D]
  k: [B, G, J, D]
  v: [B, G, J, E]
  slope: [H]
  alive: {dims: [B, J], dtype: bool}
dims: {I: T, J: T}
heads: {G: H}
params:
  window: 1024
  scale: D ** -0.5
let:
  near: i - j < window
attention:
  over: J
  score: scale * sum(q * k, D) - slope * (i - j)
  mask: j <= i and near and alive
  normalize: softmax
  output: {o: v}
outputs: {o: [B, H, I, E]}
"""

# (what is replaced, by what, place, then phrases of the message)
CASES = {
    "unknown key": ("  over: J", "  ovr: J", "16:3", "unknown key `ovr`", "did you mean `over`?"),
    "unknown top key": ("heads:", "headz:", "9:1", "did you mean `heads`?"),
    "missing key": ("  over: J\n", "", "16:3", "no `over`", "add a line `over: …`"),
    "wrong dim": ("k, D)", "k, E)", "17:29", "`sum` over E", "its axes: B, D, H, I, J"),
    "index for dim": ("k, D)", "k, d)", "17:29", "`d` where `sum` takes a dim", "`D`"),
    "no dim": ("k, D)", "k)", "17:18", "names no dim", "sum(x, D…"),
    "forgotten sum": (
        "sum(q * k, D)",
        "q * k",
        "21:11",
        "has the axes [B, D, E, H, I]; D should not be there",
        "a sum over D is probably forgotten",
        "in the score",
    ),
    "forgotten sum, annotated": (
        "score: scale * sum(q * k, D)",
        "score[B, H, I, J]: scale * q * k",
        "17:9",
        "the score has the axes [B, D, H, I, J]",
    ),
    "annotated let": ("near:", "near[I]:", "14:8", "`near` has the axes [I, J]", "over J"),
    "clash of names": ("window: 1024", "q: 1024", "11:3", "`q` is declared twice"),
    "clash with a dim": ("slope: [H]", "T: [H]", "6:3", "`T` is a dim", "rename"),
    "clash with an input": ("{o: v}", "{slope: v}", "20:12", "`slope` is declared already"),
    "a block": ("slope: [H]", "BLOCK_I: [H]", "6:3", "`BLOCK_I`: what begins with BLOCK_ is"),
    "a block's dim": ("slope: [H]", "slope: [BLOCK_I]", "6:11", "begins with BLOCK_"),
    "a word": ("slope: [H]", "not: [H]", "6:3", "`not` is a word of the language"),
    "turned": ("j <= i", "j =< i", "18:11", "`=` where an operator", "write `<=`"),
    "turned too": ("j <= i", "i => j", "18:11", "`=` where an operator", "write `>=`"),
    "turned in a call": ("j <= i", "where(j =< i, true, false)", "18:18", "write `<=`"),
    "unequal": ("j <= i", "i <> j", "18:12", "`>` where a number", "write `!=`"),
    "once equal": ("j <= i", "j = i", "18:11", "compare with `==`"),
    "made real": (
        "near: i - j < window",
        "near: i // 2 ** (j - i) < 1",
        "14:11",
        "`//` of a real number: `j - i` may be negative, which makes `2 ** (j - i)` real",
        "take `floor(…)` first",
    ),
    "a lambda": ("near: i - j < window", "near: i < lambda i", "14:20", "name a macro"),
    "a membership": ("near: i - j < window", "near: i in j", "14:11", "compare with `==`"),
    "a null": ("near: i - j < window", "near: i < None", "14:13", "unknown name", "no null value"),
    "cyclic let": ("i - j < window", "far\n  far: near", "14:9", "near → far → near"),
    "cyclic sizes": ("J: T}", "J: T, N: M + 1, M: N + 1}", "8:20", "N → M → N"),
    "size by a param by a size": (
        "J: T}\nheads: {G: H}\nparams:\n  window: 1024",
        "J: T, N: window + 1}\nheads: {G: H}\nparams:\n  window: N",
        "8:20",
        "N → window → N",
    ),
    "real size": ("J: T}", "J: T, N: T / 2}", "8:23", "is a real number", "`//`"),
    "size below 0": ("J: T}", "J: T, N: 2 - 3}", "8:23", "the size of N is -1", "0 or more"),
    "size with axes": ("J: T}", "J: T, N: t + 1}", "8:23", "has the axes [T]"),
    "no size": ("(i - j)", "(i - n)", "17:47", "unknown name `n`"),
    "huge exponent": ("** -0.5", "** 999999999", "12:12", "the exponent 1e+09 is too large"),
    "tower": ("D ** -0.5", "10 ** 10 ** 10", "12:13", "the exponent 1e+10 is too large"),
    "huge power": ("D ** -0.5", "9 ** 999", "12:12", "too large for an integer"),
    "huge number": ("1024", "9" * 30, "11:11", "is too large", "at most 9223372036854775807"),
    "long number": ("1024", "9" * 9000, "11:11", "too long"),
    "huge real": ("1024", "1e999", "11:11", "write `inf`"),
    "zero": ("i - j <", "i // 0 <", "14:11", "a division by 0"),
    "thousand brackets": ("D **", "(" * 1000 + "D" + ")" * 1000 + " **", "12:42", "nested"),
    "thousand nots": ("j <= i", "not " * 1000 + "j <= i", "18:393", "nested too deeply"),
    "thousand terms": (
        "near: i - j",
        "near: i" + " + i" * 1000,
        "14:395",
        "nested",
        "96 operators",
    ),
    "nested lists": ("1024", "[" * 1000, "11:11", "nested too deeply"),
    "twenty lists": ("1024", "[" * 20 + "]" * 20, "11:26", "nested too deeply"),
    "anchor": ("1024", "&x 1024", "11:11", "anchors and aliases are not allowed"),
    "alias": ("1024", "*x", "11:11", "anchors and aliases are not allowed"),
    "tag": ("1024", "!!python/object/apply:os.system [ls]", "11:11", "tags are not allowed"),
    "directive": ("mixer:", "%YAML 1." + "9" * 5000 + "\n---\nmixer:", "1:9", "not readable"),
    "escape": ("1024", '"\\UFFFFFFFF"', "11:14", "not readable as YAML"),
    "import": ("D **", "__import__('os').system('ls') **", "12:21", "no strings"),
    "call of a stranger": ("D **", "open(D) **", "12:10", "unknown function `open`"),
    "call of a value": ("slope * (", "slope (", "17:34", "`slope` is a value, not a function"),
    "call of a parenthesis": ("slope * (", "(slope) (", "17:42", "after something that is no name"),
    "attribute": ("D **", "D.__class__ **", "12:11", "no attributes"),
    "lambda": ("D **", "lambda **", "12:10", "`lambda`", "`define:`"),
    "conditional": ("scale *", "scale if 1 else 2 *", "17:16", "`if`", "where(condition, a, b)"),
    "assignment": ("j <= i", "j = i", "18:11", "`=`", "compare with `==`"),
    "caret": ("D **", "D ^", "12:12", "a power is `**`"),
    "slice": ("slope *", "slope[1:2] *", "17:41", "`:`", "no slices"),
    "sign": ("j <= i", "j \u2264 i", "18:11", "write `<=`"),
    "flow comma": (
        "{o: v}",
        "{o: where(j > 1, v, 0)}",
        "20:28",
        "a comma or bracket inside an expression ends the entry",
        "put quotes around the expression, or write the mapping as a block",
    ),
    "flow bracket": ("{o: v}", "{o: v[J=j]}", "20:16", "`[` breaks the flow mapping", "quotes"),
    "flow key": ("{I: T, J: T}", "{J: max(T, 3)}", "8:18", "ends the entry", "quotes"),
    "no value": ("  normalize: softmax", "  normalize:", "19:3", "`normalize` has no value"),
    "two documents": ("outputs:", "---\noutputs:", "21:1", "a second YAML document"),
    "key twice": ("heads: {G: H}", "heads: {G: H}\nheads: {G: H}", "10:1", "first in line 9"),
    "list for mapping": ("{I: T, J: T}", "[I, J]", "8:7", "a list where a mapping"),
    "mapping for expression": ("score: scale", "score:\n    a: scale", "18:5", "a mapping where"),
    "mapping for axes": ("outputs: {o: [B, H, I, E]}", "outputs: {o: {B: H}}", "21:14", "a list"),
    "list for a form": (
        "attention:\n  over: J",
        "attention: []\nmap:\n  over: J",
        "15:12",
        "a list",
    ),
    "input without brackets": ("[H]", "H", "6:10", "`H` where a list of axes, `[B, T]`, or"),
    "list of numbers": ("1024", "[1, 2]", "11:11", "a list where a number, or `{dims: [S]"),
    "list of normalisers": ("softmax", "[softmax]", "19:14", "a list where softmax, none"),
    "over a mapping": ("over: J", "over: {J: T}", "16:9", "a mapping where an axis, or a list"),
    "form for stages": ("attention:", "stages:", "16:3", "a list is expected", "begin with `- `"),
    "yes": ("dtype: bool", "sorted: yes", "7:33", "`yes` is no truth value", "true, false"),
    "dtype": ("dtype: bool", "dtype: boolean", "7:32", "unknown dtype", "`bool`"),
    "mask of numbers": ("near and alive", "(i - j)", "18:16", "`and` of a number", "x != 0"),
    "number for mask": ("j <= i and near and alive", "i - j", "18:9", "the mask is a number"),
    "real index": ("slope *", "slope[H=h / 2] *", "17:44", "an index that is a real number"),
    "floor of real": ("i - j <", "scale // 2 <", "14:15", "`//` of a real number", "floor"),
    "condition of where": ("scale *", "where(i, 1, 0) *", "17:16", "condition of `where`"),
    "unknown name": ("q * k", "qq * k", "17:22", "unknown name `qq`", "did you mean `q`?"),
    "function as a name": ("scale *", "exp *", "17:10", "`exp` without arguments", "`exp(…)`"),
    "unknown function": ("sum(q", "summ(q", "17:18", "did you mean `sum`?"),
    "arguments": ("sum(q * k, D)", "exp(q, k)", "17:18", "`exp` with 2 arguments", "exp(x)"),
    "keyword": ("k, D)", "k, D, whre=near)", "17:32", "takes no `whre=`", "`where`"),
    "unknown group": ("k, D)", "k, D, N=d)", "17:32", "`N` is no dim", "give its size"),
    "normaliser": ("softmax", "sofmax", "19:14", "unknown normaliser", "did you mean `softmax`?"),
    "no axis to read": ("slope *", "slope[K=h] *", "17:40", "has no axis `K`", "its axes: H"),
    "no sequence to read": ("slope *", "slope[i] *", "17:39", "no axis", "name the axis: `[H=…]`"),
    "two positions": ("slope *", "(i + j)[i] *", "17:41", "I and J are", "name the axis: `[I=…]`"),
    "output unknown": ("outputs: {o:", "outputs: {out:", "21:11", "nothing makes the output"),
    "axis twice": ("[B, H, I, D]", "[B, H, I, I]", "3:16", "the axis I is here twice"),
    "small axis": ("[B, H, I, D]", "[B, H, I, d]", "3:16", "`d` is no axis", "write `D`"),
    "heads unknown": ("{G: H}", "{G: K}", "9:12", "`K` is no dim of this spec"),
    "heads in a ring": ("{G: H}", "{G: H, H: G}", "9:9", "contain each other"),
    "select": ("attention:", "select:", "18:3", "unknown key `mask` in a selection"),
    "convolution": ("attention:", "convolution:", "17:3", "unknown key `score` in a convolution"),
    "parts": (
        "  over: J",
        "  parts: []\n  over: J",
        "17:3",
        "unknown key `over` in an attention in",
    ),
    "carry": ("  over: J", "  carry: {q: q}\n  over: J", "16:11", "`q` has no axis J"),
    "over a list": ("over: J", "over: [J, E]", "16:13", "neither score nor mask has the axis E"),
    "over twice": ("over: J", "over: [J, J]", "16:13", "the axis J is here twice"),
    "over no axis": ("over: J", "over: []", "16:3", "`over` is empty", "name at least one axis"),
    "over a list of lists": ("over: J", "over: [[J]]", "16:10", "takes one axis, or a list"),
    "nothing made": ("  output: {o: v}\n", "", "16:3", "the attention makes nothing"),
    "made twice": ("{o: v}", "{o: v}\n  lse: o", "21:8", "`o` is made twice by this stage"),
    "default": ("dtype: bool}", "dtype: bool, default: 2}", "7:47", "the default 2 does not fit"),
    "size for a dim": ("k, D)", "k, D) + max(2, D)", "17:41", "for the size of D write `(D)`"),
    "result in a let": ("i - j <", "o + i - j <", "14:9", "`o` is made by the spec's form, later"),
    "over nothing": ("over: J", "over: E", "16:9", "neither score nor mask has the axis E"),
    "solve": ("scale *", "solve(q, k, D=D) *", "17:24", "along D for no other axis"),
    "two forms": ("outputs:", "map: {y: q}\noutputs:", "21:1", "`map` beside `attention`"),
    "unclosed": ("q * k, D)", "q * k, D", "17:48", "the expression ends where `,` or `)`"),
    "unopened": ("k, D)", "k, D))", "17:31", "`)` where an operator or the end"),
    "two names": ("- slope", "- slope slope", "17:40", "`slope` where an operator"),
    "unclosed quote": ("D ** -0.5", '"D', "12:10", "quoted scalar"),
    "tab": ("  over: J", "\tover: J", "16:1", "not readable as YAML"),
    "control character": ("window: 1024", "window: 10\x0024", "11:13", "U+0000 is not allowed"),
    "surrogate": ("window: 1024", "window: \ud800", "11:11", "U+D800 is not allowed"),
    "macro calls itself": (
        "let:\n  near: i",
        "define:\n  f(x): f(x) + 1\nlet:\n  near: f(i)",
        "14:9",
        "the macro calls itself: f → f",
    ),
    "macro without parameters": ("let:\n", "define:\n  f: 1\nlet:\n", "14:3", "needs parameters"),
    "macro's arguments": (
        "let:\n  near: i",
        "define:\n  f(x): x\nlet:\n  near: f(i, j)",
        "16:9",
        "`f` with 2 arguments",
        "f(x)",
    ),
    "param with axes": ("1024", "i + 1", "11:11", "the param `window` has the axes [I]"),
    "weight with more axes": (
        "normalize: softmax",
        "normalize: {weight: exp(score) * v}",
        "19:23",
        "the weight has the axes",
    ),
}


def message(text: str) -> str:
    start = time.process_time()
    with pytest.raises(SpecError) as caught:
        load_text(text, "s.yaml")
    assert time.process_time() - start < 5  # other work shares the cores
    return str(caught.value)


def test_the_good_one_loads():
    load_text(GOOD)


@pytest.mark.parametrize("name", CASES)
def test_one_fault(name):
    old, new, place, *phrases = CASES[name]
    assert GOOD.count(old) == 1
    found = message(GOOD.replace(old, new))
    assert found.startswith(f"s.yaml:{place}: "), found
    for phrase in phrases:
        assert phrase in found, found


def test_an_error_whole():
    assert message(GOOD.replace("q * k", "qq * k")) == (
        "s.yaml:17:22: unknown name `qq`\n"
        "  17 |   score: scale * sum(qq * k, D) - slope * (i - j)\n"
        "     |                      ^^\n"
        "  allowed: q, k, v, slope, alive, window, scale, near; dims B, D, E, G, H, I, J, T; "
        "indices b, d, e, g, h, i, j, t\n"
        "  did you mean `q`?"
    )


@pytest.mark.parametrize(
    ("text", "phrase"),
    [
        ("", "s.yaml:1:1: the spec is empty"),
        ("# only a comment\n", "s.yaml:1:1: the spec is empty"),
        ("~", "s.yaml:1:1: a spec is a mapping; this is `~`"),
        ("hello", "this is `hello`"),
        ("- a\n- b", "this is a list"),
        ("{}", "s.yaml:1:1: a spec has no `mixer`"),
        ("? [a, b]\n: c", "s.yaml:1:3: a key is a name; this is a list"),
        ("a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]", "s.yaml:1:4: YAML anchors"),
        ("a:\n" + "".join(" " * k + "a:\n" for k in range(1, 200)), "nested too deeply"),
        ("x" * 70_000, "s.yaml:1:1: the spec has 70000 characters"),
        ("{" * 5000, "nested too deeply"),
        ("a: " + "-" * 5000, "s.yaml:1:1"),
    ],
)
def test_no_spec_at_all(text, phrase):
    assert phrase in message(text)


def test_macros_that_double():
    lines = "".join(f"  f{k}(x): f{k - 1}(x) + f{k - 1}(x)\n" for k in range(1, 30))
    spec = GOOD.replace("let:\n", f"define:\n  f0(x): x + 1\n{lines}let:\n  big: f29(i)\n")
    assert "this expression becomes too large" in message(spec)


def test_functions_that_grow():
    nested = "layernorm(" * 30 + "q" + ", D)" * 30
    found = message(GOOD.replace("sum(q * k", f"sum({nested} * k"))
    assert "this expression becomes too large" in found


def test_two_stages_make_a_name():
    text = """
    mixer: m
    inputs: {x: [B]}
    stages:
      - map: {y: x}
      - {name: again, map: {y: x + 1}}
      - map: {z: y}
    outputs: {z: [B]}
    """
    found = message(text)
    assert found.startswith("s.yaml:7:18: `y` is made by stage 1 and by stage `again`")
    load_text(text.replace("z: y", "z: x"))


def test_a_head_group_in_the_output():
    text = "mixer: m\ninputs: {x: [B, G], y: [H]}\nheads: {G: H}\nmap: {o: x}\noutputs: {o: [B, H]}"
    assert "declare it with G, or read the groups per head: `x[G=h // (H // G)]`" in message(text)


def test_a_sequence_is_the_outermost_factor():
    text = "mixer: m\ninputs: {x: [B, R*J]}\ndims: {J: T}\nmap: {o: x}\noutputs: {o: [B, J*R]}"
    assert message(text).startswith("s.yaml:2:17: the sequence J is not the outermost factor")
    load_text(text.replace("R*J", "J*R"))


def test_a_size_of_a_let():
    text = (
        "mixer: m\ninputs: {x: [B]}\ndims: {N: c}\nlet: {c: B + 1}\nmap: {o: x}\noutputs: {o: [B]}"
    )
    assert message(text).startswith("s.yaml:3:11: the size of N reads a tensor or a let")


def test_no_form():
    text = "mixer: m\ninputs: {x: [B]}\noutputs: {o: [B]}"
    assert "the spec has no form" in message(text)
    assert "a stage with attention and map" in message(
        "mixer: m\ninputs: {x: [B]}\nstages:\n  - {map: {o: x}, attention: {over: B, score: x, "
        "output: {p: x}}}\noutputs: {o: [B]}"
    )


def test_files(tmp_path):
    path = tmp_path / "spec.yaml"
    path.write_bytes(GOOD.encode())
    assert load_file(path).name == "alibi_window"
    path.write_bytes(b"\xef\xbb\xbf" + GOOD.encode())
    assert load_file(path).name == "alibi_window"
    path.write_bytes(GOOD.replace("alibi", "al\u00efbi").encode("latin-1"))
    with pytest.raises(SpecError, match=r"spec\.yaml:1:10: the byte 0xef is not UTF-8"):
        load_file(path)
    path.write_bytes(bytes(range(256)) * 3000)
    with pytest.raises(SpecError, match="too large"):
        load_file(path)
    with pytest.raises(SpecError, match="No such file"):
        load_file(tmp_path / "none.yaml")
    with pytest.raises(SpecError, match="can't be read"):
        load_file(tmp_path)
    with pytest.raises(SpecError, match="can't be read"):
        load_file("a\0b")
