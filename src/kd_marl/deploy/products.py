"""The products of the C program: functions that add inputs, each times its row of weights, to sums."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from kd_core.costs.footprint import PRODUCT_ROWS

# Numbers of a vector, vectors of sums that registers hold beside weights and inputs, and rows of a round.
_LANES, _REGISTERS, _ROWS = 8, 12, 8

_BOTH = """\
#ifdef @UPPER@_WIDE

/*
 * An input, spread over a vector, meets its weights of as many sums as registers hold. Where that leaves some, rows are
 * summed in turns by several sums, which do not wait for each other.
 */
@WIDE@
#else

@PLAIN@
#endif
"""
_WIDE = """\
static void @PREFIX@_add_@NAME@(const float *restrict in, @SUMS@)
{
    int row;

@BLOCKS@}
"""
_WIDE_BLOCK = """\
    {
@BEGUN@        for (row = 0; row < @END@; row += @STEP@) {
@ADDED@        }
@REST@@WRITTEN@    }
"""
_PLAIN = """\
static void @PREFIX@_add_@NAME@(const float *restrict in, float *restrict sum)
{
    int row, column;

@BLOCKS@}
"""
_PLAIN_BLOCK = """\
    for (row = @FIRST@; row < @END@; row += @STEP@) {
        for (column = 0; column < @COLUMNS@; column++) {
            float acc = sum[column];
@ADDED@            sum[column] = acc;
        }
    }
"""


@dataclass(frozen=True)
class _Product:
    """Some inputs times rows of a matrix.

    Attributes:
        sums: what the function calls the sums.
        matrix: name of the matrix.
        rows: of the whole matrix.
        columns: of the matrix.
        first: row of the first input.
    """

    sums: str
    matrix: str
    rows: int
    columns: int
    first: int = 0


@dataclass(frozen=True)
class _Vector:
    """The sums of up to eight neighbouring columns."""

    product: _Product
    column: int

    @property
    def lanes(self) -> int:
        return min(_LANES, self.product.columns - self.column)

    @property
    def sums(self) -> str:
        return f"{self.product.sums} + {self.column}" if self.column else self.product.sums

    def begun(self) -> str:
        """Read the sums; fewer than eight begin at zero, as they were just written one by one."""
        return f"_mm256_loadu_ps({self.sums})" if self.lanes == _LANES else "_mm256_setzero_ps()"

    def written(self, value: str) -> str:
        """Write the sums."""
        if self.lanes == _LANES:
            return f"_mm256_storeu_ps({self.sums}, {value})"
        return f"@PREFIX@_add_few({self.sums}, {value}, {self.lanes})"

    def weights(self, row: int, loop: bool) -> str:
        """Read a row's weights, in a loop from its row on; fewer than eight with what lies behind them, if any does."""
        columns = self.product.columns
        start = self.product.first * columns + self.column
        at = f"(row + {row}) * {columns} + {start}" if loop else str(row * columns + start)
        place = f"@PREFIX@_{self.product.matrix}_weight + {at}"
        if loop or row < self.rows_read_whole():
            return f"_mm256_loadu_ps({place})"
        return f"@PREFIX@_read_few({place}, {self.lanes})"

    def rows_read_whole(self) -> int:
        """Count the inputs behind whose weights so many lie that eight can be read."""
        size = self.product.rows * self.product.columns
        return (size - _LANES - self.column) // self.product.columns + 1 - self.product.first


def text(inputs: int, width: int, n_actions: int, outbox: int) -> str:
    """Write the function of each product; the gates have two, for the aligned features and for the state."""
    align, head = _Product("sum", "align", inputs, width), _Product("sum", "head", width, n_actions)
    gates = _Product("gates", "gates", 2 * width, 2 * width)
    gates_past = _Product("gates", "gates", 2 * width, 2 * width, width)
    past, candidate = _Product("past", "past", width, width), _Product("candidate", "input", width, width)
    ends = {"head": (width, head)}
    if outbox:
        ends["speak"] = (width, _Product("sum", "speak", width, outbox))
    plain = {
        "align": (inputs, align),
        "gates": (width, gates),
        "gates_past": (width, gates_past),
        "past": (width, past),
        "input": (width, candidate),
        **ends,
    }
    wide: dict[str, tuple[int, list[_Product]]] = {
        "align": (inputs, [align]),
        # Products of the same inputs are one: to spread an input over a vector costs as much as a multiplication.
        "aligned": (width, [gates, candidate]),
        "state": (width, [gates_past, past]),
        **{name: (rows, [product]) for name, (rows, product) in ends.items()},
    }
    both = {
        "WIDE": "\n".join(_wide(name, rows, products) for name, (rows, products) in wide.items()),
        "PLAIN": "\n".join(_plain(name, rows, product) for name, (rows, product) in plain.items()),
    }
    return _filled(_BOTH, both)


