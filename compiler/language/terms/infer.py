"""The syntax tree to typed expressions: names, axes and kinds."""

from __future__ import annotations

from ....ir.errors import SpecError
from ....ir.expression import Call, Expr, Index, Kind, Literal, Size, Span
from ....ir.rewriting import every_node, walk
from ..names.constants import check_operator
from ..names.scope import Argument, Barred, Clash, Macro, Pending, Scope, placed
from ..text.grammar import HABITS
from ..text.positions import Text
from ..text.source import closest, listed
from ..text.surface import Apply, Binary, Bracket, Compare, Group, Name, Node, Number, Unary
from .arguments import Arguments
from .complexes import COMPLEX, Complex, not_real
from .functions import FUNCTIONS
from .reading import integer_index, position_axis, read, read_axis

_SYMBOLS = {
    "add": "+",
    "sub": "-",
    "mul": "*",
    "div": "/",
    "floordiv": "//",
    "mod": "%",
    "pow": "**",
}


def infer(node: Node, scope: Scope) -> Expr:
    """The typed expression that ``node`` means in ``scope``.

    Raises:
        SpecError: an unknown name, axes or kinds that do not fit, or an expression too large.
    """
    scope.context.enter(node.span)
    try:
        return scope.context.weigh(_infer(node, scope), node.span)
    finally:
        scope.context.leave()


def _infer(node: Node, scope: Scope) -> Expr:
    match node:
        case Number(value, span):
            return Literal(value, span=span)
        case Name():
            return _name(node, scope)
        case Group(inner, _):
            return infer(inner, scope)
        case Unary(op, x, span):
            operand = _operand(op, x, scope, span)
            return scope.context.dims.call(op, operand, span=span)
        case Binary():
            return _binary(node, scope)
        case Compare():
            return _compare(node, scope)
        case Bracket():
            return _bracket(node, scope)
        case Apply():
            return _apply(node, scope)


def _name(node: Name, scope: Scope) -> Expr:
    context = scope.context
    match scope.find(node.name):
        case Expr() as value:
            return placed(value, node.span)
        case Pending(resolve):
            return placed(resolve(), node.span)
        case Argument() as argument:
            return argument.value
        case Clash(stages):
            raise context.error(
                node.span,
                f"`{node.name}` is made by {' and by '.join(stages)}",
                do="give the results different names",
            )
        case Barred(found, do):
            raise context.error(node.span, found, do=do)
        case None:
            return _index_or_size(node, scope)


def _index_or_size(node: Name, scope: Scope) -> Expr:
    context, dims = scope.context, scope.context.dims
    if node.name in dims.known:
        return Size(dims.use(node.name, node.span), span=node.span)
    match dims.indexed(node.name):
        case [dim]:
            return Index(dims.use(dim, node.span), span=node.span)
        case []:
            raise _unknown(node, scope)
        case several:
            raise context.error(
                node.span,
                f"`{node.name}` could be the index of {' or '.join(several)}",
                do=f"write `index({several[0]})`",
            )


def _unknown(node: Name, scope: Scope) -> SpecError:
    dims = scope.context.dims
    if node.name in FUNCTIONS or node.name in scope.context.macros:
        do = f"`{node.name}` is a function: call it, `{node.name}(…)`"
        return scope.context.error(node.span, f"`{node.name}` without arguments", do=do)
    if (stage := scope.context.coming.get(node.name)) is not None:
        found = f"`{node.name}` is made by {stage}, later than it is read here"
        do = "a line that reads a stage's result belongs in a later stage: `map: {name: …}`"
        return scope.context.error(node.span, found, do=do)
    indices = sorted({dim.lower() for dim in dims.known})
    names = scope.visible()
    return scope.context.error(
        node.span,
        f"unknown name `{node.name}`",
        allowed=f"{listed(names)}; dims {listed(sorted(dims.known))}; indices {listed(indices)}",
        do=closest(node.name, [*names, *dims.known, *indices])
        or HABITS.get(node.name)
        or "declare it under `inputs:`, `params:` or `let:`",
    )


def _operand(op: str, node: Node, scope: Scope, span: Span) -> Expr:
    """An operand, of the kind that the operator takes."""
    value = infer(node, scope)
    if isinstance(value, Complex) and op not in COMPLEX:
        raise scope.context.error(span, **not_real(f"`{_SYMBOLS.get(op, op)}`"))
    if op in ("and", "or", "not") and value.kind is not Kind.BOOL:
        raise scope.context.error(
            span,
            f"`{op}` of a number",
            allowed="conditions: comparisons, booleans",
            do="compare the number: `x != 0`",
        )
    if op in ("floordiv", "mod") and value.kind is Kind.REAL:
        raise scope.context.error(
            span,
            f"`{_SYMBOLS[op]}` of a real number{_real_by_power(value)}",
            allowed="integers: indices, sizes, integer literals, params and inputs",
            do="take `floor(…)` first" + (", or divide by `/`" if op == "floordiv" else ""),
        )
    return value


