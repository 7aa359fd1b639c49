"""The real Tardis, with the real client: a free day, and the requests that it refuses.

``BACKFILL_LIVE_TARDIS=1 python -m pytest backfill_assets_tests/live -m live`` runs them. No key is needed:
the first day of each month is free; ``TARDIS_API_KEY``, if it is set, is tried on a paid day.
``BACKFILL_LIVE_TARDIS=http://127.0.0.1:PORT`` asks a stand-in instead, which shows that the tests themselves
work.
"""

from __future__ import annotations

import os
from typing import Any

import pytest

from backfill_assets.failures import FeedAbsent
from backfill_assets.feeds import Feed
from backfill_assets.settings import TardisSettings, UniverseEntry
from backfill_assets.tardis.attempts import AccessRefused, RunRefused
from backfill_assets.tardis.client import Download, TardisClient
from backfill_assets.tardis.metadata import ready
from backfill_assets.tardis.symbols import resolve

WHERE = os.environ.get("BACKFILL_LIVE_TARDIS", "")

pytestmark = [
    pytest.mark.live,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not WHERE, reason="asks the real Tardis only with BACKFILL_LIVE_TARDIS=1"),
]

FREE, PAID = "2024-01-01", "2024-01-02"
#: Small files of three venues.
FEEDS = {
    "binance": Feed("binance", "trades", "ADAUSDT"),
    "coinbase": Feed("coinbase", "trades", "ADA-USDT"),
    "kraken": Feed("kraken", "trades", "ADA-USDT"),
}


def endpoints() -> dict[str, str]:
    if not WHERE.startswith("http"):
        return {}
    return {"datasets_endpoint": f"{WHERE}/v1/datasets", "api_endpoint": f"{WHERE}/v1"}


def client(key: str = "") -> TardisClient:
    return TardisClient(TardisSettings(**endpoints(), api_key=key, retry_budget_seconds=120))


def test_the_local_universe_resolves_to_the_venues_own_names_without_a_key() -> None:
    entry = UniverseEntry(exchanges=tuple(FEEDS), symbols=("BTC-USDT", "ETH-USDT", "ADA-USDT"))
    tardis = client()
    details = {exchange: tardis.exchange_details(exchange) for exchange in FEEDS}
    assert all(ready(found, FREE) for found in details.values())
    instruments = {exchange: tardis.instruments(exchange) for exchange in FEEDS}
    resolved = resolve((entry,), FREE, details, instruments)
    assert [str(expected.feed) for expected in resolved.expected] == [
        *("binance/trades/ADAUSDT", "binance/trades/BTCUSDT", "binance/trades/ETHUSDT"),
        *("coinbase/trades/ADA-USDT", "coinbase/trades/BTC-USDT", "coinbase/trades/ETH-USDT"),
        *("kraken/trades/ADA-USDT", "kraken/trades/ETH-USDT", "kraken/trades/XBT-USDT"),
    ]
    assert resolved.not_listed == ()


def test_a_free_day_arrives_and_is_published(run_day: Any) -> None:
    result = run_day(
        FREE,
        tardis={**endpoints(), "api_key": ""},
        universe=[{"exchanges": list(FEEDS), "symbols": ["ADA-USDT"]}],
    )
    assert result.success
    failed = {
        f"{check.asset_key.to_user_string()}:{check.check_name}": check.description
        for check in result.get_asset_check_evaluations()
        if not check.passed
    }
    assert failed == {}


def test_a_paid_day_without_a_key_says_what_to_set(tmp_path: Any) -> None:
    with pytest.raises(RunRefused, match=f"refuses {PAID} without an API key: set TARDIS_API_KEY"):
        list(client().fetch([FEEDS["kraken"]], PAID, tmp_path))


def test_a_wrong_key_says_so(tmp_path: Any) -> None:
    [(_, result)] = client("TD.wrong").fetch([FEEDS["kraken"]], PAID, tmp_path)
    assert isinstance(result, AccessRefused)
    assert "TARDIS_API_KEY" in str(result)


@pytest.mark.skipif(not os.environ.get("TARDIS_API_KEY"), reason="needs TARDIS_API_KEY")
def test_a_paid_day_arrives_with_the_key(tmp_path: Any) -> None:
    key = os.environ["TARDIS_API_KEY"]
    [(_, result)] = client(key).fetch([FEEDS["kraken"]], PAID, tmp_path)
    assert isinstance(result, Download)


@pytest.mark.parametrize(
    "feed", [Feed("binance", "trades", "NOSUCHUSDT"), Feed("kraken", "trades", "BTC-USDT")], ids=str
)
def test_a_symbol_that_the_venue_does_not_have_on_the_day_is_absent(tmp_path: Any, feed: Feed) -> None:
    [(_, result)] = client().fetch([feed], FREE, tmp_path)
    assert isinstance(result, FeedAbsent)
