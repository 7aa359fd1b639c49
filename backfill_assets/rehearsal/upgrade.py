"""The scenario of an upgrade: the lake, tables and Dagster's records of an earlier version stay in use.

``earlier.tar.xz`` holds the output of that version for two days of generated data: two feeds of a hundred ids
a day. ``scripts/earlier_lake.py`` makes it.
"""

from __future__ import annotations

import shutil
import tarfile
from pathlib import Path
from typing import Final

from backfill_assets.failures import BackfillError
from backfill_assets.orchestration import open_instance
from backfill_assets.rehearsal import tables
from backfill_assets.rehearsal.house import House
from backfill_assets.rehearsal.model import Promise
from backfill_assets.rehearsal.stage import Stage
from backfill_assets.standins.market import Market

EARLIER: Final = Path(__file__).with_name("earlier.tar.xz")
DAYS: Final = ("2024-01-01", "2024-01-02")
NEXT_DAY: Final = "2024-01-03"
MARKETS: Final = (("binance", "coinbase"), ("BTC-USDT",))
ROWS: Final = 100
#: Settings of the earlier version that are not the defaults: fewer candles give a smaller file.
MORE: Final = {"candles": {"timeframes": ["1m", "1h"]}}
#: Tables of market data; the others describe the market data, and a newer version may add to them.
_MARKET_DATA: Final = frozenset({"trades", "candles", "coverage", "instruments"})


def market() -> Market:
    """The market that the earlier version has read."""
    return Market(rows={(exchange, symbol): ROWS for exchange in MARKETS[0] for symbol in MARKETS[1]})


def upgrade(stage: Stage) -> None:
    """A lake, tables and Dagster's records of an earlier version: they count, and the next day joins them."""
    with stage.house(market=market(), markets=MARKETS, more=MORE) as house:
        _unpack(house)
        before = house.published(*DAYS)
        runs = _runs(house)
        stage.check(
            Promise.DETECTED,
            "the records of the earlier version are read: a run of each day",
            f"{runs} runs",
            kept=runs == len(DAYS),
        )
        for day in DAYS:
            stage.succeeded(Promise.RECOVERED, house.run(day), f"the run of {day}")
        _unchanged(stage, house, before)
        # The new run joins the day before, about which the market data may then say more.
        stage.succeeded(Promise.RECOVERED, house.run(NEXT_DAY), f"the run of {NEXT_DAY}")
        _as_new(stage, house)
        for day in (*DAYS, NEXT_DAY):
            stage.is_told(house, day, "after the upgrade", bad=False)


def _unpack(house: House) -> None:
    """Put lake, tables and records into the places of the house."""
    records = house.folder / "dagster"
    shutil.rmtree(records)
    with tarfile.open(EARLIER) as packed:
        packed.extractall(house.folder, filter="data")
    (house.folder / "home").rename(records)


def _runs(house: House) -> int:
    with open_instance(str(house.folder / "dagster")) as instance:
        return instance.get_runs_count()


def _unchanged(stage: Stage, house: House, before: tables.Contents) -> None:
    """Published market data is unchanged."""
    again = [request.path for request in house.standin.requests if "/datasets/" in request.path]
    stage.check(
        Promise.CONTAINED,
        f"files of {' and '.join(DAYS)} are not fetched again",
        f"{len(again)} files",
        kept=not again,
    )
    wanted = {group: content for group, content in before.items() if group.table in _MARKET_DATA}
    found = {g: c for g, c in house.published(*DAYS).items() if g.table in _MARKET_DATA}
    different = tables.differences(wanted, found)
    stage.check(
        Promise.NOTHING_WRONG_PUBLISHED,
        f"market data of {' and '.join(DAYS)} is as it was published",
        "; ".join(different[:3]) or f"{len(found)} groups of rows alike",
        kept=bool(wanted) and not different,
    )


def _as_new(stage: Stage, house: House) -> None:
    """All days end in the tables that this version makes of them from nothing."""
    given = stage.environment.with_markets(*MARKETS)
    with House(stage.folder / "new", market(), environment=given, more=MORE) as new:
        for day in (*DAYS, NEXT_DAY):
            if (run := new.run(day)).code != 0:
                msg = f"the undisturbed run of {day} ended with exit code {run.code}: {run.text[-300:]}"
                raise BackfillError(msg)
        for day in (*DAYS, NEXT_DAY):
            stage.ends_as(house, day, new.published(day), "after the upgrade")
