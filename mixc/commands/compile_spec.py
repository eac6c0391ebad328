"""``mixc compile``."""

import click

from .options import spec_argument


@click.command("compile")
@spec_argument
def command(spec: str) -> None:
    """To come."""
