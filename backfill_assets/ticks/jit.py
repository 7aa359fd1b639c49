"""Compiles kernels with explicit signatures, caches their machine code on disk if possible, and gives memory.

Numba refuses to decorate a function for caching when neither the package's folder, nor the user's cache
directory, nor ``NUMBA_CACHE_DIR`` can be written (a read-only image run by a user without a home). Compiling
again in each process takes a few seconds, which is better than not working.

Numba names its files after the function, and writes the index of a new source before the code. A process that
is killed or reads between the two writes pairs the new index with the code of the former source, which then
runs on arrays of other shapes in every later process. So the name of each kernel contains a hash of its
source: all processes that write a file of that name write the same code, in any order.
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
    """Compile for one signature, without the interpreter lock; without caching if no folder is writable.

    A kernel must use constants and functions only of its own module and ``shared_kernels``. It trusts the
    lengths that it receives, so its caller must prove them (``prove_indices``).
    """
    options = {"nogil": True, "boundscheck": False, "error_model": "numpy"}

    def compiled(function: _F) -> _F:
        function.__qualname__ += f"_{_origin(function.__code__.co_filename)}"
        try:
            return cast("_F", numba.njit(signature, cache=True, **options)(function))
        except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
            # A power failure can leave empty or cut files.
            if isinstance(error, RuntimeError) and "cannot cache function" not in str(error):
                raise
        return cast("_F", numba.njit(signature, **options)(function))

    return compiled


def prove_indices(indices: Any, size: int, what: str, least: int = 0) -> None:
    """Raise if an index lies outside an array, because kernels are compiled without bounds checks.

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

    For arrays of this size ``numpy.zeros`` may clear all memory (if the process has used it before) or take
    it in pages of 2 MB, which costs more than decoding a small file.
    """
    size = math.prod(shape) * np.dtype(kind).itemsize
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    return np.frombuffer(memory, kind).reshape(shape)


@cache
def _origin(file: str) -> str:
    """Short hash of all inputs to the machine code of a file's kernels."""
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
