"""Promises of the embedded warehouse alone: readers never wait or block, and dead processes leave nothing."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, suppress
from pathlib import Path

import duckdb
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from warehouse_samples import DAY, NEXT_DAY, TRADES, load_file, rows, write

from backfill_assets.columns import Column
from backfill_assets.failures import PermanentFailure, Superseded
from backfill_assets.warehouse.duckdb import DuckDBWarehouse, has_size
from backfill_assets.warehouse.parquet import concatenate
from backfill_assets.warehouse.tables import ROW_GROUP_ROWS, Table
from backfill_assets.warehouse.totals import file_totals, total_rows
from backfill_assets_tests.obstacles import folder_of_nobody, put_in_the_way
from backfill_assets_tests.stopped_processes import stopped_process

pytestmark = pytest.mark.timeout(60)

READER = """
import duckdb, sys
connection = duckdb.connect(sys.argv[1], read_only=True)
for line in sys.stdin:
    print(connection.execute("SELECT count(*) FROM trades").fetchone()[0], flush=True)
"""

WRITER = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from warehouse_samples import DAY, TRADES, load_file
from backfill_assets.warehouse.duckdb import DuckDBWarehouse
warehouse = DuckDBWarehouse(Path(sys.argv[2]))
files = [load_file(Path(sys.argv[3]))] * 40
generation = 1
print("ready", flush=True)
while True:
    generation += 1
    warehouse.replace_partition(TRADES, DAY, files, generation)
"""


@pytest.fixture
def warehouse(tmp_path: Path) -> DuckDBWarehouse:
    made = DuckDBWarehouse(tmp_path / "warehouse")
    made.ensure_table(TRADES)
    return made


def test_a_reader_in_another_process_neither_blocks_a_writer_nor_misses_its_rows(
    warehouse: DuckDBWarehouse, tmp_path: Path
) -> None:
    path = write(tmp_path / "1.parquet", rows())
    command = [sys.executable, "-c", READER, str(warehouse.database)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd="/"
    ) as reader:
        assert reader.stdin is not None
        assert reader.stdout is not None
        try:
            for generation, expected in ((None, "0"), (1, "3"), (2, "6")):
                if generation:
                    warehouse.replace_partition(TRADES, DAY, [load_file(path)] * generation, generation)
                reader.stdin.write("\n")
                reader.stdin.flush()
                assert reader.stdout.readline().strip() == expected
            # The reader does not block changes of the views either.
            warehouse.ensure_table(Table("more", "", TRADES.columns))
        finally:
            reader.kill()
    with duckdb.connect(str(warehouse.database), read_only=True) as connection:
        assert connection.execute("SELECT count(*) FROM more").fetchone() == (0,)


def test_views_carry_the_descriptions(warehouse: DuckDBWarehouse) -> None:
    with duckdb.connect(str(warehouse.database), read_only=True) as connection:
        comments = connection.execute(
            "SELECT comment FROM duckdb_views() WHERE view_name = 'trades' UNION ALL "
            "SELECT comment FROM duckdb_columns() WHERE table_name = 'trades' AND column_name = 'symbol'"
        ).fetchall()
    assert comments == [(TRADES.description,), (TRADES.column("symbol").description,)]


def test_a_folder_that_was_moved_is_put_right_when_it_is_used(
    warehouse: DuckDBWarehouse, tmp_path: Path
) -> None:
    warehouse.replace_partition(TRADES, DAY, [load_file(write(tmp_path / "1.parquet", rows()))], 1)
    moved = DuckDBWarehouse(warehouse.folder.rename(tmp_path / "mo'ved"))
    moved.ensure_table(TRADES)
    with duckdb.connect(str(moved.database), read_only=True) as connection:
        assert connection.execute("SELECT count(*) FROM trades").fetchone() == (3,)


