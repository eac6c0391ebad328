"""The dims of a spec, collected before any expression is read; then their sizes."""

from __future__ import annotations

import re

from ....ir.expression import Expr, Kind, Scalar, Size, Span
from ....ir.host import evaluate_host
from ....ir.mixer import Layout, Param
from ....ir.rewriting import walk
from ..schema import InputSpec, ParamSpec, SpecDocument, Word
from ..text.positions import Text
from ..text.source import Source
from .definitions import check_host, resolve
from .dims import Dims
from .layouts import known_dim, read_dim, read_layout
from .names import NAME
from .scope import Context, Scope

MAX_DIMS = 100
# The axis that a stack makes, or values end to end.
_STACKED = re.compile(r"\b(?:stack|concat)\(\s*([A-Z][A-Za-z0-9_]*)\s*,")


def collect_dims(spec: SpecDocument, source: Source) -> Dims:
    """Every dim that the spec names, with sequences and head groups; sizes come later."""
    dims = Dims(known=set())
    for value in spec.inputs.values():
        dims.tensor |= _factors(read_layout(value.dims if isinstance(value, InputSpec) else value))
    for param in spec.params.values():
        if isinstance(param, ParamSpec) and param.dims is not None:
            dims.tensor |= _factors(read_layout(param.dims))
    dims.known |= dims.tensor
    for axes in spec.outputs.values():
        dims.known |= _factors(read_layout(axes))
    dims.known |= set(_STACKED.findall(source.text))
    for key, text in spec.dims.items():
        dims.known.add(read_dim(key.text))
        if is_sequence(text, spec):
            dims.known.add(text.value.strip())
            dims.sequences[str(key)] = text.value.strip()
    if len(dims.known) > MAX_DIMS:
        place = spec.key("dims" if spec.dims else "inputs")
        raise place.error(f"the spec has {len(dims.known)} dims", allowed=f"at most {MAX_DIMS}")
    _settle_sequences(spec, dims)
    _add_walked(spec, dims)
    _add_lags(spec, dims)
    _check_products(spec, dims)
    _collect_heads(spec, dims)
    return dims


def _check_products(spec: SpecDocument, dims: Dims) -> None:
    """A sequence is the outermost factor of a product, so that packing can cut it."""
    inputs = (v.dims if isinstance(v, InputSpec) else v for v in spec.inputs.values())
    for axes in (*inputs, *spec.outputs.values()):
        for item, product in zip(axes, read_layout(axes), strict=True):
            late = [dim for dim in product[1:] if dim in dims.sequences]
            if late:
                assert isinstance(item, Text)
                rest = "*".join(dim for dim in product if dim != late[0])
                raise item.error(
                    f"the sequence {late[0]} is not the outermost factor",
                    do=f"write `{late[0]}*{rest}`",
                )


def _factors(layout: Layout) -> set[str]:
    return {dim for product in layout for dim in product}


def is_sequence(text: Text, spec: SpecDocument) -> bool:
    """Whether a line of ``dims`` relates a dim to a sequence: a bare dim, not an expression.

    One that stands inside a product (``H*D``) is no sequence: ``{P: D}`` only says how long P is.
    """
    word = text.value.strip()
    is_dim = NAME.fullmatch(word) is not None and word[:1].isupper() and word not in spec.params
    return is_dim and word not in _inner_factors(spec)


def _inner_factors(spec: SpecDocument) -> set[str]:
    inputs = (v.dims if isinstance(v, InputSpec) else v for v in spec.inputs.values())
    layouts = (read_layout(axes) for axes in (*inputs, *spec.outputs.values()))
    return {dim for layout in layouts for product in layout for dim in product[1:]}


def _settle_sequences(spec: SpecDocument, dims: Dims) -> None:
    """Follow ``I: T, T: S`` to the end; a sequence that is an axis itself is its own."""
    for key in spec.dims:
        seen, dim = [str(key)], dims.sequences.get(str(key))
        while dim in dims.sequences:
            if dim in seen:
                raise key.text.error(f"the sequence of {key} is defined by itself")
            seen.append(dim)
            dim = dims.sequences[dim]
        if dim is not None:
            dims.sequences[str(key)] = dim
    for sequence in sorted(set(dims.sequences.values()) & dims.tensor):
        dims.sequences[sequence] = sequence


