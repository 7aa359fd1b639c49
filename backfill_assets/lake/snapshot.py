"""A lake whose documents are read once, for as long as one look at it takes.

Judging a day asks for the same manifests from many sides. Within the block each document is as it was when
it was first read, or as this process has changed it since; compare-and-swap still decides whether a change
counts. Nothing is remembered after the block, so the next look sees what others have done.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import BinaryIO

from backfill_assets.failures import Superseded
from backfill_assets.lake.store import Store, Stored


class Snapshot:
    """A ``Store`` over another one that remembers what it has read."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._read: dict[str, Stored | None] | None = {}

    def __eq__(self, other: object) -> bool:
        return self._store == (other._store if isinstance(other, Snapshot) else other)

    def __hash__(self) -> int:
        return hash(self._store)

    @property
    def uri(self) -> str:
        """See ``Store.uri``."""
        return self._store.uri

    @property
    def parallel_reads(self) -> int:
        """See ``Store.parallel_reads``."""
        return self._store.parallel_reads

    def uri_of(self, path: str) -> str:
        """See ``Store.uri_of``."""
        return self._store.uri_of(path)

    def read(self, path: str) -> Stored | None:
        """See ``Store.read``; the same answer until the path is written through this snapshot."""
        read = self._read
        if read is None:
            return self._store.read(path)
        if path not in read:
            # A thread that has written meanwhile knows better than what was read before.
            return read.setdefault(path, self._store.read(path))
        return read[path]

    def replace(self, path: str, data: bytes, expected: str | None) -> str:
        """See ``Store.replace``; what another writer has put there is seen from then on."""
        try:
            generation = self._store.replace(path, data, expected)
        except Superseded:
            self._forget(path)
            raise
        if self._read is not None:
            self._read[path] = Stored(data, generation)
        return generation

    def put_file(self, local: Path, path: str) -> None:
        """See ``Store.put_file``."""
        self._forget(path)
        self._store.put_file(local, path)

    def local_copy(self, path: str) -> AbstractContextManager[Path]:
        """See ``Store.local_copy``."""
        return self._store.local_copy(path)

    def open_ranges(self, path: str) -> BinaryIO:
        """See ``Store.open_ranges``."""
        return self._store.open_ranges(path)

    def exists(self, path: str) -> bool:
        """See ``Store.exists``."""
        return self._store.exists(path)

    def size(self, path: str) -> int | None:
        """See ``Store.size``."""
        return self._store.size(path)

    def list(self, prefix: str) -> Iterator[str]:
        """See ``Store.list``."""
        return self._store.list(prefix)

    def delete(self, path: str) -> None:
        """See ``Store.delete``."""
        self._store.delete(path)
        self._forget(path)

    def end(self) -> None:
        """Remember nothing any more; from now on every call goes to the store."""
        self._read = None

    def _forget(self, path: str) -> None:
        if self._read is not None:
            self._read.pop(path, None)


@contextmanager
def snapshot(store: Store) -> Iterator[Store]:
    """The store with a memory for the block; a snapshot within a snapshot is the same one."""
    if isinstance(store, Snapshot):
        yield store
        return
    remembering = Snapshot(store)
    try:
        yield remembering
    finally:
        remembering.end()
