"""The derivative of a mixer is a mixer: cotangents of its outputs in, gradients of its inputs out.

Reverse mode over the mixer's names, last to first. Each form has its adjoint in the forms of the
language, so that the reference executes it, and the schedules and checks that exist serve it:
equations by the rules of their terms, an attention by weighted sums over its pairs
(``attention_adjoint``), a recurrence by one that runs the other way (``recurrence_adjoint``).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace

from ....ir.expression import Call, Expr, Kind, Literal, Ref, Scalar, Size
from ....ir.mixer import (
    Attention,
    Equation,
    Input,
    Layout,
    Map,
    Mixer,
    Output,
    Param,
    Recurrence,
    Select,
    Stage,
)
from ....ir.names import names_in
from ....ir.optional import dims_in, expressions, free_dims
from ....ir.rewriting import every_node
from ....ir.roles import dim_roles, query_axis
from ....ir.stages import names_taken, unused_name, values
from ...analysis.gradients.derivatives import pullback
from .adjoints import Adjoints
from .attention_adjoint import attention_adjoint, needs_lse
from .known_strides import known_strides
from .matrix_adjoint import matrix_adjoint
from .own_groups import own_groups_apart
from .pair_values import pair_values_written_out
from .recurrence_adjoint import recurrence_adjoint
from .rounded_factors import multiplies_what_is_made
from .rounds_in_time import rounds_in_time
from .states_apart import states_apart
from .statistics_apart import statistics_apart

Node = Equation | Attention | Recurrence | Select
BACKWARD = "_backward"  # what the name of a backward pass ends in


@dataclass(frozen=True)
class Derivative:
    """A mixer with its backward pass.

    ``forward`` is the mixer with what is kept for the backward pass among its outputs; ``kept``
    names it, the mixer's own outputs among it where they are read again. ``backward`` takes those
    inputs that it reads, what is kept, and a cotangent for each output in ``cotangents``; it gives
    ``gradients``, by input. An input without a gradient is one that no output depends on.
    """

    forward: Mixer
    backward: Mixer
    kept: tuple[str, ...]
    cotangents: Mapping[str, str]
    gradients: Mapping[str, str]

    @property
    def in_float32(self) -> bool:
        """Whether kernels without products of 16 bits work in float32 whatever the inputs are: what
        states hand from row to row, and the sums of decays over all rows, lose too much in 16 bits.
        Elsewhere factors of products are rounded, and these are kept (``Mixer.wide``)."""
        return self.backward.wide


def differentiate(
    mixer: Mixer, wanted: Collection[str] | None = None, given: Collection[str] | None = None
) -> Derivative:
    """The derivative of ``mixer`` by its inputs.

    Args:
        wanted: inputs whose gradient is asked for; all that have one where it is left out.
        given: outputs that have a cotangent; all real ones where it is left out.

    Raises:
        UnsupportedError: a form or a term whose derivative is not there.
    """
    return _Derivation(mixer, wanted, given).run()


class _Derivation:
    def __init__(
        self, mixer: Mixer, wanted: Collection[str] | None, given: Collection[str] | None
    ) -> None:
        real = [i for i in mixer.inputs if i.kind is Kind.REAL and i.grad]
        self.wanted = [i for i in real if wanted is None or i.name in wanted]
        plain = statistics_apart(states_apart(rounds_in_time(mixer)))
        self.mixer = _with_logarithms(pair_values_written_out(plain))
        self.walked = known_strides(self.mixer)
        taken = names_taken(self.mixer)
        self.adjoints = Adjoints(taken, active_names(self.mixer, [i.name for i in self.wanted]))
        outputs = [o for o in mixer.outputs if o.kind is Kind.REAL and o.name in self._reached()]
        self.given = [o for o in outputs if given is None or o.name in given]
        self.cotangents = {o.name: self.adjoints.unused(f"d_{o.name}") for o in self.given}

    def run(self) -> Derivative:
        for output in self.given:
            cotangent = Ref(self.cotangents[output.name], frozenset(output.dims), Kind.REAL)
            self.adjoints.add({output.name: cotangent})
        for node in reversed(list(nodes(self.walked))):
            self._node(node)
        gradients = self._gradients()
        self.adjoints.close()
        return self._derivative(gradients)

    def _reached(self) -> frozenset[str]:
        return self.adjoints.active

    def _node(self, node: Node) -> None:
        adjoints = self.adjoints
        match node:
            case Equation(name, value):
                above = adjoints.of(name) if name in adjoints.active else None
                if above is not None:
                    adjoints.add(pullback(value, above, adjoints.active))
            case Attention():
                results = [r.name for r in node.results if r.name in adjoints.active]
                given = {name: above for name in results if (above := adjoints.of(name))}
                if given:
                    query, several = self._query(node), self._several(node)
                    attention_adjoint(node, query, adjoints, given, several)
            case Recurrence():
                results = [r.name for r in node.results if r.name in adjoints.active]
                given = {name: above for name in results if (above := adjoints.of(name))}
                if given and not matrix_adjoint(node, adjoints, given):
                    recurrence_adjoint(node, adjoints, given)

    def _query(self, stage: Attention) -> str | None:
        return query_axis(self.mixer, stage) if stage.queries else None

    def _several(self, stage: Attention) -> tuple[str, ...]:
        """The positions of a query in the order of its keys', where they have several."""
        size = dict(self.mixer.sizes).get(stage.over)
        keys = () if size is None else tuple(_factors(size))
        found = [self._partner(key, stage.queries) for key in keys]
        several = tuple(dim for dim in found if dim is not None)
        return several if len({*several}) == len(keys) > 1 else ()

    def _partner(self, key: str, queries: frozenset[str]) -> str | None:
        """The position of a query along the sequence of a key's."""
        own = self.mixer.sequence(key)
        same = (dim for dim in sorted(queries) if self.mixer.sequence(dim) == own)
        return None if own is None else next(same, None)

    def _gradients(self) -> dict[str, str]:
        """The gradients by input, each under a name of its own."""
        found = {}
        for declared in self.wanted:
            axes = frozenset(declared.dims)
            if (named := self.adjoints.final(declared.name, axes)) is not None:
                found[declared.name] = named.name
        return found

    # --------------------------------------------------------------------------- two mixers

    def _derivative(self, gradients: dict[str, str]) -> Derivative:
        mixer = self.mixer
        outputs = tuple(
            Output(gradients[i.name], i.layout, Kind.REAL, dtype=i.dtype)
            for i in self.wanted
            if i.name in gradients
        )
        cotangents = tuple(
            Input(self.cotangents[o.name], o.layout, dtype=o.dtype) for o in self.given
        )
        draft = replace(mixer, name=f"{mixer.name}{BACKWARD}", outputs=outputs, inputs=())
        sizes = (*mixer.sizes, *self.adjoints.sizes.items())
        draft = own_groups_apart(replace(draft, stages=tuple(self.adjoints.stages), sizes=sizes))
        draft = self._with_what_is_made_again(replace(draft, wide=_has_recurrence(mixer)))
        draft = replace(draft, params=_params(draft))
        kept = self._kept(draft)
        inputs = (*mixer.inputs, *kept, *cotangents)
        backward = _with_inputs(draft, inputs)
        own = {o.name for o in mixer.outputs}
        more = tuple(Output(i.name, i.layout, dtype=i.dtype) for i in kept if i.name not in own)
        forward = replace(mixer, outputs=(*mixer.outputs, *more))
        names = tuple(i.name for i in kept)
        return Derivative(forward, backward, names, self.cotangents, gradients)

    def _with_what_is_made_again(self, draft: Mixer) -> Mixer:
        """The backward pass with what it reads of the forward pass and makes itself: equations, and
        attentions whose weights it would not find again."""
        read = names_in(*expressions(replace(draft, lets=())))
        chosen: list[Equation | Attention] = []
        for node in reversed(list(nodes(self.mixer))):
            if isinstance(node, Equation) and node.name in read:
                chosen.append(node)
                read |= names_in(node.value)
            elif isinstance(node, Attention) and draft.wide and self._is_made_again(node, read):
                chosen.append(node)
                read |= names_in(*(value for _, value in values(node)))
        lets = {e.name for e in self.mixer.lets}
        kept = tuple(e for e in self.mixer.lets if e in chosen)
        again: list[Stage] = []
        for node in reversed(chosen):
            match node:
                case Attention():
                    again.append(node)
                case Equation(name) if name not in lets:
                    last = again[-1] if again else None
                    if isinstance(last, Map):
                        again[-1] = Map((*last.equations, node))
                    else:
                        again.append(Map((node,)))
        return replace(draft, lets=kept, stages=(*again, *draft.stages))

    def _is_made_again(self, stage: Attention, read: Collection[str]) -> bool:
        used = any(result.name in read for result in stage.results)
        return used and multiplies_what_is_made(stage, self.mixer)

    def _kept(self, draft: Mixer) -> tuple[Input, ...]:
        """Results of the forward pass that the backward pass reads."""
        read = names_in(*expressions(draft))
        read -= {result.name for stage in draft.stages for result in stage.results}
        outputs = {o.name: o for o in self.mixer.outputs}
        found = []
        for stage in self.mixer.stages:
            if isinstance(stage, Map):
                continue
            for result in stage.results:
                if result.name not in read:
                    continue
                if (output := outputs.get(result.name)) is not None:
                    found.append(Input(output.name, output.layout, result.kind, output.dtype))
                else:
                    layout = self._layout(result.axes)
                    if isinstance(stage, Select):  # as lists of rows are read: row after row
                        axes = dim_roles(self.mixer, {}).order(result.axes)
                        layout = tuple((dim,) for dim in axes)
                    dtype = {Kind.REAL: "float32", Kind.INT: "int32"}.get(result.kind)
                    found.append(Input(result.name, layout, result.kind, dtype))
        return tuple(found)

    def _layout(self, axes: frozenset[str]) -> Layout:
        """Some axes in the order in which the inputs have them, features last."""
        order = dict.fromkeys(dim for i in self.mixer.inputs for dim in i.dims)
        return tuple((dim,) for dim in (*order, *sorted(axes - order.keys())) if dim in axes)


