"""The real client asks Kraken, OKX and Binance's futures over real HTTP, each in its own way."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import polars as pl
import pytest

from backfill_assets.feeds import Feed
from backfill_assets.heal import archive, exchange_trades
from backfill_assets.lake import paths
from backfill_assets.standins import faults
from backfill_assets.standins.exchanges import Traded
from backfill_assets.standins.faults import Fault
from backfill_assets.venues import ASKED_FOR_IDS
from backfill_assets_tests.heal.healed_lake import (
    BINANCE,
    COINBASE,
    DAY,
    FUTURES,
    KRAKEN,
    OKX,
    HealedLake,
    id_at,
    traded,
    without_ids,
)
from backfill_assets_tests.heal.test_healing import Make, make, minutes, partials_of

__all__ = ["make"]

TRADES = {
    FUTURES: "/binanceusdm/fapi/v1/aggTrades",
    KRAKEN: "/kraken/0/public/Trades",
    OKX: "/okx/api/v5/market/history-trades",
}
ARCHIVED = f"/data/futures/um/daily/trades/BTCUSDT/BTCUSDT-trades-{DAY}.zip"
#: Longer than the runs of ids that Binance's futures leave out themselves.
LOST = (*range(700, 710), *range(1_500, 1_507))
NEVER = tuple(range(2_000, 2_008))
new_exchanges = pytest.mark.parametrize("feed", [*TRADES], ids=lambda feed: feed.exchange)


def market_of(lake: HealedLake) -> Any:
    return getattr(lake.standin, lake.feed.exchange.replace("-", "_"))


def replace_trades(lake: HealedLake, change: Callable[[Traded], Traded]) -> None:
    market = market_of(lake)
    market[lake.feed.dataset_symbol] = [change(trade) for trade in market[lake.feed.dataset_symbol]]


def asked(lake: HealedLake) -> list[str]:
    return [path for path in lake.standin.requests if path.startswith(TRADES[lake.feed])]


@new_exchanges
def test_lost_rows_come_back_ids_never_issued_count_no_more_and_receipts_give_the_same_again(
    make: Make, feed: Feed
) -> None:
    whole, lake = make(feed=feed, never=NEVER), make(without_ids(*LOST), feed=feed, never=NEVER)
    assert lake.found.verdict.missing_ids == len(LOST) + len(NEVER)
    done = lake.heal()
    assert done.is_whole, done.problems
    assert len(asked(lake)) == 3, "one request for each hole"
    verdict = lake.found.verdict
    assert (verdict.missing_ids, verdict.healed_rows, verdict.never_issued_ids) == (0, len(LOST), len(NEVER))
    assert verdict.completeness_state == "proven"
    accepted = lake.found.accepted
    assert accepted is not None
    with lake.store.local_copy(paths.ticks_data(feed, DAY, accepted.content)) as file:
        rows = pl.read_parquet(file)
    expected = traded(DAY, feed, never=[id_at(n) for n in NEVER])
    assert rows["timestamp"].dt.epoch("us").to_list() == [trade.time_us for trade in expected]
    assert rows["id"].to_list() == [str(trade.id) for trade in expected]
    assert minutes(lake) == partials_of(whole)

    requests = len(lake.standin.requests)
    again = lake.heal(dry_run=True)
    assert again.is_whole, again.problems
    assert "3 of 3 receipts give the same conclusion again" in again.lines[1]
    assert len(lake.standin.requests) == requests


@new_exchanges
def test_many_pages_are_one_answer_and_pages_that_end_early_prove_nothing(make: Make, feed: Feed) -> None:
    lake = make(without_ids(*range(700, 730)), feed=feed, most=7)
    whole = market_of(lake)[feed.dataset_symbol]
    lake.standin.faults.put(ARCHIVED, Fault(always=faults.not_found()))
    # The exchange forgets the trades on the side that is asked for last.
    kept = [t for t in whole if (t.id > id_at(710)) == (feed == OKX)]
    market_of(lake)[feed.dataset_symbol] = kept
    [problem] = lake.heal().problems
    assert f"no id {'before' if feed == OKX else 'after'} the hole" in problem
    assert not lake.manifest.receipts
    market_of(lake)[feed.dataset_symbol] = whole
    assert lake.heal().is_whole
    [receipt] = lake.manifest.receipts
    assert len(receipt.answers) > 3
    assert lake.heal(dry_run=True).is_whole


@new_exchanges
def test_another_market_and_a_market_that_is_not_listed_prove_nothing(make: Make, feed: Feed) -> None:
    lake = make(without_ids(*LOST), feed=feed)
    trades = market_of(lake)[feed.dataset_symbol]
    lake.standin.faults.put(ARCHIVED, Fault(always=faults.not_found()))
    replace_trades(lake, lambda trade: replace(trade, price="3000.00"))
    assert "another market" in lake.heal().problems[0]
    market_of(lake).clear()
    assert f"lists no {'linear' if feed == FUTURES else 'spot'} market" in lake.heal().problems[0]
    market_of(lake)[feed.dataset_symbol] = trades
    assert not lake.manifest.receipts


@new_exchanges
@pytest.mark.parametrize("body", [b"<html>Moved</html>", b"[]", b"{}", b'{"error": [], "result": 3}'])
def test_an_answer_of_another_form_proves_nothing(make: Make, feed: Feed, body: bytes) -> None:
    lake = make(without_ids(*LOST), feed=feed)
    lake.standin.faults.put(TRADES[feed], Fault(body=body))
    lake.standin.faults.put(ARCHIVED, Fault(always=faults.not_found()))
    done = lake.heal()
    assert done.still_missing == len(LOST)
    assert len(done.problems) == 2
    assert not lake.manifest.receipts


def test_trades_of_one_moment_at_the_end_of_a_page_of_kraken_are_not_lost(make: Make) -> None:
    """A page after a time skips the rest of that moment, so the next page begins before it."""
    numbers = range(700, 712)
    moment = next(t.time_us for t in traded(DAY, KRAKEN) if t.id == id_at(700))
    of_moment = {id_at(n) for n in numbers}

    def together(trade: Traded) -> Traded:
        return replace(trade, time_us=moment) if trade.id in of_moment else trade

    lake = make(without_ids(*numbers), feed=KRAKEN, most=8)
    replace_trades(lake, together)
    # A page of eight cannot show a moment of twelve trades whole, so no conclusion is drawn from it.
    assert "lacks" in lake.heal().problems[0] or "no id after" in lake.heal().problems[0]
    assert not lake.manifest.receipts
    lake.standin.most = 20
    lake.heal()
    assert lake.found.verdict.never_issued_ids == 0
    assert lake.found.verdict.healed_rows == len(numbers)


def test_rows_of_kraken_without_ids_or_out_of_order_prove_nothing(make: Make) -> None:
    lake = make(without_ids(700), feed=KRAKEN)
    around = [t for t in market_of(lake)["XBT-USD"] if id_at(698) <= t.id <= id_at(703)]

    def answer(rows: list[list[Any]]) -> Fault:
        last = str(around[-1].time_us * 1_000)
        return Fault(body=json.dumps({"error": [], "result": {"XXBTZUSD": rows, "last": last}}).encode())

    rows = [[t.price, t.amount, t.time_us / 1e6, t.side[0], "m", "", t.id] for t in around]
    lake.standin.faults.put(TRADES[KRAKEN], answer([row[:6] for row in rows]))
    assert "has no id or time" in lake.heal().problems[0]
    swapped = [[*row[:6], other[6]] for row, other in zip(rows, [rows[1], rows[0], *rows[2:]], strict=True)]
    lake.standin.faults.put(TRADES[KRAKEN], answer(swapped))
    assert "ids are not in order" in lake.heal().problems[0]
    assert not lake.manifest.receipts
    lake.standin.faults.put(TRADES[KRAKEN], answer(rows))
    assert lake.heal().is_whole


def test_trades_that_binance_futures_sum_up_within_100_ms_come_from_their_archive(make: Make) -> None:
    ids = {id_at(n) for n in range(698, 710)}
    first = next(t for t in traded(DAY, FUTURES) if t.id == id_at(698))

    def one_order(trade: Traded) -> Traded:
        if trade.id not in ids:
            return trade
        at = first.time_us // 100_000 * 100_000 + (trade.id - first.id) * 5_000
        # The amount is so small that the restatement of the minute stays within the limits.
        return replace(trade, time_us=at, price=first.price, side=first.side, amount="0.00100")

    whole = [one_order(trade) for trade in traded(DAY, FUTURES)]
    lost = {id_at(n) for n in range(700, 710)}
    lake = make(lambda _: [trade for trade in whole if trade.id not in lost], feed=FUTURES)
    replace_trades(lake, one_order)
    done = lake.heal()
    assert done.is_whole, done.problems
    assert [receipt.source for receipt in lake.manifest.receipts] == ["exchange", "archive"]
    assert lake.manifest.receipts[0].recovered == (), "the amounts of summed-up trades are not known"
    assert lake.found.verdict.healed_rows == 10
    assert lake.heal(dry_run=True).is_whole


def test_what_the_futures_no_longer_give_comes_from_their_archive(make: Make) -> None:
    lake = make(without_ids(*LOST), feed=FUTURES, never=NEVER)
    lake.standin.faults.put(TRADES[FUTURES], Fault(body=b"[]"))
    done = lake.heal()
    assert done.is_whole, done.problems
    assert {receipt.source for receipt in lake.manifest.receipts} == {"archive"}
    asked_of = f"the archive of binance-futures for {FUTURES.dataset_symbol}"
    assert {receipt.asked for receipt in lake.manifest.receipts} == {asked_of}
    verdict = lake.found.verdict
    assert (verdict.healed_rows, verdict.never_issued_ids, verdict.missing_ids) == (len(LOST), len(NEVER), 0)
    assert lake.heal(dry_run=True).is_whole


def test_short_runs_that_the_futures_leave_out_themselves_are_not_asked_for(make: Make) -> None:
    lake = make(without_ids(*range(1_500, 1_510)), feed=FUTURES, never=(700, 701, 2_000))
    assert lake.found.verdict.missing_ids == 10
    done = lake.heal()
    assert done.is_whole
    assert "10 ids are missing in 1 hole" in done.lines[0]
    assert len(asked(lake)) == 1
    assert lake.found.verdict.completeness_state == "estimated", "the short runs prove nothing"


def test_the_exchanges_that_are_told_as_askable_are_those_that_are_asked() -> None:
    assert set(exchange_trades.EXCHANGES) == ASKED_FOR_IDS
    assert set(archive.EXCHANGES) < ASKED_FOR_IDS
    assert {COINBASE.exchange, BINANCE.exchange} < ASKED_FOR_IDS
