"""Arguments and options that several commands share, and how their values are read."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Literal

import click

from ..show.written import console

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import Console

    from ..ir.mixer import Mixer

Number = int | float | bool

spec_argument = click.argument("spec")
json_option = click.option("--json", "as_json", is_flag=True, help="Answer in JSON.")
param_option = click.option(
    "-p", "--param", "params", multiple=True, metavar="NAME=VALUE", help="Override a param."
)
size_option = click.option(
    "--size", "sizes", multiple=True, metavar="DIM=N", help="Fix a dim's size, e.g. D=128."
)

DTYPES = {"bf16": "bfloat16", "fp16": "float16", "f16": "float16", "fp32": "float32"}
DTYPES |= {"f32": "float32"} | {name: name for name in ("bfloat16", "float16", "float32")}


def dtype_option(multiple: bool, **settings: Any) -> Callable[[Any], Any]:
    """``--dtype``, which takes torch's names and the short ones."""

    def read(
        ctx: click.Context, param: click.Parameter, value: str | tuple[str, ...]
    ) -> str | tuple[str, ...]:
        if isinstance(value, tuple):
            return tuple(DTYPES[name] for name in value)
        return DTYPES[value]

    return click.option(
        "--dtype",
        "dtypes" if multiple else "dtype",
        multiple=multiple,
        type=click.Choice(list(DTYPES)),
        metavar="[bf16|fp16|fp32]",
        callback=read,
        **settings,
    )


def assignments(texts: tuple[str, ...], option: str) -> dict[str, Number]:
    """``("window=512", "causal=true")`` --> ``{"window": 512, "causal": True}``."""
    values: dict[str, Number] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name.strip().isidentifier():
            raise click.UsageError(f"{option} takes NAME=VALUE, e.g. {option} n=8, got '{text}'.")
        if name.strip() in values:
            raise click.UsageError(f"{option} {name.strip()} is given twice.")
        values[name.strip()] = number(value.strip(), option)
    return values


def number(text: str, option: str) -> Number:
    """An integer, a real number, ``true`` or ``false``."""
    if text in ("true", "false"):
        return text == "true"
    for read in (int, float):
        try:
            return read(text)
        except ValueError:
            continue
    raise click.UsageError(f"{option} takes a number, true or false, got '{text}'.")


def dim_sizes(texts: tuple[str, ...]) -> dict[str, int]:
    """``("D=128",)`` --> ``{"D": 128}``; positive integers only."""
    sizes: dict[str, int] = {}
    for name, value in assignments(texts, "--size").items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise click.UsageError(f"--size {name} takes a positive integer, got {value}.")
        sizes[name] = value
    return sizes


def device_type(device: str | None) -> Literal["cpu", "cuda"]:
    """Where trials run: what was asked for, or the fastest that this machine has."""
    import torch

    if device is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu":
        return "cpu"
    if device == "cuda":
        if not torch.cuda.is_available():
            raise click.UsageError("there is no GPU here; --device cuda:90 --static needs none.")
        return "cuda"
    raise click.UsageError(
        f"--device {device}: trials run on cpu or cuda; a device that is not here takes --static."
    )


def duration(ctx: click.Context, param: click.Parameter, text: str | None) -> float | None:
    """``10m`` --> 600 seconds; also ``90s`` and ``1.5h``."""
    if text is None:
        return None
    found = re.fullmatch(r"(\d+(?:\.\d+)?)(s|m|h)", text)
    if found is None or float(found[1]) == 0:
        raise click.BadParameter(f"takes a time such as 90s, 10m or 2h, got '{text}'.", ctx, param)
    return float(found[1]) * {"s": 1, "m": 60, "h": 3600}[found[2]]


def load_spec(spec: str, params: tuple[str, ...] = ()) -> Mixer:
    """The mixer of a library name or a path, with the values of ``-p`` set; warnings to stderr."""
    from ..compiler.language.find import find_spec
    from ..compiler.language.load import load_report, read_file

    path = find_spec(spec)
    mixer, warnings = load_report(read_file(path), str(path))
    for warning in warnings:
        click.echo(warning.text, err=True)
    if not params:
        return mixer
    from ..runtime.overrides import override

    return override(mixer, assignments(params, "-p"))


def answer(data: Any, as_json: bool, write: Callable[[Console], None]) -> None:
    """Print ``data`` as JSON, or let ``write`` print for a person."""
    if as_json:
        click.echo(json.dumps(data, indent=2))
        return
    write(console())
