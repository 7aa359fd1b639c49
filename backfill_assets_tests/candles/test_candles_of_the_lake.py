"""Candles from a real lake: partials kept and made again, ids repeated over midnight, reads of candles."""

from __future__ import annotations

import csv
import io
import itertools
from pathlib import Path

import duckdb
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
import yaml
from click.testing import CliRunner, Result

from backfill_assets.candles.build import build_candles
from backfill_assets.candles.query import candles_of, open_made, read_made
from backfill_assets.candles.schemas import CANDLE_SCHEMA
from backfill_assets.candles.trade_files import (
    AcceptedFile,
    Partials,
    has_partials,
    make_partials,
    mismatches,
    read_partials,
)
from backfill_assets.cli import main
from backfill_assets.columns import arrow_schema
from backfill_assets.contracts import Contract, Contracts
from backfill_assets.days import iso_time, shift
from backfill_assets.feeds import ExpectedFeed, Feed
from backfill_assets.frames.data import Data
from backfill_assets.instruments.schemas import INSTRUMENT_COLUMNS
from backfill_assets.lake import documents, paths, tables
from backfill_assets.lake.listing import store_instruments
from backfill_assets.lake.local import LocalStore
from backfill_assets.lake.manifests import (
    DayRecord,
    expected_symbols,
    load_day_record,
)
from backfill_assets.lake.store import Store
from backfill_assets.lake.tables import store_table
from backfill_assets.quality.measures import DayMeasures
from backfill_assets.quality.settle import settle
from backfill_assets.quality.settled import load_settled
from backfill_assets.settings import LakeSettings, Settings
from backfill_assets_tests.candles.candle_lake import (
    FEED,
    SETTINGS,
    bring,
    expect_nothing_yet,
    files,
    is_accepted,
    made,
    partials_of,
)
from backfill_assets_tests.candles.candle_samples import (
    AFTER,
    BEFORE,
    DAY,
    END,
    MINUTE,
    SECOND,
    START,
    Trade,
    as_numbers,
    assert_same,
    numbered,
    plain_candles,
)

DAYS = (BEFORE, DAY, AFTER)


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    return tmp_path / "lake"


@pytest.fixture
def store(lake: Path) -> Store:
    return LocalStore(lake)


