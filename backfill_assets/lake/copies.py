"""Local copies of a bucket's data files: each is fetched once per process and shared by all its readers.

Data files never change, so a copy is as good as the object for as long as the process lives. A process keeps
its copies in its own folder, which is removed when the process ends. The next process removes the folder of a
killed one, because it finds its lock free. A forked child begins without copies and leaves its parent's
alone.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from itertools import count
from multiprocessing.util import Finalize
from pathlib import Path
from threading import Lock
from typing import BinaryIO, Final

from backfill_assets.failures import PermanentFailure, TransientFailure
from backfill_assets.files import locked

#: A day and its neighbors of 50 busy feeds, 100 MB each, are 15 GB; no step asks for older files again.
MOST_BYTES: Final = 20 * 10**9
#: Downloads, unfinished files and other runs share the disk: the copies of a process take a quarter of it.
_SHARE: Final = 4
#: A file that cannot be linked is copied up to this size; the copy takes less time than the saved request.
_MOST_COPIED_BYTES: Final = 8 << 20
_PREFIX: Final = "backfill-copies-"
_IN_USE: Final = ".in-use"

#: Guards the lists of copies, never a download; a fork waits for it, so no child inherits it held.
_lock: Final = Lock()
_of_this_process: Final[dict[Path | None, Copies]] = {}


def copies_in(scratch: Path | None) -> Copies:
    """Return the copies of this process below ``scratch``, or below the system's temporary directory."""
    with _lock:
        if scratch not in _of_this_process:
            _of_this_process[scratch] = Copies(scratch)
        return _of_this_process[scratch]


@dataclass(eq=False, slots=True)
class _Copy:
    """One file; ``state`` is None until it is fetched; ``borrowers`` keep it from being removed."""

    file: Path
    state: tuple[int, int] | None = None
    borrowers: int = 0
    fetching: Lock = field(default_factory=Lock)

    def is_there(self) -> bool:
        """Whether the file is still as fetched; a linked file may have been changed by its writer."""
        with suppress(FileNotFoundError):
            return self.state == _state(self.file)
        return False


