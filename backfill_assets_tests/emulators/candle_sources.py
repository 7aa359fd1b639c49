"""Services with candles on loopback, in the form in which ccxt and Massive's client ask for them.

The truth is the traded minutes. Each service makes its candles of them in its own way: Binance and
Kraken fill empty minutes, Bitget opens each candle at the close before it, Coinbase and KuCoin omit empty
minutes, KuCoin's futures count contracts, and Massive gives pages.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final, Self
from urllib.parse import parse_qs, unquote, urlsplit

import polars as pl

MINUTE_MS: Final = 60_000
KEY: Final = "key-of-massive"
#: Base currency of one of KuCoin's contracts.
CONTRACT: Final = 0.001

#: open_time in milliseconds, open, high, low, close, volume in base currency.
Candle = tuple[int, float, float, float, float, float]


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    body: bytes
    content_type: str = "application/json"


def as_json(content: Any, status: int = 200) -> Answer:
    return Answer(status, json.dumps(content).encode())


TOO_OFTEN: Final = as_json({"code": -1003, "msg": "Too many requests"}, 429)
BROKEN: Final = as_json({"message": "internal"}, 500)
PAGE: Final = Answer(200, b"<!doctype html><title>Sign in to the network</title>", "text/html")


def truth_of(candles: pl.DataFrame) -> list[Candle]:
    """The one-minute candles of one market in the stand-in's form."""
    rows = candles.filter(pl.col("timeframe") == "1m").sort("open_time")
    time = pl.col("open_time").dt.epoch("ms")
    return list(rows.select(time, "open", "high", "low", "close", "volume").iter_rows())


