"""A lake with three days of one market, one of them damaged, and stand-ins that know the trades."""

from __future__ import annotations

import atexit
import gzip
import random
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Final

from backfill_assets.days import shift, start_us
from backfill_assets.feeds import Feed
from backfill_assets.heal.healing import Healing, heal
from backfill_assets.heal.sources import Budget
from backfill_assets.lake.manifests import FeedManifest, load_manifest
from backfill_assets.lake.store import Store
from backfill_assets.quality.settle import settle
from backfill_assets.quality.settled import SettledFeed
from backfill_assets.settings import HealSettings, Settings, ThresholdSettings
from backfill_assets.standins.exchanges import ExchangesStandin, Traded
from backfill_assets.tardis.columns import csv_header
from backfill_assets_tests.quality.filed_days import FiledDays

DAY: Final = "2024-01-03"
BEFORE, AFTER = shift(DAY, -1), shift(DAY, 1)
COINBASE: Final = Feed("coinbase", "trades", "BTC-USD")
BINANCE: Final = Feed("binance", "trades", "BTCUSDT")
FUTURES: Final = Feed("binance-futures", "trades", "BTCUSDT")
KRAKEN: Final = Feed("kraken", "trades", "XBT-USD")
OKX: Final = Feed("okex", "trades", "BTC-USDT")
LIQUIDATIONS: Final = Feed("coinbase", "liquidations", "BTC-USD")
CANONICAL: Final = {
    COINBASE: "BTC-USD",
    BINANCE: "BTC-USDT",
    FUTURES: "BTC-USDT",
    KRAKEN: "BTC-USD",
    OKX: "BTC-USDT",
}
#: Exchanges whose times are finer than milliseconds.
IN_MICROSECONDS: Final = (COINBASE, KRAKEN)
#: Trades of a day, one every 30 s.
TRADES: Final = 2_880
FIRST_ID: Final = 500_000_000
LATENCY_US: Final = 5_000
#: A hole of one trade takes a minute, and the damaged file is still published.
#: The laws apply on the days of these tests.
THRESHOLDS: Final = ThresholdSettings(
    lossy_seconds=3_600,
    id_laws=tuple(law.model_copy(update={"first_day": None}) for law in ThresholdSettings().id_laws),
)

Damage = Callable[[Sequence[Traded]], Sequence[Traded]]


def traded(day: str, feed: Feed = COINBASE, *, never: Sequence[int] = ()) -> list[Traded]:
    """Trades of one of the three days; ids go on from day to day, without those never issued."""
    return [trade for trade in _traded(day, feed) if trade.id not in never]


@lru_cache
def _traded(day: str, feed: Feed) -> tuple[Traded, ...]:
    rng = random.Random(day)
    unit = 1 if feed in IN_MICROSECONDS else 1_000
    first = FIRST_ID + TRADES * (1 + (day > BEFORE) + (day > DAY))
    found = []
    for n in range(TRADES):
        at = start_us(day) + n * 30_000_000 + rng.randrange(20_000_000) // unit * unit
        price, amount = f"{42_000 + rng.randrange(10_000) / 100:.2f}", f"{rng.randrange(1, 10**6) / 1e5:.5f}"
        found.append(Traded(first + n, at, rng.choice(("buy", "sell")), price, amount))
    return tuple(found)


def id_at(number: int) -> int:
    """The id of the n-th trade of the damaged day."""
    return FIRST_ID + 2 * TRADES + number


def without_ids(*numbers: int) -> Damage:
    """Return a damage that leaves out these trades of the day."""
    return lambda trades: [t for t in trades if t.id not in {id_at(n) for n in numbers}]


def vendor_file(feed: Feed, trades: Sequence[Traded]) -> bytes:
    """The vendor's file of these trades."""
    lines = [csv_header(feed.data_type)]
    for t in trades:
        keys = f"{feed.exchange},{feed.dataset_symbol},{t.time_us},{t.time_us + LATENCY_US}"
        lines.append(f"{keys},{t.id},{t.side},{t.price},{t.amount}")
    return gzip.compress("\n".join([*lines, ""]).encode(), 1, mtime=0)


def filed_days(folder: Path) -> FiledDays:
    """The lake of a folder, under the thresholds of these tests."""
    days = FiledDays(folder)
    days.settings = days.settings.model_copy(update={"thresholds": THRESHOLDS})
    return days


@lru_cache
def _days_beside(feed: Feed) -> Path:
    """A folder with a lake of the day before and the day after, made once."""
    folder = Path(tempfile.mkdtemp(prefix="healed-lake-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    days = filed_days(folder)
    for day in (BEFORE, AFTER):
        days.bring(feed, day, vendor_file(feed, traded(day, feed)), {feed.dataset_symbol: CANONICAL[feed]})
        settle(days.store, day, THRESHOLDS)
    return folder


@dataclass
class HealedLake:
    """Three days of a market in a lake, and the exchange that is asked about them."""

    days: FiledDays
    standin: ExchangesStandin
    feed: Feed

    @classmethod
    def of(
        cls,
        folder: Path,
        damage: Damage = lambda trades: trades,
        feed: Feed = COINBASE,
        never: Sequence[int] = (),
        most: int = 1_000,
    ) -> HealedLake:
        """Store three days, the middle one damaged; ``never`` are its ids that the exchange never issued."""
        known = {day: traded(day, feed, never=[id_at(n) for n in never]) for day in (BEFORE, DAY, AFTER)}
        shutil.copytree(_days_beside(feed) / "lake", folder / "lake")
        days = filed_days(folder)
        names = {feed.dataset_symbol: CANONICAL[feed]}
        days.bring(feed, DAY, vendor_file(feed, damage(known[DAY])), names)
        settle(days.store, DAY, THRESHOLDS)
        market = {feed.dataset_symbol: [trade for trades in known.values() for trade in trades]}
        standin = ExchangesStandin(most=most)
        setattr(standin, feed.exchange.replace("-", "_"), market)
        return cls(days, standin, feed)

    def bring_liquidations(self) -> None:
        """Store a liquidation at the time and price of every trade of Coinbase's day, and settle the day."""
        raw = vendor_file(LIQUIDATIONS, traded(DAY))
        self.days.bring(LIQUIDATIONS, DAY, raw, {LIQUIDATIONS.dataset_symbol: CANONICAL[COINBASE]})
        self.days.compare_with_trades(DAY)
        settle(self.store, DAY, THRESHOLDS)

    @property
    def store(self) -> Store:
        """The lake."""
        return self.days.store

    @property
    def settings(self) -> Settings:
        """Settings that name the stand-in, which must be running."""
        url = self.standin.url
        healing = HealSettings(exchange_endpoint=url, archive_endpoint=url, timeout_seconds=120)
        return self.days.settings.model_copy(update={"heal": healing})

    def heal(self, *, dry_run: bool = False, requests: int = 200, store: Store | None = None) -> Healing:
        """Heal the damaged day."""
        return heal(
            store or self.store, self.settings, DAY, str(self.feed), Budget(requests), dry_run=dry_run
        )

    @property
    def found(self) -> SettledFeed:
        """The feed on the damaged day, as it is now settled."""
        return self.days.settled(self.feed, DAY)

    @property
    def manifest(self) -> FeedManifest:
        """The feed's manifest of the damaged day."""
        return load_manifest(self.store, self.feed, DAY)


def at_another_price(trades: Sequence[Traded]) -> list[Traded]:
    """The same trades at a price of another market."""
    return [replace(trade, price="3000.00") for trade in trades]
