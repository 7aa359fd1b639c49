"""Files of this machine: durable renames, and locks that end with their holder.

Every room that keeps files on a disk needs both, and each is easy to get wrong: without the two syncs a power
cut leaves an empty file under the new name, and a lock that is a file's existence outlives a killed process.
Where the files lie and what they mean is the business of their rooms.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final

from backfill_assets.failures import TransientFailure

_POLL_SECONDS: Final = 0.02


def put_in_place(unfinished: Path, file: Path) -> None:
    """Rename ``unfinished`` to ``file``, durably; both are on one file system, missing folders are made.

    The bytes are made durable, then visible, then the name durable: a power cut shows old or new, whole.
    """
    with unfinished.open("rb") as handle:
        os.fsync(handle.fileno())
    missing = [folder for folder in (file.parent, *file.parent.parents) if not folder.exists()]
    file.parent.mkdir(parents=True, exist_ok=True)
    unfinished.replace(file)
    for folder in (file.parent, *(folder.parent for folder in missing)):
        sync_folder(folder)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable, after a rename or a removal."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def locked(path: Path, *, timeout_seconds: float | None = None) -> Iterator[None]:
    """Hold the lock that is the file at ``path``; the file and its folder are made and stay.

    One thread of one process holds it at a time, for each opens the file anew. The kernel lets it go when the
    holder dies and its forked children, which share it, have ended.

    Parameters
    ----------
    timeout_seconds
        How long to wait for another holder; by default for ever.

    Raises
    ------
    TransientFailure
        Another holder kept it for longer.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as lock:
        if timeout_seconds is None:
            fcntl.flock(lock, fcntl.LOCK_EX)
        else:
            _lock_within(lock, timeout_seconds)
        yield


def _lock_within(lock: IO[bytes], timeout_seconds: float) -> None:
    deadline = time.monotonic() + timeout_seconds
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if time.monotonic() >= deadline:
                msg = (
                    f"{lock.name}: another process has held this lock for {timeout_seconds:g} s: "
                    "let it end, or end it, and run again"
                )
                raise TransientFailure(msg) from error
            time.sleep(_POLL_SECONDS)
        else:
            return
