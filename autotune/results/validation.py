"""What a file of a tuned result has to be; anything else is refused with its line."""

from __future__ import annotations

import reprlib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from .result import Result, result_of

_LARGEST_FILE_BYTES = 64 * 1024

Name = Annotated[str, Field(pattern=r"^[A-Za-z_][\w.-]*$", max_length=200)]
Text = Annotated[str, Field(max_length=500)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Error = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Size = Annotated[int, Field(ge=0, lt=1 << 63)]


class DeviceFields(BaseModel):
    """The device of a result."""

    model_config = ConfigDict(strict=True, extra="forbid")

    kind: Annotated[str, Field(pattern="^(cpu|gpu)$")]
    architecture: Text
    name: Text


class ResultFields(BaseModel):
    """A result as its file has it."""

    model_config = ConfigDict(strict=True, extra="forbid")

    spec: Name
    hash: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    dtype: Annotated[str, Field(pattern="^(bfloat16|float16|float32)$")]
    features: dict[Name, Size]
    lengths: dict[Name, Size]
    device: DeviceFields
    configuration: dict[Name, Size]
    time_us: Positive
    spread_us: Error = 0.0
    default_time_us: Positive | None = None
    error: Error | None = None
    limit: Error | None = None
    modelled: bool = False
    trials: Size = 0
    study: Text = ""
    sizes: dict[Name, Size] = Field(default_factory=dict)
    versions: dict[Name, Text] = Field(default_factory=dict)


class ResultFault(Exception):
    """A file that is no result: ``line`` (from 1) and why."""

    def __init__(self, line: int, why: str) -> None:
        super().__init__(why)
        self.line = line


def read_result(path: Path) -> Result:
    """The result of a file. Raises ResultFault, whatever the file holds."""
    try:
        if path.stat().st_size > _LARGEST_FILE_BYTES:
            raise ResultFault(1, f"larger than {_LARGEST_FILE_BYTES:,} bytes")
        text = path.read_text(encoding="utf-8")
        return checked(yaml.safe_load(text), text)
    except yaml.MarkedYAMLError as error:
        line = 1 if error.problem_mark is None else error.problem_mark.line + 1
        raise ResultFault(line, error.problem or "no YAML") from error
    except RecursionError as error:
        raise ResultFault(1, "nested too deeply") from error
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ResultFault(1, str(error).splitlines()[0]) from error


def checked(data: Any, text: str = "") -> Result:
    """The result that plain data holds. Raises ResultFault at its line of ``text``."""
    try:
        ResultFields.model_validate(data)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"])) or "the file"
        what = first["msg"][0].lower() + first["msg"][1:]
        got = "" if first["type"] == "missing" else f", got {reprlib.repr(first['input'])}"
        raise ResultFault(_line(text, first["loc"]), f"{place}: {what}{got}") from error
    return result_of(data)


def _line(text: str, where: Sequence[int | str]) -> int:
    """The line of the deepest key on the way to a value."""
    node, line = yaml.compose(text, Loader=yaml.SafeLoader), 1
    for name in where:
        if not isinstance(node, yaml.MappingNode):
            break
        entries = [(k, v) for k, v in node.value if k.value == str(name)]
        if not entries:
            break
        key, node = entries[-1]
        line = key.start_mark.line + 1
    return line
