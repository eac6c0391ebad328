"""The convolution form: a sum over lags, written as the map that it is.

``y[t] = sum(kernel * signal[T=t - l], L)``: packing, decoding, derivatives and kernels know it as
such, and what is written so in a map is a convolution too.
"""

from __future__ import annotations

from ....ir.expression import Call, Expr, Index, Size, call
from ....ir.mixer import Equation
from ....ir.rewriting import substitute, walk
from ..names.definitions import check_annotation, resolve
from ..names.layouts import known_dim, read_dim
from ..names.names import check_name
from ..names.scope import Scope
from ..schema import ConvolutionSpec
from ..terms.reading import read
from ..text.grammar import parse_target
from ..text.positions import Text, clip
from ..text.source import closest, listed
from .renaming import Renaming

_MODES = ("zero", "circular")


def read_convolution(spec: ConvolutionSpec, scope: Scope, renaming: Renaming) -> Equation:
    """A convolution as an equation.

    Raises:
        SpecError: a signal without the axis, or a kernel that can't be read at negative lags.
    """
    dims = scope.context.dims
    over, lag = known_dim(spec.over, dims.known), known_dim(spec.lag, dims.known)
    _check_axes(spec, over, lag)
    circular = _circular(spec.mode)
    kernel, signal = (_value(spec, name, scope) for name in ("kernel", "signal"))
    if over not in signal.axes or lag in signal.axes:
        found = f"lacks the axis {over}" if over not in signal.axes else f"has the axis {lag}"
        raise spec.signal.error(
            f"the signal {found}; it is read along {over}, once for each lag",
            allowed=f"its axes: {listed(sorted(signal.axes)) or 'none'}",
        )

    def term(weight: Expr, distance: Expr) -> Expr:
        place: Expr = call("sub", Index(over), distance)
        if circular:
            place = call("mod", place, Size(over))
        there = read(signal, [(over, place)], scope, spec.signal.span)
        return dims.call("mul", weight, there)

    total = term(kernel, _distance(spec, lag, scope))
    if not spec.causal and _all_lags(lag, over, scope):
        negative = call("neg", Index(lag))
        earlier = term(_at_negative(kernel, lag, spec.kernel), negative)
        total = call("add", total, call("where", call("gt", Index(lag), 0), earlier, 0.0))
    name = check_name(spec.output, renaming.made(spec.output.value), scope.context)
    dims.use(lag, spec.lag.span)
    value = dims.reduce("sum", total, (lag,), span=spec.kernel.span)
    return Equation(name, value, span=spec.output.span)


def _check_axes(spec: ConvolutionSpec, over: str, lag: str) -> None:
    if over == lag:
        raise spec.lag.error(
            f"the lags run along {over} itself",
            do="name another axis: the kernel's own, or a new one for all lags",
        )


def _circular(mode: Text | None) -> bool:
    word = "zero" if mode is None else mode.value.strip()
    if word not in _MODES:
        assert mode is not None
        raise mode.error(
            f"unknown mode `{clip(word)}`", allowed=listed(_MODES), do=closest(word, _MODES)
        )
    return word == "circular"


def _value(spec: ConvolutionSpec, name: str, scope: Scope) -> Expr:
    text: Text = getattr(spec, name)
    value = resolve(f"the {name}", text, scope)
    _, annotated, _ = parse_target(spec.key(name))
    check_annotation(f"the {name}", value, annotated, scope.context)
    return value


def _all_lags(lag: str, over: str, scope: Scope) -> bool:
    """Whether the lags are those of the whole sequence, not an axis of so many taps."""
    dims = scope.context.dims
    return dims.sequence(lag) == dims.sequence(over)


def _distance(spec: ConvolutionSpec, lag: str, scope: Scope) -> Expr:
    """How far back a tap reaches; of so many taps to both sides the middle one is here."""
    if spec.causal or _all_lags(lag, read_dim(spec.over), scope):
        return Index(lag)
    return call("sub", Index(lag), call("floordiv", Size(lag), 2))


def _at_negative(kernel: Expr, lag: str, text: Text) -> Expr:
    """The kernel as a function of the lag, at the lag's negative."""
    for node in walk(kernel):
        inside = node.axes.union(*(child.axes for child in node.children))
        if lag in inside and not isinstance(node, Call | Index):
            raise text.error(
                f"the kernel has values along {lag} that are no expressions in `{lag.lower()}`, "
                "so it has none for lags below 0",
                do=f"give {lag} a size of its own: its middle tap, {lag} // 2, is then at lag 0",
            )
    return substitute(kernel, {Index(lag): call("neg", Index(lag))})


__all__ = ["read_convolution"]
