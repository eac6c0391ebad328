"""The tuned table of an exported file: what is stored for a spec, as blocks and launch settings.

A stored configuration is bound to the file's own plan. It is taken where the kernels' text stays
the same, so that it is numbers which differ and nothing else, and left out with its reason where
the plan's facts, the architecture or the text do not admit it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from ..autotune.checking.shapes import feature_sizes
from ..autotune.results.result import Result
from ..autotune.results.stored import FAR, octaves_apart, spec_hash, stored_results
from ..backends.triton.emit import final_form, kernel_texts
from ..backends.triton.host import HostText, TableCall
from ..backends.triton.names import with_plain_names
from ..compiler.schedules.configurations import bind_configuration, refusal
from ..ir.errors import MixcError
from ..ir.mixer import Mixer
from ..ir.plan import Plan
from ..ir.targets import parse_target


@dataclass(frozen=True)
class Row:
    """A stored result: its device, how far its features are, its lengths, the numbers to set."""

    architecture: str
    device: str
    octaves: float
    lengths: tuple[int, ...]
    numbers: Mapping[str, int]


@dataclass(frozen=True)
class Table:
    """The rows for a plan, by the lengths of ``dims``; ``left_out`` says which have no row."""

    default: Mapping[str, int]
    rows: tuple[Row, ...]
    dims: tuple[tuple[str, ...], ...] = ()
    left_out: tuple[str, ...] = ()

    @property
    def varying(self) -> frozenset[str]:
        """The numbers that some row has otherwise."""
        rows = [row.numbers for row in self.rows]
        return frozenset(n for n, d in self.default.items() if any(r[n] != d for r in rows))

    def call(self, name: str) -> TableCall | None:
        """How the host function reads the table called ``name``; None where nothing varies."""
        return TableCall(name, self.varying, self.dims) if self.varying else None

    def text(self, name: str) -> str:
        """The table as the file has it."""
        varying = sorted(self.varying)
        lines = [f"{name} = (", *_numbers(self.default, varying, 4), "    ("]
        for row in self.rows:
            where = f'"{row.architecture}", "{row.device}", {row.octaves!r}, {row.lengths!r}'
            lines += ["        (", f"            {where},", *_numbers(row.numbers, varying, 12)]
            lines.append("        ),")
        return "\n".join([*lines, "    ),", ")"])


def table_of(mixer: Mixer, plan: Plan) -> Table:
    """What is stored for ``mixer``, for its ``plan`` in the file, whose name may be longer."""
    plain = with_plain_names(final_form(plan))
    rows, said, names = list[Row](), list[str](), list[str]()
    for octaves, result in _results(mixer, plan):
        names = list(result.key.lengths)
        try:
            bound = _bound(plan, mixer, result)
        except MixcError as error:
            said.append(f"{result.key.stem} on {result.key.device.name}: {error}")
            continue
        device, lengths = result.key.device, tuple(result.key.lengths.values())
        rows.append(Row(device.architecture, device.name, octaves, lengths, _values(bound)))
    dims = tuple(_dims(plan.mixer, name) for name in names)
    return Table(_values(plain), tuple(rows), dims, tuple(said))


def _results(mixer: Mixer, plan: Plan) -> Iterator[tuple[float, Result]]:
    """The results that a call may run with, in the order of the library's look-up."""
    own, features = spec_hash(mixer), feature_sizes(mixer, dict(plan.sizes))
    pattern = f"{mixer.name}-{own[:8]}-{plan.dtype.value}*"
    for _, result in stored_results(pattern=pattern):
        key = result.key
        if key.hash != own or key.device.kind != "gpu" or result.modelled:
            continue
        octaves = octaves_apart(features, key.features, FAR)
        if not math.isinf(octaves):
            yield octaves, result


def _bound(plan: Plan, mixer: Mixer, result: Result) -> Plan:
    """The plan in a stored configuration; MixcError where it is not the same but for numbers."""
    configuration = {
        name.replace(f"{mixer.name}_", f"{plan.mixer.name}_", 1) if "." in name else name: value
        for name, value in result.configuration.items()
    }
    if configuration.pop("splits", 1) != 1:
        raise MixcError("it deals out keys, and the file's kernels do not")
    bound = bind_configuration(plan, configuration)
    if (why := refusal(bound, parse_target(result.key.device.architecture))) is not None:
        raise MixcError(why)
    made = with_plain_names(final_form(bound))
    if _texts(made) != _texts(with_plain_names(final_form(plan))):
        raise MixcError("its kernels differ from the file's in more than blocks")
    return made


def _texts(plan: Plan) -> list[str]:
    """All that the file would say, with names for numbers."""
    own: dict[str, str] = {}
    kernels = [text.text for text in kernel_texts(plan, own)]
    call = TableCall("table", frozenset(_values(plan)), ())
    return [*kernels, *own.values(), HostText(plan, standalone=True, table=call).text]


def _values(plan: Plan) -> dict[str, int]:
    """The blocks and launch settings of a plan's kernels."""
    found: dict[str, int] = {}
    for program in (kernel.program for kernel in plan.kernels):
        found |= {f"{program.name}.{tile.symbol}": tile.block for tile in program.blocks}
        found |= {f"{program.name}.{name}": value for name, value in program.launch}
    return found


def _dims(mixer: Mixer, name: str) -> tuple[str, ...]:
    """The dims of inputs that a stored length is of."""
    dims = dict.fromkeys(dim for entry in mixer.inputs for dim in entry.dims)
    return tuple(dim for dim in dims if (mixer.sequence(dim) or dim) == name)


def _numbers(values: Mapping[str, int], names: list[str], indent: int) -> list[str]:
    space = " " * indent
    pairs = [f'{space}    ("{name}", {values[name]}),' for name in names]
    return [f"{space}(", *pairs, f"{space}),"]


__all__ = ["Row", "Table", "table_of"]
