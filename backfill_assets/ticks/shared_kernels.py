# mypy: disable-error-code="no-untyped-def"
"""Functions that kernels of several modules use. Each of these is here once.

The name of every kernel rests on the text of this module (``jit``), so a change here compiles all anew.
"""

from __future__ import annotations

from typing import Final

import numba as nb
import numpy as np

#: Steps of the price that may be valid on one day; several where it changed.
GRIDS: Final = 4
#: Two decades: how much finer than listed a grid is looked for.
FINER: Final = 100.0


@nb.njit(inline="always")
def is_off(price, step):
    """Whether the price is no multiple of the step, but for the rounding of both and of the quotient."""
    steps = price / step
    return abs(steps - np.rint(steps)) > 1e-6 + 1e-15 * steps


@nb.njit
def count_off(counts, off, off_finer, grids, price):
    """Count a price that is off the first grid in column ``off``, if it is off the others too.

    One that is off a hundredth of the finest grid as well counts in column ``off_finer``.
    """
    finest = grids[0]
    for g in range(1, GRIDS):
        if grids[g] > 0.0:
            if not is_off(price, grids[g]):
                return
            finest = min(finest, grids[g])
    counts[off] += 1
    counts[off_finer] += is_off(price, finest / FINER)
