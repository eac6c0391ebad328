"""``mixc check``: is a spec right, and if not, where."""

from __future__ import annotations

from typing import Any

import click

from ..ir.errors import SpecError
from .options import answer, json_option


@click.command("check")
@click.argument("specs", metavar="SPEC...", nargs=-1, required=True)
@json_option
def command(specs: tuple[str, ...], as_json: bool) -> None:
    """Read specs and report the errors."""
    verdicts = [verdict(spec) for spec in specs]
    good = all(found["ok"] for found in verdicts)
    if as_json:
        answer({"ok": good, "specs": verdicts}, as_json, lambda console: None)
    for found in () if as_json else verdicts:
        for warning in found.get("warnings", ()):
            click.echo(warning, err=True)
        click.echo(f"{found['spec']}: ok" if found["ok"] else found["error"], err=not found["ok"])
    if not good:
        click.get_current_context().exit(2)


def verdict(spec: str) -> dict[str, Any]:
    """Whether one spec can be read, with warnings, and the errors where it can't."""
    from ..compiler.language.every_error import every_error
    from ..compiler.language.find import find_spec
    from ..compiler.language.load import load_report, read_file

    path = text = None
    try:
        path = find_spec(spec)
        text = read_file(path)
        mixer, warnings = load_report(text, str(path))
        texts = [warning.text for warning in warnings]
        return {"spec": spec, "ok": True, "name": mixer.name, "warnings": texts}
    except SpecError as error:
        errors = every_error(text, str(path)) if text is not None else [error]
        first = errors[0] if errors else error
        place = {"path": first.path, "line": first.line, "column": first.column}
        told = [str(each) for each in errors or [error]]
        return {"spec": spec, "ok": False, "error": "\n".join(told), "errors": told, **place}
