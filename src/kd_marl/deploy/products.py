"""The products of the C program: functions that add inputs, each times its row of weights, to sums."""

from __future__ import annotations

from collections.abc import Mapping

from kd_core.costs.footprint import PRODUCT_ROWS

# Numbers that are added at once, by the name of their type in the program; sums that fit in registers beside weights.
_LANES = {8: "@PREFIX@_eight", 4: "@PREFIX@_four", 1: "float"}
_REGISTERS = 8

_BOTH = """\
#ifdef @UPPER@_WIDE
/* Eight or four numbers at once. Rows are summed in turns by several sums, which do not wait for each other. */
typedef float @PREFIX@_eight __attribute__((vector_size(32), aligned(4), may_alias));
typedef float @PREFIX@_four __attribute__((vector_size(16), aligned(4), may_alias));

@WIDE@
#else

@PLAIN@
#endif
"""
_WIDE = """\
static void @PREFIX@_add_@NAME@(const float *restrict in, float *restrict sum)
{
    const float *weight;
    int row;

@BLOCKS@}
"""
_WIDE_BLOCK = """\
    {
        @TYPE@ *const to = (@TYPE@ *)(sum + @COLUMN@);
@SUMS@
        weight = @PREFIX@_@MATRIX@_weight + @START@;
        for (row = 0; row < @END@; row += @WAYS@) {
@ADDED@            weight += @STEP@;
        }
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


def text(inputs: int, width: int, n_actions: int, outbox: int) -> str:
    """Write the function of each product; the gates have two, for the aligned features and for the state."""
    voice = [("speak", "speak", width, outbox, 0)] if outbox else []
    wanted = [
        ("align", "align", inputs, width, 0),
        ("gates", "gates", width, 2 * width, 0),
        ("gates_past", "gates", width, 2 * width, width),
        ("past", "past", width, width, 0),
        ("input", "input", width, width, 0),
        ("head", "head", width, n_actions, 0),
        *voice,
    ]
    both = {"WIDE": "\n".join(_wide(*product) for product in wanted)}
    both["PLAIN"] = "\n".join(_plain(*product) for product in wanted)
    return _filled(_BOTH, both)


def _plain(name: str, matrix: str, rows: int, columns: int, first: int) -> str:
    """Write a function that adds ``rows`` inputs times as many rows of a matrix, from ``first`` on."""
    blocks, start = "", 0
    for step in PRODUCT_ROWS:
        end = rows - rows % step
        if start == end:
            continue
        weight = f"@PREFIX@_{matrix}_weight"
        added = "".join(
            f"            acc += in[row + {row}] * {weight}[(row + {first + row}) * {columns} + column];\n"
            for row in range(step)
        )
        values = {"ADDED": added, "FIRST": start, "END": end, "STEP": step, "COLUMNS": columns}
        blocks, start = blocks + _filled(_PLAIN_BLOCK, values), end
    return _filled(_PLAIN, {"BLOCKS": blocks, "NAME": name})


def _wide(name: str, matrix: str, rows: int, columns: int, first: int) -> str:
    """Write the same for vectors: as many columns as registers hold stay there while the rows pass."""
    blocks, column = "", 0
    for lanes in _LANES:
        while columns - column >= lanes:
            count = min(_REGISTERS, (columns - column) // lanes)
            blocks += _wide_block(matrix, rows, columns, first, column, lanes, count)
            column += count * lanes
    return _filled(_WIDE, {"BLOCKS": blocks, "NAME": name})


def _wide_block(matrix: str, rows: int, columns: int, first: int, column: int, lanes: int, count: int) -> str:
    """Write the part of a product for ``count`` vectors of columns, from ``column`` on."""
    kind = _LANES[lanes]
    # Several rows at a time where columns leave registers.
    ways = next(ways for ways in (4, 2, 1) if ways * count <= _REGISTERS)
    rest = range(rows - rows % ways, rows)

    def add(way: int, source: str, indent: int) -> str:
        read = [
            f"*(const {kind} *)(weight + {way * columns + lanes * place})"
            if lanes > 1
            else f"weight[{way * columns + place}]"
            for place in range(count)
        ]
        return "".join(f"{' ' * indent}sum_{way}_{place} += in[{source}] * {read[place]};\n" for place in range(count))

    def total(place: int) -> str:
        parts = [f"sum_{way}_{place}" for way in range(ways)]
        return "({} + {}) + ({} + {})".format(*parts) if ways == 4 else " + ".join(parts)

    zero = "{0}" if lanes > 1 else "0.0f"
    sums = [f"sum_{way}_{place} = {zero if way else f'to[{place}]'}" for way in range(ways) for place in range(count)]
    values = {
        "SUMS": "".join(f"        {kind} {one};\n" for one in sums),
        "ADDED": "".join(add(way, f"row + {way}", 12) for way in range(ways)),
        "REST": "".join(add(way, str(row), 8) for way, row in enumerate(rest)),
        "WRITTEN": "".join(f"        to[{place}] = {total(place)};\n" for place in range(count)),
        "TYPE": kind,
        "MATRIX": matrix,
        "COLUMN": column,
        "START": first * columns + column,
        "END": rows - rows % ways,
        "WAYS": ways,
        "STEP": ways * columns,
    }
    return _filled(_WIDE_BLOCK, values)


def _filled(template: str, values: Mapping[str, object]) -> str:
    for key, value in values.items():
        template = template.replace(f"@{key}@", str(value))
    return template
