"""The views are the same in both warehouses, and are made again only if they must be."""

from __future__ import annotations

import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest
import sqlglot
from warehouse_samples import DAY, NEXT_DAY, load_file, write

from backfill_assets.columns import Column
from backfill_assets.settings import TIMEFRAMES
from backfill_assets.warehouse import bigquery_views
from backfill_assets.warehouse import duckdb as duckdb_module
from backfill_assets.warehouse.catalog import CANDLES, COVERAGE, QUALITY, TICKS
from backfill_assets.warehouse.duckdb import DuckDBWarehouse
from backfill_assets.warehouse.tables import Table
from backfill_assets.warehouse.views import BIGQUERY, VIEWS, View

pytestmark = pytest.mark.timeout(90)

Row = dict[str, Any]
Ask = Callable[[str], list[Row]]
MARKET = {"exchange": "binance", "symbol": "BTC-USDT"}
PLAIN = {"STRING": "", "BOOL": True, "INT64": 0, "FLOAT64": 1.0}


def at(clock: str, day: str = DAY) -> datetime:
    return datetime.fromisoformat(f"{day}T{clock}").replace(tzinfo=UTC)


def row(table: Table, day: str, **values: Any) -> Row:
    """A row with these values, and a plain value in every other column."""
    given = {"date": date.fromisoformat(day), **MARKET, **values}
    plain = {**PLAIN, "TIMESTAMP": at("00:00", day)}
    return {c.name: given[c.name] if c.name in given else plain[c.type] for c in table.columns}


def candle(clock: str, close: float, day: str = DAY, **values: Any) -> Row:
    opened = at(clock, day)
    given = {"timeframe": "1m", "open_time": opened, "close": close, "trade_count": 2}
    return row(CANDLES, day, **{**given, **values})


def run(state: str, first: str, buckets: int, day: str = DAY, **values: Any) -> Row:
    timeframe = values.get("timeframe", "1m")
    last = at(first, day) + timedelta(seconds=TIMEFRAMES[timeframe] * (buckets - 1))
    given = {"timeframe": "1m", "provisional": False, "flagged": None, "previous_close": None}
    times = {"first_open_time": at(first, day), "last_open_time": last, "buckets": buckets}
    return row(COVERAGE, day, **{**given, "state": state, **times, **values})


def feed(day: str = DAY, **values: Any) -> Row:
    given = {
        "data_type": "trades",
        "dataset_symbol": "BTCUSDT",
        "verdict": "publish",
        "pending": False,
        "approved": False,
    }
    return row(QUALITY, day, **{**given, "day_state": "published", "day_overall": 0.5, **values})


def group(name: str, **values: Any) -> Row:
    return feed(symbol=name, dataset_symbol=name, **values)


@pytest.fixture(params=["duckdb", "bigquery"])
def publishing(request: pytest.FixtureRequest) -> Any:
    """Each warehouse that has views."""
    return request.getfixturevalue(f"{request.param}_bench")


@pytest.fixture
def load(publishing: Any, tmp_path: Path) -> Callable[..., None]:
    """Makes tables with these rows, and then the views; once per table."""

    def fill(*tables: tuple[Table, list[Row]]) -> None:
        for table, rows in tables:
            publishing.warehouse.ensure_table(table)
            for day in {str(r["date"]) for r in rows}:
                of_day = [r for r in rows if str(r["date"]) == day]
                path = write(tmp_path / f"{table.name}-{day}.parquet", of_day, table.schema)
                publishing.warehouse.replace_partition(table, day, [load_file(path)], 1)
        assert publishing.warehouse.ensure_views() == ()

    return fill


