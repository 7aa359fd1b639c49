"""The embedded warehouse: a folder with one Parquet file per table and day, under a DuckDB file of views.

``FOLDER/{table}/{day}.parquet`` is a partition; it is replaced by ``os.replace`` while a lock on that table
and day is held, so readers never see half of one and never wait. ``FOLDER/{table}/schema.parquet`` has the
table's columns and no rows. ``FOLDER/warehouse.duckdb`` holds nothing but views over these files: tables
inside it were rejected, because one reader in another process locks every writer out of the file. It is
replaced as a whole, and only when its views change, so a reader that keeps it open still sees every new
partition.

DuckDB resolves relative paths by the reader's working directory, and knows no path relative to the database,
so the views hold absolute paths. A folder that was moved is put right when the warehouse is next used from
here; until then ``SET file_search_path`` or the Parquet files themselves serve.
"""

from __future__ import annotations

import errno
import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, cast
from uuid import uuid4

import pyarrow as pa
import pyarrow.parquet as pq

from backfill_assets.columns import ARROW_TYPES, Column, ColumnType
from backfill_assets.days import parse_day
from backfill_assets.failures import PermanentFailure, Superseded, TransientFailure
from backfill_assets.files import locked, put_in_place
from backfill_assets.warehouse.parquet import concatenate
from backfill_assets.warehouse.protocol import LoadFile
from backfill_assets.warehouse.tables import Table, missing_columns
from backfill_assets.warehouse.totals import GroupTotals, file_totals
from backfill_assets.warehouse.views import DUCKDB, VIEWS, View

DATABASE: Final = "warehouse.duckdb"
SCHEMA: Final = "schema.parquet"
_STATE: Final = ".state"


class DuckDBWarehouse:
    """``Warehouse`` in a local folder, shared by any number of processes of one machine."""

    def __init__(self, folder: Path, *, lock_timeout_seconds: float = 3600) -> None:
        self.folder = folder.absolute()
        self._lock_timeout_seconds = lock_timeout_seconds

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
        """See ``Warehouse``; the views are put right as well."""
        path = self.folder / table.name / SCHEMA
        with self._locked(self._state("tables")):
            if path.exists():
                missing_columns(table, _stored_columns(path), str(path.parent))
            schema = _described(table)
            if not path.exists() or not pq.read_schema(path).equals(schema, check_metadata=True):
                path.parent.mkdir(parents=True, exist_ok=True)
                temporary = _temporary(path)
                pq.write_table(schema.empty_table(), temporary)
                put_in_place(temporary, path)
            self._refresh_views()

    def replace_partition(self, table: Table, day: str, files: Sequence[LoadFile], generation: int) -> str:
        """See ``Warehouse``."""
        parse_day(day)
        folder = self.folder / table.name
        if not (folder / SCHEMA).exists():
            msg = f"{folder}: there is no such table: ensure_table makes it"
            raise PermanentFailure(msg)
        target = folder / f"{day}.parquet"
        state = self._state(table.name, day)
        with self._locked(state):
            current, fenced = _generations(state)
            if generation <= max(current, fenced):
                msg = f"{table.name} {day}: generation {generation} is overtaken by {max(current, fenced)}"
                raise Superseded(msg)
            temporary = _temporary(target)
            try:
                concatenate(table, day, files, temporary)
            except BaseException:  # Dagster interrupts a canceled step with one
                temporary.unlink(missing_ok=True)
                raise
            # Recorded first: when the rows are visible, no older generation may come after them.
            _record(state, generation, fenced)
            put_in_place(temporary, target)
        return f"{target}#{generation}"

    def fence(self, table: Table, day: str, generations: Sequence[int]) -> None:
        """See ``Warehouse``; waits for a running load by taking its lock."""
        if not generations:
            return
        state = self._state(table.name, day)
        with self._locked(state):
            current, fenced = _generations(state)
            if max(generations) > fenced:
                _record(state, current, max(generations))

    def totals(self, table: Table, day: str) -> tuple[GroupTotals, ...]:
        """See ``Warehouse``."""
        path = self.folder / table.name / f"{parse_day(day)}.parquet"
        return file_totals(table, [path]) if path.exists() else ()

    def content(self, table: Table, day: str) -> str:
        """See ``Warehouse``: size and sha256 of the file, ``has_size`` reads the size."""
        path = self.folder / table.name / f"{parse_day(day)}.parquet"
        try:
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
                return f"{file.tell()}:{digest}"
        except FileNotFoundError:
            return ""

    def ensure_views(self) -> tuple[str, ...]:
        """See ``Warehouse``; the DuckDB file is wholly ours, so nothing else can have a view's name."""
        with self._locked(self._state("tables")):
            self._refresh_views()
        return ()

    def close(self) -> None:
        """Nothing is kept open."""

    def _refresh_views(self) -> None:
        """Make the DuckDB file again if its views would be others; called under the lock of the tables."""
        schemas = {path.parent: pq.read_schema(path) for path in sorted(self.folder.glob(f"*/{SCHEMA}"))}
        columns = {folder.name: schema.names for folder, schema in schemas.items()}
        script = "".join(_table_view(folder, schema) for folder, schema in schemas.items())
        script += "".join(_view(view) for view in VIEWS if view.is_possible(columns))
        written = self._state("views").with_suffix(".sql")
        if self.database.exists() and written.exists() and written.read_text(encoding="utf-8") == script:
            return
        import duckdb

        temporary = _temporary(self.database)
        with duckdb.connect(str(temporary)) as connection:
            connection.execute(script)
        put_in_place(temporary, self.database)
        temporary = _temporary(written)
        temporary.write_text(script, encoding="utf-8")
        put_in_place(temporary, written)

    def _state(self, *parts: str) -> Path:
        return self.folder.joinpath(_STATE, *parts)

    @contextmanager
    def _locked(self, state: Path) -> Iterator[None]:
        """Hold the lock beside ``state``, and say what is wrong where the folder cannot be written."""
        lock = state.with_name(f"{state.name}.lock")
        try:
            with locked(lock, timeout_seconds=self._lock_timeout_seconds):
                yield
        except OSError as error:
            kind = (
                TransientFailure
                if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO)
                else PermanentFailure
            )
            msg = f"{self.folder}: cannot be written ({error}): free space there or mend its permissions"
            raise kind(msg) from error


