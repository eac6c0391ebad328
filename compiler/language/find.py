"""Specs by name or path."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from ...ir.errors import SpecError

_SUFFIXES = (".yaml", ".yml")


def _root() -> Path:
    package = __name__.partition(".")[0]
    return Path(str(files(f"{package}.specs")))


def library() -> list[Path]:
    """The spec files of the library, by name."""
    found = (path for path in _root().rglob("*.yaml") if "tuned" not in path.parts)
    return sorted(found, key=lambda path: path.stem)


def find_spec(name_or_path: str) -> Path:
    """The file of a spec: a path, or the name of one in the library.

    Raises:
        SpecError: there is none; with the nearest name.
    """
    path = Path(name_or_path)
    if path.suffix in _SUFFIXES and _is_file(path):
        return path
    specs = {path.stem: path for path in library()}
    if name_or_path in specs:
        return specs[name_or_path]
    if "/" in name_or_path or path.suffix in _SUFFIXES:
        raise SpecError(f"no spec file `{name_or_path}`", path=name_or_path)
    from .text.source import closest, listed

    names = listed(specs, 80) or "a name (the library is empty)"
    lines = [
        f"no spec called `{name_or_path}`",
        f"  allowed: a path ending in .yaml, or {names}",
    ]
    if (guess := closest(name_or_path, specs)) is not None:
        lines.append(f"  {guess}")
    raise SpecError("\n".join(lines))


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name that no file can have
        return False


__all__ = ["find_spec", "library"]
