"""Weights of pairs, normalised: any weight function, stable where it is exp.

See ``ir/mixer.py: Attention`` for what it means.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ...ir.expression import Call, Expr, Kind, Reduce, Ref, call
from ...ir.mixer import Attention
from ...ir.names import names_in
from ...ir.rewriting import transform
from .axes import reduce
from .values import Setting, Value

# Evaluates an expression with some names more.
Evaluate = Callable[[Expr, dict[str, Value]], Value]

# Names inside a rewritten normaliser; no spec can spell them.
_VISIBLE_PAIR, _VISIBLE_QUERY, _REDUCED = "visible pair", "visible query", "reduced {}"


@dataclass(frozen=True)
class Pairs:
    """Scores and visibility of all pairs; ``over`` is the key axis."""

    setting: Setting
    over: str
    dims: tuple[str, ...]  # query axes and ``over``, in order
    score: Value
    mask: Value | None

    @property
    def queries(self) -> tuple[str, ...]:
        return tuple(dim for dim in self.dims if dim != self.over)

    def visible(self, tensor: Tensor, otherwise: float) -> Tensor:
        """``tensor`` over all dims with ``otherwise`` at masked pairs."""
        if self.mask is None:
            return tensor
        (mask,) = self.setting.aligned([self.mask], self.dims)
        return torch.where(mask, tensor, otherwise)

    def of_queries(self, value: Value) -> Tensor:
        """The value, to broadcast against tensors over all dims."""
        (tensor,) = self.setting.aligned([value], self.dims)
        return tensor

    def pairs(self, value: Value) -> Tensor:
        """The value as a real tensor over all dims."""
        return self.setting.expanded(self.setting.of_kind(value, Kind.REAL), self.dims).tensor


def weigh(pairs: Pairs, stage: Attention, evaluate: Evaluate) -> tuple[Value, Value]:
    """The normalised weights over pairs, and log(total) over queries."""
    setting = pairs.setting
    sink = None
    if stage.sink is not None:
        sink = setting.expanded(setting.of_kind(evaluate(stage.sink, {}), Kind.REAL), pairs.queries)
    exponential = _Exponential.of(stage, pairs, sink, evaluate)
    if exponential is None:
        made = _plain_weights(pairs, stage, sink, evaluate)
    else:
        made = exponential.weights(stage.denominator, evaluate)
    weight, total, denominator, shift = made
    nonzero = denominator != 0
    share = weight / torch.where(nonzero, denominator, 1)
    share = pairs.visible(torch.where(nonzero, share, 0), 0)
    positive = total.tensor != 0
    log = torch.log(torch.where(positive, total.tensor, 1))
    lse = torch.where(positive, log + shift, -torch.inf)
    return Value(share, pairs.dims), Value(lse, total.dims)


_Made = tuple[Tensor, Value, Tensor, Tensor]  # weight, total, denominator over pairs, shift of lse


def _total(pairs: Pairs, weight: Tensor, sink: Value | None) -> Value:
    total = reduce(pairs.setting, "sum", Value(weight, pairs.dims), [pairs.over])
    if sink is not None:
        total = Value(total.tensor + sink.tensor, total.dims)
    return total


def _plain_weights(pairs: Pairs, stage: Attention, sink: Value | None, evaluate: Evaluate) -> _Made:
    setting = pairs.setting
    names = {"score": pairs.score, **_visibility(pairs)}
    expr = _of_visible(stage.weight, pairs)
    weight = pairs.visible(pairs.pairs(evaluate(expr, names)), 0)
    sunk = None
    if sink is not None:
        expr, reduced = _reductions_apart(expr, names, evaluate)
        value = evaluate(expr, {**names, **reduced, "score": sink})
        sunk = setting.expanded(setting.of_kind(value, Kind.REAL), pairs.queries)
    total = _total(pairs, weight, sunk)
    found = evaluate(_of_visible(stage.denominator, pairs), {**names, "total": total})
    return weight, total, pairs.pairs(found), torch.zeros_like(total.tensor)


@dataclass(frozen=True)
class _Exponential:
    """Weights exp(score), or exp2(score), computed as exp(score - shift).

    exp(a - m) = exp(a) exp(-m): total and denominator then lack the factor exp(m) both, provided
    that the denominator can be computed with it taken out.
    """

    pairs: Pairs
    fn: str
    sink: Value | None
    shift: Value

    @classmethod
    def of(
        cls, stage: Attention, pairs: Pairs, sink: Value | None, evaluate: Evaluate
    ) -> _Exponential | None:
        match stage.weight:
            case Call(("exp" | "exp2") as fn, (Ref("score"),)):
                pass
            case _:
                return None
        if not _mentions(stage.denominator, "total") or not _is_homogeneous(stage.denominator):
            return None
        setting = pairs.setting
        with torch.no_grad():
            top = reduce(setting, "max", pairs.score, [pairs.over], where=pairs.mask)
            shift = setting.expanded(top, pairs.queries).tensor
            if sink is not None:
                shift = torch.maximum(shift, sink.tensor.to(shift.dtype))
            if not isinstance(stage.denominator, Ref):
                # The terms beside total get the factor exp(-shift): keep it finite.
                shift = shift.clamp(min=-math.log(torch.finfo(shift.dtype).max) / 2)
            shift = torch.where(torch.isfinite(shift), shift, 0)
        return cls(pairs, fn, sink, Value(shift, pairs.queries))

    def exp(self, tensor: Tensor) -> Tensor:
        return torch.exp(tensor) if self.fn == "exp" else torch.exp2(tensor)

    def weights(self, denominator: Expr, evaluate: Evaluate) -> _Made:
        pairs = self.pairs
        weight = self.exp(pairs.score.tensor - pairs.of_queries(self.shift))
        weight = pairs.visible(weight, 0)
        sunk = None
        if self.sink is not None:
            sunk = Value(self.exp(self.sink.tensor - self.shift.tensor), pairs.queries)
        total = _total(pairs, weight, sunk)
        names = {"total": total, "scale": Value(self.exp(-self.shift.tensor), pairs.queries)}
        scale = Ref("scale", frozenset(pairs.queries), Kind.REAL)
        found = evaluate(_scaled(denominator, scale), names)
        base = 1.0 if self.fn == "exp" else math.log(2)
        return weight, total, pairs.pairs(found), self.shift.tensor * base


def _mentions(expr: Expr, *names: str) -> bool:
    return not names_in(expr).isdisjoint(names)


def _is_homogeneous(expr: Expr) -> bool:
    """Whether a factor of ``total`` can be taken out of ``expr``, other terms scaled instead."""
    if not _mentions(expr, "total", "score"):
        return True
    match expr:
        case Ref("total"):
            return True
        case Call("add" | "sub" | "min" | "max" | "neg" | "abs", args):
            return all(_is_homogeneous(a) for a in args)
        case Call("mul", (a, b)):
            free = not _mentions(a, "total", "score") or not _mentions(b, "total", "score")
            return free and _is_homogeneous(a) and _is_homogeneous(b)
        case Call("div", (a, b)):
            return not _mentions(b, "total", "score") and _is_homogeneous(a)
        case _:
            return False


def _scaled(expr: Expr, scale: Expr) -> Expr:
    """``scale * expr``, where ``total`` has the factor already: total + 1 --> total + 1 * scale."""
    if not _mentions(expr, "total"):
        return call("mul", expr, scale)
    match expr:
        case Call("mul", (a, b)):
            return (
                call("mul", a, _scaled(b, scale))
                if _mentions(b, "total")
                else call("mul", _scaled(a, scale), b)
            )
        case Call("div", (a, b)):
            return call("div", _scaled(a, scale), b)
        case Call(fn, args):
            return call(fn, *(_scaled(a, scale) for a in args))
        case _:
            return expr


def _visibility(pairs: Pairs) -> dict[str, Value]:
    if pairs.mask is None:
        return {}
    query = reduce(pairs.setting, "any", pairs.mask, [pairs.over])
    return {_VISIBLE_PAIR: pairs.mask, _VISIBLE_QUERY: query}


def _of_visible(expr: Expr, pairs: Pairs) -> Expr:
    """``expr`` with its reductions over pairs seeing visible pairs only.

    max(score, J) --> max(score, J, where=visible); a reduction of something without the key axis
    sees the queries that see any key.
    """
    if pairs.mask is None:
        return expr
    dims = frozenset(pairs.mask.dims)
    pair = Ref(_VISIBLE_PAIR, dims, Kind.BOOL)
    query = Ref(_VISIBLE_QUERY, dims - {pairs.over}, Kind.BOOL)

    def change(node: Expr) -> Expr | None:
        if not isinstance(node, Reduce) or not set(node.over) & set(pairs.dims):
            return None
        inner = frozenset[str]().union(*(c.axes for c in node.children)) | set(node.over)
        seen = pair if pairs.over in inner else query
        where = seen if node.where is None else call("and", node.where, seen)
        return Reduce(node.op, node.x, node.over, where, node.group, span=node.span)

    return transform(expr, change)


def _reductions_apart(
    expr: Expr, names: dict[str, Value], evaluate: Evaluate
) -> tuple[Expr, dict[str, Value]]:
    """``expr`` with its reductions replaced by names, and their values over the real pairs."""
    found: dict[str, Value] = {}

    def apart(node: Expr) -> Expr:
        if isinstance(node, Reduce):
            name = _REDUCED.format(len(found))
            found[name] = evaluate(node, names)
            return Ref(name, node.axes, node.kind)
        if isinstance(node, Call):
            return Call(node.fn, tuple(apart(a) for a in node.args))
        return node

    return apart(expr), found