@pytest.fixture
def ask(publishing: Any) -> Ask:
    """Queries with views as ``{name}``, in either warehouse."""

    def answer(sql: str) -> list[Row]:
        if publishing.kind == "bigquery":
            query = sql.format_map(Names(f"`{publishing.settings.dataset}.%s`"))
            return [dict(r.items()) for r in publishing.client.query(query, timeout=30).result(timeout=30)]
        import duckdb

        with duckdb.connect(str(publishing.warehouse.database), read_only=True) as connection:
            connection.execute("SET TimeZone = 'UTC'")
            return connection.sql(sql.format_map(Names('"%s"'))).to_arrow_table().to_pylist()

    return answer


class Names(dict[str, str]):
    """Every name between braces becomes a quoted table."""

    def __init__(self, pattern: str) -> None:
        self.pattern = pattern

    def __missing__(self, name: str) -> str:
        return self.pattern % name


EVERYTHING = [(table, []) for table in (CANDLES, COVERAGE, QUALITY, *TICKS.values())]


def test_every_view_has_the_columns_and_types_that_it_declares(load: Any, publishing: Any, ask: Ask) -> None:
    feeds = [feed(data_type=data_type, dataset_symbol="") for data_type in TICKS]
    rows = {CANDLES.name: [candle("00:00", 5.0)], QUALITY.name: feeds}
    rows[COVERAGE.name] = [run("proven_empty", "00:01", 2, previous_close=5.0), run("traded", "00:00", 1)]
    load(*((table, rows.get(table.name, [row(table, DAY)])) for table, _ in EVERYTHING))
    for view in VIEWS:
        found = ask(f"SELECT * FROM {{{view.name}}} LIMIT 1")
        assert found, f"{view.name} is empty"
        assert list(found[0]) == [c.name for c in view.columns], view.name
        kinds = {
            "STRING": str,
            "DATE": date,
            "TIMESTAMP": datetime,
            "INT64": int,
            "FLOAT64": float,
            "BOOL": bool,
        }
        for column in view.columns:
            value = found[0][column.name]
            assert isinstance(value, kinds[column.type]) or (value is None and not column.required), column


def test_a_bucket_that_is_proven_empty_gets_a_flat_candle_and_no_other_does(load: Any, ask: Ask) -> None:
    load(
        (CANDLES, [candle("00:02", 7.0), candle("00:00", 9.0, NEXT_DAY)]),
        (
            COVERAGE,
            [
                run("empty_unproven", "00:00", 1, previous_close=3.0),
                run("proven_empty", "00:01", 1, previous_close=3.0),
                run("traded", "00:02", 1, previous_close=3.0, flagged=False),
                run("proven_empty", "00:03", 3, previous_close=7.0),
                run("missing", "00:06", 1, previous_close=7.0),
                run("outage", "00:07", 1, previous_close=7.0),
                run("proven_empty", "08:00", 2, timeframe="4h", previous_close=7.0),
                run("proven_empty", "00:01", 5, NEXT_DAY, symbol="NEW-USDT"),
            ],
        ),
    )
    query = "SELECT * FROM {candles_filled} ORDER BY date, timeframe, open_time"
    found = ask(query)
    shown = [(r["timeframe"], r["open_time"], r["close"], r["trade_count"]) for r in found]
    assert shown == [
        ("1m", at("00:01"), 3.0, 0),
        ("1m", at("00:02"), 7.0, 2),
        *(("1m", at(f"00:0{minute}"), 7.0, 0) for minute in (3, 4, 5)),
        ("4h", at("08:00"), 7.0, 0),
        ("4h", at("12:00"), 7.0, 0),
        ("1m", at("00:00", NEXT_DAY), 9.0, 2),
    ]
    flat = found[2]
    assert {flat[name] for name in ("open", "high", "low", "vwap")} == {7.0}
    assert {flat[n] for n in ("volume", "quote_volume", "buy_volume", "sell_volume")} == {0.0}
    assert flat["first_trade_time"] == flat["last_trade_time"] == at("00:03")
    assert (flat["date"], flat["exchange"], flat["symbol"]) == (date.fromisoformat(DAY), *MARKET.values())