def test_a_folder_that_was_moved_is_put_right_though_a_partition_is_damaged(
    warehouse: DuckDBWarehouse, tmp_path: Path
) -> None:
    for day in (DAY, NEXT_DAY):
        path = write(tmp_path / "1.parquet", rows(day=day))
        warehouse.replace_partition(TRADES, day, [load_file(path)], 1)
    (warehouse.folder / "trades" / f"{DAY}.parquet").write_bytes(b"damaged")
    moved = DuckDBWarehouse(warehouse.folder.rename(tmp_path / "moved"))
    moved.ensure_table(TRADES)
    query = f"SELECT count(*) FROM trades WHERE date = '{NEXT_DAY}'"
    with duckdb.connect(str(moved.database), read_only=True) as connection:
        assert connection.execute(query).fetchone() == (3,)
    path = write(tmp_path / "1.parquet", rows())
    moved.replace_partition(TRADES, DAY, [load_file(path)], 2)
    with duckdb.connect(str(moved.database), read_only=True) as connection:
        assert connection.execute("SELECT count(*) FROM trades").fetchone() == (6,)


def test_the_database_file_is_left_alone_while_its_views_stay_the_same(warehouse: DuckDBWarehouse) -> None:
    before = warehouse.database.stat().st_ino
    warehouse.ensure_table(TRADES)
    assert warehouse.database.stat().st_ino == before
    warehouse.ensure_table(Table("trades", "another text", TRADES.columns))
    assert warehouse.database.stat().st_ino != before


def test_a_writer_killed_at_any_moment_leaves_a_whole_partition_and_no_litter(
    warehouse: DuckDBWarehouse, tmp_path: Path
) -> None:
    path = write(tmp_path / "1.parquet", rows(count=500))
    warehouse.replace_partition(TRADES, DAY, [load_file(path)], 1)
    command = [sys.executable, "-c", WRITER, str(Path(__file__).parent), str(warehouse.folder), str(path)]
    for wait in (0.0, 0.013, 0.029, 0.041):
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdout is not None
            assert writer.stdout.readline() == "ready\n"
            time.sleep(wait)
            writer.send_signal(signal.SIGKILL)
        partition = warehouse.folder / "trades" / f"{DAY}.parquet"
        assert pq.read_table(partition).num_rows in (500, 20_000)
    (partition.parent / f".{DAY}.parquet.0.tmp").write_text("left by the dead")
    warehouse.replace_partition(TRADES, DAY, [load_file(path)], 10**6)
    assert sorted(p.name for p in partition.parent.iterdir()) == [f"{DAY}.parquet", "schema.parquet"]


@pytest.mark.parametrize("beside", ["warehouse.duckdb", ".state/views.sql"])
def test_an_unfinished_file_that_is_put_in_place_meanwhile_stops_nobody(
    beside: str, warehouse: DuckDBWarehouse
) -> None:
    """A link without a target is listed and then missing, like a file that its writer renames."""
    file = warehouse.folder / beside
    file.with_name(f".{file.name}.1.tmp").symlink_to("gone")
    warehouse.database.unlink()
    warehouse.ensure_table(TRADES)
    assert warehouse.database.exists()


def test_a_load_that_fails_leaves_no_litter(warehouse: DuckDBWarehouse, tmp_path: Path) -> None:
    bad = write(tmp_path / "bad.parquet", rows(day=NEXT_DAY))
    with pytest.raises(PermanentFailure, match=f"has rows of {NEXT_DAY}"):
        warehouse.replace_partition(TRADES, DAY, [load_file(bad)], 1)
    assert [p.name for p in (warehouse.folder / "trades").iterdir()] == ["schema.parquet"]


#: Publishes a generation, stops itself right before a step of it, and prints how it ended.
STOPPING = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from warehouse_samples import DAY, TRADES, load_file
from backfill_assets.failures import Superseded
from backfill_assets.warehouse import duckdb
step, original = sys.argv[4], None
def stopping(*arguments, **more):
    os.kill(os.getpid(), signal.SIGSTOP)
    return original(*arguments, **more)
where = duckdb.DuckDBWarehouse if hasattr(duckdb.DuckDBWarehouse, step) else duckdb
original = getattr(where, step)
setattr(where, step, stopping)
try:
    warehouse = duckdb.DuckDBWarehouse(Path(sys.argv[2]))
    if sys.argv[5:] == ["ensure"]:
        warehouse.ensure_table(TRADES)
    else:
        warehouse.replace_partition(TRADES, DAY, [load_file(Path(sys.argv[3]))], 5)
