"""The part of an exported file that is called: the autograd function, and the self-test."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from ..backends.host_text import host_text
from ..backends.python_text import (
    ATOM,
    UNARY,
    WIDEST,
    Text,
    call,
    chain,
    comment,
    infix,
    joined,
    listed,
    name,
    several,
    statement,
)
from ..ir.expression import Kind
from ..ir.mixer import Input, Mixer

if TYPE_CHECKING:
    from ..autotune.checking.draws import Draw
    from ..compiler.mixers.derivative.differentiate import Derivative
    from ..ir.plan import Plan


def call_text(
    mixer: Mixer,
    plans: Sequence[Plan],
    derivative: Derivative | None,
    dtype: str,
    reason: str | None,
) -> str:
    """The autograd function, and the function that users call."""
    return "\n\n\n".join(
        [_function_class(mixer, plans, derivative, dtype, reason), _call(mixer, plans)]
    )


def _class_name(mixer: Mixer) -> str:
    return "".join(part.capitalize() for part in mixer.name.split("_")) + "Function"


def _params(mixer: Mixer) -> list[str]:
    return [p.name for p in mixer.params if p.runtime]


def _together(names: Sequence[str]) -> Text:
    return several([name(one) for one in names])


def _pairs(values: Mapping[str, str]) -> Text:
    """A dict."""
    return listed([Text(f'"{key}": {value}') for key, value in values.items()], "{", "}")


def _function_class(
    mixer: Mixer,
    plans: Sequence[Plan],
    derivative: Derivative | None,
    dtype: str,
    reason: str | None,
) -> str:
    forward = plans[0].mixer
    params = _params(forward)
    inputs = [i.name for i in forward.inputs]
    keywords = {param: param for param in params}
    made = [o.name for o in forward.outputs]
    results = made[: len(mixer.outputs)]
    lines = [
        f"class {_class_name(mixer)}(torch.autograd.Function):",
        f'    """{mixer.name} under autograd."""',
        "",
        "    @staticmethod",
        *statement(call("forward", "ctx", *inputs, *params), 1, "def ", ":"),
        *statement(call(forward.name, *inputs, **keywords), 2, f"{', '.join(made)} = "),
    ]
    whole = [o.name for o in forward.outputs[: len(results)] if o.kind is not Kind.REAL]
    if whole:
        lines += statement(call("ctx.mark_non_differentiable", *whole), 2)
    returned = statement(_together(results), 2, "return ")
    if derivative is None:
        lines += [*returned, "", *_without(results, mixer, reason)]
        return "\n".join(lines)
    backward = plans[1].mixer
    above = set(derivative.cotangents.values())
    order = [i.name for i in _original(derivative).inputs]
    saved = [i.name for i, own in zip(backward.inputs, order, strict=True) if own not in above]
    lines += statement(call("ctx.save_for_backward", *saved), 2)
    if read := _params(backward):
        lines += statement(_pairs({param: param for param in read}), 2, "ctx.params = ")
    lines += [*returned, ""]
    lines += _backward(mixer, plans, derivative, saved, dtype)
    return "\n".join(lines)


def _original(derivative: Derivative) -> Mixer:
    return derivative.backward


def _without(results: Sequence[str], mixer: Mixer, reason: str | None) -> Iterator[str]:
    """A backward pass that says why there is none."""
    yield "    @staticmethod"
    above = [f"d_{result}" for result in results]
    yield from statement(call("backward", "ctx", *above), 1, "def ", ":")
    yield from (f"        {line}" for line in comment(f"no backward pass: {reason}", 8))
    yield f'        raise NotImplementedError("{mixer.name} has no backward pass by kernels")'


def _backward(
    mixer: Mixer,
    plans: Sequence[Plan],
    derivative: Derivative,
    saved: Sequence[str],
    dtype: str,
) -> Iterator[str]:
    backward = plans[1].mixer
    kept = {buffer.name for buffer in plans[1].buffers if buffer.dtype is not plans[1].dtype}
    original = _original(derivative)
    words = dict(zip((i.name for i in original.inputs), backward.inputs, strict=True))
    names = [derivative.cotangents.get(o.name, f"d_{o.name}") for o in mixer.outputs]
    names = [words[one].name if one in words else one for one in names]
    yield "    @staticmethod"
    yield "    @once_differentiable"
    yield from statement(call("backward", "ctx", *names), 1, "def ", ":")
    unpacked = f"({saved[0]},)" if len(saved) == 1 else ", ".join(saved)
    yield from statement(Text("ctx.saved_tensors"), 2, f"{unpacked} = ")
    above = {words[n].name for n in derivative.cotangents.values() if n in words}
    given = []
    for entry in backward.inputs:
        given.append(f"{entry.name}.contiguous()" if entry.name in above else entry.name)
    given += ["**ctx.params"] if _params(backward) else []
    made = dict(zip((o.name for o in original.outputs), backward.outputs, strict=True))
    results = [o.name for o in backward.outputs]
    if kept.intersection(results):
        yield "        # sums along the rows are made of these before they are rounded"
    targets = ", ".join(results)
    together = len(targets) + len(backward.name) > 80
    targets = "gradients" if together else targets
    yield from statement(call(backward.name, *given), 2, f"{targets} = ")
    places = {one: f"gradients[{n}]" if together else one for n, one in enumerate(results)}
    returned = []
    for entry in mixer.inputs:
        gradient = derivative.gradients.get(entry.name)
        if gradient is None:
            returned.append("None")
            continue
        own = made[gradient].name
        cast = f".to(torch.{dtype})" if own in kept and entry.dtype is None else ""
        returned.append(f"{places[own]}{cast}")
    returned += ["None"] * len(_params(mixer))
    yield from statement(_together(returned), 2, "return ")


def _call(mixer: Mixer, plans: Sequence[Plan]) -> str:
    """The function of the mixer's name."""
    forward = plans[0].mixer
    names = {dim: str(size) for dim, size in plans[0].sizes}
    params = [p for p in forward.params if p.runtime]
    keywords = {p.name: host_text(p.value, names) for p in params}
    inputs = [i.name for i in forward.inputs]
    signature = call(mixer.name, *inputs, *(["*"] if keywords else []), **keywords)
    applied = call(f"{_class_name(mixer)}.apply", *inputs, *keywords)
    shapes = [f"{i.name}: {_shape(i)}" for i in forward.inputs]
    made = ", ".join(f"{o.name}: {_shape(o)}" for o in forward.outputs[: len(mixer.outputs)])
    return "\n".join(
        [
            *statement(signature, 0, "def ", ":"),
            f'    """{mixer.name} by kernels, forward and backward.',
            "",
            *(f"    {shape}" for shape in shapes),
            *(f"    {line}" for line in [f"Returns {made}."]),
            '    """',
            *statement(applied, 1, "return "),
        ]
    )


