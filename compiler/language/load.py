"""A spec's text to a mixer."""

from __future__ import annotations

from pathlib import Path

from ...ir.errors import SpecError
from ...ir.expression import Span
from ...ir.mixer import Mixer
from .forms.drafts import draft_stages
from .forms.outputs import read_outputs
from .forms.stages import read_stages
from .head import prose
from .limits import check_inlined
from .names.collect import check_sizes_known, collect_dims, ordered_sizes, read_sizes
from .names.definitions import Lets, read_macros
from .names.inputs import read_inputs
from .names.layouts import known_dim
from .names.names import check_name
from .names.params import finish_params, read_params
from .names.promises import with_promises
from .names.scope import Context, Scope, SpecWarning
from .names.weights import with_weights
from .names.widths import settle_widths
from .schema import SpecDocument, Word, read_spec
from .text.compose import MAX_CHARACTERS, read_document
from .text.positions import Block, Text
from .text.source import Source


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
        SpecError: no such file, or not UTF-8.
    """
    try:
        with open(path, "rb") as file:
            data = file.read(4 * MAX_CHARACTERS + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise SpecError(f"{path}: can't be read: {reason}", path=str(path)) from None
    if len(data) > 4 * MAX_CHARACTERS:
        raise SpecError(f"{path}:1:1: the file is too large for a spec", path=str(path))
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = data[: error.start].decode("utf-8-sig", "replace")
        place = Span(before.count("\n") + 1, len(before.rpartition("\n")[2]) + 1)
        raise Source(str(path), data.decode("utf-8", "replace")).error(
            place, f"the byte 0x{data[error.start]:02x} is not UTF-8", do="save the file as UTF-8"
        ) from None


def load_report(text: str, path: str = "<text>") -> tuple[Mixer, list[SpecWarning]]:
    """The mixer, and what is probably not meant although it loads.

    Raises:
        SpecError: as ``load_text``.
    """
    source = Source(path, text)
    return load_document(read_document(source), source)


def load_document(document: Block, source: Source) -> tuple[Mixer, list[SpecWarning]]:
    """The mixer of a spec's document, and warnings.

    Raises:
        SpecError: as ``load_text``.
    """
    try:
        spec = read_spec(document)
        context = Context(source, collect_dims(spec, source))
        return _load(spec, context), context.warnings
    except RecursionError:  # the limits on nesting hold in an empty stack; a caller's may be full
        raise source.error(Span(1, 1), "the spec is nested too deeply to be read here") from None


def _load(spec: SpecDocument, context: Context) -> Mixer:
    top, lets = Scope(context), Lets()
    inputs = read_inputs(spec, top)
    read_params(spec, top)
    lets.declare(spec.let, top)
    read_macros(spec, top)
    drafts = draft_stages(spec, top)
    read_sizes(spec, top)
    params, tables = finish_params(spec, top)
    inputs = with_weights(spec, with_promises(spec, inputs, top), tables, top)
    lets.finish(top)
    inner = top.child()
    stages = read_stages(drafts, inner, lets)
    outputs = read_outputs(spec, inner, stages)
    settle_widths(context.dims, stages)
    check_sizes_known(context, {dim: o.span for o in outputs for dim in o.dims})
    mixer = Mixer(
        name=check_name(spec.mixer, spec.mixer.value, context),
        inputs=inputs,
        outputs=outputs,
        stages=stages,
        params=params,
        tables=tables,
        lets=tuple(lets.equations),
        sequences=tuple(sorted(context.dims.sequences.items())),
        sizes=ordered_sizes(spec, context, params),
        heads=tuple(context.dims.heads.items()),
        about=_prose(spec.about),
        source=_prose(spec.source),
        path=context.source.path,
        text=context.source.text,
        tiling=tuple((str(key), values) for key, values in spec.tiling.items()),
        check=_sizes(spec.check, context),
        check_span=spec.key("check").span if spec.check else None,
        bench=tuple(_sizes(row, context) for row in spec.bench),
    )
    check_inlined(mixer, context.source)
    return mixer


def _prose(text: Text | None) -> str:
    return "" if text is None else prose(text.value)


def _sizes(sizes: dict[Word, int], context: Context) -> tuple[tuple[str, int], ...]:
    return tuple((known_dim(key.text, context.dims.known), n) for key, n in sizes.items())


__all__ = ["load_document", "load_file", "load_report", "load_text", "read_file"]
