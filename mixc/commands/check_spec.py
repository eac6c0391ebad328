"""``mixc check``: is a spec right, and if not, where."""

from __future__ import annotations

import click

from ..ir.errors import SpecError
from .options import answer, json_option, load_spec


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
        click.echo(f"{found['spec']}: ok" if found["ok"] else found["error"], err=not found["ok"])
    if not good:
        click.get_current_context().exit(2)


def verdict(spec: str) -> dict[str, object]:
    """Whether one spec can be read, and the error where it can't."""
    try:
        return {"spec": spec, "ok": True, "name": load_spec(spec).name}
    except SpecError as error:
        place = {"path": error.path, "line": error.line, "column": error.column}
        return {"spec": spec, "ok": False, "error": str(error), **place}