def _factors(size: Expr) -> Iterator[str]:
    """The axes of a product of axes; none of anything else."""
    match size:
        case Size(dim):
            yield dim
        case Call("mul", (Call("mul") | Size() as a, Size(dim))):
            yield from _factors(a)
            yield dim


def _has_recurrence(mixer: Mixer) -> bool:
    return any(isinstance(stage, Recurrence) for stage in mixer.stages)


def nodes(mixer: Mixer) -> Iterator[Node]:
    """The lets, equations and stages of a mixer, each after all that it reads."""
    yield from mixer.lets
    for stage in mixer.stages:
        if isinstance(stage, Map):
            yield from stage.equations
        else:
            yield stage


def active_names(mixer: Mixer, wanted: Collection[str]) -> frozenset[str]:
    """The names whose value depends on what is wanted, other than as an integer or a constant."""
    active = set(wanted)
    for node in nodes(mixer):
        match node:
            case Equation(name, value):
                if _depends(value, active):
                    active.add(name)
            case Attention() | Recurrence() | Select():
                if any(_depends(value, active) for _, value in values(node)):
                    active |= {r.name for r in node.results if r.kind is Kind.REAL}
    return frozenset(active)


def _depends(value: Expr, active: Collection[str]) -> bool:
    pending = [value]
    while pending:
        node = pending.pop()
        match node:
            case Ref(name) if name in active and node.kind is Kind.REAL:
                return True
            case Call("detach"):
                continue
        if node.kind is Kind.REAL:
            pending += node.children
    return False


