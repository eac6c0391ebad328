"""What a spec says about itself, without its equations."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import yaml


@dataclass(frozen=True, slots=True)
class Head:
    """The first lines of a spec."""

    name: str
    about: str
    source: str


def read_head(path: Path) -> Head:
    """The head of a spec of the library, in which it comes first: reading ends where it does."""
    found = {"mixer": path.stem, "about": "", "source": ""}
    key = None
    quick = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # of libyaml, where yaml has it
    with path.open(encoding="utf-8") as file:
        for event in yaml.parse(file, quick):
            if isinstance(event, yaml.ScalarEvent) and key is not None:
                found[key], key = prose(event.value), None
            elif isinstance(event, yaml.ScalarEvent) and event.value in found:
                key = event.value
            elif isinstance(event, yaml.ScalarEvent | yaml.CollectionEndEvent):
                break
    return Head(found["mixer"], found["about"], found["source"])


def prose(text: str) -> str:
    """Text without the line ends of the file."""
    return " ".join(text.split())


__all__ = ["Head", "prose", "read_head"]
