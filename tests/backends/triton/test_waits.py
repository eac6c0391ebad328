"""Where threads wait for each other: reads after writes, writes after reads, turns of loops."""

from mixc.backends.triton.waits import waits_before
from mixc.ir.tile import BufferArgument, DType, For, Load, Store, Value

X = Value("x", DType.FLOAT32)
N = Value("n", DType.INT32)
LOAD, STORE = Load(X, "own", ()), Store("own", (), X)
BUFFERS = {"own": BufferArgument("own", (), DType.FLOAT32, written=True, kept=True)}


def _loop(*body) -> For:
    return For(N, N, N, 1, (), body, ())


def _waiting(ops, again=False) -> list[int]:
    found = waits_before(ops, BUFFERS, again)
    return [place for place, op in enumerate(ops) if id(op) in found]


def test_what_is_read_waits_for_what_was_written() -> None:
    assert _waiting((_loop(STORE), _loop(LOAD), _loop(LOAD))) == [1]


def test_a_turn_waits_for_the_one_before() -> None:
    assert _waiting((_loop(STORE), _loop(_loop(LOAD)), _loop(LOAD)), again=True) == [0, 1]


def test_what_is_written_waits_for_what_was_read() -> None:
    first, second = Store("own", (), X), Store("own", (), X)
    assert _waiting((first, LOAD, second)) == [1, 2]


def test_none_waits_where_each_writes_or_reads_alone() -> None:
    assert _waiting((_loop(STORE),), again=True) == []
    assert _waiting((_loop(LOAD),), again=True) == []
    given = {"own": BufferArgument("own", (), DType.FLOAT32, written=True)}
    assert not waits_before((STORE, LOAD), given, again=True)
