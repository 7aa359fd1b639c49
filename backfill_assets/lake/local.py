"""A lake in a directory of one machine, for any number of threads and processes, even if they are killed.

Compare-and-swap is a lease, a temporary file and ``os.replace``. The lease keeps writers of one document
apart. The kernel releases it when its holder dies, and another writer takes it over from a stopped holder.
Readers need no lease, because a rename is all or nothing. Leases and temporary files live in two folders at
the root; each folder that links to another disk has its own folder of temporary files at its top. So the tree
is free of them, and any path component may begin with a dot, as some symbols do.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import stat
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, Final

from backfill_assets.failures import PermanentFailure, Superseded, Unreadable
from backfill_assets.files import Lease, leased, put_in_place, sync_folder
from backfill_assets.lake import paths
from backfill_assets.lake.intact import content_problem, insist_on_content
from backfill_assets.lake.store import Listed, Stored, checked, gone

LOCKS: Final = ".locks"
UNFINISHED: Final = ".unfinished"

#: A lock file per document would double the number of files; documents that share one only wait for each
#: other's rename.
_LOCK_FILES: Final = 256
#: A change of a document takes milliseconds; a lease held this long belongs to a stopped process.
LEASE_SECONDS: Final = 30.0
#: No writer needs this long for one file; an older temporary file was left by a writer that died.
ABANDONED_SECONDS: Final = 24 * 3600

_REMEDIES: Final = {
    errno.EACCES: "give this user permission to read and write there, or set lake.uri to another folder",
    errno.EPERM: "give this user permission to read and write there, or set lake.uri to another folder",
    errno.EROFS: "it is read-only; set lake.uri to a folder that can be written",
    errno.ENOSPC: "free space or set lake.uri to a larger disk",
    errno.EDQUOT: "raise the quota or set lake.uri to another disk",
    errno.ENOTDIR: "a file is where a folder should be; remove it or set lake.uri to another folder",
    errno.EEXIST: "a file is where a folder should be; remove it or set lake.uri to another folder",
    errno.EISDIR: "a folder is where a file should be; remove it",
    errno.ENAMETOOLONG: "set lake.uri to a folder with a shorter path",
}


def _in_place(found: str) -> str:
    return f"{found} is where a document should be: remove it"


#: Errors that concern one file only, with text and remedy where the usual ones do not fit.
_OF_ONE_FILE: Final = {
    errno.EACCES: "",
    errno.EPERM: "",
    errno.ENOTDIR: "",
    errno.ELOOP: _in_place("a loop of links"),
    errno.EIO: "the disk cannot read it: remove it, or restore it from a copy",
}


class LocalStore:
    """Objects as files below ``root``; a generation is the sha256 of the content."""

    def __init__(self, root: Path) -> None:
        self._root = Path(os.path.abspath(root.expanduser()))  # noqa: PTH100 - resolve() would follow links
        self._tidied: set[Path] = set()
        self._tidying = threading.Lock()

    @property
    def uri(self) -> str:
        """The absolute directory."""
        return str(self._root)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LocalStore) and other.uri == self.uri

    def __hash__(self) -> int:
        return hash(self.uri)

    @property
    def parallel_reads(self) -> int:
        """One: a thread costs more than a read."""
        return 1

    def uri_of(self, path: str) -> str:
        """Return the absolute path of the file."""
        return str(self._file(path))

    def read(self, path: str) -> Stored | None:
        """See ``Store.read``."""
        file = self._file(path)
        with _explained(file):
            data = self._bytes_of(file)
        return None if data is None else Stored(data, _generation(data))

    def replace(self, path: str, data: bytes, expected: str | None) -> str:
        """See ``Store.replace``."""
        file = self._file(path)
        with _explained(file), self._leased(path) as lease:
            try:
                present = self._bytes_of(file)
            except Unreadable:
                self._move_away(path)
                present = None
            found = None if present is None else _generation(present)
            if found != expected:
                msg = f"{file}: another writer was faster; read it again"
                raise Superseded(msg)
            with self._unfinished(file, f"{lease.path.name}-") as unfinished:
                unfinished.write_bytes(data)
                lease.insist()
                try:
                    put_in_place(unfinished, file)
                except FileNotFoundError:
                    # A writer that has taken the lease over has deleted the file.
                    lease.insist()
                    raise
        return _generation(data)

    def put_file(self, local: Path, path: str) -> None:
        """See ``Store.put_file``."""
        self._put(path, local.stat().st_size, lambda unfinished: shutil.copyfile(local, unfinished))

    def put_bytes(self, data: bytes, path: str) -> None:
        """See ``Store.put_bytes``."""
        self._put(path, len(data), lambda unfinished: unfinished.write_bytes(data))

    @contextmanager
    def local_copy(self, path: str) -> Iterator[Path]:
        """See ``Store.local_copy``; it is the file itself, without a copy."""
        yield self._intact(path)

    def open_ranges(self, path: str) -> BinaryIO:
        """See ``Store.open_ranges``; it is the file itself."""
        file = self._intact(path)
        with _explained(file):
            try:
                return file.open("rb")
            except FileNotFoundError as error:
                raise gone(self, path) from error

    def set_aside(self, path: str) -> None:
        """See ``Store.set_aside``."""
        file = self._file(path)
        with _explained(file):
            if self._size_of(file) is not None:
                aside = self._file(paths.damaged(path))
                aside.parent.mkdir(parents=True, exist_ok=True)
                shutil.move(file, aside)

    def exists(self, path: str) -> bool:
        """See ``Store.exists``."""
        return self.size(path) is not None

    def size(self, path: str) -> int | None:
        """See ``Store.size``."""
        file = self._file(path)
        with _explained(file):
            return self._size_of(file)

    def list(self, prefix: str) -> Iterator[str]:
        """See ``Store.list``."""
        folder, _, _ = prefix.rpartition("/")
        top = self._file(folder) if folder else self._root
        found = []
        with _explained(top):
            for where, folders, names in _walk(top):
                inside = where.relative_to(self._root)
                folders[:] = [f for f in folders if f != UNFINISHED and (f != LOCKS or inside != Path())]
                found += [(inside / name).as_posix() for name in names]
        yield from sorted(path for path in found if path.startswith(prefix))

    def sizes(self, prefix: str) -> dict[str, int]:
        """See ``Store.sizes``."""
        found = ((path, self.size(path)) for path in self.list(prefix))
        return {path: size for path, size in found if size is not None}

    def objects(self, prefix: str) -> dict[str, Listed]:
        """See ``Store.objects``."""
        found = {}
        for path in self.list(prefix):
            file = self._file(path)
            with _explained(file), suppress(FileNotFoundError):
                about = file.stat()
                found[path] = Listed(about.st_size, _changed(about))
        return found

    def discard(self, path: str, before: datetime) -> bool:
        """See ``Store.discard``; the file is renamed first, and an earlier writer has renewed its age."""
        file = self._file(path)
        with _explained(file), self._unfinished(file) as aside:
            try:
                if _changed(file.stat()) >= before or self._is_alias(file):
                    return False
                file.rename(aside)
            except FileNotFoundError:
                return False
            if _changed(aside.stat()) < before:
                return True
            aside.replace(file)
            sync_folder(file.parent)
            return False

    def delete(self, path: str) -> None:
        """See ``Store.delete``; folders stay, because a writer may be about to use them."""
        file = self._file(path)
        with _explained(file), self._leased(path) as lease:
            lease.insist()
            try:
                file.unlink()
            except FileNotFoundError:
                return
            sync_folder(file.parent)

    def _file(self, path: str) -> Path:
        return self._root / checked(path)

    def _intact(self, path: str) -> Path:
        """Return the data file after checking that it exists and matches its name."""
        file = self._file(path)
        with _explained(file):
            if self._size_of(file) is None:
                raise gone(self, path)
            try:
                insist_on_content(self, path, file)
            except FileNotFoundError as error:
                raise gone(self, path) from error
        return file

    @contextmanager
    def _leased(self, path: str) -> Iterator[Lease]:
        """Keep other writers of this document out."""
        number = int.from_bytes(hashlib.sha256(path.encode()).digest()[:4]) % _LOCK_FILES
        with leased(self._root / LOCKS / f"{number:02x}", LEASE_SECONDS) as lease:
            if lease.is_taken_over:
                for where, _, _ in _walk(self._root):
                    if where.name == UNFINISHED:
                        for file in where.glob(f"{lease.path.name}-*"):
                            file.unlink(missing_ok=True)
            yield lease

    def _put(self, path: str, size: int, write: Callable[[Path], object]) -> None:
        """Store the output of ``write``, unless a file of this size that matches its name is there."""
        file = self._file(path)
        with _explained(file):
            with suppress(FileNotFoundError):  # discarded since it was found
                if self._size_of(file) == size and not content_problem(path, file) and _renewed(file):
                    return
            if self._obstacle(file):
                self._move_away(path)
            with self._unfinished(file) as unfinished:
                write(unfinished)
                put_in_place(unfinished, file)

    @contextmanager
    def _unfinished(self, file: Path, prefix: str = "") -> Iterator[Path]:
        """Name a file that no reader sees yet, on the disk of ``file``; remove it if it is still there."""
        folder = self._disk_of(file) / UNFINISHED
        folder.mkdir(parents=True, exist_ok=True)
        self._remove_abandoned(folder)
        file = folder / f"{prefix}{uuid.uuid4().hex}"
        try:
            yield file
        finally:
            file.unlink(missing_ok=True)

    def _bytes_of(self, file: Path) -> bytes | None:
        """The document, None if there is none; raises ``Unreadable`` if it alone cannot be read."""
        try:
            found = self._obstacle(file)
            data = None if found else file.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            found, data = self._refusal(error), None
        if found:
            msg = f"{file}: {found}"
            raise Unreadable(msg)
        return data

    def _size_of(self, file: Path) -> int | None:
        """Bytes of the file; None if there is none, or if the entry is not a file."""
        with suppress(FileNotFoundError):
            return None if self._obstacle(file) else file.stat().st_size
        return None

    def _obstacle(self, file: Path) -> str:
        """Name the obstacle at this path and its remedy; empty for a regular file or no entry.

        A FIFO must not be opened, because that waits for a writer.
        """
        try:
            mode = file.stat().st_mode
        except FileNotFoundError:
            return ""
        except OSError as error:
            return self._refusal(error)
        if stat.S_ISREG(mode):
            return ""
        return _in_place("a folder" if stat.S_ISDIR(mode) else "a FIFO, socket or device")

    def _refusal(self, error: OSError) -> str:
        """Return why this one file is refused, with the remedy; raise if the whole lake is refused."""
        if error.errno not in _OF_ONE_FILE:
            raise error
        os.scandir(self._root).close()
        return _OF_ONE_FILE[error.errno] or f"{error.strerror}: {_REMEDIES[error.errno]}"

    def _move_away(self, path: str) -> None:
        """Move the obstacle at this path below ``damaged/``."""
        aside = self._file(paths.damaged(f"{path}.{uuid.uuid4().hex[:8]}"))
        aside.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(self._file(path), aside)

    def _disk_of(self, file: Path) -> Path:
        """The lake's topmost folder on the disk of ``file``: its root, unless a folder links elsewhere."""
        folder = file.parent
        while (disk := _disk(folder)) is None and folder != self._root:
            folder = folder.parent
        if disk == _disk(self._root):
            return self._root
        while _disk(folder.parent) == disk:
            folder = folder.parent
        return folder

    def _is_alias(self, file: Path) -> bool:
        """Whether a link leads to a file that has another name in the lake, by which it is found."""
        root, place = self._root.resolve(), file.resolve()
        return place.is_relative_to(root) and place != root / file.relative_to(self._root)

    def _remove_abandoned(self, folder: Path) -> None:
        with self._tidying:
            if folder in self._tidied:
                return
            self._tidied.add(folder)
        oldest = time.time() - ABANDONED_SECONDS
        for file in folder.iterdir():
            try:
                if file.stat().st_mtime < oldest:
                    file.unlink()
            except FileNotFoundError:
                continue  # its writer, or another process that tidies, was faster


