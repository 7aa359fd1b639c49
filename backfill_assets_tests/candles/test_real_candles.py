"""Real captures: the candles of three real days are those that the exchange's users know.

Another project's code made the reference from the same capture (1m and 5m of binance XRP-ETH).
"""

from __future__ import annotations

import csv
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest

from backfill_assets.candles.consistency import (
    mismatches_between_timeframes,
    mismatches_with_ticks,
)
from backfill_assets.candles.merge import day_of_candles
from backfill_assets.candles.recomputed import ComparedFile
from backfill_assets.candles.schemas import candle_schema, ohlc_schema
from backfill_assets.days import end_us, shift, start_us
from backfill_assets.feeds import Feed
from backfill_assets.id_laws import law_of
from backfill_assets.quality.completeness import Completeness, completeness
from backfill_assets.quality.findings import failure_cases
from backfill_assets.quality.profiles import FeedProfile
from backfill_assets.quality.rules import quality
from backfill_assets.quality.seams import seams_of
from backfill_assets.quality.window import Window
from backfill_assets.settings import ThresholdSettings
from backfill_assets.ticks.decode import decode
from backfill_assets.ticks.partials import partial_candles
from backfill_assets.ticks.profile import ProfileParameters

DAYS = ("2019-10-11", "2019-10-12", "2019-10-13")
CANONICAL = {"XRPETH": "XRP-ETH", "BTC-USD": "BTC-USD", "ETHUSDT": "ETH-USDT"}
TIMEFRAMES = ("1m", "5m", "15m", "1h", "4h", "1d")
SEAM = 300


@dataclass(frozen=True)
class RealFile:
    """A decoded capture with its partial candles."""

    feed: Feed
    day: str
    ticks: Path
    profile: FeedProfile
    partials: pa.Table

    @property
    def numeric_ids(self) -> bool:
        return all(s.numeric_ids == s.rows for s in self.profile.symbols)


@pytest.fixture(scope="module")
def real_data() -> Path:
    folder = os.environ.get("BACKFILL_REAL_DATA")
    if not folder:
        pytest.skip("BACKFILL_REAL_DATA is not set")
    return Path(folder)


