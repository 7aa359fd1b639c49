"""Good days of generated markets, and every way of damaging one: an exact number of rows at an exact place.

There are six feeds, a liquid and a thin one for each evidence class. A damage is a function of the day's
rows; it returns new rows, and its name describes the damage. The real code decodes the days and settles them
in a real lake, first without and then with the day after.
"""

from __future__ import annotations

import gzip
import random
import tempfile
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from backfill_assets.days import end_us, shift, start_us
from backfill_assets.feeds import ExpectedFeed, Feed
from backfill_assets.lake import documents, paths
from backfill_assets.lake.local import LocalStore
from backfill_assets.lake.manifests import DayRecord, expected_symbols
from backfill_assets.lake.store import Store
from backfill_assets.quality.profiles import FeedProfile
from backfill_assets.quality.settle import settle
from backfill_assets.quality.verdict import Verdict
from backfill_assets.settings import ThresholdSettings
from backfill_assets.standins.market import Market
from backfill_assets.tardis.columns import csv_header
from backfill_assets.ticks.decode import decode
from backfill_assets.ticks.prices import Grids
from backfill_assets.ticks.profile import ProfileParameters
from backfill_assets_tests.quality.settled_lake import NOW, absent, fetch, settled_feed

DAY: Final = "2024-01-03"
BEFORE, AFTER = shift(DAY, -1), shift(DAY, 1)
START, END = start_us(DAY), end_us(DAY)
SECOND: Final = 1_000_000
HOUR: Final = 3_600 * SECOND
LIQUID: Final = 12_000
THIN: Final = 2_000
THRESHOLDS: Final = ThresholdSettings()


@dataclass(slots=True)
class Row:
    """One line of the file."""

    exchange: str
    symbol: str
    time: int
    local: int
    id: str
    side: str
    price: str
    amount: str

    def but(self, **changes: Any) -> Row:
        changed = copy(self)
        for name, value in changes.items():
            setattr(changed, name, value)
        return changed

    def line(self) -> str:
        keys = f"{self.exchange},{self.symbol},{self.time},{self.local}"
        return f"{keys},{self.id},{self.side},{self.price},{self.amount}"


Rows = list[Row]
Damage = Callable[["Sample", Rows], Rows]


@dataclass(frozen=True, slots=True)
class Sample:
    """A feed of the generated market; ``symbol`` is its column's text, ``step`` the step of its prices."""

    name: str
    exchange: str
    canonical: str
    dataset_symbol: str
    symbol: str
    step: float
    rows: int

    @property
    def feed(self) -> Feed:
        return Feed(self.exchange, "trades", self.dataset_symbol)

    @property
    def grids(self) -> Grids:
        return {self.symbol: (self.step,)}


SAMPLES: Final = {
    sample.name: sample
    for sample in (
        Sample("A liquid", "binance", "BTC-USDT", "BTCUSDT", "BTCUSDT", 0.01, LIQUID),
        Sample("A thin", "binance", "SOL-USDT", "SOLUSDT", "SOLUSDT", 0.01, THIN),
        Sample("B liquid", "binance-futures", "BTC-USDT", "BTCUSDT", "BTCUSDT", 0.1, LIQUID),
        Sample("B thin", "binance-futures", "ETH-USDT", "ETHUSDT", "ETHUSDT", 0.01, THIN),
        Sample("C liquid", "kraken", "BTC-USDT", "XBT-USDT", "XBT/USDT", 0.1, LIQUID),
        Sample("C thin", "kraken", "ADA-USDT", "ADA-USDT", "ADA/USDT", 1e-6, THIN),
    )
}
MARKET: Final = Market(seed=7, rows={(s.exchange, s.canonical): s.rows for s in SAMPLES.values()})


@lru_cache(maxsize=64)
def _good_lines(sample: Sample, day: str) -> tuple[str, ...]:
    return tuple(gzip.decompress(MARKET.dataset(sample.feed, day)).decode().splitlines()[1:])


def good_rows(sample: Sample, day: str) -> Rows:
    """Rows of the undamaged day; the caller may change them."""
    found = []
    for line in _good_lines(sample, day):
        exchange, symbol, time, local, *rest = line.split(",")
        found.append(Row(exchange, symbol, int(time), int(local), *rest))
    return found