def _generation(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _changed(about: os.stat_result) -> datetime:
    return datetime.fromtimestamp(about.st_mtime, UTC)


def _renewed(file: Path) -> bool:
    """Set the file's time of change to now; False if it is gone, or another user's."""
    try:
        os.utime(file)
    except (FileNotFoundError, PermissionError):
        return False
    return True


def _disk(folder: Path) -> int | None:
    """Number of the folder's disk; None if the folder does not exist."""
    try:
        return folder.stat().st_dev
    except (FileNotFoundError, NotADirectoryError):
        return None


def _walk(top: Path) -> Iterator[tuple[Path, list[str], list[str]]]:
    """``os.walk`` that follows folders linked to another disk, but each only once."""
    seen = set[tuple[int, int]]()
    for where, folders, names in os.walk(top, onerror=_unless_missing, followlinks=True):
        try:
            place = Path(where).stat()
        except FileNotFoundError:
            continue  # deleted since
        if (place.st_dev, place.st_ino) in seen:
            folders.clear()
            continue
        seen.add((place.st_dev, place.st_ino))
        yield Path(where), folders, names


def _unless_missing(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise error


@contextmanager
def _explained(file: Path) -> Iterator[None]:
    """Add the remedy to errors of the operating system."""
    try:
        yield
    except OSError as error:
        remedy = _REMEDIES.get(error.errno or 0)
        if remedy is None:
            raise
        # An error of a copy names its source first; the disk in question is that of the target.
        msg = f"{error.filename2 or error.filename or file}: {error.strerror}: {remedy}"
        raise PermanentFailure(msg) from error