def _shape(entry: object) -> str:
    layout = entry.layout  # type: ignore[attr-defined]
    return "[" + ", ".join("*".join(p) or "1" for p in layout) + "]"


# ----------------------------------------------------------------------------- the self-test


def self_test_text(
    mixer: Mixer, plan: Plan, derivative: Derivative | None, dtype: str
) -> list[str]:
    """Functions that draw inputs, compare, and report; and the call of the last."""
    from . import standalone

    copied: list[Callable[..., object]] = [
        standalone.largest_of,
        standalone.error_of,
        standalone.differentiated,
        standalone.rounded_again,
        standalone.compare,
    ]
    drawing = _Drawing(mixer, plan, dtype)
    wanted = [
        n for n, i in enumerate(mixer.inputs) if derivative and i.name in derivative.gradients
    ]
    results = [o.name for o in mixer.outputs]
    results += [f"d_{mixer.inputs[n].name}" for n in wanted]
    return [
        *(inspect.getsource(function).rstrip() for function in copied),
        drawing.cases(),
        drawing.function(),
        _main(mixer, wanted, results, dtype),
        'if __name__ == "__main__":\n    self_test()',
    ]


def _words(variable: str, words: str) -> Iterator[str]:
    """``variable = "a b c".split()``, in several lines where it is long."""
    import textwrap

    flat = f'        {variable} = "{words}".split()'
    if len(flat) <= WIDEST:
        yield flat
        return
    yield f"        {variable} = ("
    whole = WIDEST - len('            ""')  # what fits on one line is not for two
    lines = [words] if len(words) <= whole else textwrap.wrap(words, 80)
    yield from (f'            "{line} "' for line in lines[:-1])
    yield f'            "{lines[-1]}"'
    yield "        ).split()"