def profile_of(
    sample: Sample, day: str, rows: Sequence[Row], *, empty: bool = False, grids: Grids | None = None
) -> FeedProfile:
    """Decode the rows as the sample's file of the day; ``empty`` is the vendor's file without a header."""
    text = "".join(f"{row.line()}\n" for row in rows)
    content = b"" if empty else f"{csv_header('trades')}\n{text}".encode()
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "day.csv.gz"
        source.write_bytes(gzip.compress(content, 1, mtime=0))
        return decode(
            source,
            Path(folder) / "day.parquet",
            feed=sample.feed,
            day=day,
            symbols={sample.symbol: sample.canonical},
            parameters=ProfileParameters.of(THRESHOLDS),
            grids=sample.grids if grids is None else grids,
        ).profile


@lru_cache(maxsize=64)
def good_profile(sample: Sample, day: str) -> FeedProfile:
    return profile_of(sample, day, good_rows(sample, day))


@dataclass(frozen=True, slots=True)
class Judged:
    """Verdicts on the damaged day without and with the day after, and on the good days beside it."""

    before: Verdict
    after: Verdict
    neighbours: tuple[Verdict, Verdict]


def expect(store: Store, sample: Sample, day: str) -> None:
    expected = [ExpectedFeed(sample.feed, ((sample.symbol, sample.canonical),))]
    record = DayRecord(day=day, expected=expected_symbols(expected), recorded_at=NOW)
    documents.update(store, paths.day_record(day), DayRecord, lambda _: record)


def judge_damaged(
    sample: Sample, found: FeedProfile | None, folder: Path, prepare: Callable[[Store], None] = lambda _: None
) -> Judged:
    """Store the day before, the damaged day (None: the vendor has no such file), and the day after.

    ``prepare`` runs first, and may add other content to the lake.
    """
    store = LocalStore(folder / "lake")
    prepare(store)
    for day in (BEFORE, DAY):
        expect(store, sample, day)
    fetch(store, BEFORE, good_profile(sample, BEFORE), sample.feed)
    if found is None:
        absent(store, DAY, sample.feed)
    else:
        fetch(store, DAY, found, sample.feed)
    settle(store, BEFORE, THRESHOLDS)
    before = settle(store, DAY, THRESHOLDS).feeds[0].verdict
    expect(store, sample, AFTER)
    fetch(store, AFTER, good_profile(sample, AFTER), sample.feed)
    settle(store, AFTER, THRESHOLDS)
    after = settled_feed(store, DAY, sample.feed).verdict
    neighbours = [settled_feed(store, day, sample.feed).verdict for day in (BEFORE, AFTER)]
    return Judged(before, after, (neighbours[0], neighbours[1]))


# --- damages -----------------------------------------------------------------------------------------------


def nothing() -> Damage:
    return lambda _, rows: rows


def gap(ids: int, at: float = 0.5) -> Damage:
    """Lose so many rows from the middle of the day on (or from another part of its rows)."""
    return lambda _, rows: rows[: int(at * len(rows))] + rows[int(at * len(rows)) + ids :]


def gap_where_busiest(ids: int) -> Damage:
    """Lose so many rows where they and their two neighbors took the least time (the first such place)."""

    def damage(sample: Sample, rows: Rows) -> Rows:
        at = min(range(1, len(rows) - ids), key=lambda n: rows[n + ids].time - rows[n - 1].time)
        return rows[:at] + rows[at + ids :]

    return damage


def silence(first_hour: float, hours: float) -> Damage:
    """Let no row arrive for so long."""
    start, stop = START + first_hour * HOUR, START + (first_hour + hours) * HOUR
    return lambda _, rows: [r for r in rows if not start <= r.local < stop]


def thinned(keep_every: int) -> Damage:
    """Keep one row of every ``keep_every``."""
    return lambda _, rows: rows[::keep_every]


def doubled(count: int) -> Damage:
    """Repeat so many rows from the middle on, each right behind itself."""

    def damage(sample: Sample, rows: Rows) -> Rows:
        half = len(rows) // 2
        twice = [one for row in rows[half : half + count] for one in (row, row)]
        return rows[:half] + twice + rows[half + count :]

    return damage


def changed(count: int, **changes: Any) -> Damage:
    """Change so many rows, spread over the day; a value may be a function of the row."""

    def damage(sample: Sample, rows: Rows) -> Rows:
        for n in range(count):
            at = (2 * n + 1) * len(rows) // (2 * count)
            values = {k: v(sample, rows[at]) if callable(v) else v for k, v in changes.items()}
            rows[at] = rows[at].but(**values)
        return rows

    return damage


