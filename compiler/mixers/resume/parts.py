"""A later segment in pieces, each run after the rows of keys that the one before computed are kept.

map: {k_keys_after: rope(k, j)}; attention: … k_keys_seen …  -->  the map, then the attention
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from ....ir.expression import Kind, Ref, Scalar, Size
from ....ir.mixer import Equation, Input, Layout, Mixer, Output, Stage
from ....ir.names import names_in
from ....ir.rewriting import walk
from ....ir.stages import values

_DTYPES = {Kind.REAL: None, Kind.INT: "int32", Kind.BOOL: None}


def in_parts(mixer: Mixer, waits: Sequence[tuple[str, str]]) -> tuple[Mixer, ...]:
    """The mixers to run one after another; the mixer itself where no stage has to wait.

    ``waits``: a name that a stage makes, and the input that can be had only after that.
    """
    pieces = _pieces(mixer, dict(waits))
    if len(pieces) == 1:
        return (mixer,)
    made = {ref.name: (n, ref) for n, piece in enumerate(pieces) for ref in results(piece)}
    return tuple(_part(mixer, n, pieces, made) for n in range(len(pieces)))


def results(stages: Iterable[Stage]) -> list[Ref]:
    """What stages make."""
    return [made for stage in stages for made in stage.results]


def names_read(
    lets: Sequence[Equation], stages: Iterable[Stage], outputs: Iterable[str] = ()
) -> set[str]:
    """The names that stages and outputs read, through lets too."""
    inside = {let.name: let.value for let in lets}
    found = {name for stage in stages for _, value in values(stage) for name in names_in(value)}
    pending, found = [*found, *outputs], found | set(outputs)
    while pending:
        name = pending.pop()
        more = names_in(inside[name]) - found if name in inside else set()
        pending += more
        found |= more
    return found


def _pieces(mixer: Mixer, waits: dict[str, str]) -> list[list[Stage]]:
    """The stages, cut before each that reads what an earlier one of its piece has to make first."""
    pieces: list[list[Stage]] = [[]]
    barred: set[str] = set()
    for stage in mixer.stages:
        if barred & names_read(mixer.lets, [stage]):
            pieces.append([])
            barred = set()
        pieces[-1].append(stage)
        barred |= {waits[ref.name] for ref in results([stage]) if ref.name in waits}
    return pieces


def _part(
    mixer: Mixer, place: int, pieces: list[list[Stage]], made: dict[str, tuple[int, Ref]]
) -> Mixer:
    last = place == len(pieces) - 1
    own = [o for o in mixer.outputs if (made[o.name][0] if o.name in made else -1) == place]
    loose = [o for o in mixer.outputs if o.name not in made]
    after = [stage for piece in pieces[place + 1 :] for stage in piece]
    wanted = names_read(mixer.lets, after, [o.name for o in loose])
    given = {o.name for o in own}
    handed = [
        Output(name, _layout(mixer, ref), ref.kind, dtype=_DTYPES[ref.kind])
        for name, (n, ref) in made.items()
        if n == place and name in wanted - given
    ]
    taken = [
        Input(name, _layout(mixer, ref), ref.kind, _DTYPES[ref.kind])
        for name, (n, ref) in made.items()
        if n < place
    ]
    outputs = (*own, *(loose if last else []), *handed)
    read = names_read(mixer.lets, pieces[place], [o.name for o in outputs])
    part = replace(
        mixer,
        inputs=tuple(i for i in (*mixer.inputs, *taken) if i.name in read),
        outputs=outputs,
        stages=tuple(pieces[place]),
        lets=tuple(let for let in mixer.lets if let.name in read),
        params=(),
        sizes=(),
    )
    return _with_numbers(part, mixer)


def _with_numbers(part: Mixer, mixer: Mixer) -> Mixer:
    """The part with the params and the derived sizes that its terms come down to."""
    params = {param.name: param.value for param in mixer.params}
    sizes = dict(mixer.sizes)
    pending = [let.value for let in part.lets]
    pending += [value for stage in part.stages for _, value in values(stage)]
    dims = {d for i in part.inputs for d in i.dims} | {d for o in part.outputs for d in o.dims}
    numbers = set[str]()
    pending += [sizes[dim] for dim in sizes if dim in dims]
    while pending:
        for node in walk(pending.pop()):
            if isinstance(node, Scalar) and node.name not in numbers:
                numbers.add(node.name)
                pending.append(params[node.name])
            for dim in {*node.axes, *([node.dim] if isinstance(node, Size) else [])} - dims:
                dims.add(dim)
                pending += [sizes[dim]] if dim in sizes else []
    return replace(
        part,
        inputs=_with_lengths(part, mixer, dims - set(sizes)),
        params=tuple(param for param in mixer.params if param.name in numbers),
        sizes=tuple((dim, size) for dim, size in mixer.sizes if dim in dims),
    )


def _with_lengths(part: Mixer, mixer: Mixer, dims: set[str]) -> tuple[Input, ...]:
    """The part's inputs, and of the others those that alone tell the size of an axis."""
    inputs = list(part.inputs)
    told = {d for i in inputs for d in i.dims} | {d for t in mixer.tables for d in t.dims}
    roots = {mixer.sequence(dim) for dim in told} - {None}
    told |= {dim for dim in dims if dim in roots or mixer.sequence(dim) in roots}
    for dim in sorted(dims):
        found = next((i for i in mixer.inputs if dim in i.dims), None)
        if dim not in told and found is not None:
            inputs.append(found)
            told |= {*found.dims}
    return tuple(inputs)


def _layout(mixer: Mixer, ref: Ref) -> Layout:
    """That of the output of the name; else the axes in the order of the inputs."""
    output = next((o for o in mixer.outputs if o.name == ref.name), None)
    if output is not None:
        return output.layout
    met = dict.fromkeys(dim for i in mixer.inputs for dim in i.dims if dim in ref.axes)
    return tuple((dim,) for dim in (*met, *sorted(ref.axes - set(met))))


__all__ = ["in_parts", "names_read", "results"]
