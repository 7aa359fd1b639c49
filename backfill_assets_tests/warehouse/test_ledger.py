"""The ledger: claims only grow, only the latest one may finish, and loads are counted per UTC day."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from warehouse_samples import DAY

from backfill_assets.failures import Superseded, TransientFailure
from backfill_assets.warehouse import ledger
from backfill_assets.warehouse.totals import GroupTotals

NOW = datetime(2026, 1, 1, 23, 0, tzinfo=UTC)
TOTALS = (GroupTotals(("binance", None), 3, 1, 2, (2**70,), (math.nan, 0.1)),)


def _claim(store: Any, now: datetime = NOW) -> ledger.Entry:
    return ledger.claim(store, "trades", DAY, "f", lambda: now)


def _complete(store: Any, mine: ledger.Entry) -> ledger.Published:
    return ledger.complete(store, "trades", DAY, mine, fingerprint="g", job="j", totals=TOTALS)


def test_claims_grow_within_a_second_and_when_the_clock_goes_back(store: Any) -> None:
    numbers = [_claim(store, NOW - timedelta(hours=i)).generation for i in (0, 0, 5)]
    first = int(NOW.timestamp())
    assert numbers == [first, first + 1, first + 2]


def test_a_claim_lists_the_open_ones_until_one_is_done(store: Any) -> None:
    first, second = _claim(store), _claim(store)
    third = _claim(store)
    assert third.open == (first.generation, second.generation)
    _complete(store, third)
    fourth = _claim(store)
    assert fourth.open == ()
    assert fourth.published is not None
    assert fourth.published.generation == third.generation


def test_only_the_latest_claim_can_announce_complete_or_give_up(store: Any) -> None:
    old, latest = _claim(store), _claim(store)
    with pytest.raises(Superseded):
        _complete(store, old)
    with pytest.raises(Superseded):
        ledger.announce(store, "trades", DAY, old, "f", [])
    with pytest.raises(Superseded):
        ledger.give_up(store, "trades", DAY, old, "")
    assert not ledger.is_latest(store, "trades", DAY, old)
    assert ledger.is_latest(store, "trades", DAY, latest)
    ledger.announce(store, "trades", DAY, latest, "g", ["a.parquet"])
    entry = ledger.entry(store, "trades", DAY)
    assert entry is not None
    assert (entry.fingerprint, entry.loading) == ("g", ("a.parquet",))
    _complete(store, latest)


def test_totals_come_back_as_they_were(store: Any) -> None:
    published = _complete(store, _claim(store))
    entry = ledger.entry(store, "trades", DAY)
    assert entry is not None
    assert entry.published is not None
    assert repr(entry.published.totals) == repr(TOTALS)
    assert entry.published.rows == published.rows == 3


def test_loads_are_counted_per_table_and_utc_day(store: Any) -> None:
    def count(table: str, generation: int, now: datetime = NOW) -> None:
        ledger.count_submission(store, table, DAY, generation, 2, lambda: now)

    count("trades", 1)
    count("trades", 2)
    with pytest.raises(TransientFailure, match="waits for 2026-01-02") as caught:
        count("trades", 3)
    assert caught.value.retry_after_seconds == pytest.approx(3600 + 300)
    count("quotes", 3)
    count("trades", 3, NOW + timedelta(hours=1))
    assert sorted(store.list("submissions/trades/")) == [f"submissions/trades/2026-01-02/{DAY}-3"]
    assert len(list(store.list("submissions/quotes/"))) == 1
