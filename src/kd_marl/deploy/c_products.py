"""The matrix products of the generated C, turned round so that weights are read in the order in which they lie.

The generator makes one sum after the other, each down a column of the weights. Here all sums of a product grow
together, a few rows of weights at a time. Every sum adds the same numbers in the same order, so that no bit of a result
changes; but sums beside each other do not wait for each other, compilers vectorise them even at -O2, and memory is read
as a stream. That takes 3 KB more code: where a compiler is asked for small programs, the generator's form stays.
"""

from __future__ import annotations

import re

# Rows of weights that are added before the sums are written back: measured, 4 and 32 are slower on x86-64.
ROWS = 16

_GENERATED = """\
        for (idx_t j = 0; j < COLUMNS; ++j) {
            float acc = 0.0f;
            for (idx_t k = 0; k < ROWS; ++k) {
                const float a_val = input_a[i][k];
                const float b_val = input_b[k][j];
                acc += a_val * b_val;
            }
            idx_t c_j = j;
            const float bias = input_c[c_j];
            output[i][j] = acc * 1.0f + bias * 1.0f;
        }
"""
_PATTERN = re.compile(re.escape(_GENERATED).replace("COLUMNS", r"(\d+)").replace("ROWS", r"(\d+)"))

_TURNED = """\
#ifdef __OPTIMIZE_SIZE__
@GENERATED@#else
        float sum[@COLUMNS@];
        for (idx_t j = 0; j < @COLUMNS@; ++j) {
            sum[j] = 0.0f;
        }
@BLOCKS@        for (idx_t j = 0; j < @COLUMNS@; ++j) {
            output[i][j] = sum[j] + input_c[j];
        }
#endif
"""
_BLOCK = """\
        for (idx_t k = @FIRST@; k < @END@; k += @STEP@) {
            for (idx_t j = 0; j < @COLUMNS@; ++j) {
                float acc = sum[j];
@ADDED@                sum[j] = acc;
            }
        }
"""


def turn_products(model: str) -> tuple[str, int]:
    """Turn every matrix product of a generated program.

    Args:
        model: the C text.

    Returns:
        The text with the products turned, and how many there were. A product written in any other way is left alone.
    """
    return _PATTERN.subn(_turned, model)


def _turned(match: re.Match[str]) -> str:
    columns, rows = match[1], int(match[2])
    whole = rows - rows % ROWS
    blocks = _block(0, whole, ROWS) + _block(whole, rows, rows - whole)
    return _TURNED.replace("@GENERATED@", match[0]).replace("@BLOCKS@", blocks).replace("@COLUMNS@", columns)


def _block(first: int, end: int, step: int) -> str:
    """Return the loop over the rows ``first`` to ``end``, ``step`` of them at a time; nothing if there are none."""
    if first == end:
        return ""
    added = "".join(f"                acc += input_a[i][k + {row}] * input_b[k + {row}][j];\n" for row in range(step))
    filled = _BLOCK.replace("@ADDED@", added)
    for name, value in (("FIRST", first), ("END", end), ("STEP", step)):
        filled = filled.replace(f"@{name}@", str(value))
    return filled
