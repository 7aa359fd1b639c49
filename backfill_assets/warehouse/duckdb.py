"""The embedded warehouse: a folder with one Parquet file per table and day, under a DuckDB file of views.

``FOLDER/{table}/{day}.parquet`` is a partition; it is replaced by ``os.replace``, so readers never see half
of one and never wait. ``FOLDER/{table}/schema.parquet`` has the table's columns and no rows.
``FOLDER/warehouse.duckdb`` holds only views over these files. Tables inside it were rejected, because one
reader in another process locks every writer out of the file. It is replaced as a whole, and only if its views
change or it was damaged, so a reader that keeps it open still sees every new partition.

A view takes the date from the file's name, so that a filter on it opens only the files of these days. While
partitions of an earlier release lack columns, each query opens all files to bring them together.

No writer takes a lock, because a process that is stopped while it holds one would stop all others. A load is
written under its own name, and an empty file marks its generation. Then the unfinished loads of older
generations are deleted, and the load is renamed. A load is refused if its generation is not the greatest
marked one. An older load that has passed this test finds its file gone, even if it was stopped for long.

DuckDB resolves relative paths by the reader's working directory, and knows no path relative to the database,
so the views hold the folder's absolute path. A reader that has the folder elsewhere names it in the variable
``warehouse``; the views of a moved folder are corrected when this package next uses the warehouse there.
"""

from __future__ import annotations

import errno
import glob
import hashlib
import shutil
import stat
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, cast
from uuid import uuid4

import pyarrow as pa
import pyarrow.parquet as pq

from backfill_assets.columns import ARROW_TYPES, Column, ColumnType
from backfill_assets.days import parse_day
from backfill_assets.failures import PermanentFailure, Superseded, TransientFailure
from backfill_assets.files import put_in_place, temporary_folder
from backfill_assets.warehouse.parquet import concatenate
from backfill_assets.warehouse.protocol import LoadFile
from backfill_assets.warehouse.tables import Table, missing_columns
from backfill_assets.warehouse.totals import GroupTotals, file_totals
from backfill_assets.warehouse.views import DUCKDB, VIEWS, View

DATABASE: Final = "warehouse.duckdb"
#: Bytes of the headers of a DuckDB file.
_HEADERS: Final = 3 * 4096
SCHEMA: Final = "schema.parquet"
_STATE: Final = ".state"
#: Name of the record of the columns that all partitions of a table are known to have.
_COLUMNS: Final = "columns"
#: Attempts at the views while another process makes them at the same moment.
_ATTEMPTS: Final = 20
#: No process writes a schema or the views for this long; an older file was left by a process that died.
_ABANDONED_SECONDS: Final = 3600


