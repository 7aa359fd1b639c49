"""The needs of kernels: explicit signatures, machine code that is kept on disk where possible, and memory.

Numba refuses to decorate a function for caching when neither the package's folder, nor the user's cache
directory, nor ``NUMBA_CACHE_DIR`` can be written (a read-only image run by a user without a home). Compiling
anew in each process, a few seconds, is better than not working.

Numba names its files after the function, and writes the index of a new source before the code: a process that
is killed in between, or reads in between, pairs the new index with the code of the former source, which then
runs on arrays of other shapes, in every process from then on. So the name of each kernel says what its code
was made of. Whoever writes such a file writes the same code, in whatever order.
"""

from __future__ import annotations

import hashlib
import math
import mmap
import pickle
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, cast

import llvmlite
import llvmlite.binding
import numba
import numpy as np

_F = TypeVar("_F", bound=Callable[..., Any])


def kernel(signature: Any) -> Callable[[_F], _F]:
    """Compile for one signature, without the interpreter lock; without caching if nothing is writable.

    A kernel must not use constants or functions of other modules than its own and ``shared_kernels``. It
    trusts the lengths that it is told, so its caller proves them (``prove_indices``).
    """
    options = {"nogil": True, "boundscheck": False, "error_model": "numpy"}

    def compiled(function: _F) -> _F:
        function.__qualname__ += f"_{_origin(function.__code__.co_filename)}"
        try:
            return cast("_F", numba.njit(signature, cache=True, **options)(function))
        except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
            # A power failure leaves files behind that are empty or cut.
            if isinstance(error, RuntimeError) and "cannot cache function" not in str(error):
                raise
        return cast("_F", numba.njit(signature, **options)(function))

    return compiled


def prove_indices(indices: Any, size: int, what: str, least: int = 0) -> None:
    """Let no index reach beyond an array: kernels are compiled without bounds checks.

    Raises
    ------
    IndexError
        An index is below ``least``, or not below ``size``.
    """
    if indices.size and (indices.min() < least or indices.max() >= size):
        msg = f"{what}: {indices.min()} to {indices.max()} are not all from {least} to below {size}"
        raise IndexError(msg)


def untouched(shape: tuple[int, ...], kind: Any) -> Any:
    """Zeros for a kernel's state that take memory only where they are touched.

    Of arrays of this size ``numpy.zeros`` may clear all memory (where the process has used it before) or take
    it in pages of 2 MB, which for a small file costs more than to decode it.
    """
    size = math.prod(shape) * np.dtype(kind).itemsize
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    return np.frombuffer(memory, kind).reshape(shape)


@cache
def _origin(file: str) -> str:
    """Short hash of all that the machine code of a file's kernels depends on."""
    made_of = (
        Path(file).read_text(),
        Path(__file__).read_text(),
        Path(__file__).with_name("shared_kernels.py").read_text(),
        numba.__version__,
        llvmlite.__version__,
        llvmlite.binding.get_host_cpu_name(),
        llvmlite.binding.get_host_cpu_features().flatten(),
        numba.config.CPU_NAME,
        numba.config.CPU_FEATURES,
        numba.config.BOUNDSCHECK,
        numba.config.OPT,
    )
    return hashlib.sha256(repr(made_of).encode()).hexdigest()[:12]
