"""A reader that looks at a lake and an embedded warehouse all the time, for any partial state."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import duckdb
import pyarrow.parquet as pq

#: Numbers of rows that a partition (table, day) may have when it is read.
Rows = Mapping[tuple[str, str], Collection[int]]


def rows_of(warehouse: Path) -> dict[tuple[str, str], int]:
    """Rows of every published partition."""
    return {(f.parent.name, f.stem): pq.read_metadata(f).num_rows for f in partitions(warehouse)}


def partitions(warehouse: Path) -> Iterator[Path]:
    yield from warehouse.glob("[!.]*/20*.parquet")


class RestlessReader:
    """Looks in a thread of its own while it is entered; ``wrong`` has its findings."""

    def __init__(self, folder: Path, rows: Rows) -> None:
        self.lake, self.warehouse, self.rows = folder / "lake", folder / "warehouse", rows
        self.wrong: list[str] = []
        self.looks = 0
        self.seen: set[tuple[str, str]] = set()
        self._known: set[tuple[Path, int, int]] = set()
        self._looking = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="restless-reader")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(0.05):
            self.look()

    def look(self) -> None:
        """Read every partition and document once."""
        with self._looking:
            for check in (self._documents, self._data_files, self._partitions, self._views):
                try:
                    self.wrong += check()
                except Exception as error:  # noqa: BLE001 - the reader looks for every error
                    self.wrong.append(f"{check.__name__}: {type(error).__name__}: {error}")
            self.looks += 1

    def _documents(self) -> Iterator[str]:
        for file in self._of_lake("*.json"):
            yield from self._of_document(file)

    def _of_document(self, file: Path) -> Iterator[str]:
        """A document's data files must be there in full size, or those of the document that replaced it."""
        text = file.read_bytes()
        for data, size in named(self.lake, file, json.loads(text)):
            found = data.stat().st_size if data.exists() else None
            if found == size:
                continue
            if file.read_bytes() != text:
                yield from self._of_document(file)
                return
            yield f"{file} names {data.name} of {size} bytes, it has {found}"

    def _data_files(self) -> Iterator[str]:
        for file in self._of_lake("*.parquet"):
            try:
                if self._is_new(file) and hashlib.sha256(file.read_bytes()).hexdigest() != file.stem:
                    yield f"{file} is not what its name says"
            except FileNotFoundError:
                if not file.parent.name.startswith("date="):  # replaced by a newer one, which is read next
                    raise

    def _partitions(self) -> Iterator[str]:
        for file in partitions(self.warehouse):
            if self._is_new(file):
                yield from self._judge(file.parent.name, file.stem, pq.read_table(file).num_rows)

    def _views(self) -> list[str]:
        """DuckDB opens a file by its name twice in a query, so a file replaced in between may fail the query.

        The query may fail, but it must never show rows that were never published.
        """
        before = self._files()
        try:
            return list(self._shown())
        except duckdb.Error:
            if self._files() == before:
                raise
            return []

    def _files(self) -> set[tuple[Path, int]]:
        return {(path, path.stat().st_ino) for path in partitions(self.warehouse)}

    def _shown(self) -> Iterator[str]:
        database = self.warehouse / "warehouse.duckdb"
        if not database.exists():
            return
        with duckdb.connect(str(database), read_only=True) as connection:
            tables = {path.parent.name for path in self.warehouse.glob("*/schema.parquet")}
            for (table,) in connection.sql(
                "SELECT view_name FROM duckdb_views() WHERE NOT internal"
            ).fetchall():
                if table not in tables:
                    connection.sql(f'SELECT sum(hash(t)) FROM "{table}" t').fetchall()
                    continue
                # Sums of hashes make DuckDB read every column, which a count does not.
                query = f'SELECT date::VARCHAR, count(*), sum(hash(t)) FROM "{table}" t GROUP BY date'
                for day, rows, _ in connection.sql(query).fetchall():
                    yield from self._judge(table, day, rows)

    def _judge(self, table: str, day: str, rows: int) -> Iterator[str]:
        self.seen.add((table, day))
        if rows not in self.rows.get((table, day), ()):
            yield f"{table} {day}: {rows} rows, it has {self.rows.get((table, day), 'none')} when whole"

    def _of_lake(self, pattern: str) -> Iterator[Path]:
        for folder in self.lake.glob("[!.]*"):
            yield from folder.rglob(pattern)

    def _is_new(self, file: Path) -> bool:
        """Whether the current file has not been read yet."""
        found = file.stat()
        version = (file, found.st_ino, found.st_mtime_ns)
        if version in self._known:
            return False
        self._known.add(version)
        return True


def named(lake: Path, file: Path, document: dict[str, Any]) -> Iterator[tuple[Path, int]]:
    """The data files that a document names, and their sizes."""
    if file.parent.name == "measures":
        day = file.stem
        for table in ("candles", "coverage"):
            if document[table]:
                content = document[table]["content"]
                yield lake / table / f"date={day}" / f"{content}.parquet", document[table]["bytes"]
        for feed, made in document["files"].items():
            partials = made["partials"]
            yield lake / "partials" / feed / day / f"{partials['content']}.parquet", partials["bytes"]
        return
    versions = [*document.get("versions", ()), *([document] if "content" in document else [])]
    if isinstance(document.get("versions"), list) or "content" in document:
        for version in versions:
            yield file.with_name(f"{version['content']}.parquet"), version["bytes"]
