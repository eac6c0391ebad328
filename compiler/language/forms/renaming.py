"""How a stage that is like another changes the other's names."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..names.names import NAME
from ..schema import Word
from ..text.positions import Text


@dataclass(frozen=True)
class Renaming:
    """``suffix`` goes to every name that the stage makes; ``values`` replace names."""

    suffix: str = ""
    values: dict[Word, Text] = field(default_factory=dict)

    def made(self, name: str) -> str:
        """What a name that the stage makes is called."""
        for key, text in self.values.items():
            if key == name and NAME.fullmatch(text.value):
                return text.value
        return name + self.suffix


__all__ = ["Renaming"]