@dataclass
class CandleSources:
    """The services; a context manager that listens while it is entered.

    Attributes
    ----------
    truth
        The traded minutes, by the service's name at ccxt (or ``massive``) and the market as ``BTC-USDT``.
    before
        The close before the first of these, by market.
    faults
        Answers instead of the service's own, by a pattern of paths.
    now
        The end of Kraken's newest minute, in milliseconds.
    page
        Number of candles on one page of Massive.
    """

    truth: dict[str, dict[str, list[Candle]]]
    before: Mapping[str, float] = field(default_factory=dict)
    faults: dict[str, Answer] = field(default_factory=dict)
    now: int = 0
    page: int = 500
    requests: list[str] = field(default_factory=list)

    def __enter__(self) -> Self:
        sources = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                answer = sources.answer(self.path, dict(self.headers))
                self.send_response(answer.status)
                self.send_header("Content-Type", answer.content_type)
                self.send_header("Content-Length", str(len(answer.body)))
                self.end_headers()
                self.wfile.write(answer.body)

            def log_message(self, format: str, *args: object) -> None:
                """Requests are in ``requests``."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def answer(self, target: str, headers: Mapping[str, str]) -> Answer:
        address = urlsplit(target)
        path = unquote(address.path)
        self.requests.append(target)
        for pattern, fault in self.faults.items():
            if re.search(pattern, target):
                return fault
        query = {name: values[0] for name, values in parse_qs(address.query).items()}
        if path.startswith("/v2/aggs/"):
            return self._massive(path, query, headers)
        service, _, rest = path.lstrip("/").partition("/")
        known = {
            "binance": self._binance,
            "binanceusdm": self._binance,
            "binanceus": self._binance,
            "kraken": self._kraken,
            "coinbaseexchange": self._coinbase,
            "bitget": self._bitget,
            "kucoinfutures": self._kucoin,
        }
        found = known[service](service, rest, query) if service in known else None
        return found or as_json({"msg": f"no route {path}"}, 404)

    def markets(self, service: str, *, perpetual: bool | None = None) -> dict[str, tuple[str, str, str]]:
        """The market, its base and its quote, by the id of Binance, Bitget and Kraken."""
        found = {}
        for market in self.truth.get(service, {}):
            if perpetual is not None and market.endswith("-PERP") != perpetual:
                continue
            base, quote = market.removesuffix("-PERP").split("-")
            found[f"{base}{quote}"] = (market, base, quote)
        return found

    def flat(self, service: str, market: str, *, opens_at_close: bool = False) -> list[Candle]:
        """Every minute of the day from the first price on; empty minutes have the close before them."""
        traded = {candle[0]: candle for candle in self.truth[service][market]}
        if not traded:
            return []
        midnight = min(traded) // (1440 * MINUTE_MS) * 1440 * MINUTE_MS
        close, made = self.before.get(market), []
        for time in range(midnight, midnight + 1440 * MINUTE_MS, MINUTE_MS):
            if time not in traded:
                first = traded[min(traded)][1]
                price = close if close is not None else first
                made.append((time, price, price, price, price, 0.0))
                continue
            _, open_, high, low, last, volume = traded[time]
            if opens_at_close and close is not None:
                open_, high, low = close, max(high, close), min(low, close)
            made.append((time, open_, high, low, last, volume))
            close = last
        return made

    def _binance(self, service: str, rest: str, query: Mapping[str, str]) -> Answer | None:
        if rest.endswith("/exchangeInfo"):
            perpetual = {"contractType": "PERPETUAL", "marginAsset": "USDT"}
            return as_json({"symbols": [
                {
                    "symbol": id_,
                    "pair": id_,
                    "status": "TRADING",
                    "baseAsset": base,
                    "quoteAsset": quote,
                    **(perpetual if service == "binanceusdm" else {}),
                    "isSpotTradingAllowed": True,
                    "permissions": ["SPOT"],
                    "filters": [],
                }
                for id_, (_, base, quote) in self.markets(service).items()
            ]})  # fmt: skip
        if not rest.endswith("/klines"):
            return None
        market, _, _ = self.markets(service)[query["symbol"]]
        begin, limit = int(query["startTime"]), int(query["limit"])
        rows = [row for row in self.flat(service, market) if row[0] >= begin][:limit]
        return as_json([[t, *_texts(prices), t + MINUTE_MS - 1, "0", 1] for t, *prices in rows])

    def _kraken(self, service: str, rest: str, query: Mapping[str, str]) -> Answer | None:
        markets = self.markets(service)
        if rest == "0/public/AssetPairs":
            pairs = {
                id_: {
                    "altname": id_,
                    "wsname": f"{base}/{quote}",
                    "base": base.replace("BTC", "XXBT"),
                    "quote": quote,
                    "pair_decimals": 1,
                    "lot_decimals": 8,
                    "status": "online",
                }
                for id_, (_, base, quote) in markets.items()
            }
            return as_json({"error": [], "result": pairs})
        if rest != "0/public/OHLC":
            return None
        market = markets[query["pair"]][0]
        rows = [
            row for row in self.flat(service, market) if not self.now or self.now - 720 * MINUTE_MS <= row[0]
        ]
        rows = [row for row in rows if row[0] > int(query["since"]) * 1000][-1440 if not self.now else -720 :]
        found = [[t // 1000, *_texts((o, h, lo, c, c, v)), 1] for t, o, h, lo, c, v in rows]
        return as_json({"error": [], "result": {query["pair"]: found, "last": 0}})

    def _coinbase(self, service: str, rest: str, query: Mapping[str, str]) -> Answer | None:
        if rest == "products":
            return as_json([
                {
                    "id": market,
                    "base_currency": market.split("-")[0],
                    "quote_currency": market.split("-")[1],
                    "base_increment": "0.00000001",
                    "quote_increment": "0.01",
                    "min_market_funds": "1",
                    "status": "online",
                    "trading_disabled": False,
                }
                for market in self.truth.get(service, {})
            ])  # fmt: skip
        if not (match := re.fullmatch(r"products/([^/]+)/candles", rest)):
            return None
        begin, end = (
            round(datetime.fromisoformat(query[name]).timestamp() * 1000) for name in ("start", "end")
        )
        rows = [row for row in self.truth[service][match[1]] if begin <= row[0] <= end]
        if len(rows) > 300:
            return as_json({"message": "granularity too small for the requested time range"}, 400)
        return as_json([[t // 1000, lo, h, o, c, v] for t, o, h, lo, c, v in reversed(rows)])

    def _bitget(self, service: str, rest: str, query: Mapping[str, str]) -> Answer | None:
        if rest == "api/v2/spot/public/symbols":
            return _bitget_data([
                {
                    "symbol": id_,
                    "baseCoin": base,
                    "quoteCoin": quote,
                    "status": "online",
                    "pricePrecision": "2",
                    "quantityPrecision": "8",
                }
                for id_, (_, base, quote) in self.markets(service, perpetual=False).items()
            ])  # fmt: skip
        if rest == "api/v2/margin/currencies":
            return _bitget_data([])
        if rest == "api/v2/mix/market/contracts":
            return _bitget_data([
                {
                    "symbol": id_,
                    "baseCoin": base,
                    "quoteCoin": quote,
                    "supportMarginCoins": [quote],
                    "symbolType": "perpetual",
                    "symbolStatus": "normal",
                    "pricePlace": "1",
                    "priceEndStep": "1",
                    "volumePlace": "3",
                    "sizeMultiplier": "0.001",
                    "minTradeNum": "0.001",
                    "makerFeeRate": "0.0002",
                    "takerFeeRate": "0.0006",
                }
                for id_, (_, base, quote) in self.markets(service, perpetual=True).items()
                if query["productType"] == f"{quote}-FUTURES"
            ])  # fmt: skip
        if not rest.startswith(("api/v2/spot/market/", "api/v2/mix/market/")):
            return None
        is_perpetual = rest.startswith("api/v2/mix/")
        market, _, _ = self.markets(service, perpetual=is_perpetual)[query["symbol"]]
        end, limit = int(query["endTime"]), int(query["limit"])
        if limit > 200 and "history" in rest:
            return as_json({"code": "40017", "msg": "Parameter verification failed", "data": None}, 400)
        rows = [row for row in self.flat(service, market, opens_at_close=True) if row[0] < end][-limit:]
        return _bitget_data([[str(t), *_texts((o, h, lo, c, v)), "0", "0"] for t, o, h, lo, c, v in rows])

    def _kucoin(self, service: str, rest: str, query: Mapping[str, str]) -> Answer | None:
        if rest == "api/v1/contracts/active":
            contracts = [
                {
                    "symbol": f"{id_}M",
                    "baseCurrency": base,
                    "quoteCurrency": quote,
                    "settleCurrency": quote,
                    "type": "FFWCSX",
                    "nextFundingRateTime": 1,
                    "isInverse": False,
                    "multiplier": CONTRACT,
                    "lotSize": 1,
                    "tickSize": 0.1,
                    "status": "Open",
                    "expireDate": None,
                }
                for id_, (_, base, quote) in self.markets(service).items()
            ]
            return as_json({"code": "200000", "data": contracts})
        if rest != "api/v1/kline/query":
            return None
        market, _, _ = self.markets(service)[query["symbol"].removesuffix("M")]
        rows = [
            row for row in self.truth[service][market] if int(query["from"]) <= row[0] <= int(query["to"])
        ]
        found = [[t, o, h, lo, c, round(v / CONTRACT, 6)] for t, o, h, lo, c, v in rows[:200]]
        return as_json({"code": "200000", "data": found})

    def _massive(self, path: str, query: Mapping[str, str], headers: Mapping[str, str]) -> Answer:
        if headers.get("Authorization") != f"Bearer {KEY}":
            return as_json(
                {"status": "ERROR", "error": f"Unknown API Key {headers.get('Authorization')}"}, 401
            )
        _, _, _, _, ticker, _, _, _, begin, end = path.split("/")
        markets = {
            f"X:{market.replace('-', '')}": rows for market, rows in self.truth.get("massive", {}).items()
        }
        rows = [row for row in markets.get(ticker, []) if int(begin) <= row[0] <= int(end)]
        first = int(query.get("cursor", 0))
        answer: dict[str, Any] = {"ticker": ticker, "status": "OK", "resultsCount": len(rows)}
        if rows:
            part = rows[first : first + self.page]
            answer["results"] = [
                {"t": t, "o": o, "h": h, "l": lo, "c": c, "v": v, "vw": c, "n": 1}
                for t, o, h, lo, c, v in part
            ]
        if first + self.page < len(rows):
            answer["next_url"] = f"{self.url}{path}?cursor={first + self.page}"
        return as_json(answer)


def _bitget_data(data: list[Any]) -> Answer:
    return as_json({"code": "00000", "msg": "success", "data": data})


def _texts(values: Iterable[float]) -> list[str]:
    return [repr(float(value)) for value in values]


def milliseconds(day: str, minute: int = 0) -> int:
    return round(datetime.fromisoformat(day).replace(tzinfo=UTC).timestamp() * 1000) + minute * MINUTE_MS