def all_changed(**changes: Any) -> Damage:
    """Change every row."""

    def damage(sample: Sample, rows: Rows) -> Rows:
        return [r.but(**{k: v(sample, r) if callable(v) else v for k, v in changes.items()}) for r in rows]

    return damage


def second_payload(count: int) -> Damage:
    """Repeat so many ids, spread over the day, right behind the first, with twice the amount."""

    def damage(sample: Sample, rows: Rows) -> Rows:
        marked = {(2 * n + 1) * len(rows) // (2 * count) for n in range(count)}
        found = []
        for at, row in enumerate(rows):
            found.append(row)
            if at in marked:
                found.append(row.but(amount=f"{2 * float(row.amount):.8f}"))
        return found

    return damage


def resent(count: int) -> Damage:
    """Repeat so many rows from the middle on, all at once, a hundred rows after the last of them."""

    def damage(sample: Sample, rows: Rows) -> Rows:
        half = len(rows) // 2
        at = half + count + 100
        block = [row.but(local=rows[at - 1].local) for row in rows[half : half + count]]
        return rows[:at] + block + rows[at:]

    return damage


def shuffled(*, with_arrival: bool) -> Damage:
    """Put rows in random order, with their arrivals or with the old order of arrivals."""

    def damage(sample: Sample, rows: Rows) -> Rows:
        locals_ = [row.local for row in rows]
        random.Random(5).shuffle(rows)
        return rows if with_arrival else [r.but(local=at) for r, at in zip(rows, locals_, strict=True)]

    return damage


def priced(factor: float) -> Callable[[Sample, Row], str]:
    """Multiply the price by a factor, on the grid."""

    def price(sample: Sample, row: Row) -> str:
        return f"{round(float(row.price) * factor / sample.step) * sample.step:.8f}"

    return price


def jump(factor: float, hour: float = 12) -> Damage:
    """Multiply all prices from an hour on by a factor."""

    def damage(sample: Sample, rows: Rows) -> Rows:
        new = priced(factor)
        return [r.but(price=new(sample, r)) if r.time >= START + hour * HOUR else r for r in rows]

    return damage


def finer(part: float) -> Callable[[Sample, Row], str]:
    """Add a part of a step to the price."""
    return lambda sample, row: f"{float(row.price) + part * sample.step:.11f}"


def refined_at_noon() -> Damage:
    """Move prices off the grid by a tenth of a step from noon on, as if the venue had refined its grid."""

    def damage(sample: Sample, rows: Rows) -> Rows:
        new = finer(0.1)
        return [r.but(price=new(sample, r)) if r.time >= START + 12 * HOUR else r for r in rows]

    return damage


def frozen(first_hour: float, hours: float) -> Damage:
    """Keep the price unchanged for so long."""

    def damage(sample: Sample, rows: Rows) -> Rows:
        start, stop = START + first_hour * HOUR, START + (first_hour + hours) * HOUR
        last = next(r.price for r in rows if r.local >= start and float(r.price) > 0)
        return [r.but(price=last) if start <= r.local < stop else r for r in rows]

    return damage


def ids_anew() -> Damage:
    """Count ids from 1 again in the middle of the day."""

    def damage(sample: Sample, rows: Rows) -> Rows:
        half = len(rows) // 2
        return rows[:half] + [row.but(id=str(n + 1)) for n, row in enumerate(rows[half:])]

    return damage


def delayed_from_noon(by_us: int) -> Damage:
    """Let rows arrive so much later after their trades from noon on."""

    def damage(sample: Sample, rows: Rows) -> Rows:
        return [r.but(time=r.time - by_us) if r.local >= START + 12 * HOUR else r for r in rows]

    return damage


def of_the_day_before() -> Damage:
    return lambda sample, _: good_rows(sample, BEFORE)


def of_another_symbol() -> Damage:
    """Replace the rows by those of another symbol's file."""

    def damage(sample: Sample, rows: Rows) -> Rows:
        other = next(s for s in SAMPLES.values() if s.exchange == sample.exchange and s != sample)
        return good_rows(other, DAY)

    return damage


def moved(**micros: int) -> Damage:
    """Move all times of a column later by so many microseconds."""

    def damage(sample: Sample, rows: Rows) -> Rows:
        return [r.but(**{name: getattr(r, name) + by for name, by in micros.items()}) for r in rows]

    return damage