def has_size(folder: Path, table: str, day: str, content: str) -> bool:
    """Whether the partition is there, in the size that ``content`` tells if it is not empty."""
    try:
        found = (folder / table / f"{day}.parquet").stat().st_size
    except OSError:
        return False
    return not content or content.partition(":")[0] == str(found)


def _described(table: Table) -> pa.Schema:
    fields = [
        field.with_metadata({"description": column.description})
        for field, column in zip(table.schema, table.columns, strict=True)
    ]
    return pa.schema(fields, metadata={"description": table.description})


def _stored_columns(path: Path) -> list[Column]:
    types: dict[pa.DataType, ColumnType] = {
        arrow: cast("ColumnType", name) for name, arrow in ARROW_TYPES.items()
    }
    return [
        Column(field.name, types[field.type], _description(field), required=not field.nullable)
        for field in pq.read_schema(path)
    ]


def _table_view(folder: Path, schema: pa.Schema) -> str:
    name = f'"{folder.name}"'
    columns = ", ".join(f'"{column}"' for column in schema.names)
    files = _literal(str(folder / "*.parquet"))
    lines = [
        f"CREATE VIEW {name} AS SELECT {columns} FROM read_parquet({files}, union_by_name = true);",
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


def _generations(state: Path) -> tuple[int, int]:
    """Generation of the partition, and the greatest one that was fenced off."""
    path = state.with_name(f"{state.name}.json")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return int(content["generation"]), int(content["fenced"])
    except FileNotFoundError:
        return 0, 0
    except (ValueError, KeyError, TypeError) as error:
        msg = f"{path}: is damaged: delete it while nothing is published, then publish the day again"
        raise PermanentFailure(msg) from error


def _record(state: Path, generation: int, fenced: int) -> None:
    path = state.with_name(f"{state.name}.json")
    temporary = _temporary(path)
    temporary.write_text(json.dumps({"generation": generation, "fenced": fenced}) + "\n", encoding="utf-8")
    put_in_place(temporary, path)


def _temporary(path: Path) -> Path:
    """Beside ``path``, where a rename is atomic; hidden, so that no view takes it for a partition.

    Called with the lock of ``path`` held, so whatever lies there already was left by a process that died.
    """
    for orphan in path.parent.glob(f".{path.name}.*.tmp*"):
        orphan.unlink(missing_ok=True)
    return path.with_name(f".{path.name}.{uuid4().hex}.tmp")
