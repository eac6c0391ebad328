"""Scores and masks as torch code that a person would have written for a peer."""

from __future__ import annotations

from collections.abc import Mapping

from ...backends.python_text import LOGIC, SIGNS
from ...ir.errors import UnsupportedError
from ...ir.expression import Call, Expr, Index, Kind, Literal, Read, Ref
from ...ir.mixer import Mixer

_INFIX = {**SIGNS, **LOGIC, "pow": "**"}
_NUMBER = {Kind.BOOL: bool, Kind.INT: int, Kind.REAL: float}
_NAMED = {"max": "maximum", "min": "minimum", "silu": "nn.functional.silu"}
_NAMED |= {name: f"nn.functional.{name}" for name in ("logsigmoid", "softplus", "gelu", "elu")}


class TorchText:
    """Writes expressions over index variables: one scalar tensor, or one that broadcasts, each.

    ``variables`` names the index of each dim, ``tensors`` the dims of each tensor that is read.
    """

    def __init__(
        self,
        mixer: Mixer,
        variables: Mapping[str, str],
        tensors: Mapping[str, tuple[str, ...]],
        sizes: Mapping[str, int],
    ) -> None:
        self.mixer, self.variables = mixer, variables
        self.tensors, self.sizes = tensors, sizes

    def write(self, expr: Expr) -> str:
        """The expression. Raises UnsupportedError for a term that has no text."""
        match expr:
            case Literal(value):
                return (
                    f'float("{value}")' if value in (float("inf"), float("-inf")) else repr(value)
                )
            case Index(dim):
                return self._variable(dim)
            case Ref("score"):
                return "score"
            case Ref(name):
                return self._element(name, {})
            case Read(Ref(name), at, fill):
                return self._read(name, dict(at), fill, expr.kind)
            case Call(fn, args):
                return self._call(expr, fn, args)
        raise UnsupportedError(f"it has a term that torch code here does not say: {expr}")

    def _variable(self, dim: str) -> str:
        if dim not in self.variables:
            raise UnsupportedError(f"it reads the position along {dim}")
        return self.variables[dim]

    def _element(self, name: str, at: Mapping[str, str]) -> str:
        if name not in self.tensors:
            raise UnsupportedError(f"it reads {name}, which is no input")
        places = [at.get(dim) or self._variable(dim) for dim in self.tensors[name]]
        return f"{name}[{', '.join(places)}]" if places else name

    def _read(self, name: str, at: Mapping[str, Expr], fill: float, kind: Kind) -> str:
        places = {dim: self.write(index) for dim, index in at.items()}
        if all(isinstance(index, Index) for index in at.values()):
            return self._element(name, places)  # a position of the same sequence: never outside
        last = {dim: self.sizes[dim] - 1 for dim in places}
        kept = {d: f"torch.clamp({text}, 0, {last[d]})" for d, text in places.items()}
        inside = " & ".join(f"(({t}) >= 0) & (({t}) <= {last[d]})" for d, t in places.items())
        outside = repr(_NUMBER[kind](fill))
        return f"torch.where({inside}, {self._element(name, kept)}, {outside})"

    def _call(self, expr: Call, fn: str, args: tuple[Expr, ...]) -> str:
        texts = [self.write(a) for a in args]
        if fn in _INFIX:
            if fn in ("and", "or"):
                texts = [_as_bool(a, t) for a, t in zip(args, texts, strict=True)]
            return f"({texts[0]} {_INFIX[fn]} {texts[1]})"
        if fn == "neg":
            return f"(-{texts[0]})"
        if fn == "not":
            return f"(~{_as_bool(args[0], texts[0])})"
        if fn == "detach":
            return texts[0]
        if fn in ("max", "min") and any(isinstance(a, Literal) for a in args):
            return self._clamped(fn, args, texts)
        texts = [_as_tensor(a, t, fn) for a, t in zip(args, texts, strict=True)]
        text = f"torch.{_NAMED.get(fn, fn)}({', '.join(texts)})"
        return f"{text}.to(torch.int32)" if expr.kind is Kind.INT and fn in _ROUNDED else text

    def _clamped(self, fn: str, args: tuple[Expr, ...], texts: list[str]) -> str:
        number = 0 if isinstance(args[0], Literal) else 1
        side = "min" if fn == "max" else "max"
        return f"torch.clamp({texts[1 - number]}, {side}={texts[number]})"


_ROUNDED = frozenset({"floor", "ceil", "round"})


def _as_bool(expr: Expr, text: str) -> str:
    return text if expr.kind is Kind.BOOL else f"({text} != 0)"


def _as_tensor(expr: Expr, text: str, fn: str) -> str:
    if fn != "where" and isinstance(expr, Literal):
        return f"torch.tensor({text})"
    return text