class DuckDBWarehouse:
    """``Warehouse`` in a local folder, shared by any number of processes of one machine."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()

    @property
    def daily_loads(self) -> int | None:
        """There is no limit."""
        return None

    @property
    def reads_buckets(self) -> bool:
        """It needs local files."""
        return False

    @property
    def database(self) -> Path:
        """The DuckDB file to open for reading."""
        return self.folder / DATABASE

    def ensure_table(self, table: Table) -> None:
        """See ``Warehouse``; also correct the views.

        Raises
        ------
        PermanentFailure
            A file among the partitions is not one, so its rows would be taken for rows of the table.
        """
        path, schema = self.folder / table.name / SCHEMA, _described(table)
        with self._writable():
            _refuse_strays(path.parent)
            found = _read_schema(path)
            if found is not None:
                missing_columns(table, _stored_columns(found), str(path.parent))
            if found is None or not found.equals(schema, check_metadata=True):
                path.parent.mkdir(parents=True, exist_ok=True)
                temporary = _temporary(path)
                pq.write_table(schema.empty_table(), temporary)
                _put(temporary, path)
            self._refresh_views()

    def replace_partition(self, table: Table, day: str, files: Sequence[LoadFile], generation: int) -> str:
        """See ``Warehouse``."""
        target = self.folder / table.name / f"{parse_day(day)}.parquet"
        if not (target.parent / SCHEMA).exists():
            msg = f"{target.parent}: there is no such table: ensure_table makes it"
            raise PermanentFailure(msg)
        with self._writable():
            if generation <= (latest := max(self._marks(table, day), default=0)):
                raise _overtaken(table, day, generation, latest)
            unfinished = target.with_name(f".{target.name}.{generation}.{uuid4().hex}.tmp")
            try:
                concatenate(table, day, files, unfinished)
                self._mark(table, day, generation)
                _delete_unfinished(target, before=generation)
                try:
                    _put(unfinished, target)
                except FileNotFoundError as error:
                    latest = max(self._marks(table, day), default=generation)
                    raise _overtaken(table, day, generation, latest) from error
            finally:
                unfinished.unlink(missing_ok=True)
        return f"{target}#{generation}"

    def fence(self, table: Table, day: str, generations: Sequence[int]) -> None:
        """See ``Warehouse``; this waits for no load."""
        if not generations:
            return
        with self._writable():
            greatest = max(generations)
            if greatest > max(self._marks(table, day), default=0):
                marks = self._state(table.name, day)
                marks.mkdir(parents=True, exist_ok=True)
                (marks / str(greatest)).touch()
            _delete_unfinished(self.folder / table.name / f"{parse_day(day)}.parquet", before=greatest + 1)

    def _mark(self, table: Table, day: str, generation: int) -> None:
        """Mark the generation, once, unless a greater one is marked."""
        marks = self._state(table.name, day)
        marks.mkdir(parents=True, exist_ok=True)
        try:
            (marks / str(generation)).touch(exist_ok=False)
        except FileExistsError as error:
            raise _overtaken(table, day, generation, generation) from error
        found = self._marks(table, day)
        if max(found) > generation:
            raise _overtaken(table, day, generation, max(found))
        for older in found:
            if older < generation:
                (marks / str(older)).unlink(missing_ok=True)

    def _marks(self, table: Table, day: str) -> list[int]:
        """Return the marked generations; only the greatest counts."""
        return [int(mark.name) for mark in self._state(table.name, day).glob("*") if mark.name.isdecimal()]

    def totals(self, table: Table, day: str) -> tuple[GroupTotals, ...]:
        """See ``Warehouse``."""
        path = self.folder / table.name / f"{parse_day(day)}.parquet"
        return file_totals(table, [path]) if _is_file(path) else ()

    def content(self, table: Table, day: str) -> str:
        """See ``Warehouse``; the name is size and sha256 of the file, and ``has_size`` reads the size."""
        path = self.folder / table.name / f"{parse_day(day)}.parquet"
        if not _is_file(path):
            return ""
        try:
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
                return f"{file.tell()}:{digest}"
        except OSError as error:
            msg = f"{path}: cannot be read ({error.strerror}): correct its permissions, or remove it"
            raise PermanentFailure(msg) from error

    def ensure_views(self) -> tuple[str, ...]:
        """See ``Warehouse``; this package owns the DuckDB file, so no other object can have a view's name."""
        with self._writable():
            self._refresh_views()
        return ()

    def close(self) -> None:
        """Nothing is kept open."""

    def _refresh_views(self) -> None:
        """Make the DuckDB file again if its views would differ or it is not the file that was recorded.

        A process that makes it at the same time may have read other schemas, so both check again.
        """
        for _ in range(_ATTEMPTS):
            script = self._script()
            if self._recorded() == _record(script, self.database):
                return
            self._make_database(script)
        msg = f"{self.database}: other processes keep making the views: run again when they have ended"
        raise TransientFailure(msg)

    def _script(self) -> str:
        """The SQL that makes the views over the existing tables."""
        found = {path.parent: _read_schema(path) for path in sorted(self.folder.glob(f"*/{SCHEMA}"))}
        schemas = {folder: schema for folder, schema in found.items() if schema is not None}
        columns = {folder.name: schema.names for folder, schema in schemas.items()}
        script = "".join(
            _table_view(folder, schema, alike=self._are_alike(folder, schema))
            for folder, schema in schemas.items()
        )
        return script + "".join(_view(view) for view in VIEWS if view.is_possible(columns))

    def _are_alike(self, folder: Path, schema: pa.Schema) -> bool:
        """Whether all partitions have all columns; checked until they do, and when columns are added."""
        columns = "\n".join(schema.names)
        known = self._state(folder.name, _COLUMNS)
        if _text(known) == columns:
            return True
        for path in folder.glob("*.parquet"):
            found = _read_schema(path)
            if found is not None and not set(schema.names) <= set(found.names):
                return False
        known.parent.mkdir(parents=True, exist_ok=True)
        temporary = _temporary(known)
        temporary.write_text(columns, encoding="utf-8")
        _put(temporary, known)
        return True

    def _make_database(self, script: str) -> None:
        import duckdb

        temporary = _temporary(self.database)
        # Made in another folder: DuckDB cannot write if a folder's name has a question mark.
        with temporary_folder(None, "TMPDIR") as folder:
            made = folder / DATABASE
            try:
                with duckdb.connect(str(made)) as connection:
                    # One transaction: hundreds of small ones take twice as long.
                    connection.execute(f"BEGIN;\n{script}COMMIT;")
            except duckdb.Error as error:
                raise self._refused(" ".join(str(error).split())) from error
            shutil.copyfile(made, temporary)
        record = _record(script, temporary)
        _put(temporary, self.database)
        path = self._state("views.sql")
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = _temporary(path)
        temporary.write_text(record, encoding="utf-8")
        _put(temporary, path)

    def _recorded(self) -> str:
        return _text(self._state("views.sql"))

    def _state(self, *parts: str) -> Path:
        return self.folder.joinpath(_STATE, *parts)

    @contextmanager
    def _writable(self) -> Iterator[None]:
        """Name the fault and the remedy if the folder cannot be written."""
        try:
            yield
        except OSError as error:
            raise self._refused(str(error), error.errno) from error

    def _refused(self, reason: str, number: int | None = errno.EIO) -> PermanentFailure | TransientFailure:
        kind = TransientFailure if number in (errno.ENOSPC, errno.EDQUOT, errno.EIO) else PermanentFailure
        return kind(
            f"{self.folder}: cannot be written ({reason}): free space there or correct its permissions"
        )


