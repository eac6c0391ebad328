"""Reductions of every form, as programs, against the reference: factors, conditions, groups."""

from __future__ import annotations

import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mixc.compiler.language.load import load_text

from ..plans import assert_equal

# What can be reduced, with its axes.
TENSORS = {
    "x": "BTD",
    "y": "T",
    "w": "B",
    "c": "D",
    "r": "BT",
    "u": "TD",
    "z": "BHT",
    "g": "H",
}
CONDITIONS = {
    "t % 3 == 0": "T",
    "t > 2": "T",
    "y > 0": "T",
    "x > 0": "BTD",
    "r < 0.5": "BT",
    "z > 0": "BHT",
    "d > t": "DT",
    "h + t < 5": "HT",
    "w > 0": "B",
    "g > 0 and y > 0": "HT",
    "t > 7 or d == 1": "DT",
}
SIZES = {"B": 2, "T": 9, "D": 5, "H": 3, "M": 3}
# T is a feature, held whole by tiles, unless it is the axis of a sequence.
DIMS = ("{M: (T + 3) // 4}", "{M: (T + 3) // 4, S: T}")
Term = tuple[str, str]  # its text and its axes


def joined(*axes: str) -> str:
    return "".join(dim for dim in "BHTMDE" if any(dim in a for a in axes))


@st.composite
def terms(draw: st.DrawFn, depth: int = 2) -> Term:
    name, axes = draw(st.sampled_from(sorted(TENSORS.items())))
    form = draw(st.sampled_from(FORMS if depth else ("name",)))
    match form:
        case "name" | "number":
            return (name, axes) if form == "name" else ("2.0", "")
        case "cumsum" if "T" in axes:
            return f"cumsum({name}, T)", axes
        case "earlier" if "T" in axes:
            return f"{name}[T=t - 1]", axes
        case "inner" if "D" in axes:
            return f"sum({name}, D)", axes.replace("D", "")
    a, of_a = draw(terms(depth - 1))
    b, of_b = draw(terms(depth - 1))
    condition, of_condition = draw(st.sampled_from(sorted(CONDITIONS.items())))
    match form:
        case "mul" | "add" | "sub":
            sign = {"mul": "*", "add": "+", "sub": "-"}[form]
            return f"({a} {sign} {b})", joined(of_a, of_b)
        case "where":
            return f"where({condition}, {a}, {b})", joined(of_a, of_b, of_condition)
        case "half":
            return f"({a} / 2)", of_a
        case _:
            return {"neg": f"-({a})"}.get(form, f"tanh({a})"), of_a


FORMS = ("name", "number", "cumsum", "earlier", "inner", "mul", "mul", "add", "sub", "where")
FORMS += ("half", "neg", "tanh")


@st.composite
def reductions(draw: st.DrawFn) -> Term:
    """A reduction and the axes of its result."""
    x, axes = draw(terms())
    op = draw(st.sampled_from(["sum", "sum", "sum", "mean", "max", "norm", "any", "prod"]))
    condition, of_condition = draw(st.sampled_from([("", ""), *sorted(CONDITIONS.items())]))
    available = joined(axes, of_condition)
    if not available:
        return "sum(x, D)", "BT"
    over = draw(st.lists(st.sampled_from(available), min_size=1, max_size=2, unique=True))
    where = f", where={condition}" if condition else ""
    if draw(st.booleans()) and over == ["T"] and op in ("sum", "mean", "max"):
        return f"{op}({x}, T, M=t // 4{where})", joined(axes, of_condition, "M").replace("T", "")
    x = f"{x} > 0" if op == "any" else x
    kept = "".join(dim for dim in available if dim not in over)
    return f"{op}({x}, {', '.join(over)}{where})", kept


def check(reduction: Term, dims: str) -> None:
    text, axes = reduction
    inputs = ", ".join(f"{name}: [{', '.join(dims)}]" for name, dims in TENSORS.items())
    spec = f"mixer: m\ninputs: {{{inputs}}}\ndims: {dims}\nmap:\n  o: {text} + 0.5\n"
    mixer = load_text(f"{spec}outputs: {{o: [{', '.join(axes)}]}}\n")
    generator = torch.Generator().manual_seed(len(text))
    tensors = {
        name: torch.randn([SIZES[d] for d in dims], generator=generator, dtype=torch.float64)
        for name, dims in TENSORS.items()
    }
    assert_equal(mixer, {i.name: tensors[i.name] for i in mixer.inputs})


@settings(max_examples=60, deadline=None)
@given(reductions(), st.sampled_from(DIMS))
@example(("sum(x * 2.0, T, M=t // 4)", "BMD"), DIMS[1])
@example(("sum(-x, T, M=t // 4)", "BMD"), DIMS[1])
@example(("mean(x / 2, T, where=y > 0)", "BD"), DIMS[1])
@example(("norm(g * x, T, where=r < 0.5)", "BHD"), DIMS[1])
@example(("sum(2.0, T, where=t > 2)", ""), DIMS[1])
@example(("sum(cumsum(r, T) * x, T)", "BD"), DIMS[1])
@example(("sum(cumsum(u, T) + r, T)", "BD"), DIMS[1])
@example(("sum(z, H, T, where=z > 0)", "B"), DIMS[1])
@example(("max(z * c, H, T, where=z > 0)", "BD"), DIMS[1])
@example(("sum(x, T, D, where=d > t)", "B"), DIMS[1])
@example(("sum(y, T, D, where=d > t)", ""), DIMS[0])
@example(("sum(tanh(c * g), T, D, where=r < 0.5)", "BH"), DIMS[0])
def test_reductions_give_what_the_reference_does(reduction: Term, dims: str) -> None:
    check(reduction, dims)
