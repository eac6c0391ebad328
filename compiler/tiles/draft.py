"""A tile program in the making: its arguments, its scopes, and what is known of its values.

A scope is the program's top or a loop body. It knows where each dim stands, and which expressions
have a value; what it does not know, the scopes around it may.
"""

from __future__ import annotations

from ...ir.expression import Expr, Kind
from ...ir.promises import Promise
from ...ir.tile import (
    Argument,
    BufferArgument,
    DType,
    GridAxis,
    HostArgument,
    ParamArgument,
    SizeArgument,
    Tile,
    Value,
)
from .naming import Naming
from .renames import Renames
from .scope import Scope

KIND_DTYPE = {Kind.BOOL: DType.BOOL, Kind.INT: DType.INT32, Kind.REAL: DType.FLOAT32}


class Draft:
    """A tile program in the making."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.scopes: list[Scope] = [Scope()]
        self.tiles: dict[str, Tile] = {}
        self.grid: list[GridAxis] = []
        self.in_turn: set[str] = set()  # dims of which the program takes block after block
        self.shares: dict[str, str] = {}  # dim of the grid -> the dim whose positions it deals out
        self.promises: set[Promise] = set()  # facts for which something is left out
        self._arguments: dict[str, Argument] = {}
        self._argument_values: dict[str, Value] = {}
        self._level: dict[str, int] = {}
        self.naming = Naming()
        self._constants: dict[str, float | int | bool] = {}
        self._nonnegative: set[str] = set()
        self._begins: dict[str, Value] = {}  # positions of a tile -> where it starts
        self.shifts: dict[str, tuple[Value, int]] = {}  # x + 3 -> (x, 3)
        self.negated: dict[str, Value] = {}  # -x -> x
        self._renames = Renames()

    # ------------------------------------------------------------------------------ names

    def fresh(self, hint: str) -> str:
        """A name that is not taken, as near to ``hint`` as can be."""
        return self.naming.fresh(hint)

    def value(self, hint: str, dtype: DType, axes: frozenset[str], level: int) -> Value:
        """A new value, known from scope ``level`` inwards."""
        made = Value(self.fresh(hint), dtype, axes)
        self._level[made.name] = level
        return made

    def grid_position(self, dim: str, hint: str) -> Value:
        """A new scalar that the grid sets: a position of ``dim``, or where a block of it starts."""
        made = self.value(hint, DType.INT32, frozenset(), 0)
        self._nonnegative.add(made.name)
        return made

    def level(self, *values: Value | None) -> int:
        """The outermost scope in which all of them are known."""
        return max((self._level[v.name] for v in values if v is not None), default=0)

    # -------------------------------------------------------------------------- arguments

    def buffer(self, argument: BufferArgument) -> None:
        """Declare a tensor argument."""
        self.naming.reserve([argument.name])
        self._arguments.setdefault(argument.name, argument)

    def scalar(self, argument: SizeArgument | HostArgument | ParamArgument) -> Value:
        """Declare a number argument, or find the one declared before."""
        match argument:
            case SizeArgument(dim):
                name, dtype = dim, DType.INT32
            case HostArgument(name, dtype) | ParamArgument(name, dtype):
                pass
        if name not in self._argument_values:
            self.naming.reserve([name])
            self._arguments[name] = argument
            self._argument_values[name] = Value(name, dtype)
            self._level[name] = 0
            if isinstance(argument, SizeArgument) or argument.nonnegative:
                self._nonnegative.add(name)
        return self._argument_values[name]

    def block(self, dim: str) -> Value:
        """The block size of a tiled dim, as a number."""
        symbol = self.tiles[dim].symbol
        self.naming.reserve([symbol])
        self._level.setdefault(symbol, 0)
        self._nonnegative.add(symbol)
        return Value(symbol, DType.INT32)

    def host_argument(
        self, hint: str, dtype: DType, value: Expr, fixed: bool = False, nonnegative: bool = False
    ) -> Value:
        """A number computed by the host; equal expressions share one argument."""
        for known in self._arguments.values():
            if isinstance(known, HostArgument) and known.value == value:
                return self._argument_values[known.name]
        argument = HostArgument(self.fresh(hint), dtype, value, fixed, nonnegative)
        return self.scalar(argument)

    # ---------------------------------------------------------------------- what is known

    def position(self, dim: str) -> Value:
        """The index value along ``dim`` that is in force."""
        for scope in reversed(self.scopes):
            if dim in scope.positions:
                return scope.positions[dim]
        raise KeyError(dim)

    def has_position(self, dim: str) -> bool:
        """Whether the program places ``dim`` at all."""
        return any(dim in scope.positions for scope in self.scopes)

    def bound(self, dim: str) -> Value | None:
        """Which positions of the tile of ``dim`` exist; None: all of them."""
        for scope in reversed(self.scopes):
            if dim in scope.positions:
                return scope.bounds.get(dim)
        return None

    def begin(self, dim: str) -> Value:
        """Where the tile of ``dim`` that is in force begins."""
        position = self.position(dim)
        return self._begins[position.name]

    def place(self, dim: str, position: Value, bound: Value | None = None) -> None:
        """Set the index value of ``dim`` for the innermost scope."""
        self.scopes[-1].positions[dim] = position
        if bound is not None:
            self.scopes[-1].bounds[dim] = bound

    def lookup(self, expr: Expr) -> Value | None:
        """The value already made for an expression, if it holds here.

        A loop that places one of the expression's dims anew hides what outer scopes made of it.
        """
        for scope in reversed(self.scopes):
            if expr in scope.values:
                return scope.values[expr]
            if not expr.axes.isdisjoint(scope.positions):
                return None
        return None

    def bind(self, expr: Expr, value: Value, here: bool = False) -> None:
        """Let ``expr`` stand for ``value`` from the value's scope inwards, or (``here``) from the
        innermost one."""
        level = len(self.scopes) - 1 if here else self.level(value)
        for at, scope in enumerate(self.scopes):
            if scope.inline and not expr.axes.isdisjoint(scope.positions):
                level = max(level, at)  # its place is a number that every scope knows
        self.scopes[level].values[expr] = value

    def constant_of(self, value: Value) -> float | int | bool | None:
        """The number behind a value that ``constant`` made."""
        return self._constants.get(value.name)

    def is_nonnegative(self, value: Value) -> bool:
        """Whether an integer is known not to be negative."""
        number = self.constant_of(value)
        return value.name in self._nonnegative if number is None else number >= 0