def _add_walked(spec: SpecDocument, dims: Dims) -> None:
    """An axis of an input that a recurrence walks over is a sequence, of its own if need be."""
    forms = (spec.recurrence, *(stage.recurrence for stage in spec.stages or ()))
    for form in forms:
        if form is not None and (over := form.over.value.strip()) in dims.tensor:
            dims.sequences.setdefault(over, over)


def _add_lags(spec: SpecDocument, dims: Dims) -> None:
    """The lags of a convolution that nothing else has are those of the whole sequence."""
    forms = (spec.convolution, *(stage.convolution for stage in spec.stages or ()))
    for form in forms:
        if form is None or (over := form.over.value.strip()) not in dims.known:
            continue
        if (lag := read_dim(form.lag)) not in dims.known:
            dims.known.add(lag)
            dims.sequences[lag] = dims.sequences.setdefault(over, over)


def _collect_heads(spec: SpecDocument, dims: Dims) -> None:
    for key, text in spec.heads.items():
        small, large = known_dim(key.text, dims.known), known_dim(text, dims.known)
        if small == large:
            raise key.text.error(f"{small} can't be a group of itself")
        dims.heads[small] = large
    for key in spec.heads:
        _check_heads_end(key, dims)


def _check_heads_end(key: Word, dims: Dims) -> None:
    seen, dim = set(), str(key)
    while dim in dims.heads:
        if dim in seen:
            raise key.text.error("these head groups contain each other")
        seen.add(dim)
        dim = dims.heads[dim]


def read_sizes(spec: SpecDocument, scope: Scope) -> None:
    """The sizes that ``dims`` derives: integer expressions in sizes and params.

    Raises:
        SpecError: an expression with axes, or a real number.
    """
    for key, text in spec.dims.items():
        if is_sequence(text, spec):
            continue
        value = resolve(f"the size {key}", text, scope)
        check_host(f"the size of {key}", text, value)
        if value.kind is Kind.REAL:
            raise text.error(
                f"the size of {key} is a real number",
                allowed="an integer expression in sizes and params",
                do="divide by `//`; round with `floor(…)` or `ceil(…)`",
            )
        is_known = not any(isinstance(node, Size | Scalar) for node in walk(value))
        if is_known and (size := evaluate_host(value, {})) < 0:
            raise text.error(f"the size of {key} is {size}", allowed="0 or more")
        scope.context.dims.sizes[str(key)] = value


def ordered_sizes(
    spec: SpecDocument, context: Context, params: tuple[Param, ...]
) -> tuple[tuple[str, Expr], ...]:
    """Derived sizes, each after those it needs, through params too.

    Raises:
        SpecError: a size that needs itself.
    """
    values: dict[Expr, Expr] = {Size(dim): e for dim, e in context.dims.sizes.items()}
    values |= {Scalar(p.name, p.kind, p.runtime): p.value for p in params}
    places: dict[Expr, Span | None] = {Size(str(key)): key.text.span for key in spec.dims}
    done: dict[Expr, None] = {}

    def visit(leaf: Expr, path: tuple[Expr, ...]) -> None:
        if leaf in path:
            chain = " → ".join(str(e) for e in (*path[path.index(leaf) :], leaf))
            raise context.error(places.get(path[0]), f"a size is defined by itself: {chain}")
        if leaf not in done:
            for node in walk(values[leaf]):
                if node in values:
                    visit(node, (*path, leaf))
            done[leaf] = None

    for leaf in values:
        visit(leaf, ())
    return tuple((e.dim, values[e]) for e in done if isinstance(e, Size))


def check_sizes_known(context: Context, outputs: dict[str, Span | None]) -> None:
    """Every dim that an expression or an output has must get its size from somewhere."""
    dims = context.dims
    known = dims.tensor | dims.sizes.keys()
    sequences = {dims.sequence(dim) for dim in known}
    for dim, span in {**outputs, **dims.used}.items():
        if dim not in known and dims.sequence(dim) not in sequences:
            raise context.error(
                span,
                f"nothing gives the size of {dim}",
                do=f"give it: an input with the axis {dim}, or `dims: {{{dim}: …}}`",
            )


__all__ = ["check_sizes_known", "collect_dims", "is_sequence", "ordered_sizes", "read_sizes"]