@pytest.mark.parametrize(
    ("quality", "final"),
    [
        pytest.param([feed()], True, id="published and sealed"),
        pytest.param([feed(day_state="degraded")], True, id="degraded and sealed"),
        pytest.param([feed(sealed=False)], False, id="not sealed"),
        pytest.param([feed(published=False, verdict="quarantine")], False, id="feed not published"),
        pytest.param([feed(published=False, day_state="held")], False, id="held"),
        pytest.param([feed(NEXT_DAY)], False, id="another day"),
        pytest.param([feed(symbol="ETH-USDT", dataset_symbol="ETHUSDT")], False, id="another symbol"),
        pytest.param([feed(exchange="kraken")], False, id="another exchange"),
        pytest.param([feed(data_type="quotes")], False, id="another data type"),
        pytest.param([group("SPOT")], True, id="in a file of many symbols"),
        pytest.param([feed(), group("SPOT")], True, id="in two files"),
        pytest.param([feed(sealed=False), group("SPOT")], False, id="not sealed beside a group that is"),
        pytest.param([feed(), group("SPOT", sealed=False)], True, id="sealed beside a group that is not"),
        pytest.param(
            [group("SPOT"), group("PERPETUALS", sealed=False)],
            False,
            id="in one of two groups, one not sealed",
        ),
        pytest.param(
            [group("SPOT"), group("PERPETUALS", published=False)],
            True,
            id="in the only group that is published",
        ),
        pytest.param(
            [group("SPOT"), group("PERPETUALS", sealed=False, exchange="kraken")], True, id="in its own group"
        ),
        pytest.param([], False, id="never judged"),
    ],
)
def test_final_rows_are_those_that_nothing_can_change(
    load: Any, ask: Ask, quality: list[Row], final: bool
) -> None:
    trades = TICKS["trades"]
    load(
        (CANDLES, [candle("00:00", 5.0)]),
        (trades, [row(trades, DAY, dataset_symbol="BTCUSDT")]),
        (QUALITY, quality),
    )
    assert len(ask("SELECT * FROM {candles_final}")) == final
    assert len(ask("SELECT * FROM {trades_final}")) == final


@pytest.mark.parametrize("is_there", [True, False], ids=["both are there", "one is missing"])
def test_a_candle_of_a_market_with_two_files_is_final_when_both_are(
    load: Any, ask: Ask, is_there: bool
) -> None:
    other = feed(dataset_symbol="BTC-USDT", published=is_there, verdict="publish" if is_there else "missing")
    load((CANDLES, [candle("00:00", 5.0)]), (QUALITY, [feed(), other]))
    assert len(ask("SELECT * FROM {candles_final}")) == is_there


def test_a_day_is_one_row_with_its_state_its_scores_and_who_is_left_out(load: Any, ask: Ask) -> None:
    bad = {"published": False, "pending": True, "day_state": "degraded"}
    load(
        (
            QUALITY,
            [
                feed(day_state="degraded", symbol="ADA-USDT", dataset_symbol="ADAUSDT", sealed=False),
                feed(**bad, verdict="quarantine", sealed=False),
                feed(**bad, verdict="missing", exchange="aax", sealed=False),
                feed(NEXT_DAY, day_overall=None, day_state="held", published=False),
                feed(
                    NEXT_DAY,
                    day_overall=None,
                    day_state="held",
                    published=False,
                    verdict="quarantine",
                    approved=True,
                    dataset_symbol="ETHUSDT",
                ),
            ],
        )
    )
    first, second = ask("SELECT * FROM {days} ORDER BY date")
    assert (first["state"], first["sealed"], first["overall"]) == ("degraded", False, 0.5)
    assert (first["feeds"], first["accepted"], first["pending"]) == (3, 1, 2)
    assert first["left_out"] == "aax/trades/BTCUSDT (missing), binance/trades/BTCUSDT (quarantine)"
    assert (second["state"], second["sealed"], second["overall"]) == ("held", True, None)
    assert (second["feeds"], second["accepted"], second["left_out"]) == (2, 2, None)


