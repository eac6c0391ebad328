"""``mixc schema``: the JSON Schema of the language, for editors."""

from __future__ import annotations

import json

import click

from .options import json_option


@click.command("schema")
@json_option
def command(as_json: bool) -> None:
    """Print the JSON Schema of spec files.

    Save it and name it on a spec's first line, and an editor completes and checks:
    `# yaml-language-server: $schema=mixc.schema.json`. The schema is JSON with or without --json.
    """
    from ..compiler.language.schema import json_schema

    click.echo(json.dumps(json_schema(), indent=2))
