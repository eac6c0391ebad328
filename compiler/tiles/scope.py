"""What a program in the making knows in one place: at its top, or in the body of a loop."""

from __future__ import annotations

from dataclasses import dataclass, field

from ...ir.expression import Expr
from ...ir.tile import Op, Value


@dataclass
class Scope:
    """The ops of the top level or of one loop body, and what is known inside it.

    ``inline``: a stretch of the scope around it, whose ops and values it has, with positions of its
    own.
    """

    ops: list[Op] = field(default_factory=list)
    made: dict[object, Value] = field(default_factory=dict)  # equal op -> its value
    values: dict[Expr, Value] = field(default_factory=dict)  # expression -> its value
    positions: dict[str, Value] = field(default_factory=dict)  # dim -> index value
    bounds: dict[str, Value] = field(default_factory=dict)  # dim -> which positions exist
    inline: bool = False


@dataclass
class Loop:
    """An open loop: its variable, what it carries, and what it hands over."""

    variable: Value
    carried: tuple[Value, ...]
    yields: tuple[Value, ...] = ()
    results: tuple[Value, ...] = ()