except Superseded:
    print("superseded")
else:
    print("published")
"""


def stopped(
    warehouse: DuckDBWarehouse, file: Path, *arguments: str
) -> AbstractContextManager[subprocess.Popen[str]]:
    """A process that has stopped itself before this step."""
    here = str(Path(__file__).parent)
    return stopped_process(
        [sys.executable, "-c", STOPPING, here, str(warehouse.folder), str(file), *arguments]
    )


@pytest.mark.parametrize("step", ["concatenate", "_mark", "_delete_unfinished", "put_in_place"])
def test_a_stopped_publisher_stops_nobody_and_changes_nothing_when_it_goes_on(
    warehouse: DuckDBWarehouse, tmp_path: Path, step: str
) -> None:
    old, new = write(tmp_path / "old.parquet", rows(price=1.5)), write(tmp_path / "new.parquet", rows())
    with stopped(warehouse, old, step) as process:
        warehouse.fence(TRADES, DAY, [5])
        warehouse.replace_partition(TRADES, DAY, [load_file(new)], 6)
        process.send_signal(signal.SIGCONT)
        assert process.communicate(timeout=45)[0] == "superseded\n"
    folder = warehouse.folder / "trades"
    assert pq.read_table(folder / f"{DAY}.parquet").to_pylist() == rows()
    assert sorted(p.name for p in folder.iterdir()) == [f"{DAY}.parquet", "schema.parquet"]


@pytest.mark.parametrize("step", ["concatenate", "_mark", "_delete_unfinished", "put_in_place"])
def test_an_older_publisher_that_was_stopped_does_not_undo_a_newer_one_that_fenced_nobody(
    warehouse: DuckDBWarehouse, tmp_path: Path, step: str
) -> None:
    old, new = write(tmp_path / "old.parquet", rows(price=1.5)), write(tmp_path / "new.parquet", rows())
    with stopped(warehouse, old, step) as process:
        warehouse.replace_partition(TRADES, DAY, [load_file(new)], 6)
        process.send_signal(signal.SIGCONT)
        assert process.communicate(timeout=45)[0] == "superseded\n"
    assert pq.read_table(warehouse.folder / "trades" / f"{DAY}.parquet").to_pylist() == rows()


def test_a_publisher_that_was_stopped_goes_on_where_nobody_came_in_between(
    warehouse: DuckDBWarehouse, tmp_path: Path
) -> None:
    path = write(tmp_path / "1.parquet", rows())
    with stopped(warehouse, path, "put_in_place") as process:
        process.send_signal(signal.SIGCONT)
        assert process.communicate(timeout=45)[0] == "published\n"
    with pytest.raises(Superseded, match="generation 5 is overtaken by 5"):
        warehouse.replace_partition(TRADES, DAY, [load_file(path)], 5)


@pytest.mark.parametrize("step", ["_refresh_views", "_make_database", "put_in_place"])
def test_a_process_stopped_while_it_makes_tables_stops_nobody_and_hides_no_table(
    warehouse: DuckDBWarehouse, tmp_path: Path, step: str
) -> None:
    warehouse.database.unlink()
    path = write(tmp_path / "1.parquet", rows())
    with stopped(warehouse, path, step, "ensure") as process:
        warehouse.ensure_table(Table("more", "", TRADES.columns))
        warehouse.ensure_table(TRADES)
        process.send_signal(signal.SIGCONT)
        # It stops again each time it reaches the step.
        while process.poll() is None:
            if psutil.Process(process.pid).status() == psutil.STATUS_STOPPED:
                process.send_signal(signal.SIGCONT)
            time.sleep(0.02)
    with duckdb.connect(str(warehouse.database), read_only=True) as connection:
        assert connection.execute(
            "SELECT (SELECT count(*) FROM more), (SELECT count(*) FROM trades)"
        ).fetchall()
    assert list(warehouse.folder.glob(".warehouse.duckdb.*")) == []


def test_generations_of_many_threads_end_with_the_greatest(
    warehouse: DuckDBWarehouse, tmp_path: Path
) -> None:
    count = 24
    files = [write(tmp_path / f"{n}.parquet", rows(price=float(n))) for n in range(1, count + 1)]

    def load(generation: int) -> None:
        with suppress(Superseded):
            warehouse.replace_partition(TRADES, DAY, [load_file(files[generation - 1])], generation)

    order = random.Random(7).sample(range(1, count + 1), count)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(load, order))
    folder = warehouse.folder / "trades"
    assert pq.read_table(folder / f"{DAY}.parquet").to_pylist() == rows(price=float(count))
    assert sorted(p.name for p in folder.iterdir()) == [f"{DAY}.parquet", "schema.parquet"]


@pytest.mark.parametrize("harm", [b"", b"not DuckDB", None])
def test_views_that_were_damaged_are_made_anew(warehouse: DuckDBWarehouse, harm: bytes | None) -> None:
    whole = warehouse.database.read_bytes()
    warehouse.database.write_bytes(whole[: len(whole) // 2] if harm is None else harm)
    warehouse.ensure_table(TRADES)
    with duckdb.connect(str(warehouse.database), read_only=True) as connection:
        assert connection.execute("SELECT count(*) FROM trades").fetchone() == (0,)


@pytest.mark.parametrize("harm", [b"", b"PAR1"])
def test_columns_that_were_damaged_are_written_anew(warehouse: DuckDBWarehouse, harm: bytes) -> None:
    schema = warehouse.folder / "trades" / "schema.parquet"
    schema.write_bytes(harm)
    warehouse.ensure_table(Table("more", "", TRADES.columns))
    warehouse.ensure_table(TRADES)
    assert pq.read_schema(schema).names == TRADES.schema.names
    with duckdb.connect(str(warehouse.database), read_only=True) as connection:
        assert connection.execute("SELECT count(*) FROM trades").fetchone() == (0,)


@pytest.mark.parametrize("what", ["a folder", "a FIFO", "a loop of links"])
def test_what_is_in_the_place_of_a_file_is_never_opened_and_the_file_written_again(
    warehouse: DuckDBWarehouse, tmp_path: Path, what: str
) -> None:
    load = [load_file(write(tmp_path / "1.parquet", rows()))]
    warehouse.replace_partition(TRADES, DAY, load, 1)
    warehouse.ensure_table(TRADES)
    partition = warehouse.folder / "trades" / f"{DAY}.parquet"
    for place in (
        partition,
        partition.with_name("schema.parquet"),
        warehouse.database,
        warehouse.folder / ".state" / "views.sql",
        warehouse.folder / ".state" / "trades" / "columns",
    ):
        put_in_the_way(place, what)
    for look in (warehouse.content, warehouse.totals):
        with pytest.raises(PermanentFailure, match=re.escape(str(partition))):
            look(TRADES, DAY)
    assert not has_size(warehouse.folder, "trades", DAY, "")
    warehouse.ensure_table(TRADES)
    warehouse.replace_partition(TRADES, DAY, load, 2)
    assert total_rows(warehouse.totals(TRADES, DAY)) == 3
    with duckdb.connect(str(warehouse.database), read_only=True) as connection:
        assert connection.execute("SELECT count(*) FROM trades").fetchone() == (3,)


def test_a_partition_that_may_not_be_read_is_told_and_loaded_again() -> None:
    with folder_of_nobody() as folder:
        warehouse = DuckDBWarehouse(folder / "warehouse")
        warehouse.ensure_table(TRADES)
        load = [load_file(write(folder / "1.parquet", rows()))]
        warehouse.replace_partition(TRADES, DAY, load, 1)
        partition = warehouse.folder / "trades" / f"{DAY}.parquet"
        partition.chmod(0)
        with pytest.raises(
            PermanentFailure, match=re.escape(f"{partition}: cannot be read (Permission denied)")
        ):
            warehouse.content(TRADES, DAY)
        warehouse.replace_partition(TRADES, DAY, load, 2)
        assert total_rows(warehouse.totals(TRADES, DAY)) == 3


@pytest.mark.parametrize("name", ["2024-13-45", "2024-01-01 (copy)", "20240101", ".2024-01-01"])
def test_a_file_among_the_partitions_that_is_none_is_refused_by_name(
    warehouse: DuckDBWarehouse, tmp_path: Path, name: str
) -> None:
    stray = write(warehouse.folder / "trades" / f"{name}.parquet", rows())
    with pytest.raises(PermanentFailure, match=re.escape(f"{stray}: is not a partition")):
        warehouse.ensure_table(TRADES)
    stray.unlink()
    (warehouse.folder / "trades" / "notes.txt").write_text("no rows")
    warehouse.ensure_table(TRADES)


def test_a_reader_that_has_the_folder_elsewhere_names_it(warehouse: DuckDBWarehouse, tmp_path: Path) -> None:
    warehouse.replace_partition(TRADES, DAY, [load_file(write(tmp_path / "1.parquet", rows()))], 1)
    elsewhere = warehouse.folder.rename(tmp_path / "elsewhere")
    with duckdb.connect(str(elsewhere / "warehouse.duckdb"), read_only=True) as connection:
        connection.execute(f"SET VARIABLE warehouse = '{elsewhere}'")
        assert connection.execute("SELECT count(*) FROM trades").fetchone() == (3,)


@pytest.mark.parametrize("name", ["[1]", "what?", "a*b", "two words", "it's", 'a"b', "100%20", "ü", "a;b"])
def test_a_folder_of_any_name_works(tmp_path: Path, name: str) -> None:
    (tmp_path / "1").mkdir()  # the match of the pattern [1]
    warehouse = DuckDBWarehouse(tmp_path / name / "warehouse")
    warehouse.ensure_table(TRADES)
    path = write(tmp_path / name / "1.parquet", rows())
    warehouse.replace_partition(TRADES, DAY, [load_file(path)], 1)
    assert warehouse.totals(TRADES, DAY) == file_totals(TRADES, [path])
    with duckdb.connect(str(warehouse.database), read_only=True) as connection:
        assert connection.execute("SELECT count(*) FROM trades").fetchone() == (3,)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_may_not_be_written_is_named(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(PermanentFailure, match="correct its permissions"):
        DuckDBWarehouse(tmp_path / "warehouse").ensure_table(TRADES)


#: Makes a table while no file may be larger than so many bytes.
NARROW = """
import resource, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from warehouse_samples import TRADES
from backfill_assets.failures import BackfillError
from backfill_assets.warehouse.duckdb import DuckDBWarehouse
import duckdb
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]),) * 2)
try:
    DuckDBWarehouse(Path(sys.argv[2])).ensure_table(TRADES)
