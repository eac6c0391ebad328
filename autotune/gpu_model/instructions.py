"""Machine instructions with their control codes, from the text that ``nvdisasm -hex -g`` prints."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

_LINE = re.compile(r'//## File "(.*)", line (\d+)')
_LABEL = re.compile(r"^(\.L_\w+):")
_LOW = re.compile(r"^\s+/\*([0-9a-f]{4,})\*/\s+(.*?)\s*;\s+/\*\s*0x[0-9a-f]{16}\s*\*/")
_HIGH = re.compile(r"^\s+/\*\s*0x([0-9a-f]{16})\s*\*/")
_OPCODE = re.compile(r"^(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9_]*)(\S*)")
_TO_LABEL = re.compile(r"\((\.L_\w+)\)")
_PREDICATE = re.compile(r"!?U?P\d")
_BOARDS = 6


@dataclass(frozen=True, slots=True)
class Line:
    """A line of the source."""

    file: str = ""
    number: int = 0


@dataclass(frozen=True, slots=True)
class Instruction:
    """One machine instruction.

    ``stall`` is in cycles until the warp's next one, ``done`` and ``read`` are the scoreboards that
    clear with its result and with its operands (None: none), ``waits`` those that have to be clear
    before. ``target`` is the place of the instruction that a branch goes to.
    """

    address: int
    text: str
    line: Line
    opcode: str
    modifiers: str
    stall: int
    done: int | None
    read: int | None
    waits: tuple[int, ...]
    target: int | None = None

    @property
    def conditional(self) -> bool:
        """Whether a predicate says if it runs, or where it goes on."""
        guarded = self.text.startswith("@")
        return guarded or (self.opcode == "BRA" and _PREDICATE.match(self.operands[0]) is not None)

    @property
    def numbers(self) -> tuple[int, ...]:
        """The numbers in its modifiers, ``16816`` of ``HMMA.16816.F32``."""
        return tuple(int(n) for n in re.findall(r"\d+", self.modifiers))

    @property
    def operands(self) -> tuple[str, ...]:
        """What follows the opcode."""
        rest = self.text.partition(self.opcode + self.modifiers)[2]
        return tuple(part.strip() for part in rest.split(",") if part.strip())


def read_instructions(text: str) -> tuple[Instruction, ...]:
    """The instructions of the one kernel of a binary."""
    made: list[Instruction] = []
    labels: dict[str, int] = {}
    line = Line()
    low: re.Match[str] | None = None
    for row in text.splitlines():
        if found := _LOW.match(row):
            low = found
        elif low is not None and (found := _HIGH.match(row)):
            made.append(_decoded(int(low[1], 16), low[2], line, int(found[1], 16) >> 41))
            low = None
        elif found := _LINE.search(row):
            line = Line(found[1], int(found[2]))
        elif found := _LABEL.match(row):
            labels[found[1]] = len(made)
    return tuple(_with_target(one, labels) for one in made)


def _decoded(address: int, text: str, line: Line, control: int) -> Instruction:
    """The control code: stall 4 bits, yield 1, two scoreboards of 3 to set, 6 to wait for."""
    found = _OPCODE.match(text)
    if found is None:
        raise ValueError(f"no machine instruction: {text!r}")
    done, read = ((control >> shift) & 7 for shift in (5, 8))
    waits = tuple(board for board in range(_BOARDS) if control >> (11 + board) & 1)
    stall = max(control & 15, 1)
    return Instruction(
        address, text, line, found[1], found[2], stall, _board(done), _board(read), waits
    )


def _board(number: int) -> int | None:
    return number if number < _BOARDS else None


def _with_target(one: Instruction, labels: dict[str, int]) -> Instruction:
    named = _TO_LABEL.search(one.text) if one.opcode == "BRA" else None
    return one if named is None else replace(one, target=labels.get(named[1]))


def constant_before(program: Sequence[Instruction], place: int, register: str) -> int | None:
    """The number that a uniform register was last set to before a place, if it is a plain one."""
    for one in reversed(program[:place]):
        if one.operands[:1] == (register,):
            number = one.operands[-1]
            return int(number, 16) if "MOV" in one.opcode and number.startswith("0x") else None
    return None