def _overtaken(table: Table, day: str, generation: int, latest: int) -> Superseded:
    return Superseded(f"{table.name} {day}: generation {generation} is overtaken by {latest}")


def _delete_unfinished(target: Path, *, before: int) -> None:
    """Delete the files that loads of these generations wrote; they can no longer take effect."""
    for file in target.parent.glob(f".{target.name}.*.tmp"):
        generation = file.name.removeprefix(f".{target.name}.").partition(".")[0]
        # Names without a generation are of an earlier layout.
        if not generation.isdecimal() or int(generation) < before:
            file.unlink(missing_ok=True)


def _put(unfinished: Path, path: Path) -> None:
    """Rename durably; a folder in the place of the file is kept beside it, hidden."""
    if path.is_dir() and not path.is_symlink():
        path.rename(path.with_name(f".{path.name}.{uuid4().hex}"))
    put_in_place(unfinished, path)


def _refuse_strays(folder: Path) -> None:
    for file in sorted(folder.glob("*.parquet")):
        if file.name != SCHEMA and not _is_day(file.stem):
            msg = (
                f"{file}: is not a partition, but readers take its rows for rows of {folder.name}: "
                "move it to another folder"
            )
            raise PermanentFailure(msg)


def _is_day(text: str) -> bool:
    try:
        return parse_day(text).isoformat() == text
    except PermanentFailure:
        return False


def has_size(folder: Path, table: str, day: str, content: str) -> bool:
    """Whether the partition exists, with the size in ``content`` if that is not empty."""
    path = folder / table / f"{day}.parquet"
    try:
        found = path.stat().st_size
    except OSError:
        return False
    return path.is_file() and (not content or content.partition(":")[0] == str(found))


def has_database(folder: Path) -> bool:
    """Whether the file with the views exists, and is not cut within its headers."""
    try:
        return (folder / DATABASE).stat().st_size > _HEADERS
    except OSError:
        return False


