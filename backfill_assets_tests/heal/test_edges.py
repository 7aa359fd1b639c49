"""Holes at midnight and in groups: healed if that is right, else told in one line with nothing lost."""

from __future__ import annotations

import gzip
from dataclasses import replace

import pytest

from backfill_assets.days import start_us
from backfill_assets.failures import PermanentFailure
from backfill_assets.feeds import Feed
from backfill_assets.heal.healing import heal
from backfill_assets.heal.sources import Budget
from backfill_assets.quality.settle import settle
from backfill_assets.tardis.columns import csv_header
from backfill_assets_tests.heal.healed_lake import (
    AFTER,
    BEFORE,
    BINANCE,
    COINBASE,
    DAY,
    LATENCY_US,
    THRESHOLDS,
    TRADES,
    id_at,
    traded,
    without_ids,
)
from backfill_assets_tests.heal.test_healing import SUMMED_UP, Make, archive_only, files, make

__all__ = ["make"]


@pytest.mark.parametrize(
    ("numbers", "ids", "days"),
    [
        ((0, 1, 2), f"ids {id_at(0)} to {id_at(2)}", f"{BEFORE} and {DAY}"),
        ((TRADES - 1,), f"id {id_at(TRADES - 1)}", f"{DAY} and {AFTER}"),
    ],
    ids=["after-midnight", "before-midnight"],
)
def test_ids_between_two_files_are_told_and_not_asked_for(
    make: Make, numbers: tuple[int, ...], ids: str, days: str
) -> None:
    lake = make(without_ids(*numbers))
    before = files(lake.days.folder)
    done = lake.heal()
    assert not done.is_whole
    assert done.problems == [
        f"{ids} between the files of {days}: not asked for, because a trade at midnight may belong to either "
        "file; fetch both again"
    ]
    assert lake.standin.requests == []
    assert files(lake.days.folder) == before
    assert not lake.heal(dry_run=True).is_whole


def test_holes_inside_the_file_are_healed_beside_one_at_midnight(make: Make) -> None:
    lake = make(without_ids(0, 700))
    done = lake.heal()
    assert len(done.problems) == 1
    assert (done.still_missing, lake.found.verdict.healed_rows) == (0, 1)


def test_midnights_that_join_and_a_neighbor_without_a_file_are_no_problem(make: Make) -> None:
    assert make(without_ids(700)).heal().is_whole
    lake = make(without_ids(700))
    lake.days.expected[AFTER] = {}
    (lake.days.folder / "lake" / "days" / f"{AFTER}.json").unlink(missing_ok=True)
    settle(lake.store, DAY, THRESHOLDS)
    assert lake.heal().is_whole


def test_a_hole_whose_rows_are_of_two_days_takes_the_files_of_both(make: Make) -> None:
    """The row before the hole was traded before midnight and arrived after it."""
    late = replace(traded(DAY, BINANCE)[0], time_us=start_us(DAY) - 1_000)
    shown = [late, *traded(DAY, BINANCE)[1:]]
    lake = make(lambda _: [trade for trade in shown if trade.id not in (id_at(1), id_at(2))], feed=BINANCE)
    others = [trade for trade in lake.standin.binance["BTCUSDT"] if trade.id != late.id]
    lake.standin.binance["BTCUSDT"] = sorted([late, *others], key=lambda trade: trade.id)
    archive_only(lake)
    done = lake.heal()
    assert done.is_whole, done.problems
    [receipt] = lake.manifest.receipts
    asked = [request.rpartition("/")[2] for request in lake.standin.requests if ".zip" in request]
    assert asked == [
        f"BTCUSDT-trades-{day}.zip{ending}" for day in (BEFORE, DAY) for ending in (".CHECKSUM", "")
    ]
    assert len(receipt.answers) == 4
    assert lake.found.verdict.healed_rows == 2
    assert lake.heal(dry_run=True).is_whole
    assert SUMMED_UP in "".join(lake.standin.requests), "the exchange was asked first"


def test_a_group_is_refused_in_one_line(make: Make) -> None:
    lake = make()
    group = Feed("binance", "trades", "SPOT")
    lines = [csv_header("trades")]
    for t in traded(DAY, COINBASE)[:50]:
        lines += [
            f"binance,{symbol},{t.time_us},{t.time_us + LATENCY_US},{t.id},{t.side},{t.price},{t.amount}"
            for symbol in ("BTCUSDT", "ETHUSDT")
        ]
    raw = gzip.compress("\n".join([*lines, ""]).encode(), 1, mtime=0)
    lake.days.bring(group, DAY, raw, {"BTCUSDT": "BTC-USDT", "ETHUSDT": "ETH-USDT"})
    settle(lake.store, DAY, THRESHOLDS)
    before = files(lake.days.folder)
    with pytest.raises(PermanentFailure) as refused:
        heal(lake.store, lake.settings, DAY, str(group), Budget(9))
    assert str(refused.value) == (
        f"{group} is a group: its file has many markets, but a receipt covers one: nothing is asked for"
    )
    assert files(lake.days.folder) == before
    assert lake.standin.requests == []
