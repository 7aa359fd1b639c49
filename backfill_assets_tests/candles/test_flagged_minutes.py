"""Only minutes whose high or low is an unconfirmed price are flagged."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest

from backfill_assets.candles.build import build_candles
from backfill_assets.days import MICROSECONDS_PER_MINUTE
from backfill_assets.lake.manifests import load_day_record, load_manifests
from backfill_assets.quality.witnesses import ask_witnesses
from backfill_assets_tests.quality import damaged_days as dd
from backfill_assets_tests.quality.damaged_days import DAY, END, SAMPLES, START, Row
from backfill_assets_tests.quality.filed_days import FiledDays

OURS: Final = SAMPLES["A liquid"]
THEIRS: Final = SAMPLES["B liquid"]


@pytest.fixture
def lake(tmp_path: Path) -> FiledDays:
    return FiledDays(tmp_path)


def wrong(position: int, **changes: object) -> list[Row]:
    """The good day with one price far from the others."""
    rows = dd.good_rows(OURS, DAY)
    rows[position] = rows[position].but(price=dd.priced(1.05)(OURS, rows[position]), **changes)
    return rows


def flagged(lake: FiledDays) -> dict[str, tuple[int, ...]]:
    ask(lake, DAY)
    assert lake.settled(OURS.feed, DAY).accepted is not None
    return build_candles(lake.store, DAY, lake.settings).minutes[str(OURS.feed)].flagged


def ask(lake: FiledDays, day: str) -> None:
    """Ask the witnesses of the day, as a run does after its fetch."""
    record = load_day_record(lake.store, day)
    assert record is not None
    ask_witnesses(lake.store, record, load_manifests(lake.store, record), lake.settings)


def minute(row: Row) -> int:
    return (row.time - START) // MICROSECONDS_PER_MINUTE


def test_a_wrong_price_flags_its_minute(lake: FiledDays) -> None:
    rows = wrong(6_000)
    lake.bring_rows(OURS, DAY, rows)
    assert flagged(lake) == {"BTC-USDT": (minute(rows[6_000]),)}


def test_a_good_day_has_no_flags(lake: FiledDays) -> None:
    lake.bring_rows(OURS, DAY, dd.good_rows(OURS, DAY))
    assert flagged(lake) == {}


def test_a_price_that_another_venue_saw_flags_nothing_from_when_it_is_known(lake: FiledDays) -> None:
    rows = wrong(6_000)
    lake.bring_rows(OURS, DAY, rows)
    assert len(flagged(lake)) == 1
    theirs = dd.good_rows(THEIRS, DAY)
    near = min(range(len(theirs)), key=lambda n: abs(theirs[n].time - rows[6_000].time))
    theirs[near] = theirs[near].but(price=dd.priced(1.05)(THEIRS, theirs[near]))
    lake.bring_rows(THEIRS, DAY, theirs)
    assert flagged(lake) == {}


def test_what_the_exchange_s_own_candle_shows_is_not_flagged_from_when_it_is_known(lake: FiledDays) -> None:
    rows = wrong(6_000)
    lake.bring_rows(OURS, DAY, rows)
    assert len(flagged(lake)) == 1
    file = lake.reference / OURS.exchange / OURS.canonical / f"{DAY}.csv"
    file.parent.mkdir(parents=True)
    opened, price = START + minute(rows[6_000]) * MICROSECONDS_PER_MINUTE, rows[6_000].price
    file.write_text(f"open_time,open,high,low,close,volume\n{opened},{price},{price},{price},{price},1\n")
    assert flagged(lake) == {}


def test_a_wrong_price_that_sets_neither_high_nor_low_flags_nothing(lake: FiledDays) -> None:
    rows = dd.good_rows(OURS, DAY)
    of_minute: dict[int, list[int]] = {}
    for n in range(9_000, len(rows)):
        of_minute.setdefault(minute(rows[n]), []).append(n)
    listed, beyond, *_ = of_minute[max(of_minute, key=lambda m: len(of_minute[m]))]
    wild = [*((n, 1.2) for n in range(60, 60 + 85 * 99, 85)), (listed, 1.2), (beyond, 1.4)]
    for position, factor in wild:
        rows[position] = rows[position].but(price=dd.priced(factor)(OURS, rows[position]))
    lake.bring_rows(OURS, DAY, rows)
    found = flagged(lake)["BTC-USDT"]
    # A hundred spikes are listed; the unlisted one has set the high of its minute.
    assert set(found) == {minute(rows[n]) for n, _ in wild[:99]}
    assert minute(rows[listed]) not in found


def test_a_wrong_price_of_the_day_after_s_file_flags_the_minute_that_it_falls_in(lake: FiledDays) -> None:
    lake.bring_rows(OURS, DAY, dd.good_rows(OURS, DAY))
    after = dd.good_rows(OURS, dd.AFTER)
    # It is stamped before midnight and arrived after it; a spike needs ten trades beside it.
    after[0] = after[0].but(price=dd.priced(1.05)(OURS, after[0]), time=END - 1_000)
    lake.bring_rows(OURS, dd.AFTER, after)
    ask(lake, dd.AFTER)
    assert lake.settled(OURS.feed, dd.AFTER).accepted is not None
    assert flagged(lake) == {"BTC-USDT": (1439,)}