def _is_file(path: Path) -> bool:
    """Whether the file exists; an entry that is not a file is not opened, because a FIFO waits for a writer.

    Raises
    ------
    PermanentFailure
        Its state cannot be read, or it is not a file.
    """
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return False
    except OSError as error:
        msg = f"{path}: cannot be read ({error.strerror}): correct its permissions, or remove it"
        raise PermanentFailure(msg) from error
    if not stat.S_ISREG(mode):
        msg = f"{path}: is not a file: remove it"
        raise PermanentFailure(msg)
    return True


def _text(path: Path) -> str:
    """Return a note of this package; empty if it is missing, or unreadable and to be made again."""
    try:
        return path.read_text(encoding="utf-8", errors="replace") if _is_file(path) else ""
    except (OSError, PermanentFailure):
        return ""


def _described(table: Table) -> pa.Schema:
    fields = [
        field.with_metadata({"description": column.description})
        for field, column in zip(table.schema, table.columns, strict=True)
    ]
    return pa.schema(fields, metadata={"description": table.description})


def _read_schema(path: Path) -> pa.Schema | None:
    """The table's columns; None if the file is missing, or damaged and to be made again."""
    try:
        return pq.read_schema(path) if _is_file(path) else None
    except (OSError, PermanentFailure, pa.ArrowException):
        return None


def _stored_columns(schema: pa.Schema) -> list[Column]:
    types = {arrow: name for name, arrow in ARROW_TYPES.items()}
    return [
        Column(
            field.name,
            cast("ColumnType", types.get(field.type, str(field.type))),
            _description(field),
            required=not field.nullable,
        )
        for field in schema
    ]


def _table_view(folder: Path, schema: pa.Schema, *, alike: bool) -> str:
    name = f'"{folder.name}"'
    # Readers skip files by a column that is made only of the files' names.
    day = "TRY_CAST(left(parse_filename(filename), 10) AS DATE) AS "
    columns = ", ".join(f'{day if column == "date" else ""}"{column}"' for column in schema.names)
    options = "filename = true" if alike else "filename = true, union_by_name = true"
    root = f"coalesce(getvariable('warehouse'), {_literal(glob.escape(str(folder.parent)))})"
    # The first file defines the columns; it is not a partition, because that may be damaged.
    files = f"[{root} || '/{folder.name}/{SCHEMA}', {root} || '/{folder.name}/*.parquet']"
    lines = [
        f"CREATE VIEW {name} AS SELECT {columns} FROM read_parquet({files}, {options});",
        f"COMMENT ON VIEW {name} IS {_literal(_description(schema))};",
        *(f'COMMENT ON COLUMN {name}."{field.name}" IS {_literal(_description(field))};' for field in schema),
    ]
    return "".join(f"{line}\n" for line in lines)


def _view(view: View) -> str:
    name = f'"{view.name}"'
    lines = [
        f"CREATE VIEW {name} AS {view.sql(DUCKDB, _quoted)};",
        f"COMMENT ON VIEW {name} IS {_literal(view.description)};",
        *(f'COMMENT ON COLUMN {name}."{c.name}" IS {_literal(c.description)};' for c in view.columns),
    ]
    return "".join(f"{line}\n" for line in lines)


def _quoted(name: str) -> str:
    return f'"{name}"'


def _description(described: pa.Schema | pa.Field) -> str:
    text: bytes = (described.metadata or {}).get(b"description", b"")
    return text.decode()


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _record(script: str, database: Path) -> str:
    """Return the script, and the sha256 of the DuckDB file that it made."""
    try:
        if _is_file(database):
            with database.open("rb") as file:
                return f"{script}-- {hashlib.file_digest(file, 'sha256').hexdigest()}\n"
    except (OSError, PermanentFailure):
        pass  # it is made again
    return script


def _temporary(path: Path) -> Path:
    """Beside ``path``, where a rename is atomic; hidden, so that no view takes it for a partition."""
    for orphan in path.parent.glob(f".{path.name}.*.tmp*"):
        with suppress(FileNotFoundError):  # its writer has put it in place
            if time.time() - orphan.stat().st_mtime > _ABANDONED_SECONDS:
                orphan.unlink()
    return path.with_name(f".{path.name}.{uuid4().hex}.tmp")
