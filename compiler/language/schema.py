"""The document classes: they load a spec's YAML and generate its JSON Schema."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    ModelWrapValidatorHandler,
    PrivateAttr,
    Tag,
    ValidationError,
    model_validator,
)

from ...ir.errors import SpecError
from .text.fields import (
    Axes,
    Expression,
    Expressions,
    Flag,
    Key,
    Label,
    Numbers,
    Sizes,
    Wholes,
    Word,
    as_items,
    as_pairs,
    attention_shape,
    expected,
    line_shape,
    shape,
)
from .text.positions import Block, Items, Node, Text, broken_flow, clip, shape_name
from .text.source import closest, listed


class Section(BaseModel):
    """A mapping with a closed set of keys."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    annotated: ClassVar[frozenset[str]] = frozenset()  # keys that may be `key[AXES]`
    title: ClassVar[str] = "this mapping"

    _keys: dict[str, Text] = PrivateAttr(default_factory=dict)
    _block: Block | None = PrivateAttr(default=None)

    @model_validator(mode="wrap")
    @classmethod
    def _open(cls, node: object, handler: ModelWrapValidatorHandler[Self]) -> Self:
        if not isinstance(node, Block):
            raise expected(node, "a mapping", f"its keys may be: {listed(cls.keys())}")
        values: dict[str, Any] = {}
        keys: dict[str, Text] = {}
        for key, value in node.pairs:
            name = cls._key(key)
            if name in values:
                raise key.error(f"`{name}` is here twice")
            values[name], keys[name] = value, key
        cls._check_required(node, values)
        section = handler(values)
        section._keys, section._block = keys, node
        return section

    def key(self, name: str) -> Text:
        """The key ``name`` as written, with its annotation."""
        return self._keys[name]

    @property
    def block(self) -> Block:
        """The mapping as written."""
        assert self._block is not None
        return self._block

    @classmethod
    def keys(cls) -> list[str]:
        """Every key, as written."""
        return [field.alias or name for name, field in cls.model_fields.items()]

    @classmethod
    def _key(cls, key: Text) -> str:
        name = key.value.partition("[")[0].strip()
        keys = cls.keys()
        if name in cls.annotated or key.value in keys:
            return name if name in cls.annotated else key.value
        if key.flow and key.value.count("(") != key.value.count(")"):
            raise broken_flow(key)
        raise key.error(
            f"unknown key `{clip(key.value)}` in {cls.title}",
            allowed=listed(keys),
            do=closest(key.value, keys),
        )

    @classmethod
    def _check_required(cls, node: Block, values: dict[str, Any]) -> None:
        for name, field in cls.model_fields.items():
            key = field.alias or name
            if field.is_required() and key not in values:
                raise node.source.error(
                    node.span, f"{cls.title} has no `{key}`", do=f"add a line `{key}: …`"
                )


class InputSpec(Section):
    """An input with more than its axes."""

    title: ClassVar[str] = "an input"
    dims: Axes
    dtype: Label | None = None
    sorted: Flag = False
    grad: Flag = True
    default: Expression | None = None
    range: Numbers | None = None
    unit: Label | None = None
    weight: Expression | None = None
    buffer: Expression | None = None


class ParamSpec(Section):
    """A run-time number, or a table of constants."""

    title: ClassVar[str] = "a param"
    default: Expression | None = None
    runtime: Flag = False
    dims: Axes | None = None
    values: Numbers | None = None


class SinkSpec(Section):
    """Softmax with a logit that takes weight and gives no value."""

    title: ClassVar[str] = "a softmax"
    sink: Expression


class NormalizeSpec(Section):
    """A normaliser other than plain softmax."""

    title: ClassVar[str] = "a normaliser"
    softmax: SinkSpec | None = None
    weight: Expression | None = None
    denominator: Expression | None = None