def _main(mixer: Mixer, wanted: Sequence[int], results: Sequence[str], dtype: str) -> str:
    words = " ".join(results)
    eps = name("eps")
    compared = call("compare", mixer.name, "reference", "inputs", f"{list(wanted)}", eps)
    lines = [
        "def self_test():",
        '    """Hold results and gradients against the reference; exit code 1 if one is wrong."""',
        '    device = "cuda" if torch.cuda.is_available() else "cpu"',
        "    wrong = 0",
        "    for case in CASES:",
        "        torch.manual_seed(0)",
        "        inputs = [x.to(device) for x in draw(**case)]",
        f"        eps = torch.finfo(torch.{dtype}).eps",
        *statement(compared, 2, "found = "),
        *_words("names", words),
        "        for name, (error, limit) in zip(names, found, strict=False):",
        '            verdict = "right" if error <= limit else "WRONG"',
        "            wrong += error > limit",
        '            print(f"{case} {name}: error {error:.1e}, limit {limit:.1e}: {verdict}")',
        "    raise SystemExit(1 if wrong else 0)",
    ]
    return "\n".join(lines)


class _Drawing:
    """Random inputs of sizes that no block divides."""

    def __init__(self, mixer: Mixer, plan: Plan, dtype: str) -> None:
        from ..ir.binding import param_values

        self.mixer, self.dtype = mixer, dtype
        self.fixed = dict(plan.sizes)
        self.all_sizes = list(self._sizes())
        self.params = param_values(mixer, self.all_sizes[0], {})

    def _sizes(self) -> Iterator[Mapping[str, int]]:
        from ..autotune.checking.proportions import Proportions, default_sizes, resized
        from ..autotune.checking.sampling import VerificationCase, is_admitted

        proportions = [
            Proportions(lengths=(37, 45, 21), ratio=2, groups=2, batch=(2, 3)),
            Proportions(lengths=(130, 70), ratio=1, groups=1, batch=(1, 2)),
            Proportions(lengths=(5,), ratio=1, groups=2, batch=(1, 2)),
        ]
        found = 0
        for one in proportions:
            free = {d: n for d, n in self.fixed.items() if d not in dict(self.mixer.sizes)}
            sizes = resized(self.mixer, default_sizes(self.mixer, one), free, {})
            if is_admitted(self.mixer, VerificationCase("", sizes)):
                found += 1
                yield sizes
        if not found:
            yield sizes

    def _dim(self, dim: str) -> str:
        return self.mixer.sequence(dim) or dim

    def _free(self) -> list[str]:
        """The dims that a case has a size for, by the names of their sequences."""
        dims = (dim for i in self.mixer.inputs for dim in i.dims if dim not in self.fixed)
        return list(dict.fromkeys(self._dim(dim) for dim in dims))

    def cases(self) -> str:
        """The constant CASES."""
        from ..autotune.checking.integer_ranges import integer_ranges

        lines = [
            "# Sizes, and where integers lie: from the first number to before the second.",
            "CASES = [",
        ]
        for sizes in self.all_sizes:
            known = {self._dim(dim): size for dim, size in sizes.items()}
            case = {dim: f"{known[dim]}" for dim in self._free()}
            ranges = integer_ranges(self.mixer, sizes, {})
            for entry in self.mixer.inputs:
                if entry.kind is Kind.INT:
                    low, high = ranges[entry.name].low, ranges[entry.name].high
                    case[entry.name] = f"({low!r}, {high!r})"
            lines.extend(statement(_pairs(case), 1, after=","))
        return "\n".join([*lines, "]"])

    def function(self) -> str:
        """The function ``draw``."""
        from ..autotune.checking.draws import Draw, draws

        laws = draws(self.mixer, self.all_sizes[0], self.params)
        whole = [i.name for i in self.mixer.inputs if i.kind is Kind.INT]
        signature = call("draw", *self._free(), *whole)
        lines = [*statement(signature, 0, "def ", ":"), '    """Random inputs."""']
        for entry in self.mixer.inputs:
            law = laws.get(entry.name, Draw())
            lines += statement(self._drawn(entry, law), 1, f"{entry.name} = ")
        returned = [
            f"{i.name}.to(torch.{i.dtype or self.dtype})" if i.kind is Kind.REAL else i.name
            for i in self.mixer.inputs
        ]
        made = _together(returned) if len(returned) > 1 else Text(f"({returned[0]},)")
        lines += statement(made, 1, "return ")
        return "\n".join(lines)

    def _shape(self, entry: Input) -> Text:
        sizes = {dim: name(str(self.fixed.get(dim, self._dim(dim)))) for dim in entry.dims}
        axes = [chain("*", [sizes[d] for d in p] or [Text("1")]) for p in entry.layout]
        return listed(axes, "[", "]")

    def _drawn(self, entry: Input, law: Draw) -> Text:
        shape = self._shape(entry)
        if entry.kind is Kind.BOOL:
            return infix(call("torch.rand", shape), "<", Text("0.5"))
        if entry.kind is Kind.INT:
            pattern = "torch.randint({0}[0], max({0}[1], {0}[0] + 1), {1})"
            drawn = joined(pattern, [name(entry.name), shape])
            drawn = drawn.then(".sort(-1).values") if entry.sorted and entry.layout else drawn
            return drawn.then(".long()" if entry.dtype == "int64" else ".int()")
        return _by_law(law, shape, _unit_axes(entry, law))