def _plain(name: str, rows: int, product: _Product) -> str:
    """Write a function that adds ``rows`` inputs times as many rows of a matrix."""
    blocks, start = "", 0
    for step in PRODUCT_ROWS:
        end = rows - rows % step
        if start == end:
            continue
        weight, columns = f"@PREFIX@_{product.matrix}_weight", product.columns
        added = "".join(
            f"            acc += in[row + {row}] * {weight}[(row + {product.first + row}) * {columns} + column];\n"
            for row in range(step)
        )
        values = {"ADDED": added, "FIRST": start, "END": end, "STEP": step, "COLUMNS": columns}
        blocks, start = blocks + _filled(_PLAIN_BLOCK, values), end
    return _filled(_PLAIN, {"BLOCKS": blocks, "NAME": name})


def _wide(name: str, rows: int, products: Sequence[_Product]) -> str:
    """Write a function that adds the same inputs, as vectors: as many sums as registers hold pass all rows at once."""
    vectors = [_Vector(product, column) for product in products for column in range(0, product.columns, _LANES)]
    blocks = "".join(
        _wide_block(rows, vectors[start : start + _REGISTERS]) for start in range(0, len(vectors), _REGISTERS)
    )
    sums = ", ".join(f"float *restrict {product.sums}" for product in products)
    return _filled(_WIDE, {"BLOCKS": blocks, "NAME": name, "SUMS": sums})


def _wide_block(rows: int, vectors: Sequence[_Vector]) -> str:
    """Write the part of a product for some vectors of sums."""
    # Rows are summed in turns by several sums, which do not wait for each other.
    ways = next(ways for ways in (4, 2, 1) if ways * len(vectors) <= _REGISTERS)
    whole = max(0, min(rows, *(vector.rows_read_whole() for vector in vectors)))
    end = whole - whole % _ROWS
    places = range(len(vectors))

    def added(row: int, spread: str, weights: Sequence[str], indent: int) -> str:
        lines = [f"x = {spread};"]
        lines += [f"sum_{row % ways}_{i} = @UPPER@_PLUS_EIGHT(sum_{row % ways}_{i}, x, {weights[i]});" for i in places]
        return "".join(f"{' ' * indent}{line}\n" for line in lines)

    def total(place: int) -> str:
        parts = [f"sum_{way}_{place}" for way in range(ways)]
        while len(parts) > 1:
            parts = [f"_mm256_add_ps({one}, {other})" for one, other in zip(parts[::2], parts[1::2], strict=True)]
        return parts[0]

    begun = [
        f"__m256 sum_{way}_{i} = {'_mm256_setzero_ps()' if way else vectors[i].begun()};"
        for way in range(ways)
        for i in places
    ]
    round_of = "".join(
        f"            const __m256 fours_{row} = @UPPER@_FOUR(in + row + {row});\n" for row in range(0, _ROWS, 4)
    )
    round_of += "\n" + "".join(
        added(
            row,
            f"_mm256_permute_ps(fours_{row - row % 4}, 0x{row % 4 * 0x55:02x})",
            [vector.weights(row, True) for vector in vectors],
            12,
        )
        for row in range(_ROWS)
    )
    values = {
        "BEGUN": "".join(f"        {line}\n" for line in [*begun, "__m256 x;"]) + "\n",
        "ADDED": round_of,
        "REST": "".join(
            added(row, f"_mm256_set1_ps(in[{row}])", [vector.weights(row, False) for vector in vectors], 8)
            for row in range(end, rows)
        ),
        "WRITTEN": "".join(f"        {vectors[i].written(total(i))};\n" for i in places),
        "END": end,
        "STEP": _ROWS,
    }
    return _filled(_WIDE_BLOCK, values)


def _filled(template: str, values: Mapping[str, object]) -> str:
    for key, value in values.items():
        template = template.replace(f"@{key}@", str(value))
    return template
