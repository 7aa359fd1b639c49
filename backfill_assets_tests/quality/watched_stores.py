"""Stores of a folder that remember their calls, refuse to write, or die at a write."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import BinaryIO

from backfill_assets.lake.local import LocalStore
from backfill_assets.lake.store import Stored


class CountingStore(LocalStore):
    """Counts by path: documents that were read, data files that were opened, objects that were written."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.reads: Counter[str] = Counter()
        self.opened: Counter[str] = Counter()
        self.writes: Counter[str] = Counter()

    def read(self, path: str) -> Stored | None:
        self.reads[path] += 1
        return super().read(path)

    @contextmanager
    def local_copy(self, path: str) -> Iterator[Path]:
        self.opened[path] += 1
        with super().local_copy(path) as local:
            yield local

    def open_ranges(self, path: str) -> BinaryIO:
        self.opened[path] += 1
        return super().open_ranges(path)

    def replace(self, path: str, data: bytes, expected: str | None) -> str:
        self.writes[path] += 1
        return super().replace(path, data, expected)

    def put_file(self, local: Path, path: str) -> None:
        self.writes[path] += 1
        super().put_file(local, path)

    def put_bytes(self, data: bytes, path: str) -> None:
        self.writes[path] += 1
        super().put_bytes(data, path)

    def delete(self, path: str) -> None:
        self.writes[path] += 1
        super().delete(path)


class Refused(Exception):
    """A write to a read-only store."""


class ReadOnlyStore(LocalStore):
    """Refuses every write."""

    def replace(self, path: str, data: bytes, expected: str | None) -> str:  # noqa: ARG002
        raise Refused(path)

    def put_file(self, local: Path, path: str) -> None:  # noqa: ARG002
        raise Refused(path)

    def put_bytes(self, data: bytes, path: str) -> None:  # noqa: ARG002
        raise Refused(path)

    def delete(self, path: str) -> None:
        raise Refused(path)

    def discard(self, path: str, before: datetime) -> bool:  # noqa: ARG002
        raise Refused(path)

    def set_aside(self, path: str) -> None:
        raise Refused(path)


class Killed(BaseException):
    """The process ends here."""


class DyingStore(LocalStore):
    """Dies before it replaces one document."""

    def __init__(self, root: Path, last: str) -> None:
        super().__init__(root)
        self.last = last

    def replace(self, path: str, data: bytes, expected: str | None) -> str:
        if path == self.last:
            raise Killed(path)
        return super().replace(path, data, expected)