def _unit_axes(entry: Input, law: Draw) -> list[int]:
    """The axes along which vectors have a norm of their own, where they are whole axes."""
    return [n for n, product in enumerate(entry.layout) if set(product) & set(law.unit)]


def _by_law(law: Draw, shape: Text, unit: Sequence[int]) -> Text:
    normal = call("torch.randn", shape)
    if unit:
        drawn = call("torch.nn.functional.normalize", normal, dim=unit[-1])
        return infix(_number(law.scale), "*", drawn) if law.scale != 1 else drawn
    if law.within is None:
        return _unbounded(law, normal)
    low, high = law.within.low, law.within.high
    if low > -1e30 and high < 1e30:
        return infix(_number(low), "+", infix(_number(high - low), "*", call("torch.rand", shape)))
    if low > -1e30:
        return infix(_number(low), "+", _halved(normal))
    if high < 1e30:
        return infix(_number(high), "+", _shifted("torch.nn.functional.logsigmoid", normal, "+"))
    return _unbounded(law, normal)


def _unbounded(law: Draw, normal: Text) -> Text:
    from ..autotune.checking.draws import Law

    return {
        Law.NORMAL: normal,
        Law.NEGATIVE: _shifted("torch.nn.functional.logsigmoid", normal, "+"),
        Law.LITTLE: _shifted("torch.sigmoid", normal, "-"),
        Law.MUCH: _shifted("torch.sigmoid", normal, "+"),
        Law.SHARE: call("torch.sigmoid", normal),
        Law.POSITIVE: _halved(normal),
    }[law.law]


def _number(value: float) -> Text:
    return Text(f"{value}", ATOM if value >= 0 else UNARY)


def _halved(normal: Text) -> Text:
    return call("torch.exp", infix(normal, "/", Text("2")))


def _shifted(function: str, normal: Text, sign: str) -> Text:
    return call(function, infix(normal, sign, Text("3")))


__all__ = ["call_text", "self_test_text"]
