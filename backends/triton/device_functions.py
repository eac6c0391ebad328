"""Small functions that kernels call, put at the head of a module that uses them."""

from __future__ import annotations

from collections.abc import Mapping

_BY_QUARTERS = """
def _{name}(x):
    # Quarter turns are taken off in three parts (Cody and Waite), then a polynomial: error 1e-7 to
    # |x| = 1e6 with fused products, to 1e5 without. tl.{name} keeps a slow path for any x in local
    # memory, which costs registers and spills.
    turns = tl.floor(x * 0.6366197723675814 + 0.5)
    rest = x - turns * 1.5703125
    rest = rest - turns * 0.0004837512969970703
    rest = rest - turns * 7.549789948768648e-08
    s = rest * rest
    sin = rest + rest * s * (-0.1666665057 + s * (0.00833197327 - s * 0.000194949502))
    cos = 1 - 0.5 * s + s * s * (0.04166664675 + s * (-0.00138873614 + s * 2.44377300e-05))
    quarter = turns.to(tl.int32){more}
    y = tl.where((quarter & 1) == 1, cos, sin)
    return tl.where((quarter & 2) == 2, -y, y)
"""
# By the function or the system that they serve.
DEVICE_FUNCTIONS: Mapping[str, str] = {
    "tanh": """
def _tanh(x):
    # By the series near 0, where the quotient would cancel.
    e = tl.exp(-2 * tl.abs(x))
    far = (1 - e) / (1 + e)
    s = x * x
    near = x + x * s * (-1 / 3 + s * (2 / 15 + s * (-17 / 315 + s * (62 / 2835))))
    return tl.where(tl.abs(x) < 0.25, near, tl.where(x < 0, -far, far))
""",
    "expm1": """
def _expm1(x):
    small = x * (1 + x * (0.5 + x * (1 / 6 + x * (1 / 24 + x / 120))))
    return tl.where(tl.abs(x) < 0.1, small, tl.exp(x) - 1)
""",
    "log1p": """
def _log1p(x):
    u = 1 + x
    return tl.where(u == 1, x, tl.log(u) * x / tl.where(u == 1, 1.0, u - 1))
""",
    "softplus": """
def _softplus(x):
    e = tl.exp(-tl.abs(x))
    u = 1 + e
    tail = tl.where(u == 1, e, tl.log(u) * e / tl.where(u == 1, 1.0, u - 1))
    return tl.maximum(x, 0) + tail
""",
    "logsigmoid": """
def _logsigmoid(x):
    e = tl.exp(-tl.abs(x))
    u = 1 + e
    tail = tl.where(u == 1, e, tl.log(u) * e / tl.where(u == 1, 1.0, u - 1))
    return tl.minimum(x, 0) - tail
""",
    "logaddexp": """
def _logaddexp(a, b):
    top = tl.maximum(a, b)
    gap = tl.where(a == b, 0.0, tl.abs(a - b))
    return top + tl.log(1 + tl.exp(-gap))
""",
    "gelu": """
def _gelu(x):
    return 0.5 * x * (1 + tl.erf(x * 0.7071067811865476))
""",
    "gelu_tanh": """
def _gelu_tanh(x):
    return x * tl.sigmoid(1.5957691216057308 * (x + 0.044715 * x * x * x))
""",
    "silu": """
def _silu(x):
    return x * tl.sigmoid(x)
""",
    "elu": """
def _elu(x):
    # Not by a minimum, which leaves a NaN out.
    return tl.where(x > 0, x, tl.exp(tl.where(x > 0, 0.0, x)) - 1)
""",
    "sign": """
def _sign(x):
    return (x > 0).to(x.dtype) - (x < 0).to(x.dtype)
""",
    "sin": _BY_QUARTERS.format(name="sin", more=""),
    "cos": _BY_QUARTERS.format(name="cos", more=" + 1"),
    "acos": """
def _acos(x):
    # 4.4.45 of Abramowitz and Stegun, extended to eight terms: error below 2e-8.
    a = tl.abs(x)
    p = -0.0012624911
    p = p * a + 0.0066700901
    p = p * a - 0.0170881256
    p = p * a + 0.0308918810
    p = p * a - 0.0501743046
    p = p * a + 0.0889789874
    p = p * a - 0.2145988016
    p = p * a + 1.5707963050
    p = p * tl.sqrt(1 - a)
    return tl.where(x < 0, 3.141592653589793 - p, p)
""",
    "round": """
def _round_half_even(x):
    down = tl.floor(x)
    rest = x - down
    odd = down - 2 * tl.floor(down / 2)
    up = (rest > 0.5) | ((rest == 0.5) & (odd != 0))
    return tl.where(up, down + 1, down)
""",
    "pow": """
def _power(x, y):
    size = tl.exp2(y * tl.log2(tl.abs(x * 1.0)))  # x may be a whole number
    odd = y - 2 * tl.floor(y / 2) != 0
    signed = tl.where((x < 0) & odd, -size, size)
    return tl.where(y == 0, 1.0, tl.where(x == 0, tl.where(y > 0, 0.0, float("inf")), signed))
""",
    "whole_pow": """
def _whole_power(x, y):
    # By squaring, in a number of turns that no power exceeds whose result has 64 bits.
    product = x * 0 + 1 + y * 0
    square = x + y * 0
    for turn in tl.static_range(6):
        product = tl.where((y >> turn) % 2 == 1, product * square, product)
        square = square * square
    return tl.where((x == 0) & (y > 0), 0, product)
""",
    "floordiv": """
def _floor_divide(a, b):
    q = a // b
    return tl.where((q * b != a) & ((a < 0) != (b < 0)), q - 1, q)
""",
    "mod": """
def _modulo(a, b):
    r = a % b
    return tl.where((r != 0) & ((r < 0) != (b < 0)), r + b, r)
""",
    "prod": """
def _multiply(a, b):
    return a * b
""",
    "any": """
def _either(a, b):
    return a | b
""",
    "all": """
def _both(a, b):
    return a & b
""",
    "larger": """
def _larger(a, b):
    return tl.where((a > b) | (a != a), a, b)
""",
    "smaller": """
def _smaller(a, b):
    return tl.where((a < b) | (a != a), a, b)
""",
    # No product of what is loaded stands under a condition: Triton (3.6 to 3.8; its issue 8139)
    # moves conditions to the end of a turn, behind the copies of a later one into the same place.
    "masked_dot": """
def _masked_dot(a, b, acc, A_MASKS: tl.constexpr, PRECISION: tl.constexpr):
    # One operand is 0 where a mask hides what the other holds. Where that has numbers that are not
    # finite, they are left out; then what masks, as 2 or -2, times plus or minus the largest number
    # adds an infinity where they are seen. A NaN adds one of each sign.
    held = b if A_MASKS else a
    clean = tl.where(tl.abs(held.to(tl.float32)) < float("inf"), held, 0.0).to(held.dtype)
    if A_MASKS:
        acc = tl.dot(a, clean, acc, input_precision=PRECISION)
    else:
        acc = tl.dot(clean, b, acc, input_precision=PRECISION)
    nothing = tl.sum(tl.sum(held.to(tl.float32) * 0.0, 1), 0)
    if nothing != nothing:
        wide: tl.constexpr = tl.float32 if held.dtype == tl.float16 else held.dtype
        masks = a if A_MASKS else b
        for turn in range(2):
            left_out = (tl.abs(held.to(tl.float32)) < float("inf")) | ((turn == 1) & (held == held))
            most = tl.where((turn == 1) | (held < 0), -3e38, 3e38)
            code = tl.where(left_out, 0.0, most).to(wide)
            sign = tl.where(masks > 0, 2.0, tl.where(masks < 0, -2.0, 0.0)).to(wide)
            if A_MASKS:
                acc = tl.dot(sign, code, acc, input_precision="tf32")
            else:
                acc = tl.dot(code, sign, acc, input_precision="tf32")
    return acc
""",
    "search": """
def _search_sorted(table, stride, size, value, RIGHT: tl.constexpr):
    # How many entries are < value, or <= value with RIGHT.
    low = tl.full((), 0, tl.int32)
    high = low + size
    while low < high:
        middle = (low + high) // 2
        entry = tl.load(table + middle * stride)
        below = entry <= value if RIGHT else entry < value
        low = tl.where(below, middle + 1, low)
        high = tl.where(below, high, middle)
    return low
""",
    # A register tile has no rows that could be picked by number: a row or a column is a masked sum.
    # Nothing is transposed, and no row is moved but by such a sum.
    "substitute": """
def _substitute(a, b):
    # The x for which x[i] = b[i] + sum of a[i, j] x[j] over j < i, a row after the other.
    ROWS: tl.constexpr = a.shape[0]
    i = tl.arange(0, ROWS)[:, None]
    j = tl.arange(0, ROWS)[None, :]
    below = tl.where(i > j, a, 0.0)
    for row in tl.static_range(ROWS - 1):
        factor = tl.sum(tl.where(j == row, below, 0.0), 1)
        done = tl.sum(tl.where(i == row, b, 0.0), 0)
        b += factor[:, None] * done[None, :]
    return b
""",
    # Not by the powers of a, which grow where keys are alike: what halves are made of doesn't.
    "substitute_by_halves": """
def _substitute_by_halves(a, b, LEVELS: tl.constexpr):
    # The x for which x[i] = b[i] + sum of a[i, j] x[j] over j < i, by the inverse of the triangle:
    # two halves with the inverses P and Q, and M of a below P, make [[P, 0], [Q M P, Q]].
    ROWS: tl.constexpr = a.shape[0]
    i = tl.arange(0, ROWS)[:, None]
    j = tl.arange(0, ROWS)[None, :]
    below = tl.where(i > j, a, 0.0)
    inverse = tl.where(i == j, 1.0, tl.where((i ^ j) == 1, below, 0.0))
    for level in tl.static_range(1, LEVELS):
        between = tl.where(((i ^ j) >> level) == 1, below, 0.0)
        between = tl.dot(between, inverse, input_precision="tf32")
        inverse = tl.dot(inverse, between, inverse, input_precision="tf32")
    return tl.dot(inverse, b, input_precision="tf32")
""",
    "substitute_blocks": """
def _substitute_blocks(a, b, PRECISION: tl.constexpr):
    # The x for which x[i] = b[i] + sum of a[i, j] x[j] over j < i: blocks of 16 rows one after the
    # other, each by the inverse of its own triangle, which substitution row by row has made.
    ROWS: tl.constexpr = a.shape[0]
    COLUMNS: tl.constexpr = b.shape[1]
    COUNT: tl.constexpr = ROWS // 16
    i = tl.arange(0, ROWS)[:, None]
    j = tl.arange(0, ROWS)[None, :]
    below = tl.where(i > j, a, 0.0)
    block = tl.arange(0, COUNT)
    row = tl.arange(0, 16)[None, :, None]
    column = tl.arange(0, 16)[None, None, :]
    diagonal = block[:, None, None, None] == block[None, None, :, None]
    blocks = tl.sum(tl.where(diagonal, tl.reshape(below, [COUNT, 16, COUNT, 16]), 0.0), 2)
    inverse = tl.where(row == column, 1.0, tl.zeros([COUNT, 16, 16], tl.float32))
    for n in tl.static_range(15):
        factor = tl.sum(tl.where(column == n, blocks, 0.0), 2)
        done = tl.sum(tl.where(row == n, inverse, 0.0), 1)
        inverse += factor[:, :, None] * done[:, None, :]
    below = tl.reshape(below, [ROWS, COUNT, 16])
    for n in tl.static_range(COUNT):
        own = tl.sum(tl.where(block[:, None, None] == n, inverse, 0.0), 0)
        rows = tl.reshape(b, [COUNT, 16, COLUMNS])
        rows = tl.sum(tl.where(block[:, None, None] == n, rows, 0.0), 0)
        done = tl.dot(own, rows, input_precision=PRECISION)
        factor = tl.sum(tl.where(block[None, :, None] == n, below, 0.0), 1)
        b = tl.dot(factor, done, b, input_precision=PRECISION)
    return b
""",
    "solve": """
def _solve(matrix, vector, SIZE: tl.constexpr):
    # The x for which matrix x = vector, by Gauss and Jordan with the largest pivot of each column.
    ROWS: tl.constexpr = matrix.shape[0]
    i = tl.arange(0, ROWS)[:, None]
    j = tl.arange(0, ROWS)[None, :]
    for n in range(SIZE):
        column = tl.sum(tl.where(j == n, matrix, 0.0), 1)[:, None]
        candidates = tl.where((i >= n) & (i < SIZE), tl.abs(column), -1.0)
        pivot_row = tl.argmax(tl.max(candidates, 1), 0)
        pivot = tl.sum(tl.where(i == pivot_row, column, 0.0))
        first = tl.sum(tl.where(i == n, matrix, 0.0), 0)[None, :]
        first_value = tl.sum(tl.where(i == n, vector, 0.0), 0)[None, :]
        row = tl.sum(tl.where(i == pivot_row, matrix, 0.0), 0)[None, :] / pivot
        value = tl.sum(tl.where(i == pivot_row, vector, 0.0), 0)[None, :] / pivot
        factor = tl.where(i == pivot_row, tl.sum(tl.where(i == n, column, 0.0)), column)
        matrix = tl.where(i == pivot_row, first, matrix)
        vector = tl.where(i == pivot_row, first_value, vector)
        matrix = tl.where(i == n, row, matrix - factor * row)
        vector = tl.where(i == n, value, vector - factor * value)
    return vector
""",
}