def straddling(count: int = 240) -> dict[str, list[tuple[int, Trade]]]:
    """Three days of trades with consecutive ids that arrive a second late, some in the next day's file."""
    first, last = START - 86_400 * SECOND, END + 86_400 * SECOND
    step = (last - first - MINUTE) // count
    near = [edge - 2 * SECOND + n * SECOND // 2 for edge in (START, END) for n in range(8)]
    times = sorted([first + n * step + 1 for n in range(count)] + near)
    trades = [
        Trade(us, 100 + (n * 37 % 41) / 8, (n % 7 + 1) / 3, side=("buy", "sell")[n % 2])
        for n, us in enumerate(times)
    ]
    arrived = [(trade.us + SECOND, trade) for trade in numbered(trades)]
    edges = {BEFORE: (first, START), DAY: (START, END), AFTER: (END, last)}
    return {day: [a for a in arrived if low <= a[0] < high] for day, (low, high) in edges.items()}


def at_once(first: int, last: int, start_us: int, arrived_us: int | None = None) -> list[tuple[int, Trade]]:
    """Trades with these ids, a millisecond apart; they arrive as they happen, or later in the same order."""
    trades = numbered(
        [Trade(start_us + n * 1000, 100.0 + n % 5, 0.5) for n in range(last - first + 1)], first
    )
    return [(trade.us if arrived_us is None else arrived_us + n, trade) for n, trade in enumerate(trades)]


def test_trades_that_arrive_after_midnight_are_in_the_day_on_which_they_were_made(store: Store) -> None:
    arrivals = straddling()
    assert any(t.us < START for _, t in arrivals[DAY]), "some of the day before arrive in our file"
    assert any(t.us < END for _, t in arrivals[AFTER]), "some of ours arrive in the next"
    for day in DAYS:
        bring(store, day, arrivals[day])
    trades = [t for day in DAYS for _, t in arrivals[day]]
    frames = ("1m", "5m", "1h", "1d")
    for day in DAYS:
        assert_same(as_numbers(made(store, day, frames)), plain_candles(trades, day, frames))


def test_days_run_in_any_order_end_in_the_same_bits(tmp_path: Path) -> None:
    arrivals = straddling(60)
    found = []
    for n, order in enumerate(itertools.permutations(DAYS)):
        store = LocalStore(tmp_path / str(n))
        for day in order:
            bring(store, day, arrivals[day])
            made(store, day)
        found.append([made(store, day) for day in DAYS])
    assert all(day.equals(first) for days in found for day, first in zip(days, found[0], strict=True))
    assert [table.num_rows > 0 for table in found[0]] == [True] * 3


def test_what_is_not_accepted_is_in_no_candle(store: Store) -> None:
    bring(store, DAY, at_once(1, 50, START))
    whole = made(store, DAY)
    lossy = [a for a in at_once(1, 50, START) if not 20 <= int(a[1].id or 0) < 40]
    bring(store, DAY, lossy)
    settled = load_settled(store, DAY)
    assert settled is not None
    assert (settled.feeds[0].candidate is not None, settled.feeds[0].accepted is not None) == (True, True)
    assert made(store, DAY).equals(whole)


def of_lake(store: Store) -> Settings:
    return SETTINGS.model_copy(update={"lake": LakeSettings(uri=store.uri)})


def test_candles_can_be_asked_for_by_market_and_timeframe(store: Store) -> None:
    coinbase = Feed("coinbase", "trades", "BTC-USDT")
    bring(store, DAY, at_once(1, 5, START))
    bring(store, DAY, at_once(1, 7, START), coinbase)
    both = made(store, DAY, ["1m"])
    assert both["trade_count"].to_pylist() == [5, 7]
    data = Data(of_lake(store), "lake")
    of_one = data.candles("coinbase", "BTC-USDT", "1m", DAY, on_gap="warn").to_arrow()
    assert of_one.to_pylist() == both.slice(1, 1).to_pylist()
    assert set(made(store, DAY)["timeframe"].to_pylist()) == set(SETTINGS.candles.timeframes)


def test_a_market_can_be_read_without_the_others_and_a_day_with_larger_row_groups_stays_as_it_is(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the layout differs, so a rerun makes no file and publishes nothing again."""
    bring(store, DAY, straddling()[DAY])
    monkeypatch.setattr(tables, "MARKET_GROUP_ROWS", 2)
    former = build_candles(store, DAY, SETTINGS)
    for table, named in (("candles", former.candles), ("coverage", former.coverage)):
        assert named is not None
        with open_made(store, DAY, table) as (_, path):
            assert pq.read_metadata(path).num_row_groups == -(-named.rows // 2) > 1
    monkeypatch.undo()
    assert build_candles(store, DAY, SETTINGS) == former


@pytest.mark.parametrize("timeframe", ["3m", "30m", "2h"])
def test_a_timeframe_that_the_lake_does_not_keep_is_rolled_up(timeframe: str, store: Store) -> None:
    arrivals = straddling()
    for day in DAYS:
        bring(store, day, arrivals[day])
    made(store, DAY)
    assert timeframe not in SETTINGS.candles.timeframes
    trades = [t for day in DAYS for _, t in arrivals[day]]
    assert_same(as_numbers(candles_of(store, DAY, timeframe)), plain_candles(trades, DAY, (timeframe,)))


def test_anybody_can_read_the_candles_of_all_days_with_one_glob(store: Store, lake: Path) -> None:
    arrivals = straddling()
    for day in DAYS:
        bring(store, day, arrivals[day])
        build_candles(store, day, SETTINGS)
    kept = {day: read_made(store, day, "candles").num_rows for day in DAYS}
    frame = pl.read_parquet(f"{lake}/candles/*/*.parquet")
    counts = frame.group_by(pl.col("date").cast(pl.String)).len()
    assert dict(counts.iter_rows()) == kept
    hive = duckdb.sql(
        f"SELECT date::VARCHAR, count(*) FROM read_parquet('{lake}/candles/**/*.parquet', "
        "hive_partitioning = true) GROUP BY 1"
    )
    assert dict(hive.fetchall()) == kept
    assert ds.dataset(f"{lake}/candles").count_rows() == sum(kept.values())


def test_other_data_types_make_no_candles(store: Store) -> None:
    bring(store, DAY, at_once(1, 5, START))
    quotes = Feed("binance", "quotes", "BTCUSDT")
    record = load_day_record(store, DAY)
    assert record is not None
    more = (*record.expected, *expected_symbols([ExpectedFeed(quotes, (("BTCUSDT", "BTC-USDT"),))]))
    grown = record.model_copy(update={"expected": more})
    documents.update(store, paths.day_record(DAY), DayRecord, lambda _: grown)
    settle(store, DAY, SETTINGS.thresholds)
    assert [file.feed for file in files(store, DAY)] == [FEED]


class TestPartials:
    def test_they_are_made_once(self, store: Store) -> None:
        bring(store, DAY, at_once(1, 5, START))
        (file,) = files(store, DAY)
        first = build_candles(store, DAY, SETTINGS)
        # The ticks are gone, so the partials could not be made again.
        Path(store.uri_of(paths.ticks_data(FEED, DAY, file.content))).unlink()
        documents.update(
            store, paths.measures(DAY), DayMeasures, lambda m: m and m.model_copy(update={"inputs": "others"})
        )
        assert build_candles(store, DAY, SETTINGS) == first

    def test_those_that_are_lost_or_cut_short_are_made_again_in_the_same_bytes(self, store: Store) -> None:
        bring(store, DAY, at_once(1, 5, START))
        build_candles(store, DAY, SETTINGS)
        partials = partials_of(store, DAY).partials
        data = Path(store.uri_of(paths.partials_data(FEED, DAY, partials.content)))
        whole = data.read_bytes()
        for damage in (data.unlink, lambda: data.write_bytes(whole[:-1])):
            damage()
            assert build_candles(store, DAY, SETTINGS).files[str(FEED)].partials == partials
            assert data.read_bytes() == whole

    @pytest.mark.parametrize("table", ["candles", "coverage"])
    def test_so_are_the_files_that_are_made_of_them(self, table: str, store: Store, lake: Path) -> None:
        bring(store, DAY, at_once(1, 5, START))
        build_candles(store, DAY, SETTINGS)
        (data,) = (lake / table / f"date={DAY}").iterdir()
        whole = data.read_bytes()
        for damage in (data.unlink, lambda: data.write_bytes(whole[:-1])):
            damage()
            build_candles(store, DAY, SETTINGS)
            assert data.read_bytes() == whole

    def test_a_file_that_no_document_names_goes_with_the_next_run(self, store: Store, lake: Path) -> None:
        bring(store, DAY, at_once(1, 5, START))
        whole = made(store, DAY)
        (data,) = (lake / "candles" / f"date={DAY}").iterdir()
        data.with_name(f"{'0' * 64}.parquet").write_bytes(data.read_bytes())
        assert made(store, DAY).equals(whole)
        assert list((lake / "candles" / f"date={DAY}").iterdir()) == [data]

    def test_another_way_of_making_them_gives_others(self, store: Store) -> None:
        bring(store, DAY, [*at_once(1, 5, START - 2 * MINUTE, START), *at_once(6, 9, START + MINUTE)])
        wide, narrow = (make_partials(store, file) for seam in (300, 60) for file in files(store, DAY, seam))
        assert (wide.partials.rows, narrow.partials.rows) == (2, 1)
        (file,) = files(store, DAY)
        assert (has_partials(store, file, wide), has_partials(store, file, narrow)) == (True, False)

    def test_they_agree_with_their_ticks_and_a_lie_is_found(self, store: Store) -> None:
        bring(store, DAY, at_once(1, 5, START))
        (file,) = files(store, DAY)
        partials = make_partials(store, file)
        assert mismatches(Partials(store), [(file, partials)]) == [[]]
        data = Path(store.uri_of(paths.partials_data(FEED, DAY, partials.partials.content)))
        table = pq.read_table(data)
        field = table.schema.field("high")
        lie = table.set_column(4, field, pa.array([99.0]))
        named = store_table(store, lie, lambda content: paths.partials_data(FEED, DAY, content))
        [differing] = mismatches(Partials(store), [(file, partials.model_copy(update={"partials": named}))])
        assert [row["differs"] for row in differing] == ["high"]

    @pytest.mark.parametrize(
        ("kind", "multiplier", "inverse", "expected"),
        [
            ("spot", None, None, {}),
            ("perpetual", 1.0, False, {}),
            ("perpetual", 0.001, False, {"BTC-USDT": (Contract(0.001, base="BTC", quote="USDT"),)}),
            (
                "future",
                100.0,
                True,
                {"BTC-USDT": (Contract(100.0, inverse=True, base="BTC", quote="USDT"),)},
            ),
        ],
    )
    def test_contracts_come_from_the_instruments_of_the_day(
        self, kind: str, multiplier: float, inverse: bool, expected: dict[str, Contracts], store: Store
    ) -> None:
        bring(store, DAY, at_once(1, 5, START))
        names = {"instrument_id": "btcusdt", "base_currency": "BTC", "quote_currency": "USDT"}
        row = {**names, "dataset_symbol": "BTCUSDT", "type": kind, "contract_multiplier": multiplier}
        other = {"instrument_id": "x", "dataset_symbol": "X", "contract_multiplier": 7.0, "inverse": False}
        schema = pa.schema([field.with_nullable(True) for field in arrow_schema(INSTRUMENT_COLUMNS)])
        table = pa.Table.from_pylist([{**row, "inverse": inverse}, other], schema=schema)
        store_instruments(store, "binance", DAY, table, "instruments")
        settle(store, DAY, SETTINGS.thresholds)
        (file,) = files(store, DAY)
        assert file.contracts == expected
        assert mismatches(Partials(store), [(file, make_partials(store, file))]) == [[]]
        (contract,) = expected.get("BTC-USDT", (Contract(),))
        volume = made(store, DAY, ["1d"])["volume"][0].as_py()
        prices = [t.price or 0 for _, t in at_once(1, 5, START)]
        base = [0.5 * (contract.multiplier or 0) / (p if contract.inverse else 1) for p in prices]
        assert volume == pytest.approx(sum(base), rel=1e-12)


def left_out(store: Store, file: AcceptedFile) -> int:
    """The number of rows of the file that its partial candles do not count."""
    partials = read_partials(store, file.day, [(file.feed, partials_of(store, file.day).partials)])
    return file.rows - int(pc.sum(partials["trade_count"]).as_py())


class TestIdsRepeatedOverMidnight:
    """The next day's file begins with the trades at the end of the file of the day before."""

    @staticmethod
    def arrivals(repeated: int) -> dict[str, list[tuple[int, Trade]]]:
        last = START - SECOND
        before = at_once(1, 500, last)
        again = [(START + n, trade) for n, (_, trade) in enumerate(before[len(before) - repeated :])]
        return {BEFORE: before, DAY: [*again, *at_once(501, 600, START + SECOND)]}

    @pytest.mark.parametrize("repeated", [0, 1, 100, 101, 400])
    @pytest.mark.parametrize("order", [(BEFORE, DAY), (DAY, BEFORE)])
    def test_they_count_once(self, repeated: int, order: tuple[str, str], store: Store) -> None:
        arrivals = self.arrivals(repeated)
        for day in order:
            bring(store, day, arrivals[day])
            build_candles(store, day, SETTINGS)
        trades = [t for _, t in arrivals[BEFORE]] + [t for _, t in at_once(501, 600, START + SECOND)]
        for day in (BEFORE, DAY):
            assert is_accepted(store, day)
            ours = made(store, day, ["1m", "1d"])
            assert_same(as_numbers(ours), plain_candles(trades, day, ["1m", "1d"]))
        (file,) = files(store, DAY)
        assert left_out(store, file) == repeated
        assert partials_of(store, DAY).consistency == 1.0

    def test_a_venue_that_counts_anew_repeats_no_trade(self, store: Store) -> None:
        """Both days have the ids 1 to 500, at other times."""
        bring(store, BEFORE, at_once(1, 500, START - SECOND))
        bring(store, DAY, at_once(1, 500, START + SECOND))
        build_candles(store, DAY, SETTINGS)
        (file,) = files(store, DAY)
        assert (file.overlaps, left_out(store, file)) == ((), 0)
        for day in (BEFORE, DAY):
            assert is_accepted(store, day)
            assert made(store, day, ["1d"])["trade_count"].to_pylist() == [500]

    def test_without_the_day_before_they_are_all_there_is(self, store: Store) -> None:
        expect_nothing_yet(store, BEFORE)
        bring(store, DAY, self.arrivals(30)[DAY])
        assert made(store, BEFORE, ["1d"])["trade_count"].to_pylist() == [30]
        (file,) = files(store, DAY)
        partials = read_partials(store, DAY, [(FEED, partials_of(store, DAY).partials)])
        assert (left_out(store, file), partials["trade_count"].to_pylist()) == (0, [30, 100])

    def test_ranges_that_overlap_without_a_common_id_repeat_nothing(self, store: Store) -> None:
        """Id 495 came after midnight, 496 to 500 before: all count, each in its own file."""
        trades = at_once(1, 500, START - SECOND)
        late = trades.pop(494)
        bring(store, BEFORE, trades)
        bring(store, DAY, [(START, late[1]), *at_once(501, 600, START + SECOND)])
        (file,) = files(store, DAY)
        assert file.overlaps
        assert made(store, BEFORE, ["1d"])["trade_count"].to_pylist() == [500]
        build_candles(store, DAY, SETTINGS)
        assert left_out(store, file) == 0

    def test_rows_without_ids_are_never_taken_for_the_same(self, store: Store) -> None:
        coinbase = Feed("coinbase", "trades", "BTC-USDT")
        for day, arrivals in self.arrivals(30).items():
            bring(store, day, [(a, Trade(**{**vars(t), "id": None})) for a, t in arrivals], coinbase)
        assert made(store, BEFORE, ["1d"])["trade_count"].to_pylist() == [530]


class TestLooking:
    @pytest.fixture
    def environment(self, lake: Path, tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        """A settings file whose lake has one day of binance and coinbase."""
        content = {
            "universe": [{"exchanges": ["binance"], "symbols": ["BTC-USDT"]}],
            "lake": {"uri": str(lake)},
            "warehouse": {"kind": "duckdb", "folder": str(tmp_path / "warehouse")},
        }
        file = tmp_path / "mine.yaml"
        file.write_text(yaml.safe_dump(content), encoding="utf-8")
        monkeypatch.setenv("BACKFILL_ENV", str(file))
        trades = [Trade(START + n * MINUTE, 42_283.58 + n, 0.1 + n) for n in range(3)]
        bring(store, DAY, [(t.us, t) for t in numbered(trades)])
        bring(store, DAY, at_once(1, 7, START), Feed("coinbase", "trades", "ETH-USDT"))
        build_candles(store, DAY, SETTINGS)

    @staticmethod
    def run(*options: str) -> Result:
        given = {"--date": DAY, "--exchange": "binance", "--symbol": "BTC-USDT", "--on-gap": "warn"}
        given.update(zip(options[::2], options[1::2], strict=True))
        return CliRunner().invoke(main, ["candles", *(part for pair in given.items() for part in pair)])

    @pytest.mark.usefixtures("environment")
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (
                ("--exchange", "binanse"),
                "no day of the range has trades of an exchange 'binanse'; did you mean binance",
            ),
            (("--exchange", "zzz"), "of an exchange 'zzz'; they have binance, coinbase"),
            (("--symbol", "BTC-USD"), "trades of 'BTC-USD' on binance; did you mean BTC-USDT?"),
            (("--symbol", "ETH-USDT", "--exchange", "coinbase"), None),
            (
                ("--symbol", "BTCUSDT"),
                "that is the vendor's name of BTC-USDT: write BTC-USDT",
            ),
            (("--symbol", "XRP-EUR"), "trades of 'XRP-EUR' on binance; they have BTC-USDT"),
            (("--timeframe", "7m"), "'7m' is not a timeframe: choose from 1m, 3m, 5m"),
            (
                ("--date", AFTER, "--on-gap", "raise"),
                f"{AFTER} missing; run backfill-assets run --date {AFTER}",
            ),
            (("--date", "2024-1-2"), "'2024-1-2' is not a day: write it as YYYY-MM-DD"),
            (("--format", "xml"), "'xml' is not one of 'table', 'csv', 'parquet', 'arrow'"),
        ],
    )
    def test_what_is_not_there_is_an_error_with_what_there_is(
        self, options: tuple[str, ...], message: str | None
    ) -> None:
        result = self.run(*options)
        assert (result.exit_code == 0) is (message is None)
        assert "Traceback" not in result.output
        if message:
            assert message in result.output
            assert len([line for line in result.output.splitlines() if line.startswith("Error: ")]) == 1

    @pytest.mark.usefixtures("environment")
    def test_csv_has_every_column_and_every_digit(self) -> None:
        result = self.run("--format", "csv")
        rows = list(csv.DictReader(io.StringIO(result.output)))
        assert [row["open_time"] for row in rows] == [iso_time(START + n * MINUTE) for n in range(3)]
        assert [float(row["open"]) for row in rows] == [42_283.58, 42_284.58, 42_285.58]
        assert [float(row["volume"]) for row in rows] == [0.1, 1.1, 2.1]
        assert rows[0]["date"] == "2024-01-02"

    @pytest.mark.usefixtures("environment")
    def test_parquet_is_the_table_itself(self, store: Store) -> None:
        result = self.run("--format", "parquet", "--timeframe", "5m")
        frame = pl.read_parquet(result.stdout_bytes)
        expected = pl.DataFrame(candles_of(store, DAY, "5m")).filter(pl.col("exchange") == "binance")
        assert frame.equals(expected)
        assert frame["trade_count"].to_list() == [3]

    @pytest.mark.usefixtures("environment")
    def test_the_table_has_a_line_per_candle_that_fits_a_terminal(self) -> None:
        lines = self.run().output.splitlines()
        assert len(lines) == 4
        assert "time (UTC)" in lines[0]
        assert lines[1].split()[:3] == ["2024-01-02", "00:00", "42283.58"]
        assert max(len(line) for line in lines) <= 120

    @pytest.mark.usefixtures("environment")
    def test_a_market_without_trades_that_day_is_an_empty_answer_and_no_error(self, store: Store) -> None:
        bring(store, shift(DAY, 5), [])
        build_candles(store, shift(DAY, 5), SETTINGS)
        read = {"csv": pl.read_csv, "parquet": pl.read_parquet, "arrow": pl.read_ipc}
        for form, read_form in read.items():
            result = self.run("--date", shift(DAY, 5), "--format", form)
            assert result.exit_code == 0
            found = read_form(result.stdout_bytes)
            assert (found.height, found.columns) == (0, CANDLE_SCHEMA.names)
        assert len(self.run("--date", shift(DAY, 5)).stdout.splitlines()) == 1