@pytest.fixture(scope="module")
def files(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> list[RealFile]:
    """Every real file of trades, decoded."""
    root = real_data / "tardis" / "datasets" / "v1"
    work, found = tmp_path_factory.mktemp("real"), []
    for n, source in enumerate(sorted(root.rglob("*.csv.gz"))):
        exchange, data_type, year, month, number, name = source.relative_to(root).parts
        feed, day = Feed(exchange, data_type, name.removesuffix(".csv.gz")), f"{year}-{month}-{number}"
        ticks = work / f"{n}.parquet"
        column = {feed.dataset_symbol: CANONICAL[feed.dataset_symbol]}
        decoded = decode(source, ticks, feed=feed, day=day, symbols=column, parameters=ProfileParameters())
        numeric = all(s.numeric_ids == s.rows for s in decoded.profile.symbols)
        partials = partial_candles(
            ticks, exchange=exchange, day=day, seam_window_seconds=SEAM, numeric_ids=numeric
        )
        found.append(RealFile(feed, day, ticks, decoded.profile, partials))
    return found


@pytest.fixture(scope="module")
def xrpeth(files: list[RealFile]) -> list[RealFile]:
    """The three consecutive days."""
    found = [f for f in files if f.feed == Feed("binance", "trades", "XRPETH")]
    assert [f.day for f in found] == list(DAYS)
    return found


@pytest.mark.parametrize(("timeframe", "rows"), [("1m", 2469), ("5m", 706)])
def test_candles_of_real_days_are_those_of_the_reference(
    timeframe: str, rows: int, xrpeth: list[RealFile], real_data: Path
) -> None:
    days = [day_of_candles(day, [f.partials for f in xrpeth], TIMEFRAMES) for day in DAYS]
    ours = [row for row in pa.concat_tables(days).to_pylist() if row["timeframe"] == timeframe]
    path = real_data / "reference" / f"binance_XRPETH_{timeframe}_2019-10-11_2019-10-13.csv"
    with path.open(newline="") as text:
        theirs = list(csv.DictReader(text))
    assert len(ours) == len(theirs) == rows
    for mine, reference in zip(ours, theirs, strict=True):
        assert mine["open_time"] == datetime.fromisoformat(reference["date"]).astimezone(UTC)
        prices = ("open", "high", "low", "close")
        assert [mine[c] for c in prices] == [float(reference[c]) for c in prices]
        assert mine["volume"] == pytest.approx(float(reference["volume"]), rel=1e-9)


def test_every_real_file_gives_the_same_candles_twice(files: list[RealFile]) -> None:
    assert len(files) == 5
    for file in files:
        compared = ComparedFile(file.ticks, file.partials, file.numeric_ids)
        differing = mismatches_with_ticks([compared], day=file.day, seam_window_seconds=SEAM)
        assert differing == [[]], str(file.feed)
        assert file.partials.num_rows > 0


def test_every_real_day_satisfies_the_schemas_at_every_timeframe(files: list[RealFile]) -> None:
    for file in files:
        frame = pl.DataFrame(day_of_candles(file.day, [file.partials], TIMEFRAMES))
        assert frame.height > 0
        assert mismatches_between_timeframes(frame, TIMEFRAMES) == []
        assert failure_cases(candle_schema(), frame) == []
        assert failure_cases(ohlc_schema(), frame) == []


def judged(files: list[RealFile], n: int, *, beside: bool = True) -> Completeness:
    """Completeness of one of the days, with its neighbors or alone."""

    def ids(other: int) -> list[int]:
        if not (beside and 0 <= other < len(files)):
            return []
        symbol = files[other].profile.symbols[0]
        nearest = symbol.id_max if other < n else symbol.id_min
        assert nearest is not None
        return [nearest]

    file = files[n]
    first, last = file.profile.first_local_timestamp_us, file.profile.last_local_timestamp_us
    assert first is not None
    assert last is not None
    window = Window(start_us(file.day), end_us(file.day))
    symbol, limits, edges = file.profile.symbols[0], ThresholdSettings(), (first, last)
    law = law_of(limits.id_laws, file.feed, file.day)
    seams = seams_of(symbol, window, edges, ids(n - 1), ids(n + 1), 0, limits)
    return completeness(law, symbol, window, seams, limits, edges)


def test_three_real_days_lack_no_id_and_join_at_midnight(xrpeth: list[RealFile]) -> None:
    found = [judged(xrpeth, n) for n in range(3)]
    assert [c.state for c in found] == ["inner_proven", "proven", "head_proven"]
    assert [(c.missing_ids, c.evidence_class) for c in found] == [(0, "A")] * 3
    assert [c.seams.between for c in found if c.seams] == [(None, 0), (0, 0), (0, None)]
    assert found[1].score == 1.0
    assert sum(c.span or 0 for c in found) == sum(f.profile.rows for f in xrpeth)
    assert [shift(f.day, 1) for f in xrpeth[:-1]] == [f.day for f in xrpeth[1:]]


def test_only_the_capture_that_ends_at_eleven_counts_as_cut_off(xrpeth: list[RealFile]) -> None:
    alone = [judged(xrpeth, n, beside=False) for n in range(3)]
    assert [c.state for c in alone] == ["inner_proven"] * 3
    assert [(c.score, c.silence_us) for c in alone[:2]] == [(1.0, 0)] * 2
    lost = [c.seams.lost_us for c in alone if c.seams]
    assert lost[:2] == [(0, 0)] * 2
    assert lost[2] == (0, pytest.approx(12.3 * 3600 * 1e6, rel=0.01))


def test_real_rows_are_sound_and_a_slow_clock_only_warns(files: list[RealFile]) -> None:
    found = {str(f.feed): quality(f.profile) for f in files}
    assert {name: (q.score, q.violations) for name, q in found.items()} == {
        "binance/trades/XRPETH": (1.0, ()),
        "coinbase/trades/BTC-USD": (1.0, ()),
        "binance-futures/trades/ETHUSDT": (1.0, ()),
    }
    assert found["binance/trades/XRPETH"].warnings == ()
    assert found["binance-futures/trades/ETHUSDT"].warnings == ("capture clock 1.27 s behind the exchange",)
