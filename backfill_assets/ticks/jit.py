"""How kernels are compiled: explicit signatures, machine code kept on disk where that is possible.

Numba refuses to decorate a function for caching when neither the package's folder, nor the user's cache
directory, nor ``NUMBA_CACHE_DIR`` can be written (a read-only image run by a user without a home). Compiling
anew in each process, a few seconds, is better than not working.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba

_F = TypeVar("_F", bound=Callable[..., Any])


def kernel(signature: Any) -> Callable[[_F], _F]:
    """Compile for one signature, without the interpreter lock; without caching if nothing is writable."""
    options = {"nogil": True, "boundscheck": False, "error_model": "numpy"}

    def compiled(function: _F) -> _F:
        try:
            return cast("_F", numba.njit(signature, cache=True, **options)(function))
        except RuntimeError as error:
            if "cannot cache function" not in str(error):
                raise
            return cast("_F", numba.njit(signature, **options)(function))

    return compiled
