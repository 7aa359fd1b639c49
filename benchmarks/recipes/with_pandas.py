"""csv.gz of trades to Parquet and candles with pandas: minutes from the trades, the rest from minutes."""

from pathlib import Path

import pandas as pd

from recipes.timeframes import SECONDS

US = 1_000_000
TYPES = {"exchange": "category", "symbol": "category", "id": "str", "side": "category"}
SUMS = ("volume", "quote_volume", "buy_volume", "sell_volume", "trade_count")


def convert(source: Path, ticks: Path, candles: Path) -> None:
    # The other parsers are faster, but round prices otherwise, or hold the file twice.
    frame = pd.read_csv(source, dtype=TYPES, float_precision="round_trip")
    stamps = frame["timestamp"]
    for name in ("timestamp", "local_timestamp"):
        frame[name] = pd.to_datetime(frame[name], unit="us", utc=True)
    frame.to_parquet(ticks, compression="zstd", index=False)

    traded = pd.DataFrame(
        {
            "exchange": frame["exchange"],
            "symbol": frame["symbol"],
            "stamp": stamps,
            "open_time": stamps // (60 * US) * 60,
            "price": frame["price"],
            "volume": frame["amount"],
            "quote_volume": frame["price"] * frame["amount"],
            "buy_volume": frame["amount"].where(frame["side"] == "buy", 0.0),
            "sell_volume": frame["amount"].where(frame["side"] == "sell", 0.0),
        }
    )
    # Stable: trades of one microsecond keep the order of the file.
    by_minute = traded.sort_values("stamp", kind="stable").groupby(
        ["exchange", "symbol", "open_time"], observed=True, sort=True
    )
    minutes = by_minute.agg(
        open=("price", "first"),
        high=("price", "max"),
        low=("price", "min"),
        close=("price", "last"),
        trade_count=("price", "size"),
        **{name: (name, "sum") for name in SUMS if name != "trade_count"},
    ).reset_index()
    larger = []
    for name, seconds in SECONDS.items():
        bucket = minutes.assign(open_time=minutes["open_time"] // seconds * seconds).groupby(
            ["exchange", "symbol", "open_time"], observed=True, sort=True
        )
        of_bucket = bucket.agg(
            {"open": "first", "high": "max", "low": "min", "close": "last", **dict.fromkeys(SUMS, "sum")}
        ).reset_index()
        larger.append(of_bucket.assign(timeframe=name))
    pd.concat(larger).to_parquet(candles, compression="zstd", index=False)
