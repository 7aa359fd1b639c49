"""Candles of Massive, formerly Polygon, through its own client.

The client takes an answer that is not JSON for one without candles, and it does not tell the market of an
answer. The reader of answers in this module, which the client accepts, checks both.
"""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from backfill_assets.days import parse_day, utc_now
from backfill_assets.failures import PermanentFailure, TransientFailure, printable, redacted
from backfill_assets.feeds import PERPETUAL, pair_of
from backfill_assets.references.answers import INSTALL, Answer, answer_of, read_minutes
from backfill_assets.references.conventions import MASSIVE, Convention
from backfill_assets.settings import MassiveSource, resolve

#: The vendor's maximum: one request covers a day, and the client follows to further pages.
_PAGE: Final = 50_000
_SAID: Final = 160
_REFUSED: Final = re.compile(
    r"NOT_AUTHORIZED|Unknown API Key|API Key was not provided|not entitled", re.IGNORECASE
)


class MassiveCandles:
    """See ``CandleApi``."""

    name: Final = "massive"

    def __init__(self, settings: MassiveSource) -> None:
        self._settings = settings

    def convention(self, exchange: str) -> Convention | None:
        """See ``CandleApi``: the candles are of several exchanges, so the convention is always the same."""
        del exchange
        return MASSIVE

    def unit(self, exchange: str) -> str:
        """See ``CandleApi``: the vendor."""
        del exchange
        return self.name

    def asked_for(self, exchange: str) -> bool:
        """See ``CandleApi``."""
        return not self._settings.exchanges or exchange in self._settings.exchanges

    def fetch(self, exchange: str, symbol: str, day: str) -> Answer:
        """See ``CandleApi``."""
        del exchange
        ticker = _ticker(symbol)
        if not ticker:
            return Answer("absent", reason="has candles of the spot markets of pairs only")
        first = datetime.combine(parse_day(day), datetime.min.time(), UTC)
        return answer_of(read_minutes(self._bars(ticker, first, day), day), ticker, MASSIVE, 1.0)

    def missing_market(self, exchange: str, symbol: str) -> str:
        """See ``CandleApi``: the vendor has the pair if it has a candle of the last week."""
        del exchange
        ticker = _ticker(symbol)
        if not ticker:
            return f"has no market for {symbol}: its candles are of the spot markets of pairs"
        now = utc_now()
        bars = self._bars(ticker, now - timedelta(days=7), "the last week", "day", now)
        return "" if bars else f"has no candle of {ticker} of the last week"

    def _bars(
        self, ticker: str, first: datetime, wanted: str, span: str = "minute", last: datetime | None = None
    ) -> list[list[float | None]]:
        try:
            import massive
            from massive.exceptions import BadResponse
            from urllib3.exceptions import HTTPError
        except ImportError as error:
            msg = f"comparison.sources: massive is not installed: {INSTALL}"
            raise PermanentFailure(msg) from error
        key, endpoint = resolve(self._settings.api_key), resolve(self._settings.endpoint).rstrip("/")
        if not key:
            msg = (
                "comparison.sources: massive needs a key: set MASSIVE_API_KEY, or api_key to another variable"
            )
            raise PermanentFailure(msg)
        asked = f"massive: was asked for {ticker} of {wanted}"
        # A retry would wait as long as the answer says; the next run of the day asks again anyway.
        client = massive.RESTClient(
            api_key=key, custom_json=_Answers(ticker), retries=0, **({"base": endpoint} if endpoint else {})
        )
        end = last or first + timedelta(days=1) - timedelta(milliseconds=1)
        try:
            bars = list(client.list_aggs(ticker, 1, span, first, end, sort="asc", limit=_PAGE))
        except TransientFailure as failure:
            said = redacted(str(failure), key, base=endpoint)
            msg = f"{asked} and {said}: the next run of the day asks again"
            raise TransientFailure(msg) from failure
        except BadResponse as error:
            said = _said(error, key, endpoint)
            if _REFUSED.search(str(error)):
                msg = f"{asked} and refuses the key ({said}): check MASSIVE_API_KEY and its plan's coverage"
                raise PermanentFailure(msg) from error
            msg = f"{asked} and answered with an error ({said}): the next run of the day asks again"
            raise TransientFailure(msg) from error
        except HTTPError as error:
            # After a refused retry the reason has the status, and the error has the address.
            said = _said(getattr(error, "reason", None) or error, key, endpoint)
            often = "429 error" in said
            why = "answered that it is asked too often (429)" if often else f"did not answer ({said})"
            msg = f"{asked} and {why}: the next run of the day asks again"
            raise TransientFailure(msg) from error
        return [[bar.timestamp, bar.open, bar.high, bar.low, bar.close, bar.volume] for bar in bars]


class _Answers:
    """Reads answers for the client; an answer other than candles of the ticker is a failure."""

    def __init__(self, ticker: str) -> None:
        self._ticker = ticker

    def loads(self, text: str) -> Any:
        """Read one answer."""
        try:
            answer = json.loads(text)
        except ValueError as error:
            begin = " ".join(text.split())[:40]
            msg = f"answered with a text that is not JSON and begins with {begin!r}"
            raise TransientFailure(msg) from error
        if not isinstance(answer, dict):
            msg = "answered in an unknown form"
            raise TransientFailure(msg)
        found = answer.get("ticker", self._ticker)
        if found != self._ticker:
            msg = f"answered with candles of {printable(str(found))[:40]}"
            raise TransientFailure(msg)
        return answer


def _ticker(symbol: str) -> str:
    """``X:BTCUSD`` for the spot market ``BTC-USD``; empty for any other market."""
    base, _, quote = pair_of(symbol).partition("-")
    return "" if symbol.endswith(PERPETUAL) or not quote or "-" in quote else f"X:{base}{quote}"


def _said(error: Exception, key: str, base: str) -> str:
    return printable(redacted(" ".join(str(error).split()), key, base=base))[:_SAID]
