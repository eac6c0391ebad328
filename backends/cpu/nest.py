"""One loop nest as C++: elementwise values and reductions over the same axes, in one pass.

The last axis runs along vectors, a few of them at once (``WIDTH``). Normally the vectors are the
outermost loop and reductions stay in registers; a reduction along the vectors themselves has
them innermost. What lacks an axis is computed outside that axis's loop.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from ...ir.knob import Knob
from ...ir.reductions import identity, whole_identity
from ...ir.tile import Cast, Constant, DType, Elementwise, Range, Reduce, Value
from .functions import SCALAR_TYPE, VECTOR_TYPE, Text, write_call, write_cast, write_number
from .kernel_scope import Array, KernelScope

Lines = list[str]
VECTORS_AT_ONCE = Knob("vectors_at_once", (1, 2, 4), 4, "independent chains in a loop nest")


@dataclass
class NestText:
    """The writer of one nest.

    ``vector``: the last axis runs along vectors; ``rows_first``: a row at a time all along it, as
    rows lie in memory.
    """

    kernel: KernelScope
    axes: tuple[str, ...]  # in array order
    over: str | None = None
    vector: bool = True
    pair_axis: str | None = None
    backward: str | None = None  # an axis that is walked from its end
    rows_first: bool = False
    pre: list[Lines] = field(default_factory=list)  # by depth: before what is further inside
    post: list[Lines] = field(default_factory=list)
    known: dict[str, Text] = field(default_factory=dict)
    own: frozenset[str] = frozenset()  # values that this nest makes

    def __post_init__(self) -> None:
        self.lane_axis = self.axes[-1] if self.vector and self.axes else None
        outer = [a for a in self.axes if a != self.lane_axis]
        last = [a for a in (self.over, self.pair_axis) if a in outer]
        self.outer = [a for a in outer if a not in last] + list(dict.fromkeys(last))
        along = self.over is not None and self.over == self.lane_axis
        self.lanes_inside = along or self.rows_first
        self.pre = [[] for _ in range(len(self.outer) + 1)]
        self.post = [[] for _ in range(len(self.outer) + 1)]
        self.inner: Lines = []
        self.after: Lines = []  # once all loops are done
        self.pairs: Lines = []  # declarations of what two rows share
        self.paired: Lines = []
        block = 0 if self.lane_axis is None else self.kernel.blocks[self.lane_axis]
        vectors = block // self.kernel.target.lanes
        limit = self.kernel.knob(VECTORS_AT_ONCE)
        self.width = max((n for n in range(1, limit + 1) if vectors % n == 0), default=1)

    # -------------------------------------------------------------------------------- values

    def _depth_of(self, axes: Iterable[str]) -> int:
        return max((self.outer.index(a) + 1 for a in axes if a in self.outer), default=0)

    def value(self, value: Value) -> Text:
        """The text of a value in the innermost place where it is the same for all it serves."""
        if value.name not in self.known:
            self.known[value.name] = self._place(value)
        return self.known[value.name]

    def _place(self, value: Value) -> Text:
        kernel = self.kernel
        if not value.axes:
            return kernel.scalar(value)
        maker = kernel.fusion.makers.get(value.name)
        if value.name in kernel.fusion.virtual or value.name in self.own:
            assert maker is not None
            text = self._computed(maker)
        else:
            text = self._loaded(value)
        if isinstance(maker, Constant):
            return text
        return self._named(value, text)

    def _computed(self, maker: object) -> Text:
        match maker:
            case Constant(out, number):
                return Text(write_number(number, out.dtype), out.dtype)
            case Range(out, start):
                (axis,) = out.axes
                position = f"at_{axis}"
                if start is not None:
                    position = f"{self.value(start).code} + {position}"
                if axis == self.lane_axis:
                    return Text(f"(mx::splat({position}) + mx::iota())", out.dtype, True)
                return Text(f"({position})", out.dtype)
            case Elementwise(out, fn, args):
                return write_call(fn, [self.value(a) for a in args], out.dtype)
            case Cast(out, x):
                return write_cast(self.value(x), out.dtype)
        raise TypeError(f"no part of a loop nest: {maker}")

    def _loaded(self, value: Value) -> Text:
        array = self.kernel.array(value)
        code = self.kernel.element(array)
        if self.lane_axis in array.axes:
            load = "load" if array.row is None else "load_wide"
            return Text(f"mx::{load}(&{code})", value.dtype, True)
        if value.dtype is DType.BOOL:
            code = f"({code} != 0)"
        return Text(code, value.dtype)

    def _named(self, value: Value, text: Text) -> Text:
        depth = self._depth_of(value.axes)
        if not text.vector:
            name = self.kernel.fresh(f"{value.name}_at")
            self.pre[depth].append(f"const {SCALAR_TYPE[value.dtype]} {name} = {text.code};")
            return Text(name, value.dtype)
        kind = VECTOR_TYPE[value.dtype]
        name = self.kernel.fresh(f"{value.name}_v")
        if depth == len(self.outer) or self.lanes_inside:
            self.inner.append(f"const {kind} {name} = {text.code};")
            return Text(name, value.dtype, True)
        self.pre[depth].append(f"{kind} {name}[{self.width}];")
        self.pre[depth] += self._each_vector([f"{name}[v] = {text.code};"])
        return Text(f"{name}[v]", value.dtype, True)

    # --------------------------------------------------------------------------------- sinks

    def make(
        self, sinks: list[Elementwise | Cast | Reduce], overwritten: Iterable[Value] = ()
    ) -> None:
        """Compute the sinks, and store those that are read elsewhere.

        ``overwritten``: values in the place of which some of the sinks are put.
        """
        self.own = frozenset(s.out.name for s in sinks)
        for value in overwritten:
            self.value(value)
        for sink in sinks:
            if isinstance(sink, Reduce):
                self._reduce(sink)
            else:
                self._elementwise(sink)

    def _elementwise(self, sink: Elementwise | Cast) -> None:
        array = self.kernel.arrays.get(sink.out.name)
        # What is rounded on storing need not be rounded before.
        source = sink.x if isinstance(sink, Cast) and sink.x.dtype is DType.FLOAT32 else sink.out
        if array is not None:
            self.store(array, self.value(sink.out if array.row is None else source))
        forms = self.kernel.forms.get(sink.out.name, {})
        if not forms:
            if array is None:
                self.value(sink.out)
            return
        for (form, _), name in forms.items():
            self._store_form(form, name, self.value(source))

    def _store_form(self, form: str, name: str, text: Text) -> None:
        place = self.kernel.place(self.axes)
        if form == "rows":
            self.inner.append(f"mx::store(&{name}[{place}], mx::narrow_bf16({text.as_vector()}));")
            return
        assert self.pair_axis is not None
        assert self.lane_axis is not None
        pair = self.kernel.fresh(f"{name}_v")
        self.pairs.append(f"mx::vf {pair}[2][{self.width}];")
        self.inner.append(f"{pair}[u][v] = {text.as_vector()};")
        columns = self.kernel.blocks[self.lane_axis]
        self.paired.append(
            f"mx::store((int32_t*)&{name}[at_{self.pair_axis} / 2 * {columns} + "
            f"at_{self.lane_axis}], (mx::vi)mx::pair_bf16({pair}[0][v], {pair}[1][v]));"
        )

    def store(self, array: Array, text: Text) -> None:
        """Write a value to an array over all axes of the nest."""
        element = self.kernel.element(array)
        if self.lane_axis is not None:
            store = "store" if array.row is None else "store_narrow"
            self.inner.append(f"mx::{store}(&{element}, {text.as_vector()});")
        else:
            code = f"-int32_t({text.code})" if text.dtype is DType.BOOL else text.code
            self.inner.append(f"{element} = {code};")

    def _together(self, sink: Reduce, a: str, b: str, vector: bool = False) -> str:
        return write_together(sink.op, a, b, vector, sink.over in self.kernel.quick_over)

    def _reduce(self, sink: Reduce) -> None:
        kernel, out = self.kernel, sink.out
        x = self.value(sink.x)
        start = write_start(sink.op, out.dtype)
        name = kernel.fresh(f"{out.name}_acc")
        depth = self._depth_of(out.axes)
        kind = VECTOR_TYPE[out.dtype] if self.lane_axis is not None else SCALAR_TYPE[out.dtype]
        if self.lane_axis is None:
            self.pre[depth].append(f"{kind} {name} = {start};")
            self.inner.append(f"{name} = {self._together(sink, name, x.code)};")
            result = Text(name, out.dtype)
        elif sink.over == self.lane_axis and not self.lanes_inside:
            self.pre[depth].append(f"{kind} {name} = mx::splat({start});")
            combined = self._together(sink, name, x.as_vector(), vector=True)
            self.inner.append(f"{name} = {combined};")
            self._fold_later(sink, name, depth)
            return
        else:
            self.pre[depth].append(f"{kind} {name}[{self.width}];")
            self.pre[depth] += self._vectors([f"{name}[v] = mx::splat({start});"])
            combined = self._together(sink, f"{name}[v]", x.as_vector(), vector=True)
            self.inner.append(f"{name}[v] = {combined};")
            result = Text(f"{name}[v]", out.dtype, True)
        self._finish_reduce(sink, name, result, depth)

    def _fold_later(self, sink: Reduce, name: str, depth: int) -> None:
        """Keep the vector of each number until all are made: many are folded in one go."""
        kernel, lanes, axis = self.kernel, self.kernel.target.lanes, self.lane_axis
        assert axis is not None
        array = kernel.array(sink.out)
        partial = kernel.fresh(f"{array.name}_lanes")
        count = kernel.size(array.axes)
        kernel.local("float", partial, count * lanes)
        place = f"&{partial}[({kernel.place(array.axes)}) * {lanes}]"
        if not self.lanes_inside and kernel.blocks[axis] != self.width * lanes:
            both = self._together(sink, f"mx::load({place})", name, vector=True)
            self.post[depth].append(f"if (from_{axis} > 0) {name} = {both};")
        self.post[depth].append(f"mx::store({place}, {name});")
        fold = f"mx::fold_rows<mx::{sink.op.capitalize()}, {count}>"
        self.after.append(f"{fold}({array.name}, {partial});")

    def _finish_reduce(self, sink: Reduce, name: str, result: Text, depth: int) -> None:
        kernel, out = self.kernel, sink.out
        array = kernel.arrays.get(out.name) if out.axes else None
        if self.lanes_inside or self.lane_axis is None:
            code = name
            if self.lane_axis is not None:
                first = f"{name}[0]"
                for n in range(1, self.width):
                    both = self._together(sink, first, f"{name}[{n}]", True)
                    self.post[depth].append(f"{first} = {both};")
                code = f"mx::{_LANES[sink.op]}({name}[0])"
            if out.dtype is DType.BOOL and out.axes:
                code = f"-int32_t({code})"
            target = kernel.scalar_name(out) if array is None else ""
            if array is not None:
                target = f"{array.name}[{kernel.place(array.axes)}]"
            self.post[depth].append(f"{target} = {code};")
            return
        assert array is not None
        place = kernel.place(array.axes)
        self.post[depth] += self._each_vector(
            [f"mx::store(&{array.name}[{place}], {result.code});"]
        )

    # --------------------------------------------------------------------------------- loops

    def _vectors(self, body: Lines) -> Lines:
        """For each of the vectors at once, without a position."""
        return [f"MX_UNROLL for (int v = 0; v < {self.width}; ++v) {{", *_indent(body), "}"]

    def _each_vector(self, body: Lines) -> Lines:
        """For each of the vectors at once."""
        axis, lanes = self.lane_axis, self.kernel.target.lanes
        return self._vectors([f"const int at_{axis} = from_{axis} + v * {lanes};", *body])

    def lines(self) -> Lines:
        """The nest, whole."""
        return [*self._loops(), *self.after]

    def _loops(self) -> Lines:
        body = self._innermost()
        for depth in range(len(self.outer), -1, -1):
            axis = self.outer[depth - 1] if depth else None
            paired = depth == len(self.outer) and bool(self.paired)
            body = [*self.pre[depth], *body, *self.post[depth]] if not paired else body
            if axis is not None:
                step = f"at_{axis} += 2" if paired else f"++at_{axis}"
                block = self.kernel.blocks[axis]
                head = f"int at_{axis} = 0; at_{axis} < {block}; {step}"
                if axis == self.backward:
                    head = f"int at_{axis} = {block - 1}; at_{axis} >= 0; --at_{axis}"
                body = [f"for ({head}) {{", *_indent(body), "}"]
        if self.lane_axis is None or self.lanes_inside:
            return ["{", *_indent(body), "}"]
        return self._lane_loop(body)

    def _innermost(self) -> Lines:
        if self.lane_axis is None:
            return self.inner
        body = self._each_vector(self.inner) if self.inner else []
        if self.paired:
            return self._both_of_a_pair(body)
        return self._lane_loop(body) if self.lanes_inside else body

    def _both_of_a_pair(self, body: Lines) -> Lines:
        """Two rows at once; what reduces along a row makes no pairs, so ``post`` is empty here."""
        axis = self.outer[-1]
        inside = [f"const int at_{axis} = pair_{axis} + u;", *self.pre[-1], *body]
        both = [
            *self.pairs,
            "MX_UNROLL for (int u = 0; u < 2; ++u) {",
            *_indent(inside),
            "}",
            *self._each_vector(self.paired),
        ]
        both = self._lane_loop(both) if self.lanes_inside else both
        return [f"const int pair_{axis} = at_{axis};", *both]

    def _lane_loop(self, body: Lines) -> Lines:
        axis = self.lane_axis
        assert axis is not None
        step = self.width * self.kernel.target.lanes
        block = self.kernel.blocks[axis]
        head = f"for (int from_{axis} = 0; from_{axis} < {block}; from_{axis} += {step}) {{"
        return [head, *_indent(body), "}"]


_LANES: Mapping[str, str] = {
    "sum": "sum_lanes",
    "prod": "prod_lanes",
    "max": "max_lanes",
    "min": "min_lanes",
    "any": "any_lanes",
    "all": "all_lanes",
}


def write_start(op: str, dtype: DType) -> str:
    """What a reduction of nothing gives."""
    if op in ("any", "all"):
        return "true" if op == "all" else "false"
    if dtype.is_float:
        return write_number(identity(op), DType.FLOAT32)
    return write_number(whole_identity(op, 8 * dtype.size_bytes), dtype)


def write_together(op: str, a: str, b: str, vector: bool = False, quick: bool = False) -> str:
    """Two results of a reduction as one; ``quick``: a NaN among maxima may get lost."""
    match op:
        case "sum":
            return f"{a} + {b}"
        case "prod":
            return f"{a} * {b}"
        case "max":
            return f"mx::{'quick_max' if quick else 'max'}({a}, {b})"
        case "min":
            return f"mx::min({a}, {b})"
        case "any":
            return f"{a} | {b}" if vector else f"{a} || {b}"
        case _:
            return f"{a} & {b}" if vector else f"{a} && {b}"


def fill(kernel: KernelScope, array: Array, value: Value) -> None:
    """Write a value to an array of its own axes."""
    nest = NestText(kernel, array.axes, vector=kernel.in_vectors(array.axes))
    nest.store(array, nest.value(value))
    kernel.add(*nest.lines())


def declared(kernel: KernelScope, value: Value) -> str:
    """The name of a value's array, made and filled where there is none yet."""
    if value.name not in kernel.arrays:
        fill(kernel, kernel.declare(value), value)
    return kernel.arrays[value.name].name


def _indent(lines: Lines) -> Lines:
    return [f"  {line}" for line in lines]
