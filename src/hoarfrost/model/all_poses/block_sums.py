"""What a block of likelihoods leaves of images."""

from typing import Any, NamedTuple

# exp() of anything lower is lost in a sum of 10⁷ terms. It must not be let go on: denormal numbers make exp and matrix
# products many times slower, and even the square of this is none.
LOWEST_EXPONENT = -40.0


class BlockSums(NamedTuple):
    """Of b images: `peak` highest score, `row` where it is, `squares` of all, (b,).

    `row_sums` (b, rows) are the sums of the likelihoods of each row. Likelihoods are exp(score − peak). Tensors, or
    arrays of the same memory.
    """

    peak: Any
    row: Any
    row_sums: Any
    squares: Any
