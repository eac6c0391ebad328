"""What the values of a program are called: after the spec, or after what they are made of."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ...ir.tile import Value

_WORDS = {
    "add": "added",
    "sub": "difference",
    "mul": "product",
    "div": "quotient",
    "floordiv": "quotient",
    "mod": "remainder",
    "where": "chosen",
    "and": "mask",
    "or": "mask",
    "max": "largest",
    "min": "smallest",
}
_FUNCTIONS = frozenset("exp exp2 log log2 sigmoid logsigmoid softplus silu tanh sin cos".split())


class Naming:
    """The names of one program."""

    def __init__(self) -> None:
        self._taken: set[str] = set()
        self._stems: dict[str, str] = {}  # a name -> what it was to be called
        self.derived: set[str] = set()  # values that are called after their parts

    def fresh(self, hint: str) -> str:
        """A name that is not taken, as near as can be to ``hint``: to what that was meant to be."""
        stem = self._stems.get(hint, hint)
        name, count = stem, 1
        while name in self._taken:
            count += 1
            name = f"{stem}_{count}"
        self._taken.add(name)
        self._stems[name] = stem
        return name

    def reserve(self, names: Iterable[str]) -> None:
        """Keep names for arguments that may be declared later."""
        self._taken.update(names)

    def stem(self, value: Value) -> str:
        """What a value stands for: ``k_tile_2`` --> ``k``."""
        return self._stems.get(value.name, value.name).removesuffix("_tile")

    def narrowed(self, value: Value) -> str:
        """The hint for a value that loses digits."""
        return f"{self.stem(value)}_narrow"

    def contracted(self, a: Value, b: Value) -> str:
        """The hint for a sum of products: q and k --> qk, query and key --> query_key."""
        if a.name in self.derived or b.name in self.derived:
            return "dot"
        return joined([self.stem(a), self.stem(b)])

    def result(self, fn: str, args: Sequence[Value], numbers: Sequence[object]) -> str:
        """The hint for ``fn`` of values, of which some are ``numbers``.

        exp(g) --> exp_g, beta * k --> beta_k, what a mask leaves of x --> x_masked; what is itself
        called after its parts lends its name to a mask only.
        """
        named = [a for a, number in zip(args, numbers, strict=True) if number is None]
        if fn == "where" and len(named) == 2:
            return f"{self.stem(named[1]).removesuffix('_masked')}_masked"
        plain = all(a.name not in self.derived for a in named)
        hint = _WORDS.get(fn, fn)
        if plain and fn in _FUNCTIONS:
            hint = f"{fn}_{self.stem(named[0])}" if named else fn
        elif plain and fn == "mul" and len(named) == 2:
            hint = "_".join(self.stem(a) for a in named)
        return hint


def joined(names: Sequence[str]) -> str:
    """Names as one: q and k --> qk, query and key --> query_key."""
    return ("" if all(len(name) == 1 for name in names) else "_").join(names)