def test_a_candle_has_the_state_of_its_day_and_of_its_bucket(load: Any, ask: Ask) -> None:
    load(
        (CANDLES, [candle(clock, 5.0) for clock in ("00:00", "00:01", "00:02", "00:03")]),
        (
            COVERAGE,
            [
                run("traded_partial", "00:00", 1, provisional=True, flagged=False),
                run("traded", "00:01", 2, flagged=True),
                run("traded", "00:00", 1440, symbol="ETH-USDT", flagged=False),
                run("traded", "00:00", 288, timeframe="5m", flagged=False),
            ],
        ),
        (QUALITY, [feed(sealed=False), feed(symbol="ETH-USDT", sealed=False)]),
    )
    found = ask("SELECT * FROM {candles_with_state} ORDER BY open_time")
    names = ("day_state", "sealed", "state", "provisional", "flagged")
    assert [tuple(r[name] for name in names) for r in found] == [
        ("published", False, "traded_partial", True, False),
        ("published", False, "traded", False, True),
        ("published", False, "traded", False, True),
        ("published", False, None, None, None),
    ]


def test_views_appear_with_the_tables_that_they_read(load: Any, publishing: Any, ask: Ask) -> None:
    load((QUALITY, [feed()]))
    assert len(ask("SELECT * FROM {days}")) == 1
    with pytest.raises(Exception, match="candles_final"):
        ask("SELECT * FROM {candles_final}")
    load((CANDLES, [candle("00:00", 5.0)]))
    assert len(ask("SELECT * FROM {candles_final}")) == 1


def test_a_table_that_lacks_a_column_has_no_view_yet(load: Any, publishing: Any, ask: Ask) -> None:
    older = replace(QUALITY, columns=tuple(c for c in QUALITY.columns if c.name != "day_overall"))
    load((older, []))
    with pytest.raises(Exception, match="days"):
        ask("SELECT * FROM {days}")
    load((QUALITY, []))
    assert ask("SELECT * FROM {days}") == []


def test_a_view_whose_text_is_another_now_is_replaced_and_one_that_is_right_is_left(
    load: Any, publishing: Any, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    load((QUALITY, [feed()]))

    def stamp() -> Any:
        if publishing.kind == "duckdb":
            return publishing.warehouse.database.stat().st_ino
        return publishing.client.get_table(f"{publishing.settings.dataset}.days", timeout=30).modified

    before = stamp()
    assert publishing.warehouse.ensure_views() == ()
    assert stamp() == before
    answer = (Column("answer", "INT64", "It."),)
    other = View("days", "Another one", answer, (QUALITY,), "SELECT 42 AS answer FROM {quality}")
    for module in (bigquery_views, duckdb_module):
        monkeypatch.setattr(module, "VIEWS", (other,))
    assert publishing.warehouse.ensure_views() == ()
    assert ask("SELECT * FROM {days}") == [{"answer": 42}]


def test_publishers_at_work_at_once_make_the_views_together(load: Any, publishing: Any, ask: Ask) -> None:
    for table, _ in EVERYTHING:
        publishing.warehouse.ensure_table(table)
    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(lambda _: publishing.warehouse.ensure_views(), range(8)))
    assert made == [()] * 8
    for view in VIEWS:
        assert ask(f"SELECT * FROM {{{view.name}}}") == []


def test_somebody_elses_view_or_table_of_the_name_is_left_alone_and_named(
    bigquery_bench: Any, tmp_path: Path
) -> None:
    from google.cloud import bigquery

    dataset = f"{bigquery_bench.client.project}.{bigquery_bench.settings.dataset}"
    theirs = bigquery.Table(f"{dataset}.days")
    theirs.view_query = "SELECT 1 AS mine"
    bigquery_bench.client.create_table(theirs, timeout=30)
    table = bigquery.Table(f"{dataset}.candles_final", schema=[bigquery.SchemaField("mine", "INT64")])
    bigquery_bench.client.create_table(table, timeout=30)
    for needed in (QUALITY, CANDLES):
        bigquery_bench.warehouse.ensure_table(needed)
    assert bigquery_bench.warehouse.ensure_views() == ("days", "candles_final")
    assert bigquery_bench.client.get_table(f"{dataset}.days", timeout=30).view_query == "SELECT 1 AS mine"
    assert bigquery_bench.client.get_table(f"{dataset}.candles_final", timeout=30).table_type == "TABLE"