def _real_by_power(value: Expr) -> str:
    """Why a value is real, where `**` of integers made it so."""
    for node in every_node([value]):
        match node:
            case Call("pow", (base, power)) if max(base.kind, power.kind) <= Kind.INT:
                if node.kind is Kind.REAL:
                    return f": `{power}` may be negative, which makes `{node}` real"
    return ""


def _binary(node: Binary, scope: Scope) -> Expr:
    left = _operand(node.op, node.left, scope, node.span)
    right = _operand(node.op, node.right, scope, node.span)
    if node.op == "sub":
        _warn_hidden(node.left, left, node.right, right, scope)
    check_operator(node, left, right, scope.context)
    return scope.context.dims.call(node.op, left, right, span=node.span)


def _compare(node: Compare, scope: Scope) -> Expr:
    whole: Expr | None = None
    left_node, left = node.first, infer(node.first, scope)
    for op, right_node, span in node.rest:
        right = infer(right_node, scope)
        if isinstance(left, Complex) or isinstance(right, Complex):
            raise scope.context.error(span, **not_real("a comparison"))
        _warn_hidden(left_node, left, right_node, right, scope)
        pair = scope.context.dims.call(op, left, right, span=span)
        whole = pair if whole is None else scope.context.dims.call("and", whole, pair, span=span)
        left_node, left = right_node, right
    assert whole is not None
    return whole


def _warn_hidden(a: Node, x: Expr, b: Node, y: Expr, scope: Scope) -> None:
    for node, other in ((a, y), (b, x)):
        if not isinstance(node, Name) or not any(isinstance(e, Index) for e in walk(other)):
            continue
        dims = scope.context.dims.indexed(node.name)
        if dims and scope.find(node.name) is not None:
            message = (
                f"`{node.name}` is a declared name here and hides the index of {dims[0]}; "
                f"write `index({dims[0]})` if the position is meant"
            )
            scope.context.warn(node.span, message)


def _check_hidden(node: Node, index: Expr, scope: Scope) -> None:
    """Refuse a real number whose name hides an index, where an index is read at."""
    if index.kind is not Kind.REAL or not isinstance(node, Name):
        return
    if dims := scope.context.dims.indexed(node.name):
        raise scope.context.error(
            node.span,
            f"`{node.name}` is a declared name here, a real number, and hides an index",
            do=f"write `index({dims[0]})` for the position",
        )


def _bracket(node: Bracket, scope: Scope) -> Expr:
    x = infer(node.x, scope)
    at: list[tuple[str, Expr]] = []
    for key, index_node in node.at:
        index = infer(index_node, scope)
        _check_hidden(index_node, index, scope)
        dim = position_axis(x, index, node, scope) if key is None else read_axis(x, key, scope)
        if dim in dict(at):
            raise scope.context.error(node.span, f"{dim} is read at twice")
        at.append((dim, integer_index(index, index_node.span, scope)))
    return read(x, at, scope, node.span)


def _apply(node: Apply, scope: Scope) -> Expr:
    if (macro := scope.context.macros.get(node.function)) is not None:
        return _expand(macro, node, scope)
    function = FUNCTIONS.get(node.function)
    if function is None:
        raise _unknown_function(node, scope)
    return function.build(Arguments(node, scope, function, infer))


def _unknown_function(node: Apply, scope: Scope) -> SpecError:
    macros = list(scope.context.macros)
    if scope.find(node.function) is not None or node.function in scope.context.dims.known:
        return scope.context.error(
            node.span,
            f"`{node.function}` is a value, not a function",
            do="write `*` for a product, `x[T=index]` to read at an index",
        )
    return scope.context.error(
        node.span,
        f"unknown function `{node.function}`",
        allowed=listed([*macros, *FUNCTIONS], 200),
        do=closest(node.function, [*macros, *FUNCTIONS]),
    )


def _expand(macro: Macro, node: Apply, scope: Scope) -> Expr:
    context = scope.context
    if node.keywords or len(node.args) != len(macro.parameters):
        raise context.error(
            node.span,
            f"`{macro.name}` with {len(node.args) + len(node.keywords)} arguments",
            allowed=f"{macro.name}({', '.join(macro.parameters)})",
        )
    if macro.name in context.expanding:
        chain = " → ".join([*context.expanding, macro.name])
        raise context.error(node.span, f"the macro calls itself: {chain}")
    inner = scope.outermost.child()
    for parameter, argument in zip(macro.parameters, node.args, strict=True):
        inner.names[parameter] = Argument(argument, scope, infer(argument, scope))
    context.expanding.append(macro.name)
    try:
        return infer(macro.body, inner)
    finally:
        context.expanding.pop()


def truth(expr: Expr, what: str, text: Text) -> Expr:
    """A clause that must be boolean."""
    if expr.kind is not Kind.BOOL:
        raise text.error(
            f"{what} is a number, not a condition",
            allowed="comparisons, `and`, `or`, `not`, boolean inputs and flags",
            do="compare the number: `x != 0`",
        )
    return expr


__all__ = ["infer", "truth"]