except BackfillError as failure:
    print(failure)
"""


@pytest.mark.parametrize("room", [10, 4_000])
def test_a_disk_that_takes_no_more_is_told_in_one_line_and_leaves_no_half_views(
    tmp_path: Path, room: int
) -> None:
    folder = tmp_path / "warehouse"
    command = [sys.executable, "-c", NARROW, str(Path(__file__).parent), str(folder), str(room)]
    told = subprocess.run(command, capture_output=True, text=True, timeout=50, check=True).stdout
    assert told.startswith(f"{folder}: cannot be written (")
    assert told.count("\n") == 1
    assert not (folder / "warehouse.duckdb").exists()
    warehouse = DuckDBWarehouse(folder)
    warehouse.ensure_table(TRADES)
    with duckdb.connect(str(warehouse.database), read_only=True) as connection:
        assert connection.execute("SELECT count(*) FROM trades").fetchone() == (0,)


def test_a_folder_that_is_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "warehouse").write_text("")
    with pytest.raises(PermanentFailure, match="cannot be written"):
        DuckDBWarehouse(tmp_path / "warehouse").ensure_table(TRADES)


def test_a_file_in_a_bucket_is_refused_with_the_remedy(warehouse: DuckDBWarehouse, tmp_path: Path) -> None:
    from backfill_assets.warehouse.protocol import LoadFile

    with pytest.raises(PermanentFailure, match="use a lake in a directory"):
        warehouse.replace_partition(TRADES, DAY, [LoadFile("gs://b/x.parquet", None, 1)], 1)


def test_a_file_with_other_rows_than_the_lake_says_is_refused(
    warehouse: DuckDBWarehouse, tmp_path: Path
) -> None:
    path = write(tmp_path / "1.parquet", rows())
    with pytest.raises(PermanentFailure, match="holds 3 rows, but the lake says 4"):
        warehouse.replace_partition(TRADES, DAY, [load_file(path, 4)], 1)


@pytest.mark.parametrize(
    ("name", "kind", "accepted"),
    [
        ("exchange", pa.dictionary(pa.int32(), pa.string()), True),
        ("exchange", pa.large_string(), True),
        ("timestamp", pa.timestamp("us", "+00:00"), True),
        ("timestamp", pa.timestamp("ms", "UTC"), False),
        ("id", pa.int32(), False),
        ("price", pa.float32(), False),
    ],
)
def test_another_form_of_the_same_type_is_accepted_and_another_type_is_not(
    warehouse: DuckDBWarehouse, tmp_path: Path, name: str, kind: pa.DataType, accepted: bool
) -> None:
    index = TRADES.schema.get_field_index(name)
    schema = TRADES.schema.set(index, pa.field(name, kind, nullable=TRADES.schema.field(name).nullable))
    content = [{**row, "id": row["id"] - 2**62} for row in rows()]
    content = [{**row, "timestamp": row["timestamp"].replace(microsecond=0)} for row in content]
    path = write(tmp_path / "1.parquet", content, schema)
    if accepted:
        warehouse.replace_partition(TRADES, DAY, [load_file(path)], 1)
        assert pq.read_table(warehouse.folder / "trades" / f"{DAY}.parquet").to_pylist() == content
    else:
        with pytest.raises(PermanentFailure, match=re.escape(f"column {name} is {kind}")):
            warehouse.replace_partition(TRADES, DAY, [load_file(path)], 1)


def test_equal_rows_give_equal_bytes_however_they_were_cut(tmp_path: Path) -> None:
    content = pa.Table.from_pylist(rows(count=1000), TRADES.schema)
    whole, first, second = tmp_path / "whole.parquet", tmp_path / "first.parquet", tmp_path / "second.parquet"
    pq.write_table(content, whole)
    pq.write_table(content.slice(0, 333), first, row_group_size=10)
    pq.write_table(content.slice(333), second, compression="gzip")
    concatenate(TRADES, DAY, [load_file(whole)], tmp_path / "a.parquet")
    concatenate(TRADES, DAY, [load_file(first), load_file(second)], tmp_path / "b.parquet")
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()
    concatenate(TRADES, DAY, [load_file(second), load_file(first)], tmp_path / "c.parquet")
    assert (tmp_path / "a.parquet").read_bytes() != (tmp_path / "c.parquet").read_bytes()


def test_many_files_are_brought_together_in_bounded_memory(tmp_path: Path) -> None:
    slim = Table(
        "slim", "", (Column("date", "DATE", "", required=True), Column("id", "INT64", "")), (), group_by=()
    )
    content = pa.table({"date": pa.array([rows()[0]["date"]] * 500_000), "id": range(500_000)}, slim.schema)
    path = tmp_path / "1.parquet"
    pq.write_table(content, path)
    del content
    concatenate(slim, DAY, [load_file(path)], tmp_path / "warm-up.parquet")
    before = psutil.Process().memory_info().rss
    assert concatenate(slim, DAY, [load_file(path)] * 20, tmp_path / "all.parquet") == 10_000_000
    # 10 million rows are 120 MB in memory.
    assert psutil.Process().memory_info().rss - before < 60_000_000
    metadata = pq.read_metadata(tmp_path / "all.parquet")
    assert metadata.row_group(0).num_rows == ROW_GROUP_ROWS
    assert metadata.num_rows == 10_000_000