Normalizer = Annotated[
    Annotated[Label, Tag("text")] | Annotated[NormalizeSpec, Tag("block")],
    Discriminator(shape("softmax, none, or a mapping", "text", "block")),
]
KeyAxes = Annotated[
    Annotated[Label, Tag("text")] | Annotated[Axes, Tag("items")],
    Discriminator(shape("an axis, or a list of axes,", "text", "items")),
]
AnyInput = Annotated[
    Annotated[Axes, Tag("items")] | Annotated[InputSpec, Tag("block")],
    Discriminator(shape("a list of axes, `[B, T]`, or `{dims: [B, T], …}`", "items", "block")),
]
AnyParam = Annotated[
    Annotated[Expression, Tag("text")] | Annotated[ParamSpec, Tag("block")],
    Discriminator(shape("a number, or `{dims: [S], values: […]}`", "text", "block")),
]


class AttentionSpec(Section):
    """For each position of the query axis, a weighted sum over the axis ``over``."""

    title: ClassVar[str] = "an attention"
    annotated: ClassVar[frozenset[str]] = frozenset({"score", "mask", "gain"})
    over: KeyAxes
    score: Expression
    mask: Expression | None = None
    normalize: Normalizer | None = None
    gain: Expression | None = None
    output: Expressions = {}
    lse: Label | None = None
    weights: Label | None = None
    carry: Expressions = {}
    feedback: Expressions = {}
    let: Expressions = {}

    def made(self) -> Iterator[Text]:
        """The names of its results, as written."""
        yield from (key.text for key in self.output)
        yield from (text for text in (self.lse, self.weights) if text is not None)
        yield from (key.text for key in self.feedback)


class PartsSpec(Section):
    """Attentions over key axes of their own that share one normaliser; equal outputs add up."""

    title: ClassVar[str] = "an attention in parts"
    parts: Annotated[tuple[AttentionSpec, ...], BeforeValidator(as_items)]
    normalize: Normalizer | None = None
    lse: Label | None = None
    let: Expressions = {}

    def made(self) -> Iterator[Text]:
        """The names of its results, as written, each once."""
        found = {text.value: text for part in reversed(self.parts) for text in part.made()}
        yield from reversed(found.values())
        if self.lse is not None:
            yield self.lse


AnyAttention = Annotated[
    Annotated[AttentionSpec, Tag("whole")] | Annotated[PartsSpec, Tag("parts")],
    Discriminator(attention_shape),
]


class KeepSpec(Section):
    """How many of the candidates of a selection are kept."""

    title: ClassVar[str] = "what is kept"
    top: Expression | None = None
    above: Expression | None = None
    mass: Expression | None = None


class ListSpec(Section):
    """The positions of a selection as a list."""

    title: ClassVar[str] = "a list of positions"
    name: Label
    axis: Label


class SelectSpec(Section):
    """For each row, which positions along the axis ``over`` are chosen."""

    title: ClassVar[str] = "a selection"
    annotated: ClassVar[frozenset[str]] = frozenset({"score", "among", "always"})
    over: KeyAxes
    score: Expression
    among: Expression | None = None
    keep: KeepSpec
    always: Expression | None = None
    output: Label | None = None
    list: ListSpec | None = None
    let: Expressions = {}


class ConvolutionSpec(Section):
    """For each position of the axis ``over``, a weighted sum over the positions before it."""

    title: ClassVar[str] = "a convolution"
    annotated: ClassVar[frozenset[str]] = frozenset({"kernel", "signal"})
    over: Label
    lag: Label
    kernel: Expression
    signal: Expression
    causal: Flag = True
    mode: Label | None = None
    output: Label
    let: Expressions = {}


class StateSpec(Section):
    """A state with more than its axes."""

    title: ClassVar[str] = "a state"
    dims: Axes
    dtype: Label | None = None
    complex: Flag = False


class RoundsSpec(Section):
    """An inner loop of a step."""

    title: ClassVar[str] = "an inner loop"
    over: Label
    step: Annotated[tuple[AnyLine, ...], BeforeValidator(as_items)]


AnyState = Annotated[
    Annotated[Axes, Tag("items")] | Annotated[StateSpec, Tag("block")],
    Discriminator(shape("a list of axes, `[D, E]`, or `{dims: [D, E], …}`", "items", "block")),
]
AnyLine = Annotated[
    Annotated[Label, Tag("text")] | Annotated[RoundsSpec, Tag("block")],
    Discriminator(line_shape),
]


