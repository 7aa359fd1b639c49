"""The OHLCV table on SQLite and Postgres: its promises beside those of every warehouse."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotYet
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from warehouse_samples import DAY, NEXT_DAY, candle_rows, load_file, plan, set_lake
from warehouse_samples import write as write_file

from backfill_assets.failures import PermanentFailure, SettingsError, Superseded, TransientFailure
from backfill_assets.settings import OhlcvSettings
from backfill_assets.warehouse.catalog import OHLCV
from backfill_assets.warehouse.ohlcv import database as database_module
from backfill_assets.warehouse.ohlcv import warehouse as implementation
from backfill_assets.warehouse.ohlcv.database import open_engine, place, transaction
from backfill_assets.warehouse.ohlcv.warehouse import open_ohlcv
from backfill_assets.warehouse.publish import publish
from backfill_assets_tests.warehouse.conftest import OhlcvBench, ohlcv_bench

pytestmark = pytest.mark.timeout(90)

WRITER = "backfill_assets_tests.warehouse.ohlcv.ohlcv_writer"
REPOSITORY = Path(__file__).parents[3]


def write(bench: OhlcvBench, rows: list[dict[str, Any]], generation: int = 1, day: str = DAY) -> None:
    bench.warehouse.ensure_table(OHLCV)
    with tempfile.TemporaryDirectory() as folder:
        file = load_file(write_file(Path(folder) / "candles.parquet", rows, OHLCV.schema))
        bench.warehouse.replace_partition(OHLCV, day, [file], generation)


def on_postgres(bench: OhlcvBench) -> bool:
    return bench.warehouse.engine.dialect.name == "postgresql"


def test_times_are_timestamps_on_postgres_and_microseconds_on_sqlite(database: Any) -> None:
    write(database, candle_rows(count=2))
    second = database.stored()[1]["open_time"]
    moment = datetime(2024, 1, 1, 0, 1, tzinfo=UTC)
    assert second == (moment if on_postgres(database) else int(moment.timestamp()) * 1_000_000)


def test_writing_the_same_again_changes_nothing(database: Any) -> None:
    write(database, candle_rows(count=10))
    before = database.stored()
    write(database, candle_rows(count=10), 2)
    assert database.stored() == before, "also the times of the last change"


def test_a_changed_candle_is_updated_and_no_other(database: Any) -> None:
    write(database, candle_rows(count=10))
    before, changed = database.stored(), candle_rows(count=10)
    changed[3]["close"] = 10.6
    write(database, changed, 2)
    after = database.stored()
    assert [i for i in range(10) if after[i] != before[i]] == [3]
    assert after[3]["close"] == 10.6
    assert after[3]["updated_at"] > before[3]["updated_at"]


def test_vanished_candles_go_and_all_others_stay_untouched(database: Any) -> None:
    for day, count in (("2023-12-31", 1440), (DAY, 10), (NEXT_DAY, 10)):
        write(database, candle_rows(count=count, day=day), day=day)
    before = database.stored()
    write(database, candle_rows(count=4), 2)
    assert database.stored() == before[:1444] + before[1450:]


def test_a_value_that_somebody_changed_or_emptied_is_put_right(database: Any) -> None:
    write(database, candle_rows(count=10))
    before = database.stored()
    database.run("UPDATE TABLE_NAME SET close = 1 WHERE trade_count = 3")
    database.run("DELETE FROM TABLE_NAME WHERE trade_count = 5")
    write(database, candle_rows(count=10), 2)
    after = database.stored()
    assert database.read() == candle_rows(count=10)
    assert [i for i in range(10) if after[i]["updated_at"] != before[i]["updated_at"]] == [2, 4]


def test_rows_that_are_not_what_was_written_are_seen_before_the_commit(
    database: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(database, candle_rows(count=10))
    before = database.stored()
    monkeypatch.setattr(implementation, "_delete_others", lambda *_: None)
    with pytest.raises(PermanentFailure, match=r"does not hold the rows written for 2024-01-01: .*5 rows"):
        write(database, candle_rows(count=5, price=11.0), 2)
    assert database.stored() == before


def test_a_writer_that_is_killed_within_its_day_leaves_the_day_whole(database: Any, tmp_path: Path) -> None:
    write(database, candle_rows(count=30))
    before = database.stored()
    file = write_file(tmp_path / "new.parquet", candle_rows(count=20, price=11.0), OHLCV.schema)
    settings = json.dumps(database.settings.model_dump())
    command = [sys.executable, "-m", WRITER, settings, str(file)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "within\n"
        os.kill(process.pid, signal.SIGKILL)
    assert database.stored() == before
    write(database, candle_rows(count=20, price=11.0), 2)
    assert database.read() == candle_rows(count=20, price=11.0)


def test_a_writer_that_waited_for_a_newer_one_is_refused(database: Any) -> None:
    write(database, candle_rows(count=10))
    before = database.stored()
    with ThreadPoolExecutor(1) as pool:
        with transaction(database.warehouse.engine, database.settings.table) as connection:
            late = pool.submit(write, database, candle_rows(count=5), 2)
            with pytest.raises(NotYet):
                late.result(timeout=0.5)
            connection.execute(sa.text(f"UPDATE {database.settings.table}_days SET generation = 3"))
        with pytest.raises(Superseded, match="generation 2 is overtaken by 3"):
            late.result(timeout=60)
    assert database.stored() == before


def test_fifty_thousand_candles_are_written_and_updated(database: Any) -> None:
    database.warehouse = replace(database.warehouse, batch_rows=5_000)
    content = [row for i in range(35) for row in candle_rows(f"COIN{i}-USDT", count=1440)]
    for generation in (1, 2):
        write(database, content, generation)
        found = database.run("SELECT count(*) AS n, count(DISTINCT updated_at) AS times FROM TABLE_NAME")
        assert found == [{"n": 50_400, "times": 1}]
    assert database.run("SELECT generation FROM TABLE_NAME_days") == [{"generation": 2}]


def test_another_table_or_database_is_filled_whatever_the_ledger_says(
    database: Any, tmp_path: Path, store: Any, lake: Path
) -> None:
    set_lake(lake, write_file(lake / "data.parquet", candle_rows(), OHLCV.schema))
    url = database.settings.url
    for bench in (database, ohlcv_bench(url), ohlcv_bench(f"sqlite:///{tmp_path / 'other.db'}")):
        states = [
            publish(store, bench.warehouse, OHLCV, DAY, lambda: plan(lake, OHLCV)).state for _ in range(2)
        ]
        assert states == ["published", "skipped"]
        assert bench.read() == candle_rows()


# --- existing tables ---------------------------------------------------------------------------------

COLUMNS = (
    "exchange TEXT NOT NULL, symbol TEXT NOT NULL, timeframe TEXT NOT NULL, open_time TIME NOT NULL, "
    "open DOUBLE PRECISION NOT NULL, high DOUBLE PRECISION NOT NULL, low DOUBLE PRECISION NOT NULL, "
    "close DOUBLE PRECISION NOT NULL, volume DOUBLE PRECISION NOT NULL, "
    "quote_volume DOUBLE PRECISION NOT NULL, vwap DOUBLE PRECISION NOT NULL, trade_count BIGINT NOT NULL, "
    "updated_at TIME NOT NULL, PRIMARY KEY (exchange, symbol, timeframe, open_time)"
)


def existing(database: Any, columns: str) -> None:
    columns = columns.replace("TIME NOT", "TIMESTAMPTZ NOT" if on_postgres(database) else "BIGINT NOT")
    database.run(f"CREATE TABLE TABLE_NAME ({columns})")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("", ""),
        ("updated_at", "note TEXT, updated_at"),
        ("updated_at", "note TEXT NOT NULL DEFAULT 'x', updated_at"),
        ("symbol TEXT", "symbol VARCHAR(40)"),
    ],
)
def test_a_table_that_can_take_the_rows_is_used(database: Any, old: str, new: str) -> None:
    existing(database, COLUMNS.replace(old, new, 1) if old else COLUMNS)
    write(database, candle_rows())
    assert database.read() == candle_rows()


def test_a_table_from_before_volumes_could_be_unknown_takes_them(database: Any) -> None:
    existing(database, COLUMNS.replace("updated_at", "note TEXT, updated_at"))
    sums = dict.fromkeys(("volume", "quote_volume", "vwap"))
    unknown = [{**row, **sums, "volume_unit": "contracts"} for row in candle_rows()]
    write(database, unknown)
    assert database.read() == unknown


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("close DOUBLE PRECISION NOT NULL, ", "", "close is missing"),
        ("close DOUBLE PRECISION", "close TEXT", "close is TEXT"),
        ("open_time TIME", "open_time TEXT", "open_time is TEXT"),
        ("updated_at", "note TEXT NOT NULL, updated_at", "note needs a value"),
        (", timeframe, open_time)", ", open_time)", r"its key is \(exchange, symbol, open_time\)"),
    ],
)
def test_a_table_that_cannot_is_refused_in_one_line(
    database: Any, old: str, new: str, complaint: str
) -> None:
    existing(database, COLUMNS.replace(old, new))
    with pytest.raises(PermanentFailure, match=f"has another layout .*{complaint}.*ohlcv.table") as refused:
        write(database, candle_rows())
    assert "\n" not in str(refused.value)
    assert database.stored() == []


def test_a_postgres_column_that_rounds_prices_is_refused(database: Any) -> None:
    existing(database, COLUMNS.replace("close DOUBLE PRECISION", "close REAL"))
    if not on_postgres(database):
        write(database, candle_rows())
        assert database.read() == candle_rows(), "REAL is a double there"
        return
    with pytest.raises(PermanentFailure, match="close is REAL"):
        write(database, candle_rows())


def test_a_table_of_days_of_an_earlier_layout_is_taken_over(database: Any) -> None:
    write(database, candle_rows(count=10), 7)
    before = database.stored()
    database.run("DROP TABLE TABLE_NAME_days")
    kind = "TIMESTAMPTZ" if on_postgres(database) else "BIGINT"
    database.run(
        "CREATE TABLE TABLE_NAME_days (day TEXT PRIMARY KEY, fingerprint TEXT NOT NULL, "
        f"totals TEXT NOT NULL, updated_at {kind} NOT NULL)"
    )
    moment = "now()" if on_postgres(database) else "1700000000000000"
    database.run(f"INSERT INTO TABLE_NAME_days VALUES ('{DAY}', 'f', '[]', {moment})")
    database.warehouse.ensure_table(OHLCV)
    assert [set(row) for row in database.run("SELECT * FROM TABLE_NAME_days")] == [
        {"day", "generation", "updated_at"}
    ]
    assert database.stored() == before
    write(database, candle_rows(count=4), 8)
    assert database.stored() == before[:4]
    with pytest.raises(Superseded):
        write(database, candle_rows(count=4), 8)


def test_a_table_of_days_that_is_another_one_is_refused(database: Any) -> None:
    database.run("CREATE TABLE TABLE_NAME_days (day TEXT PRIMARY KEY, fingerprint TEXT, note TEXT)")
    with pytest.raises(PermanentFailure, match=r"_days has another layout \(generation is missing"):
        database.warehouse.ensure_table(OHLCV)


# --- choice of the database --------------------------------------------------------------------------------


def test_without_an_address_there_is_no_target() -> None:
    assert open_engine(OhlcvSettings()) is None
    assert open_engine(OhlcvSettings(url="${NOBODY_SETS_THIS:-}")) is None


def test_dagster_means_a_file_beside_its_own_or_its_postgres(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    monkeypatch.delenv("DAGSTER_POSTGRES_URL", raising=False)
    settings = OhlcvSettings(url="dagster")
    engine = open_engine(settings)
    assert engine is not None
    assert place(engine) == str(tmp_path / "ohlcv.db")
    monkeypatch.setenv("DAGSTER_POSTGRES_URL", "postgres://me:secret@db:5432/dagster")
    engine = open_engine(settings)
    assert engine is not None
    assert place(engine) == "postgresql+psycopg2://me:***@db:5432/dagster"
    monkeypatch.delenv("DAGSTER_POSTGRES_URL")
    monkeypatch.delenv("DAGSTER_HOME")
    with pytest.raises(SettingsError, match="set DAGSTER_HOME or DAGSTER_POSTGRES_URL"):
        open_engine(settings)


@pytest.mark.parametrize(
    "url", ["mysql://me:secret@db/x", "postgresql://me:secret@db", "sqlite://", "secret"]
)
def test_other_databases_are_refused_without_quoting_the_address(url: str) -> None:
    with pytest.raises(SettingsError, match=r"ohlcv.url .*: write postgresql://") as refused:
        open_engine(OhlcvSettings(url=url))
    assert "secret" not in str(refused.value)


def test_a_database_out_of_reach_is_transient_and_keeps_the_password() -> None:
    warehouse = open_ohlcv(OhlcvSettings(url="postgresql://me:secret@127.0.0.1:1/x"))
    assert warehouse is not None
    with pytest.raises(TransientFailure, match=r"127.0.0.1:1/x: .*refused.*: check that") as failure:
        warehouse.ensure_table(OHLCV)
    assert "secret" not in str(failure.value)


def test_a_statement_that_is_refused_is_told_without_its_thousands_of_parameters(database: Any) -> None:
    write(database, candle_rows())
    with (
        pytest.raises(PermanentFailure) as refused,
        transaction(database.warehouse.engine, database.settings.table) as connection,
    ):
        connection.execute(
            sa.text(f"INSERT INTO {database.settings.table} (exchange) VALUES (:x)"), {"x": "parameter" * 100}
        )
    assert "parameter" not in str(refused.value)
    assert len(str(refused.value)) < 500


def test_a_client_that_was_stopped_in_its_transaction_stops_no_other(
    postgres_bench: OhlcvBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(postgres_bench, candle_rows())
    monkeypatch.setattr(database_module, "IDLE_SECONDS", 5)
    engine, table = postgres_bench.warehouse.engine, postgres_bench.settings.table
    with pytest.raises(TransientFailure), transaction(engine, table) as held:  # noqa: PT012
        held.execute(sa.text(f"DELETE FROM {table}"))
        # It sends nothing more: the next writer waits until the server ends it.
        write(postgres_bench, candle_rows(price=20.5), 2)
        held.execute(sa.text(f"DELETE FROM {table}"))
    assert postgres_bench.read() == candle_rows(price=20.5)
