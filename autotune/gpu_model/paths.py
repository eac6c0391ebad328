"""The loops of a program, and the instructions that a warp runs."""

from __future__ import annotations

from collections.abc import Sequence

from .instructions import Instruction
from .pipes import SPINNING

_WORTH_OF_A_LOOP = 100.0


class Paths:
    """The loops of a program, from the first instruction of each to its last, by the first.

    Where a branch may go two ways, a warp goes the longer: what is skipped is the exception.
    """

    def __init__(self, program: Sequence[Instruction]) -> None:
        """Find the loops: branches that go back to where all ways to them have passed.

        Code out of line that waits for a barrier goes back too, but not to what leads to it; a
        short loop that waits for one is none either.
        """
        self.program = program
        back = [p for p, one in enumerate(program) if one.target is not None and one.target < p]
        known = _dominators(program) if back else {}
        found: dict[int, int] = {}
        for place in back:
            first = program[place].target or 0
            if _dominates(first, place, known) and not _spins(program, place):
                found[first] = max(place, found.get(first, 0))
        self.loops = dict(sorted(found.items()))
        self._worth = [0.0] * (len(program) + 1)
        for place in reversed(range(len(program))):
            self._worth[place] = self._longest_from(place)

    def _longest_from(self, place: int) -> float:
        """Instructions on the longest way to the end; those of loops count a hundredfold."""
        one, ways = self.program[place], [place + 1]
        if one.opcode in ("EXIT", "BRA") and not one.conditional:
            ways = []
        if one.target is not None:
            ways.append(max(one.target, place + 1))
        depth = sum(first <= place <= last for first, last in self.loops.items())
        return _WORTH_OF_A_LOOP**depth + max((self._worth[way] for way in ways), default=0.0)

    def trace(self, turns: Sequence[int]) -> list[int]:
        """The places that one warp runs through where the loops make so many turns each."""
        wanted = dict(zip(self.loops, turns, strict=True))
        firsts = {last: first for first, last in self.loops.items()}
        left, made, place = dict(wanted), list[int](), 0
        while place < len(self.program):
            if wanted.get(place) == 0:
                place = self.loops[place] + 1
                continue
            one = self.program[place]
            made.append(place)
            if one.opcode in ("EXIT", "RET") and not one.conditional:
                break
            first = firsts.get(place)
            if first is None:
                place = self._next(place)
                continue
            left[first] -= 1
            again = left[first] > 0
            left[first] = left[first] if again else wanted[first]
            place = first if again else place + 1
        return made

    def _next(self, place: int) -> int:
        """Where a warp goes on; code for the case that its threads part is passed over."""
        one, target = self.program[place], self.program[place].target
        if target is None or target <= place or ".DIV" in one.modifiers:
            return place + 1
        sure = not one.conditional
        return target if sure or self._worth[target] > self._worth[place + 1] else place + 1


def _dominators(program: Sequence[Instruction]) -> dict[int, int]:
    """For each instruction that can be reached, the last that all ways to it pass."""
    import networkx

    graph = networkx.DiGraph()
    graph.add_node(0)
    for place, one in enumerate(program):
        if one.target is not None:
            graph.add_edge(place, one.target)
        if one.conditional or one.opcode not in ("BRA", "EXIT", "RET"):
            graph.add_edge(place, place + 1)
    return dict(networkx.immediate_dominators(graph, 0))


def _dominates(first: int, place: int, dominators: dict[int, int]) -> bool:
    while place > first and place in dominators:
        place = dominators[place]
    return place == first


def _spins(program: Sequence[Instruction], place: int) -> bool:
    first = program[place].target or 0
    body = program[first:place]
    return len(body) <= SPINNING and any(one.opcode == "SYNCS" for one in body)