@pytest.mark.parametrize("view", VIEWS, ids=lambda v: v.name)
def test_the_text_for_bigquery_is_of_its_dialect(view: View) -> None:
    text = view.sql(BIGQUERY, lambda name: f"`project.dataset.{name}`")
    [parsed] = sqlglot.parse(text, read="bigquery", error_level=sqlglot.ErrorLevel.RAISE)
    assert parsed is not None
    assert [column.alias_or_name for column in parsed.selects] == [c.name for c in view.columns]
    read = {table.name for table in parsed.find_all(sqlglot.exp.Table) if table.catalog}
    assert read == {table.name for table in view.tables}
    unknown = [f.name for f in parsed.find_all(sqlglot.exp.Anonymous)]
    assert unknown == [], "a function that BigQuery does not have"
    with pytest.raises(sqlglot.ParseError):
        sqlglot.parse(f"{text} FROM", read="bigquery", error_level=sqlglot.ErrorLevel.RAISE)


TABLES = [CANDLES, COVERAGE, QUALITY, *TICKS.values()]


@pytest.fixture
def of_days(duckdb_bench: Any, tmp_path: Path) -> DuckDBWarehouse:
    """A warehouse in which every table has four days."""
    warehouse: DuckDBWarehouse = duckdb_bench.warehouse
    for table in TABLES:
        warehouse.ensure_table(table)
        for day in (DAY, NEXT_DAY, "2024-03-01", "2024-03-02"):
            path = write(tmp_path / f"{table.name}-{day}.parquet", [row(table, day)], table.schema)
            warehouse.replace_partition(table, day, [load_file(path)], 1)
    warehouse.ensure_views()
    return warehouse


def files_read(warehouse: DuckDBWarehouse, name: str) -> set[int]:
    """The numbers of files that the scans of a query for one day open."""
    query = f"EXPLAIN ANALYZE SELECT * FROM {name} WHERE date = '{NEXT_DAY}'"
    with duckdb.connect(str(warehouse.database), read_only=True) as connection:
        [(_, plan)] = connection.execute(query).fetchall()
    found = re.findall(r"Total Files Read: (\d+)", plan)
    assert found, plan
    return {int(number) for number in found}


def test_a_filter_on_the_date_opens_the_files_of_that_day_only(of_days: DuckDBWarehouse) -> None:
    for name in (*(table.name for table in TABLES), *(view.name for view in VIEWS)):
        assert files_read(of_days, name) == {1}, name


def test_while_a_day_lacks_a_column_all_are_read_and_afterwards_no_more(
    of_days: DuckDBWarehouse, tmp_path: Path
) -> None:
    wider = replace(CANDLES, columns=(*CANDLES.columns, Column("note", "STRING", "")))
    of_days.ensure_table(wider)
    with duckdb.connect(str(of_days.database), read_only=True) as connection:
        assert connection.execute("SELECT DISTINCT note FROM candles").fetchall() == [(None,)]
    for day in (DAY, NEXT_DAY, "2024-03-01", "2024-03-02"):
        path = write(tmp_path / "wider.parquet", [row(wider, day, note="x")], wider.schema)
        of_days.replace_partition(wider, day, [load_file(path)], 2)
        of_days.ensure_table(wider)
    assert files_read(of_days, "candles") == {1}
    with duckdb.connect(str(of_days.database), read_only=True) as connection:
        assert connection.execute("SELECT note, count(*) FROM candles GROUP BY note").fetchall() == [("x", 4)]