class RecurrenceSpec(Section):
    """The body of the loop over ``over``, with values carried from row to row."""

    title: ClassVar[str] = "a recurrence"
    over: Label
    state: Annotated[dict[Key, AnyState], BeforeValidator(as_pairs)]
    initial: Expressions = {}
    step: Annotated[tuple[AnyLine, ...], BeforeValidator(as_items)]
    reset: Expression | None = None
    direction: Label | None = None
    let: Expressions = {}


class StageSpec(Section):
    """One form of ``stages``."""

    title: ClassVar[str] = "a stage"
    name: Label | None = None
    attention: AnyAttention | None = None
    recurrence: RecurrenceSpec | None = None
    select: SelectSpec | None = None
    convolution: ConvolutionSpec | None = None
    map: Expressions | None = None
    let: Expressions = {}
    like: Label | None = None
    suffix: Label | None = None
    with_: Expressions = Field(default={}, alias="with")
    direction: Label | None = None


class SpecDocument(Section):
    """A spec: what a sequence mixer computes, as equations."""

    title: ClassVar[str] = "a spec"
    mixer: Label
    about: Label | None = None
    source: Label | None = None
    inputs: Annotated[dict[Key, AnyInput], BeforeValidator(as_pairs)]
    dims: Expressions = {}
    heads: Annotated[dict[Key, Label], BeforeValidator(as_pairs)] = {}
    params: Annotated[dict[Key, AnyParam], BeforeValidator(as_pairs)] = {}
    let: Expressions = {}
    define: Expressions = {}
    attention: AnyAttention | None = None
    recurrence: RecurrenceSpec | None = None
    select: SelectSpec | None = None
    convolution: ConvolutionSpec | None = None
    map: Expressions | None = None
    stages: Annotated[tuple[StageSpec, ...], BeforeValidator(as_items)] | None = None
    outputs: Annotated[dict[Key, Axes], BeforeValidator(as_pairs)]
    tiling: Annotated[dict[Key, Wholes], BeforeValidator(as_pairs)] = {}
    check: Sizes = {}
    bench: Annotated[tuple[Sizes, ...], BeforeValidator(as_items)] = ()


def read_spec(document: Block) -> SpecDocument:
    """The document as classes.

    Raises:
        SpecError: an unknown or missing key, or a value of the wrong shape.
    """
    try:
        return SpecDocument.model_validate(document)
    except ValidationError as error:
        raise _located(document, error) from None


def _located(document: Block, error: ValidationError) -> SpecError:
    """A fault that only pydantic saw, at the deepest node on its way."""
    fault = error.errors()[0]
    node: Node = document
    for step in fault["loc"]:
        if isinstance(node, Items) and isinstance(step, int) and step < len(node.items):
            node = node.items[step]
        elif isinstance(node, Block):
            node = next((v for k, v in node.pairs if k.value == step), node)
    return node.source.error(node.span, f"{shape_name(node)} is not allowed here: {fault['msg']}")


def json_schema() -> dict[str, Any]:
    """The JSON Schema of the language, for editors."""
    schema = SpecDocument.model_json_schema()
    for section in (AttentionSpec, ConvolutionSpec, SelectSpec):
        _admit_annotations(schema["$defs"][section.__name__], section.annotated)
    dialect = "https://json-schema.org/draft/2020-12/schema"
    return {"$schema": dialect, **schema, "title": "mixc spec"}


def _admit_annotations(schema: dict[str, Any], keys: frozenset[str]) -> None:
    """Let ``key[AXES]`` stand for ``key``; a required one may then be spelled either way."""
    patterns = {}
    for key in sorted(keys):
        pattern = f"^{key}\\["
        patterns[pattern] = schema["properties"][key]
        if key in schema["required"]:
            schema["required"].remove(key)
    schema["patternProperties"] = patterns


__all__ = [
    "AttentionSpec",
    "ConvolutionSpec",
    "InputSpec",
    "NormalizeSpec",
    "ParamSpec",
    "PartsSpec",
    "RecurrenceSpec",
    "RoundsSpec",
    "SelectSpec",
    "SpecDocument",
    "StageSpec",
    "StateSpec",
    "Word",
    "json_schema",
    "read_spec",
]
