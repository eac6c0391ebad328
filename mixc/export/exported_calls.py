"""The part of an exported file that is called: the autograd function, and the self-test."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

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


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names)


def _params(mixer: Mixer) -> list[str]:
    return [p.name for p in mixer.params if p.runtime]


def _unpacked(names: Sequence[str]) -> str:
    return f"{_listed(names)} = " if len(names) != 1 else f"({names[0]},) = "


def _lines(text: str, depth: int) -> Iterator[str]:
    from ..backends.triton.lines import wrap

    yield from ("    " * depth + line for line in wrap(text, 4 * depth))


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
    keywords = [f"{name}={name}" for name in params]
    made = [o.name for o in forward.outputs]
    results = made[: len(mixer.outputs)]
    lines = [
        f"class {_class_name(mixer)}(torch.autograd.Function):",
        f'    """{mixer.name} under autograd."""',
        "",
        "    @staticmethod",
        *_lines(f"def forward(ctx, {_listed([*inputs, *params])}):", 1),
        *_lines(f"{_listed(made)} = {forward.name}({_listed([*inputs, *keywords])})", 2),
    ]
    whole = [o.name for o in forward.outputs[: len(results)] if o.kind is not Kind.REAL]
    if whole:
        lines += _lines(f"ctx.mark_non_differentiable({_listed(whole)})", 2)
    if derivative is None:
        lines += [*_lines(f"return {_listed(results)}", 2), "", *_without(results, mixer, reason)]
        return "\n".join(lines)
    backward = plans[1].mixer
    above = set(derivative.cotangents.values())
    order = [i.name for i in _original(derivative).inputs]
    saved = [i.name for i, name in zip(backward.inputs, order, strict=True) if name not in above]
    lines += _lines(f"ctx.save_for_backward({_listed(saved)})", 2)
    if read := _params(backward):
        items = ", ".join(f'"{name}": {name}' for name in read)
        lines += _lines(f"ctx.params = {{{items}}}", 2)
    lines += [*_lines(f"return {_listed(results)}", 2), ""]
    lines += _backward(mixer, plans, derivative, saved, dtype)
    return "\n".join(lines)


def _original(derivative: Derivative) -> Mixer:
    return derivative.backward


def _without(results: Sequence[str], mixer: Mixer, reason: str | None) -> Iterator[str]:
    """A backward pass that says why there is none."""
    from ..backends.python_text import comment

    yield "    @staticmethod"
    yield f"    def backward(ctx, {_listed([f'd_{name}' for name in results])}):"
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
    wide = plans[1].dtype is not plans[0].dtype
    original = _original(derivative)
    words = dict(zip((i.name for i in original.inputs), backward.inputs, strict=True))
    names = [derivative.cotangents.get(o.name, f"d_{o.name}") for o in mixer.outputs]
    names = [words[name].name if name in words else name for name in names]
    yield "    @staticmethod"
    yield "    @once_differentiable"
    yield from _lines(f"def backward(ctx, {_listed(names)}):", 1)
    yield from _lines(f"{_unpacked(saved)}ctx.saved_tensors", 2)
    above = {words[n].name for n in derivative.cotangents.values() if n in words}
    given = []
    for entry in backward.inputs:
        text = f"{entry.name}.contiguous()" if entry.name in above else entry.name
        real = entry.kind is Kind.REAL and entry.dtype is None
        given.append(f"{text}.float()" if wide and real else text)
    given += ["**ctx.params"] if _params(backward) else []
    made = dict(zip((o.name for o in original.outputs), backward.outputs, strict=True))
    results = [o.name for o in backward.outputs]
    if wide:
        yield from (f"        # {line}" for line in ("gradients of states add up in float32",))
    together = len(_listed(results)) + len(backward.name) > 80
    target = "gradients" if together else _listed(results)
    yield from _lines(f"{target} = {backward.name}({_listed(given)})", 2)
    places = {name: f"gradients[{n}]" if together else name for n, name in enumerate(results)}
    returned = []
    for entry in mixer.inputs:
        name = derivative.gradients.get(entry.name)
        if name is None:
            returned.append("None")
            continue
        cast = f".to(torch.{dtype})" if wide and entry.dtype is None else ""
        returned.append(f"{places[made[name].name]}{cast}")
    returned += ["None"] * len(_params(mixer))
    yield from _lines(f"return {_listed(returned)}", 2)


def _call(mixer: Mixer, plans: Sequence[Plan]) -> str:
    """The function of the mixer's name."""
    from ..backends.host_text import host_text

    forward = plans[0].mixer
    names = {dim: str(size) for dim, size in plans[0].sizes}
    params = [p for p in forward.params if p.runtime]
    keywords = [f"{p.name}={host_text(p.value, names).code}" for p in params]
    inputs = [i.name for i in forward.inputs]
    signature = [*inputs, *(["*", *keywords] if keywords else [])]
    given = _listed([*inputs, *(p.name for p in params)])
    shapes = [f"{i.name}: {_shape(i)}" for i in forward.inputs]
    made = ", ".join(f"{o.name}: {_shape(o)}" for o in forward.outputs[: len(mixer.outputs)])
    return "\n".join(
        [
            *_lines(f"def {mixer.name}({_listed(signature)}):", 0),
            f'    """{mixer.name} by kernels, forward and backward.',
            "",
            *(f"    {shape}" for shape in shapes),
            *(f"    {line}" for line in [f"Returns {made}."]),
            '    """',
            *_lines(f"return {_class_name(mixer)}.apply({given})", 1),
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


def _words(variable: str, listed: str) -> Iterator[str]:
    """``variable = "a b c".split()``, in several lines where it is long."""
    import textwrap

    if len(listed) < 64:
        yield f'        {variable} = "{listed}".split()'
        return
    yield f"        {variable} = ("
    lines = textwrap.wrap(listed, 80)
    yield from (f'            "{line} "' for line in lines[:-1])
    yield f'            "{lines[-1]}"'
    yield "        ).split()"


def _main(mixer: Mixer, wanted: Sequence[int], results: Sequence[str], dtype: str) -> str:
    listed = " ".join(results)
    lines = [
        "def self_test():",
        '    """Hold results and gradients against the reference; exit code 1 if one is wrong."""',
        '    device = "cuda" if torch.cuda.is_available() else "cpu"',
        "    wrong = 0",
        "    for case in CASES:",
        "        torch.manual_seed(0)",
        "        inputs = [x.to(device) for x in draw(**case)]",
        f"        eps = torch.finfo(torch.{dtype}).eps",
        *_lines(f"found = compare({mixer.name}, reference, inputs, {list(wanted)}, eps)", 2),
        *_words("names", listed),
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
            case: dict[str, object] = {dim: known[dim] for dim in self._free()}
            ranges = integer_ranges(self.mixer, sizes, {})
            for entry in self.mixer.inputs:
                if entry.kind is Kind.INT:
                    case[entry.name] = (ranges[entry.name].low, ranges[entry.name].high)
            text = ", ".join(f'"{name}": {value!r}' for name, value in case.items())
            lines.extend(_lines(f"{{{text}}}", 1))
            lines[-1] += ","
        return "\n".join([*lines, "]"])

    def function(self) -> str:
        """The function ``draw``."""
        from ..autotune.checking.draws import Draw, draws

        laws = draws(self.mixer, self.all_sizes[0], self.params)
        whole = [i.name for i in self.mixer.inputs if i.kind is Kind.INT]
        signature = ", ".join([*self._free(), *whole])
        lines = [*_lines(f"def draw({signature}):", 0), '    """Random inputs."""']
        for entry in self.mixer.inputs:
            law = laws.get(entry.name, Draw())
            lines += _lines(f"{entry.name} = {self._drawn(entry, law)}", 1)
        returned = [
            f"{i.name}.to(torch.{i.dtype or self.dtype})" if i.kind is Kind.REAL else i.name
            for i in self.mixer.inputs
        ]
        lines += _lines(f"return {_listed(returned)}", 1)
        return "\n".join(lines)

    def _shape(self, entry: Input) -> str:
        axes = [
            " * ".join(str(self.fixed.get(dim, self._dim(dim))) for dim in product) or "1"
            for product in entry.layout
        ]
        return f"[{', '.join(axes)}]"

    def _drawn(self, entry: Input, law: Draw) -> str:
        shape = self._shape(entry)
        if entry.kind is Kind.BOOL:
            return f"torch.rand({shape}) < 0.5"
        if entry.kind is Kind.INT:
            name = entry.name
            code = f"torch.randint({name}[0], max({name}[1], {name}[0] + 1), {shape})"
            code += ".sort(-1).values" if entry.sorted and entry.layout else ""
            return f"{code}.{'long' if entry.dtype == 'int64' else 'int'}()"
        return _by_law(law, shape, _unit_axes(entry, law))


def _unit_axes(entry: Input, law: Draw) -> list[int]:
    """The axes along which vectors have a norm of their own, where they are whole axes."""
    return [n for n, product in enumerate(entry.layout) if set(product) & set(law.unit)]


def _by_law(law: Draw, shape: str, unit: Sequence[int]) -> str:
    from ..autotune.checking.draws import Law

    normal = f"torch.randn({shape})"
    if unit:
        scale = f"{law.scale} * " if law.scale != 1 else ""
        return f"{scale}torch.nn.functional.normalize({normal}, dim={unit[-1]})"
    if law.within is not None and law.within.low > -1e30 and law.within.high < 1e30:
        low, high = law.within.low, law.within.high
        return f"{low} + {high - low} * torch.rand({shape})"
    if law.within is not None and law.within.low > -1e30:
        return f"{law.within.low} + torch.exp({normal} / 2)"
    if law.within is not None and law.within.high < 1e30:
        return f"{law.within.high} + torch.nn.functional.logsigmoid({normal} + 3)"
    return {
        Law.NORMAL: normal,
        Law.NEGATIVE: f"torch.nn.functional.logsigmoid({normal} + 3)",
        Law.LITTLE: f"torch.sigmoid({normal} - 3)",
        Law.MUCH: f"torch.sigmoid({normal} + 3)",
        Law.SHARE: f"torch.sigmoid({normal})",
        Law.POSITIVE: f"torch.exp({normal} / 2)",
    }[law.law]


__all__ = ["call_text", "self_test_text"]
