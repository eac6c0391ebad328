"""A spec's text to a mixer."""

from __future__ import annotations

from pathlib import Path

from ...ir.errors import SpecError
from ...ir.expression import Expr, Kind, Ref, Scalar, Size, Span, walk
from ...ir.mixer import Map, Mixer, Output, Param, Stage
from .declare import (
    Lets,
    check_name,
    collect_dims,
    finish_params,
    read_inputs,
    read_macros,
    read_params,
    resolve,
)
from .layouts import check_axes, read_dim, read_layout
from .positions import MAX_CHARACTERS, Text, read_document
from .schema import SpecDocument, read_spec
from .scope import Clash, Context, Scope, Warning
from .source import Source, closest, listed
from .stages import read_stages


def load_text(text: str, path: str = "<text>") -> Mixer:
    """The mixer that a spec's text defines.

    Raises:
        SpecError: whatever is wrong with it, with its place.
    """
    return load_report(text, path)[0]


def load_file(path: str | Path) -> Mixer:
    """The mixer that a spec file defines.

    Raises:
        SpecError: no such file, not UTF-8, or as ``load_text``.
    """
    return load_text(read_file(path), str(path))


def read_file(path: str | Path) -> str:
    """The text of a spec file.

    Raises:
        SpecError: no such file, too large, or not UTF-8.
    """
    try:
        with open(path, "rb") as file:
            data = file.read(4 * MAX_CHARACTERS + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise SpecError(f"{path}: can't be read: {reason}", path=str(path)) from None
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = data[: error.start]
        shown = data.decode("utf-8", "replace")
        line, column = before.count(b"\n") + 1, len(before.rpartition(b"\n")[2].decode()) + 1
        raise Source(str(path), shown).error(
            Span(line, column),
            f"the byte 0x{data[error.start]:02x} is not UTF-8",
            do="save the file as UTF-8",
        ) from None


def load_report(text: str, path: str = "<text>") -> tuple[Mixer, list[Warning]]:
    """The mixer, and what is probably not meant although it loads."""
    source = Source(path, text)
    spec = read_spec(read_document(source))
    context = Context(source, collect_dims(spec))
    scope = Scope(context)
    inputs = read_inputs(spec, scope)
    read_params(spec, scope)
    read_macros(spec, scope)
    lets = Lets()
    lets.declare(spec.let, scope)
    _read_sizes(spec, scope)
    params, tables = finish_params(spec, scope)
    lets.finish(scope)
    inner = scope.child()
    stages = read_stages(spec, inner, lets)
    outputs = _outputs(spec, inner, stages)
    mixer = Mixer(
        name=check_name(spec.mixer, spec.mixer.value, context),
        inputs=inputs,
        outputs=outputs,
        stages=stages,
        params=params,
        tables=tables,
        lets=tuple(lets.equations),
        sequences=tuple(sorted(context.dims.sequences.items())),
        sizes=_ordered_sizes(spec, context, params),
        heads=tuple(context.dims.heads.items()),
        about=_prose(spec.about),
        source=_prose(spec.source),
        path=path,
        text=text,
        tiling=tuple((str(key), values) for key, values in spec.tiling.items()),
        check=tuple((str(key), value) for key, value in spec.check.items()),
        bench=tuple(tuple((str(k), v) for k, v in row.items()) for row in spec.bench),
    )
    _check_sizes_known(mixer, context)
    return mixer, context.warnings


def _prose(text: Text | None) -> str:
    return "" if text is None else " ".join(text.value.split())


def _read_sizes(spec: SpecDocument, scope: Scope) -> None:
    """The sizes that ``dims`` derives."""
    dims = scope.context.dims
    for key, text in spec.dims.items():
        if str(key) in dims.sequences and dims.sequences[str(key)] != str(key):
            continue
        if str(key) in dims.sequences and text.value.strip() in dims.known:
            continue
        value = resolve(f"the size {key}", text, scope)
        if value.axes:
            raise text.error(
                f"the size of {key} has the axes [{', '.join(sorted(value.axes))}]",
                allowed="integers, sizes and params",
            )
        if value.kind is Kind.REAL:
            raise text.error(
                f"the size of {key} is a real number",
                allowed="an integer expression in sizes and params",
                do="divide by `//`; round with `floor(…)` or `ceil(…)`",
            )
        dims.sizes[str(key)] = value


def _ordered_sizes(
    spec: SpecDocument, context: Context, params: tuple[Param, ...]
) -> tuple[tuple[str, Expr], ...]:
    """Derived sizes, each after those it needs, through params too."""
    values: dict[Expr, Expr] = {Size(dim): e for dim, e in context.dims.sizes.items()}
    values |= {Scalar(p.name, p.kind, p.runtime): p.value for p in params}
    done: dict[Expr, None] = {}
    places = {Size(str(key)): key.text.span for key in spec.dims}

    def visit(leaf: Expr, path: tuple[Expr, ...]) -> None:
        if leaf in done:
            return
        if leaf in path:
            chain = " → ".join(str(e) for e in (*path[path.index(leaf) :], leaf))
            raise context.error(places.get(path[0]), f"a size is defined by itself: {chain}")
        for node in walk(values[leaf]):
            if node in values:
                visit(node, (*path, leaf))
        done[leaf] = None

    for leaf in values:
        visit(leaf, ())
    return tuple((e.dim, values[e]) for e in done if isinstance(e, Size))


def _outputs(spec: SpecDocument, scope: Scope, stages: tuple[Stage, ...]) -> tuple[Output, ...]:
    context = scope.context
    found = []
    for key, items in spec.outputs.items():
        name, layout = str(key), read_layout(items)
        binding = scope.find(name)
        if isinstance(binding, Clash):
            raise key.text.error(f"`{name}` is made by {' and by '.join(binding.stages)}")
        made = _results(scope)
        if name not in made:
            raise key.text.error(
                f"nothing makes the output `{name}`",
                allowed=listed(made) or "the results of the stages and top-level lets",
                do=closest(name, made),
            )
        declared = [dim for product in layout for dim in product]
        origin = _origin(name, stages, made[name].axes - set(declared))
        check_axes(f"`{name}`", made[name], declared, context.source, key.text.span, origin)
        found.append(Output(name, layout, made[name].kind, key.text.span))
    return tuple(found)


def _results(scope: Scope) -> dict[str, Expr]:
    """Everything that an output may name: results of stages, top-level lets."""
    from .scope import Pending

    found: dict[str, Expr] = {
        name: value for name, value in scope.names.items() if isinstance(value, Expr)
    }
    top = scope.outermost
    for name, binding in top.names.items():
        if isinstance(binding, Pending) and isinstance(value := binding.resolve(), Ref):
            found.setdefault(name, value)
    return found


def _origin(name: str, stages: tuple[Stage, ...], extra: frozenset[str]) -> str:
    """Which clause of the stage that makes ``name`` has an axis too many."""
    from ...ir.mixer import Attention

    if not extra:
        return ""
    for stage in stages:
        if isinstance(stage, Attention) and any(r.name == name for r in stage.results):
            clauses: dict[str, Expr | None] = {
                "score": stage.score,
                "mask": stage.mask,
                "gain": stage.gain,
                **{f"output {o.name}": o.value for o in stage.outputs if o.name == name},
            }
            guilty = [c for c, e in clauses.items() if e is not None and extra & e.axes]
            return f" in the {' and the '.join(guilty)}" if guilty else ""
        if isinstance(stage, Map):
            continue
    return ""


def _check_sizes_known(mixer: Mixer, context: Context) -> None:
    """Every dim that an expression or output has must get its size from somewhere."""
    dims = context.dims
    known = set(dims.tensor) | set(dims.sizes) | {d for p in mixer.outputs for d in ()}
    sequences = {dims.sequence(dim) for dim in known}
    needed = dict(dims.used)
    for output in mixer.outputs:
        for dim in output.dims:
            needed.setdefault(dim, output.span)
    for dim, span in needed.items():
        if dim not in known and dims.sequence(dim) not in sequences:
            raise context.error(
                span,
                f"nothing gives the size of {dim}",
                do=f"an input with the axis {dim}, or `dims: {{{dim}: …}}`",
            )


__all__ = ["load_file", "load_report", "load_text", "read_dim", "read_file"]