def room_for_copies(most: int, free: int, held: int) -> int:
    """Return the bytes that copies may take on a disk with ``free`` bytes beside the ``held`` ones."""
    return min(most, (free + held) // _SHARE)


class Copies:
    """Files by the address of their object, up to the bytes that the disk has room for.

    Unused copies are removed when they take too many bytes, the least recently requested first. Safe to share
    among threads.
    """

    def __init__(self, scratch: Path | None, most_bytes: int = MOST_BYTES) -> None:
        self._scratch = scratch
        self._most_bytes = most_bytes
        self._process = os.getpid()
        self._folder: Path | None = None
        self._in_use = ExitStack()
        self._numbers = count()
        self._bytes = 0
        #: The least recently requested copy is the first.
        self._copies: dict[str, _Copy] = {}

    @contextmanager
    def lend(self, address: str, fetch: Callable[[Path], None]) -> Iterator[Path]:
        """Lend the copy for the ``with`` block; ``fetch`` downloads it unless it is there.

        Threads that request the same object at once wait for one download.

        Raises
        ------
        PermanentFailure
            The scratch folder is full or not writable.
        """
        with self._kept(), _lock:
            copy = self._copies.pop(address, None) or self._named(address)
            self._copies[address] = copy
            copy.borrowers += 1
        try:
            with copy.fetching, self._kept():
                if not copy.is_there():
                    self._fetch(copy, fetch)
            yield copy.file
        finally:
            with _lock:
                copy.borrowers -= 1
                if self._copies.get(address) is not copy:
                    self._remove(copy)
                self._make_room()

    def adopt(self, address: str, file: Path) -> None:
        """Count a file that was just uploaded as fetched, if that costs next to nothing.

        The file is linked. If that is impossible, mostly on another file system, a small file is copied.
        """
        self.forget(address)
        with suppress(OSError):
            with _lock:
                copy = self._named(address)
            try:
                os.link(file, copy.file)
            except OSError:
                if file.stat().st_size > _MOST_COPIED_BYTES:
                    return
                shutil.copyfile(file, copy.file)
            with _lock:
                self._copies[address] = copy
                self._note(copy, _state(copy.file))
                self._make_room()

    def opened(self, address: str) -> BinaryIO | None:
        """Open the copy, or return None if there is none."""
        with _lock:
            copy = self._copies.get(address)
            if copy is None or not copy.is_there():
                return None
            self._copies[address] = self._copies.pop(address)
            return copy.file.open("rb")

    def forget(self, address: str) -> None:
        """Fetch the object again at the next request; present borrowers keep their copy."""
        with _lock:
            copy = self._copies.pop(address, None)
            if copy is not None:
                self._remove(copy)

    def _fetch(self, copy: _Copy, fetch: Callable[[Path], None]) -> None:
        # Writing into a linked file would change the original.
        copy.file.unlink(missing_ok=True)
        copy.file.parent.mkdir(parents=True, exist_ok=True)
        try:
            fetch(copy.file)
        except BaseException:  # Dagster interrupts a canceled step with one
            copy.file.unlink(missing_ok=True)
            raise
        with _lock:
            self._note(copy, _state(copy.file))
            self._make_room()

    def _named(self, address: str) -> _Copy:
        if self._folder is None:
            self._folder = self._make_folder()
        return _Copy(self._folder / f"{next(self._numbers)}-{address.rpartition('/')[2]}")

    def _make_folder(self) -> Path:
        if self._scratch is not None:
            self._scratch.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(self._scratch or Path(tempfile.gettempdir()))
        folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=self._scratch))
        # The lock gets its name only when it is held: at no time does the folder look abandoned.
        unnamed = folder / f"{_IN_USE}-soon"
        self._in_use.enter_context(locked(unnamed))
        unnamed.rename(folder / _IN_USE)
        # Unlike atexit, this also runs at the end of a process that multiprocessing has forked, and never in
        # a child for its parent.
        Finalize(None, shutil.rmtree, args=(folder,), kwargs={"ignore_errors": True}, exitpriority=0)
        return folder

    def _make_room(self) -> None:
        if self._folder is None or not self._folder.exists():
            return
        room = room_for_copies(self._most_bytes, shutil.disk_usage(self._folder).free, self._bytes)
        for address, copy in list(self._copies.items()) if self._bytes > room else ():
            if self._bytes <= room:
                break
            if not copy.borrowers:
                del self._copies[address]
                self._remove(copy)

    def _remove(self, copy: _Copy) -> None:
        """Remove a copy that is no longer listed; a borrowed copy is removed when it is given back."""
        if copy.borrowers:
            return
        self._note(copy, None)
        if self._process == os.getpid():
            copy.file.unlink(missing_ok=True)

    def _note(self, copy: _Copy, state: tuple[int, int] | None) -> None:
        self._bytes += (state[0] if state else 0) - (copy.state[0] if copy.state else 0)
        copy.state = state

    @contextmanager
    def _kept(self) -> Iterator[None]:
        """Give the remedy when the disk refuses a copy."""
        try:
            yield
        except OSError as error:
            folder = self._folder or self._scratch or tempfile.gettempdir()
            msg = (
                f"{folder}: cannot keep the download: {error.strerror or error}: free the disk, "
                "or set lake.scratch"
            )
            raise PermanentFailure(msg) from error


def _state(file: Path) -> tuple[int, int]:
    found = file.stat()
    return found.st_size, found.st_mtime_ns


def _remove_abandoned(parent: Path) -> None:
    """Remove the folders of processes that were killed."""
    for lock in parent.glob(f"{_PREFIX}*/{_IN_USE}"):
        with suppress(OSError, TransientFailure), locked(lock, timeout_seconds=0):
            shutil.rmtree(lock.parent, ignore_errors=True)


def _begin_anew() -> None:
    """Begin without copies in a forked child: the listed copies are the parent's."""
    _of_this_process.clear()
    _lock.release()


os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_begin_anew)
