"""The promises of a lake's store, whether it is a directory or a bucket.

Two kinds of object live in it. *Documents* are small and change. They are read with a generation and replaced
by compare-and-swap, so if two writers saw the same state, one of them learns that it lost. *Data files* are
named by their content and never change, so writing one twice is the same as writing it once. An object is
visible whole or not at all, even if its writer dies.

Paths are relative, with ``/``; ``paths`` makes them. First components that start with a dot are reserved for
the store.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final, Protocol

from backfill_assets.failures import DamagedFile, PermanentFailure
from backfill_assets.lake.intact import damaged
from backfill_assets.settings import LakeSettings, resolve

if TYPE_CHECKING:
    from google.cloud import storage

GCS_SCHEME: Final = "gs://"
#: A data file younger than this may not be named by a document yet: no run lasts that long.
YOUNG: Final = timedelta(days=2)


@dataclass(frozen=True, slots=True)
class Stored:
    """The bytes of an object and the generation that ``Store.replace`` expects back."""

    data: bytes
    generation: str


@dataclass(frozen=True, slots=True)
class Listed:
    """An object in a listing: its size, and the time when it was last put."""

    bytes: int
    changed: datetime


class Store(Protocol):
    """A lake's objects by relative path; safe to share among threads, and among processes and machines.

    Every method raises ``TransientFailure`` if waiting may help, and ``PermanentFailure`` with the remedy if
    a setting or a permission is wrong.
    """

    def __eq__(self, other: object) -> bool:
        """Whether both have the same address; facts remembered about one then hold for the other."""
        ...

    def __hash__(self) -> int:
        """Hash the address."""
        ...

    @property
    def uri(self) -> str:
        """The root: an absolute directory or ``gs://bucket/prefix``, without a slash at the end."""
        ...

    @property
    def parallel_reads(self) -> int:
        """The number of reads at once that is worthwhile: one if a read does not wait for a network."""
        ...

    def uri_of(self, path: str) -> str:
        """The object's location for other programs: an absolute file path or ``gs://…``."""
        ...

    def read(self, path: str) -> Stored | None:
        """Return the object, or None if there is none.

        Raises
        ------
        Unreadable
            The entry in its place is not a readable object.
        """
        ...

    def replace(self, path: str, data: bytes, expected: str | None) -> str:
        """Write ``data`` if the object still has generation ``expected`` (None: if there is none).

        Returns
        -------
        str
            The new generation.

        Raises
        ------
        Superseded
            Another writer has changed, made or deleted the object; nothing was written.
        """
        ...

    def put_file(self, local: Path, path: str) -> None:
        """Store a file under a path that names its content; an object with other bytes is replaced.

        An object that has been there for long is put again, so that ``discard`` spares it.
        """
        ...

    def put_bytes(self, data: bytes, path: str) -> None:
        """Store bytes as ``put_file`` stores a file."""
        ...

    def local_copy(self, path: str) -> AbstractContextManager[Path]:
        """Lend a local file with the bytes of a data file for the ``with`` block; never write to it.

        A process fetches a data file once and then reads its copy.

        Raises
        ------
        DamagedFile
            The object is missing, though a document names it, or its content does not match its name.
        """
        ...

    def open_ranges(self, path: str) -> BinaryIO:
        """Open a data file for reading parts of it, without fetching the rest of a large file.

        One thread at a time may use it; the threads of Arrow's readers take turns.

        Raises
        ------
        DamagedFile
            The object is missing, though a document names it (reading may also raise this), or its content
            does not match its name, which is checked if the whole file is local.
        """
        ...

    def set_aside(self, path: str) -> None:
        """Move a data file to ``paths.damaged``, where no reader looks; nothing happens if there is none."""
        ...

    def exists(self, path: str) -> bool:
        """Whether the object exists."""
        ...

    def size(self, path: str) -> int | None:
        """Bytes of the object, or None if there is none."""
        ...

    def list(self, prefix: str) -> Iterator[str]:
        """Paths of all objects that begin with ``prefix``, in order; the store's own files are left out."""
        ...

    def sizes(self, prefix: str) -> dict[str, int]:
        """Bytes of all objects that begin with ``prefix``, by path; a bucket takes one request per 1,000."""
        ...

    def objects(self, prefix: str) -> dict[str, Listed]:
        """Return the same as ``sizes``, with the time of the last change."""
        ...

    def discard(self, path: str, before: datetime) -> bool:
        """Remove a data file unless it was put at or after this time; return whether it was removed.

        If a writer puts the file at the same moment, the writer wins.
        """
        ...

    def delete(self, path: str) -> None:
        """Remove the object; nothing happens if there is none."""
        ...


def checked(path: str) -> str:
    """Return the path if every store would take it for an object of the lake.

    Raises
    ------
    ValueError
        The path is absolute, climbs, has empty components or is reserved: a mistake in the caller.
    """
    components = path.split("/")
    if path.startswith(".") or any(c in ("", ".", "..") for c in components) or "\0" in path:
        msg = f"{path!r} is not a path inside the lake"
        raise ValueError(msg)
    return path


def gone(store: Store, path: str) -> DamagedFile:
    """Return the failure for a data file that a document names but that is missing."""
    return damaged(store, path, "is gone, though a document names it")


def open_store(lake: LakeSettings, *, client: storage.Client | None = None) -> Store:
    """Open the store that the settings name; ``${NAME}`` is resolved here.

    Parameters
    ----------
    client
        For a bucket; by default a client that finds its credentials as Google's clients do.

    Raises
    ------
    PermanentFailure
        A variable is missing, the URI has another scheme or no bucket, or there are no Google credentials.
    """
    uri = resolve(lake.uri)
    scratch = resolve(lake.scratch)
    if uri.startswith(GCS_SCHEME):
        from backfill_assets.lake.gcs import GcsStore

        return GcsStore(uri, client=client, scratch=Path(scratch).expanduser() if scratch else None)
    if "://" in uri:
        msg = f"lake.uri is '{uri}': write a directory or gs://bucket/prefix"
        raise PermanentFailure(msg)
    from backfill_assets.lake.local import LocalStore

    return LocalStore(Path(uri))
