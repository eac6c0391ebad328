"""The command line: ``mixc COMMAND``.

Exit codes: 0, done or yes; 1, the answer is no; 2, the question was wrong (a bad spec, a bad
argument); 3, a defect of mixc. A command's module is imported when the command is looked up, and
what a command needs when it runs: ``mixc --help`` pays for click alone.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from typing import Any, NoReturn

import click

from .commands.plain_text import degrade_streams
from .ir.errors import DefectError, MixcError, UnsupportedError, VerificationError

# Command -> the module under mixc/commands that holds it, in the order of a first session.
MODULES = {
    "list": "list_specs",
    "new": "new_spec",
    "show": "show_spec",
    "check": "check_spec",
    "compile": "compile_spec",
    "export": "export_spec",
    "verify": "verify_spec",
    "tune": "tune_spec",
    "bench": "bench_specs",
    "tuned": "tuned_results",
    "schema": "schema",
    "doctor": "doctor",
}
JSON = "mixc.json"


class Commands(click.Group):
    """The group of all commands, each imported by name; turns errors into exit codes."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The commands in the order that ``--help`` shows them."""
        return list(MODULES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command called ``cmd_name``, or None."""
        if cmd_name not in MODULES:
            return None
        module = importlib.import_module(f".commands.{MODULES[cmd_name]}", __package__)
        command: click.Command = module.command
        return command

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Note whether the answer is to be JSON, so that errors are too."""
        ctx.meta[JSON] = "--json" in args
        return super().parse_args(ctx, args)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that the arguments name, or an error with the nearest one."""
        if args and args[0] not in MODULES and not args[0].startswith("-"):
            import difflib

            near = difflib.get_close_matches(args[0], MODULES, 1)
            hint = f"; did you mean '{near[0]}'?" if near else f": {', '.join(MODULES)}."
            raise click.UsageError(f"There is no command '{args[0]}'{hint}", ctx)
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; one message on stderr, and no traceback, for every error."""
        try:
            return super().invoke(ctx)
        except click.ClickException as error:
            if not ctx.meta[JSON]:
                raise
            fail(ctx, error.format_message(), error.exit_code)
        except (DefectError, VerificationError) as error:
            fail(ctx, f"{DEFECT}: {error}", 3)
        except UnsupportedError as error:
            fail(ctx, str(error), 1)
        except MixcError as error:
            fail(ctx, str(error), 2)
        except OSError as error:
            fail(ctx, f"{error.filename or 'input or output'}: {error.strerror or error}", 2)
        except (click.Abort, click.exceptions.Exit):
            raise
        except Exception as error:
            if os.environ.get("MIXC_TRACEBACK"):
                raise
            fail(ctx, f"{DEFECT}: {type(error).__name__}: {error}\n{REPORT}", 3)


DEFECT = "A defect of mixc, not of the spec"
REPORT = "MIXC_TRACEBACK=1 shows where; please report it with the spec."


def fail(ctx: click.Context, message: str, code: int) -> NoReturn:
    """Say what is wrong, as JSON on stdout where JSON was asked for, and exit."""
    if ctx.meta[JSON]:
        click.echo(json.dumps({"ok": False, "error": message}))
    else:
        click.echo(message, err=True)
    ctx.exit(code)


@click.command(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit code: 0 done or yes, 1 the answer is no, 2 the question was wrong, 3 a defect.",
)
@click.version_option(package_name="mixc", message="%(prog)s %(version)s")
def commands() -> None:
    """A compiler for sequence mixers: equations in YAML to checked kernels.

    SPEC is a name from `mixc list` or the path of a YAML file.
    """


def main() -> None:
    """Run the command line and exit."""
    degrade_streams()
    sys.exit(commands())


if __name__ == "__main__":
    main()
