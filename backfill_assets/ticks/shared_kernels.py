# mypy: disable-error-code="no-untyped-def"
"""Functions that kernels of several modules use, each defined once.

The name of every kernel depends on the text of this module (``jit``), so a change here recompiles them all.
"""

from __future__ import annotations

from typing import Final

import numba as nb
import numpy as np

#: Most price steps that may be valid on one day; there are several if the step changed.
GRIDS: Final = 4
#: Two decades: the finest grid tried is this many times finer than the listed one.
FINER: Final = 100.0


@nb.njit(inline="always")
def is_off(price, step):
    """Whether the price is not a multiple of the step, apart from rounding of both and of the quotient."""
    steps = price / step
    return abs(steps - np.rint(steps)) > 1e-6 + 1e-15 * steps


@nb.njit
def count_off(counts, off, off_finer, grids, price):
    """Count a price that is off the first grid in column ``off``, if it is off the other grids too.

    A price that is also off a hundredth of the finest grid counts in column ``off_finer`` as well.
    """
    finest = grids[0]
    for g in range(1, GRIDS):
        if grids[g] > 0.0:
            if not is_off(price, grids[g]):
                return
            finest = min(finest, grids[g])
    counts[off] += 1
    counts[off_finer] += is_off(price, finest / FINER)
