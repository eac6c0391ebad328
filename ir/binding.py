"""Sizes and params of one call: dims solved from the shapes of the inputs, numbers on the host."""

from __future__ import annotations

import difflib
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from .errors import ArgumentError
from .expression import Expr, Kind, Scalar, Size
from .host import Number, evaluate_host, is_host
from .mixer import AxisProduct, Input, Layout, Mixer
from .optional import free_dims, without_inputs
from .rewriting import walk

_KIND_NAMES = {Kind.BOOL: "true or false", Kind.INT: "an integer", Kind.REAL: "a number"}


def expected_layout_text(layout: Input | Layout) -> str:
    """The layout as a spec writes it: ``[B, T, G*R, 1]``."""
    axes = layout.layout if isinstance(layout, Input) else layout
    return "[" + ", ".join("*".join(product) or "1" for product in axes) + "]"


def shape_of(layout: Layout, sizes: Mapping[str, int]) -> tuple[int, ...]:
    """The shape of a tensor with this layout."""
    return tuple(math.prod(sizes[dim] for dim in product) for product in layout)


def suggestion(name: str, known: Iterable[str]) -> str:
    """``; did you mean 'x'?`` or, where nothing is near, the list of what there is."""
    names = list(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    if near:
        return f"; did you mean {near[0]!r}?"
    return f"; there is {', '.join(names)}" if names else "; there is none"


def bind_sizes(
    mixer: Mixer,
    shapes: Mapping[str, tuple[int, ...]],
    overrides: Mapping[str, Number] = {},
) -> dict[str, int]:
    """Solve every dim from the shapes of the inputs.

    ``shapes`` may leave out inputs that have a default. ``overrides`` are the caller's params,
    for derived sizes that depend on them.

    Raises:
        ArgumentError: the shapes do not fit the layouts; the text uses the spec's own names.
    """
    check_input_names(mixer, shapes)
    binding = _Binding(mixer, dict(overrides))
    given = [(i, tuple(shapes[i.name])) for i in mixer.inputs if i.name in shapes]
    for declared, shape in given:
        if len(shape) != len(declared.layout):
            raise ArgumentError(
                f"{declared.name}: expected {expected_layout_text(declared)}, a tensor of "
                f"{len(declared.layout)} axes, got {list(shape)}, a tensor of {len(shape)}"
            )
    while binding.solve_inputs(given) or binding.solve_derived() or binding.solve_empty(given):
        pass
    binding.check(given)
    _check_resolved(mixer, binding, given)
    _check_heads(mixer, binding)
    return binding.by_dim()


def solve_sizes(
    mixer: Mixer, given: Mapping[str, int], overrides: Mapping[str, Number] = {}
) -> dict[str, int]:
    """The sizes that are given by name, and those that follow from them.

    Raises:
        ArgumentError: a dim that there is not, or a size that the spec's dims rule out.
    """
    binding = _Binding(mixer, dict(overrides))
    known = free_dims(mixer)
    for dim, size in given.items():
        if dim not in known:
            raise ArgumentError(f"{mixer.name} has no dim {dim!r}{suggestion(dim, sorted(known))}")
        binding.settle(dim, size, "the sizes")
    while binding.solve_derived():
        pass
    binding.check([])
    return binding.by_dim()


def check_input_names(mixer: Mixer, names: Iterable[str]) -> None:
    """Refuse unknown inputs and the lack of required ones."""
    passed = set(names)
    declared = [i.name for i in mixer.inputs]
    for name in sorted(passed - set(declared)):
        raise ArgumentError(f"{mixer.name} has no input {name!r}{suggestion(name, declared)}")
    missing = [i for i in mixer.inputs if i.name not in passed and i.default is None]
    if missing:
        what = ", ".join(f"{i.name}: {expected_layout_text(i)}" for i in missing)
        raise ArgumentError(f"{mixer.name}: missing input {what}")


def param_values(
    mixer: Mixer, sizes: Mapping[str, int], overrides: Mapping[str, Number] = {}
) -> dict[str, Number]:
    """The value of every param: the caller's, else its default.

    Raises:
        ArgumentError: an override that is no param of the mixer, or of the wrong kind.
    """
    check_params(mixer, overrides)
    values: dict[str, Number] = {}
    for param in mixer.params:
        _settle_param(mixer, param.name, sizes, overrides, values)
    return {param.name: values[param.name] for param in mixer.params}


def params_in(
    mixer: Mixer, value: Expr, sizes: Mapping[str, int], overrides: Mapping[str, Number] = {}
) -> dict[str, Number]:
    """The values of the params that an expression reads, and of those that they depend on."""
    values: dict[str, Number] = {}
    for node in walk(value):
        if isinstance(node, Scalar):
            _settle_param(mixer, node.name, sizes, overrides, values)
    return values


def check_params(mixer: Mixer, overrides: Mapping[str, object]) -> None:
    """Refuse overrides that are no params or have the wrong kind; 0 and 1 are truth values too."""
    names = [p.name for p in mixer.params]
    for name, value in overrides.items():
        if name not in names:
            raise ArgumentError(f"{mixer.name} has no param {name!r}{suggestion(name, names)}")
        kind = mixer.param(name).kind
        fits = {
            Kind.BOOL: isinstance(value, int) and value in (0, 1),
            Kind.INT: isinstance(value, int) and not isinstance(value, bool),
            Kind.REAL: isinstance(value, int | float) and not isinstance(value, bool),
        }
        if not fits[kind]:
            raise ArgumentError(f"{name}: expected {_KIND_NAMES[kind]}, got {value!r}")
        if isinstance(value, int) and abs(value) >= 2**63:
            raise ArgumentError(f"{name}: expected at most {2**63 - 1}, got {value}")


def _settle_param(
    mixer: Mixer,
    name: str,
    sizes: Mapping[str, int],
    overrides: Mapping[str, Number],
    values: dict[str, Number],
    pending: tuple[str, ...] = (),
) -> None:
    """Put the param's value into ``values``, those it depends on first."""
    if name in values:
        return
    if name in pending:
        raise ArgumentError(f"params depend on each other: {' -> '.join((*pending, name))}")
    param = mixer.param(name)
    if name in overrides:
        values[name] = of_kind(overrides[name], param.kind)
        return
    for node in walk(param.value):
        if isinstance(node, Scalar):
            _settle_param(mixer, node.name, sizes, overrides, values, (*pending, name))
    values[name] = of_kind(evaluate_host(param.value, sizes, values), param.kind)


def of_kind(value: Number, kind: Kind) -> Number:
    """A number as a param of that kind has it."""
    match kind:
        case Kind.REAL:
            return float(value)
        case Kind.BOOL:
            return bool(value)
        case _:
            return value


@dataclass
class _Binding:
    """What is known so far, per dim; the dims of a sequence stand for one another."""

    mixer: Mixer
    overrides: dict[str, Number]
    known: dict[str, int] = field(default_factory=dict)  # by class, see _class
    origin: dict[str, tuple[str, str]] = field(default_factory=dict)  # class -> (dim, where from)

    def _class(self, dim: str) -> str:
        return self.mixer.sequence(dim) or dim

    def size(self, dim: str) -> int | None:
        return self.known.get(self._class(dim))

    def settle(self, dim: str, size: int, origin: str) -> None:
        self.known[self._class(dim)] = size
        self.origin[self._class(dim)] = (dim, origin)

    def reason(self, dim: str) -> str:
        """``J = 512 as in k``, the size of a dim and which input gave it."""
        source, name = self.origin[self._class(dim)]
        as_what = "as in" if source == dim else f"as {source} in"
        return f"{dim} = {self.size(dim)} {as_what} {name}"

    def by_dim(self) -> dict[str, int]:
        dims = [d for i in self.mixer.inputs for d in i.dims]
        dims += [d for o in self.mixer.outputs for d in o.dims]
        dims += [d for pair in self.mixer.sequences for d in pair]
        dims += [d for d, _ in self.mixer.sizes] + [*self.known]
        found = {dim: self.size(dim) for dim in dict.fromkeys(dims)}
        tables = {d: n for t in self.mixer.tables for d, n in zip(t.dims, t.shape, strict=True)}
        return {**tables, **{dim: size for dim, size in found.items() if size is not None}}

    def solve_inputs(self, given: list[tuple[Input, tuple[int, ...]]]) -> bool:
        """Settle the axes that have a single unknown factor; whether there was one."""
        progress = False
        for declared, shape in given:
            for product, extent in zip(declared.layout, shape, strict=True):
                progress |= self._solve_axis(declared, shape, product, extent)
        return progress

    def _solve_axis(
        self, declared: Input, shape: tuple[int, ...], product: AxisProduct, extent: int
    ) -> bool:
        unknown = Counter(self._class(dim) for dim in product if self.size(dim) is None)
        if len(unknown) != 1:
            return False
        ((_, power),) = unknown.items()
        dim = next(d for d in product if self.size(d) is None)
        rest = math.prod(self.size(d) or 0 for d in product if self.size(d) is not None)
        if rest == 0 and extent == 0:
            return False  # any size would do: wait for another input
        size = (
            round((extent / rest) ** (1 / power)) if rest and power > 1 else extent // (rest or 1)
        )
        if rest * size**power != extent:
            self._refuse(declared, shape, product, f"{rest} does not divide {extent}")
        self.settle(dim, size, declared.name)
        return True

    def solve_empty(self, given: list[tuple[Input, tuple[int, ...]]]) -> bool:
        """Settle a size that nothing tells because a factor beside it is 0: any fits, so 1."""
        for declared, shape in given:
            for product, extent in zip(declared.layout, shape, strict=True):
                unknown = [dim for dim in product if self.size(dim) is None]
                if len(unknown) == 1 and extent == 0 and len(product) > 1:
                    self.settle(unknown[0], 1, declared.name)
                    return True
        return False

    def solve_derived(self) -> bool:
        """Settle the derived sizes whose terms are known; whether there was one."""
        for dim, value in self.mixer.sizes:
            if self.size(dim) is None and (size := self.derived(value)) is not None:
                if size < 0:
                    raise ArgumentError(f"dims: {dim} would be {size}, from {value}")
                self.settle(dim, size, "dims")
                return True
        return False

    def derived(self, value: Expr) -> int | None:
        """A derived size, or None where its terms are not all known."""
        needed = needed_sizes(self.mixer, value, self.overrides)
        sizes = {dim: size for dim in needed if (size := self.size(dim)) is not None}
        if len(sizes) < len(needed):
            return None
        values = params_in(self.mixer, value, sizes, self.overrides)
        return int(evaluate_host(value, sizes, values))

    def check(self, given: list[tuple[Input, tuple[int, ...]]]) -> None:
        """Compare every axis, and every derived size, with what was solved."""
        for declared, shape in given:
            for product, extent in zip(declared.layout, shape, strict=True):
                sizes = [self.size(dim) for dim in product]
                known = [size for size in sizes if size is not None]
                if len(known) == len(sizes) and math.prod(known) != extent:
                    what = "*".join(product) or "the axis of 1"
                    self._refuse(declared, shape, product, f"{what} is {extent}")
        for dim, value in self.mixer.sizes:
            size = self.derived(value)
            if size is not None and size != self.size(dim):
                raise ArgumentError(f"{self.reason(dim)}, but dims has {dim} = {value} = {size}")

    def _refuse(
        self, declared: Input, shape: tuple[int, ...], product: AxisProduct, what: str
    ) -> None:
        reasons = [self.reason(d) for d in dict.fromkeys(product) if self.size(d) is not None]
        known = f" with {', '.join(reasons)}" if reasons else ""
        raise ArgumentError(
            f"{declared.name}: expected {expected_layout_text(declared)}{known}, "
            f"got {list(shape)}: {what}"
        )


def needed_sizes(mixer: Mixer, value: Expr, overrides: Mapping[str, Number] = {}) -> set[str]:
    """The dims that ``value`` depends on, also through params."""
    needed: set[str] = set()
    pending, seen = [value], set[str]()
    while pending:
        for node in walk(pending.pop()):
            if isinstance(node, Size):
                needed.add(node.dim)
            elif isinstance(node, Scalar) and node.name not in seen | overrides.keys():
                seen.add(node.name)
                pending.append(mixer.param(node.name).value)
    return needed


def _check_resolved(
    mixer: Mixer, binding: _Binding, given: list[tuple[Input, tuple[int, ...]]]
) -> None:
    for declared, shape in given:
        for product, extent in zip(declared.layout, shape, strict=True):
            unknown = [d for d in product if binding.size(d) is None]
            if unknown:
                raise ArgumentError(
                    f"{declared.name}: expected {expected_layout_text(declared)}, got "
                    f"{list(shape)}: {'*'.join(product)} = {extent} does not tell "
                    f"{' and '.join(unknown)} apart, and no other input does"
                )
    absent = [i.name for i in mixer.inputs if i.name not in {d.name for d, _ in given}]
    solved = binding.by_dim()
    for dim in sorted(free_dims(without_inputs(mixer, absent)) - solved.keys()):
        having = [i.name for i in mixer.inputs if dim in i.dims]
        hint = f"; it would come from {' or '.join(having)}" if having else ""
        raise ArgumentError(f"{mixer.name}: no input that was given tells the size of {dim}{hint}")


def _check_heads(mixer: Mixer, binding: _Binding) -> None:
    for small, large in mixer.heads:
        groups, heads = binding.size(small), binding.size(large)
        if groups is None or heads is None or groups == heads:
            continue
        if groups == 0 or heads % groups:
            raise ArgumentError(
                f"heads: {small} must divide {large}, got "
                f"{binding.reason(small)} and {binding.reason(large)}"
            )


__all__ = [
    "Number",
    "bind_sizes",
    "check_input_names",
    "check_params",
    "evaluate_host",
    "expected_layout_text",
    "is_host",
    "needed_sizes",
    "of_kind",
    "param_values",
    "params_in",
    "shape_of",
    "solve_sizes",
    "suggestion",
    "without_inputs",
]
