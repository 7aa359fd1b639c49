"""Files of this machine: durable renames, locks that end with their holder, leases that end before it.

All packages that keep files on a disk need them, and each is easy to get wrong. Without the two syncs, a
power cut leaves an empty file under the new name. A lock that is a file's existence outlives a killed
process. A lock held by a stopped process keeps all others waiting. The packages decide where the files are
and what they mean.
"""

from __future__ import annotations

import errno
import fcntl
import os
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import IO, Final

from backfill_assets.failures import PermanentFailure, Superseded, TransientFailure

#: Prefix of a process's own folders; ``backfill-assets gc`` removes those of killed processes.
TEMPORARY_PREFIX: Final = "backfill-unfinished-"
_POLL_SECONDS: Final = 0.02
_SHORTEST_POLL_SECONDS: Final = 0.0005
#: Errors of a disk that is full or not writable.
_REFUSALS: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES)


def put_in_place(unfinished: Path, file: Path) -> None:
    """Rename ``unfinished`` to ``file`` durably; both are on one file system, and missing folders are made.

    First the bytes become durable, then visible, then the name durable: a power cut leaves old or new, whole.
    """
    with unfinished.open("rb") as handle:
        os.fsync(handle.fileno())
    missing = list(takewhile(lambda folder: not folder.exists(), (file.parent, *file.parent.parents)))
    if missing:
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
    """Hold the lock that is the file at ``path``; the file and its folder are created and stay.

    One thread of one process holds it at a time, since each opens the file anew. The kernel releases it when
    the holder has died and its forked children, which share it, have ended.

    Parameters
    ----------
    timeout_seconds
        How long to wait for another holder; by default, forever.

    Raises
    ------
    TransientFailure
        Another holder kept it longer.
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


@dataclass(frozen=True, slots=True)
class Lease:
    """A lock that is held until another holder takes it over.

    ``is_taken_over`` means that the former holder did not release it: it may be stopped, and continue later.
    """

    path: Path
    handle: IO[bytes]
    is_taken_over: bool

    def insist(self) -> None:
        """Raise ``Superseded`` if another holder has taken the lock over."""
        if not _is_at(self.path, self.handle):
            msg = f"{self.path}: this process was stopped for too long, and another has taken over: run again"
            raise Superseded(msg)


@contextmanager
def leased(path: Path, seconds: float) -> Iterator[Lease]:
    """Hold the lock that is the file at ``path``, or take it over from a holder that kept it too long.

    The former holder may continue at any moment, and its work must then have no effect. So each holder writes
    its own file, calls ``insist``, and renames that file; one that takes over deletes the files of former
    holders before it reads anything. A former holder then finds its file gone, or is stopped by ``insist``.

    Parameters
    ----------
    seconds
        How long others wait for the same holder.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        with path.open("a+b") as handle:
            if _locked_in_time(path, handle, seconds):
                _sign(handle)
                yield Lease(path, handle, is_taken_over=False)
                return
            if not _is_at(path, handle):
                continue
            successor = path.with_name(f"{path.name}.{uuid.uuid4().hex}")
            with successor.open("a+b") as new:
                fcntl.flock(new, fcntl.LOCK_EX)
                _sign(new)
                successor.replace(path)
                yield Lease(path, new, is_taken_over=True)
                return


def _locked_in_time(path: Path, handle: IO[bytes], seconds: float) -> bool:
    """Whether the lock at ``path`` was obtained before one holder had it for too long."""
    wait, holder, deadline = _SHORTEST_POLL_SECONDS, b"", 0.0
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not _is_at(path, handle):
                return False
            handle.seek(0)
            if (present := handle.read()) != holder or not deadline:
                holder, deadline = present, time.monotonic() + seconds
            elif time.monotonic() >= deadline:
                return False
            time.sleep(wait)
            wait = min(_POLL_SECONDS, wait * 1.5)
        else:
            return _is_at(path, handle)


def _sign(handle: IO[bytes]) -> None:
    """Let waiting processes see that the holder has changed."""
    handle.truncate(0)
    handle.write(uuid.uuid4().bytes)
    handle.flush()


def _is_at(path: Path, handle: IO[bytes]) -> bool:
    try:
        found, held = path.stat(), os.fstat(handle.fileno())
    except FileNotFoundError:
        return False
    return (found.st_dev, found.st_ino) == (held.st_dev, held.st_ino)


@contextmanager
def temporary_folder(parent: Path | None, setting: str) -> Iterator[Path]:
    """Yield a folder for unfinished files, which is removed at the end of the block.

    Parameters
    ----------
    parent
        A folder on the disk to use; None means the system's temporary directory.
    setting
        The setting to name as the remedy if that disk refuses a file.

    Raises
    ------
    PermanentFailure
        The disk is full or not writable.
    """
    try:
        with tempfile.TemporaryDirectory(prefix=TEMPORARY_PREFIX, dir=parent) as folder:
            yield Path(folder)
    except OSError as error:
        if error.errno not in _REFUSALS:
            raise
        where = parent or tempfile.gettempdir()
        msg = f"{where}: {os.strerror(error.errno)}: free space there, or point {setting} at another disk"
        raise PermanentFailure(msg) from error
