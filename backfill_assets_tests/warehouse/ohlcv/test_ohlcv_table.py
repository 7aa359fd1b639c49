"""The OHLCV table on SQLite and Postgres: a day in it is the lake's, whoever writes, dies or meddles."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from backfill_assets.failures import DayHeld, PermanentFailure, SettingsError, TransientFailure
from backfill_assets.settings import OhlcvSettings
from backfill_assets.warehouse.ohlcv.target import open_target
from backfill_assets.warehouse.ohlcv.writing import Written, insert_ohlcv_backfill, stored_day
from backfill_assets_tests.warehouse.ohlcv.ohlcv_samples import DAY, NEXT_DAY, candles, day_candles

pytestmark = pytest.mark.timeout(90)

WRITER = "backfill_assets_tests.warehouse.ohlcv.ohlcv_writer"
REPOSITORY = Path(__file__).parents[3]


def write(bench: Any, rows: Any, day: str = DAY) -> Written:
    content = day_candles(rows)
    return insert_ohlcv_backfill(bench.target, day, lambda: content, batch_rows=bench.settings.batch_rows)


@contextmanager
def writer(bench: Any, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    """A writer in a process of its own, past its imports."""
    command = [sys.executable, "-m", WRITER, json.dumps(bench.settings.model_dump()), *map(str, arguments)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY
    ) as process:
        try:
            assert line(process) == "ready"
            yield process
        finally:
            process.kill()


def go(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_the_first_day_makes_the_table_and_its_rows_are_the_candles(bench: Any) -> None:
    content = candles(10)
    assert write(bench, content) == Written(DAY, rows=10, written=10, deleted=0)
    rows = bench.rows()
    names = ("symbol", "open", "high", "low", "close", "volume", "quote_volume", "vwap", "trade_count")
    assert [tuple(row[n] for n in names) for row in rows] == [
        tuple(row[n] for n in names) for row in content.to_pylist()
    ]
    assert len(rows) == 10


def test_times_are_timestamps_on_postgres_and_microseconds_on_sqlite(bench: Any) -> None:
    write(bench, candles(2))
    second = bench.rows()[1]["open_time"]
    moment = datetime(2024, 1, 1, 0, 1, tzinfo=UTC)
    on_postgres = bench.target.engine.dialect.name == "postgresql"
    assert second == (moment if on_postgres else int(moment.timestamp()) * 1_000_000)


def test_writing_the_same_again_changes_nothing(bench: Any) -> None:
    write(bench, candles(10))
    before = bench.rows()
    assert write(bench, candles(10)) == Written(DAY, rows=10, written=0, deleted=0)
    assert bench.rows() == before, "also the times of the last change"


def test_a_changed_candle_is_updated_and_no_other(bench: Any) -> None:
    write(bench, candles(10))
    before = bench.rows()
    changed = candles(10).to_pylist()
    changed[3]["close"] = 10.6
    assert write(bench, candles(10).from_pylist(changed, candles(1).schema)).written == 1
    after = bench.rows()
    assert [i for i in range(10) if after[i] != before[i]] == [3]
    assert after[3]["close"] == 10.6
    assert after[3]["updated_at"] > before[3]["updated_at"]


def test_vanished_candles_go_and_those_of_the_days_around_stay(bench: Any) -> None:
    for day in ("2023-12-31", DAY, NEXT_DAY):
        write(bench, candles(1440 if day < DAY else 10, day), day)
    assert write(bench, candles(4)) == Written(DAY, rows=4, written=0, deleted=6)
    assert len(bench.rows()) == 1440 + 4 + 10


def test_a_day_without_candles_empties_the_day(bench: Any) -> None:
    write(bench, candles(10))
    assert write(bench, candles(0)).deleted == 10
    assert bench.rows() == []
    assert stored_day(bench.target, DAY) is not None
    assert stored_day(bench.target, NEXT_DAY) is None


def test_a_held_day_leaves_the_table_as_it_is(bench: Any) -> None:
    write(bench, candles(10))
    before = bench.rows()

    def held() -> Any:
        raise DayHeld("the day is held")

    with pytest.raises(DayHeld):
        insert_ohlcv_backfill(bench.target, DAY, held, batch_rows=5)
    assert bench.rows() == before


def test_a_value_that_somebody_changed_or_emptied_is_put_right(bench: Any) -> None:
    write(bench, candles(10))
    before = [{**row, "updated_at": None} for row in bench.rows()]
    bench.run("UPDATE TABLE_NAME SET close = 1 WHERE trade_count = 3")
    bench.run("DELETE FROM TABLE_NAME WHERE trade_count = 5")
    assert write(bench, candles(10)).written == 2
    assert [{**row, "updated_at": None} for row in bench.rows()] == before


def test_rows_that_are_not_what_was_written_are_seen_before_the_commit(bench: Any) -> None:
    write(bench, candles(10))
    before = bench.rows()
    content = day_candles(candles(10, close=11.0))
    wrong = day_candles(candles(10, close=12.0)).totals
    with pytest.raises(PermanentFailure, match="does not hold what was written of 2024-01-01"):
        insert_ohlcv_backfill(
            bench.target,
            DAY,
            lambda: type(content)(content.fingerprint, content.rows, wrong),
            batch_rows=100,
        )
    assert bench.rows() == before


def test_a_writer_that_is_killed_within_its_day_leaves_the_day_whole(bench: Any) -> None:
    write(bench, candles(30))
    before = bench.rows()
    with writer(bench, 20, 11.0, 2) as process:
        go(process)
        assert line(process) == "within"
        os.kill(process.pid, signal.SIGKILL)
        process.wait(timeout=10)
    assert bench.rows() == before
    assert write(bench, candles(20, close=11.0)) == Written(DAY, rows=20, written=20, deleted=10)


def test_writers_at_the_same_time_leave_the_day_of_one_of_them(bench: Any) -> None:
    with ExitStack() as stack:
        wanted = {f"{10.0 + i}": 100 + 50 * i for i in range(3)}
        processes = [stack.enter_context(writer(bench, n, close)) for close, n in wanted.items()]
        for process in processes:
            go(process)
        assert [int(line(p).split()[0]) for p in processes] == list(wanted.values())
    rows = bench.rows()
    [close] = {row["close"] for row in rows}
    assert len(rows) == wanted[str(close)]


def test_the_lake_is_read_behind_the_lock_so_whoever_writes_last_read_last(bench: Any) -> None:
    with writer(bench, 20, 11.0) as process:

        def read() -> Any:
            go(process)
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(timeout=0.5)
            return day_candles(candles(5))

        insert_ohlcv_backfill(bench.target, DAY, read, batch_rows=100)
        assert line(process) == "20 20 0"
    assert {row["close"] for row in bench.rows()} == {11.0}


def test_fifty_thousand_candles_are_written_and_updated(bench: Any) -> None:
    symbols = tuple(f"COIN{i}-USDT" for i in range(35))
    content = day_candles(candles(1440, symbols=symbols))
    for expected in (50_400, 0):
        done = insert_ohlcv_backfill(bench.target, DAY, lambda: content, batch_rows=5_000)
        assert (done.rows, done.written) == (50_400, expected)
    assert bench.run("SELECT count(*) AS n FROM TABLE_NAME") == [{"n": 50_400}]


# --- tables of somebody else -------------------------------------------------------------------------------

COLUMNS = (
    "exchange TEXT NOT NULL, symbol TEXT NOT NULL, timeframe TEXT NOT NULL, open_time TIME NOT NULL, "
    "open DOUBLE PRECISION NOT NULL, high DOUBLE PRECISION NOT NULL, low DOUBLE PRECISION NOT NULL, "
    "close DOUBLE PRECISION NOT NULL, volume DOUBLE PRECISION NOT NULL, "
    "quote_volume DOUBLE PRECISION NOT NULL, vwap DOUBLE PRECISION NOT NULL, trade_count BIGINT NOT NULL, "
    "updated_at TIME NOT NULL, PRIMARY KEY (exchange, symbol, timeframe, open_time)"
)


def existing(bench: Any, columns: str) -> None:
    on_postgres = bench.target.engine.dialect.name == "postgresql"
    columns = columns.replace("TIME NOT", "TIMESTAMPTZ NOT" if on_postgres else "BIGINT NOT")
    bench.run(f"CREATE TABLE TABLE_NAME ({columns})")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("", ""),
        ("updated_at", "note TEXT, updated_at"),
        ("updated_at", "note TEXT NOT NULL DEFAULT 'x', updated_at"),
        ("symbol TEXT", "symbol VARCHAR(40)"),
    ],
)
def test_a_table_that_can_take_the_rows_is_used(bench: Any, old: str, new: str) -> None:
    existing(bench, COLUMNS.replace(old, new, 1) if old else COLUMNS)
    assert write(bench, candles(10)).written == 10


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("vwap DOUBLE PRECISION NOT NULL, ", "", "vwap is missing"),
        ("close DOUBLE PRECISION", "close TEXT", "close is TEXT"),
        ("open_time TIME", "open_time TEXT", "open_time is TEXT"),
        ("updated_at", "note TEXT NOT NULL, updated_at", "note needs a value"),
        (", timeframe, open_time)", ", open_time)", r"its key is \(exchange, symbol, open_time\)"),
    ],
)
def test_a_table_that_cannot_is_refused_in_one_line(bench: Any, old: str, new: str, complaint: str) -> None:
    existing(bench, COLUMNS.replace(old, new))
    with pytest.raises(PermanentFailure, match=f"is another one .*{complaint}.*ohlcv.table") as refused:
        write(bench, candles(10))
    assert "\n" not in str(refused.value)
    assert bench.rows() == []


def test_a_postgres_column_that_rounds_prices_is_refused(bench: Any) -> None:
    if bench.target.engine.dialect.name == "sqlite":
        existing(bench, COLUMNS.replace("close DOUBLE PRECISION", "close REAL"))
        assert write(bench, candles(10)).written == 10, "REAL is a double there"
        return
    existing(bench, COLUMNS.replace("close DOUBLE PRECISION", "close REAL"))
    with pytest.raises(PermanentFailure, match="close is REAL"):
        write(bench, candles(10))


# --- which database ----------------------------------------------------------------------------------------


def test_without_an_address_there_is_no_target() -> None:
    assert open_target(OhlcvSettings()) is None
    assert open_target(OhlcvSettings(url="${NOBODY_SETS_THIS:-}")) is None


def test_dagster_means_a_file_beside_its_own_or_its_postgres(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    monkeypatch.delenv("DAGSTER_POSTGRES_URL", raising=False)
    settings = OhlcvSettings(url="dagster")
    target = open_target(settings)
    assert target is not None
    assert target.place == str(tmp_path / "ohlcv.db")
    monkeypatch.setenv("DAGSTER_POSTGRES_URL", "postgres://me:secret@db:5432/dagster")
    target = open_target(settings)
    assert target is not None
    assert target.place == "postgresql+psycopg2://me:***@db:5432/dagster"
    monkeypatch.delenv("DAGSTER_POSTGRES_URL")
    monkeypatch.delenv("DAGSTER_HOME")
    with pytest.raises(SettingsError, match="set DAGSTER_HOME or DAGSTER_POSTGRES_URL"):
        open_target(settings)


@pytest.mark.parametrize(
    "url", ["mysql://me:secret@db/x", "postgresql://me:secret@db", "sqlite://", "secret"]
)
def test_other_databases_are_refused_without_quoting_the_address(url: str) -> None:
    with pytest.raises(SettingsError, match=r"ohlcv.url .*: write postgresql://") as refused:
        open_target(OhlcvSettings(url=url))
    assert "secret" not in str(refused.value)


def test_a_database_out_of_reach_is_transient_and_keeps_the_password() -> None:
    target = open_target(OhlcvSettings(url="postgresql://me:secret@127.0.0.1:1/x"))
    assert target is not None
    with pytest.raises(TransientFailure, match=r"127.0.0.1:1/x: .*refused") as failure:
        stored_day(target, DAY)
    assert "secret" not in str(failure.value)


def test_a_statement_that_is_refused_is_told_without_its_thousands_of_parameters(bench: Any) -> None:
    write(bench, candles(10))
    with pytest.raises(PermanentFailure) as refused, bench.target.transaction() as connection:
        connection.execute(
            sa.text(f"INSERT INTO {bench.table} (exchange) VALUES (:x)"), {"x": "parameter" * 100}
        )
    assert "parameter" not in str(refused.value)
    assert len(str(refused.value)) < 500
