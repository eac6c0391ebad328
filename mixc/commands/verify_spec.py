"""``mixc verify``."""

import click

from .options import spec_argument


@click.command("verify")
@spec_argument
def command(spec: str) -> None:
    """To come."""