def _with_logarithms(mixer: Mixer) -> Mixer:
    """The mixer with a name for each attention's log of the total, where its adjoint needs it."""
    taken = names_taken(mixer)

    def change(stage: Stage) -> Stage:
        if not isinstance(stage, Attention) or stage.lse is not None or not needs_lse(stage):
            return stage
        first = stage.outputs[0].name if stage.outputs else stage.weights
        return replace(stage, lse=unused_name(f"{first}_lse", taken))

    return replace(mixer, stages=tuple(change(stage) for stage in mixer.stages))


def _params(draft: Mixer) -> tuple[Param, ...]:
    """The params, 0 where nothing reads them: they may be of sizes that the mixer does not know."""
    pending = [*expressions(draft), *(value for _, value in draft.sizes)]
    read: set[str] = set()
    while pending:
        own = {node.name for node in every_node(pending) if isinstance(node, Scalar)} - read
        read |= own
        pending = [param.value for param in draft.params if param.name in own]
    none = {Kind.BOOL: Literal(False), Kind.INT: Literal(0), Kind.REAL: Literal(0.0)}
    return tuple(p if p.name in read else replace(p, value=none[p.kind]) for p in draft.params)


def _with_inputs(draft: Mixer, inputs: tuple[Input, ...]) -> Mixer:
    """The mixer with the inputs that it reads, and those without which a size is not known.

    Heads of which no input tells the number are none of its concern.
    """
    read = names_in(*expressions(draft))
    chosen = [i for i in inputs if i.name in read]
    known = _told(chosen)
    sizes = _sizes_read(draft)
    wanted = free_dims(draft) | {dim for _, value in sizes for dim in dims_in(value)}
    for given in inputs:
        missing = wanted - known - {dim for dim, _ in sizes}
        if given not in chosen and missing & _told([*chosen, given]):
            chosen.append(given)
            known = _told(chosen)
    heads = tuple(pair for pair in draft.heads if known.issuperset(pair))
    made = tuple(i for i in inputs if i in chosen)
    return replace(draft, inputs=made, heads=heads, sizes=sizes)


def _told(inputs: Collection[Input]) -> set[str]:
    """The dims whose sizes follow from inputs: of a product of dims, the last one not yet known."""
    known: set[str] = set()
    axes = [axis for given in inputs for axis in given.layout]
    while found := {dim for axis in axes for dim in axis if {*axis} - known == {dim}}:
        known |= found
    return known


def _sizes_read(draft: Mixer) -> tuple[tuple[str, Expr], ...]:
    """The sizes of dims that a run needs, and of those that they follow from."""
    needed, sizes = set(free_dims(draft)), dict(draft.sizes)
    needed |= {dim for param in draft.params for dim in dims_in(param.value)}
    pending = [dim for dim in needed if dim in sizes]
    while pending:
        more = dims_in(sizes[pending.pop()]) - needed
        needed |= more
        pending += [dim for dim in more if dim in sizes]
    return tuple((dim, value) for dim, value in draft.sizes if dim in needed)


__all__ = ["Derivative", "active_names", "differentiate", "nodes"]
