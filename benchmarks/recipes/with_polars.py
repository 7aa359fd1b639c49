"""csv.gz of trades to Parquet and candles, streaming: minutes from the trades, the rest from minutes."""

from pathlib import Path

import polars as pl

from recipes.timeframes import SECONDS

US = 1_000_000
COLUMNS = {
    "exchange": pl.String,
    "symbol": pl.String,
    "timestamp": pl.Int64,
    "local_timestamp": pl.Int64,
    "id": pl.String,
    "side": pl.String,
    "price": pl.Float64,
    "amount": pl.Float64,
}


def convert(source: Path, ticks: Path, candles: Path) -> None:
    frame = pl.scan_csv(source, schema=COLUMNS, quote_char=None)
    frame = frame.with_columns(pl.col("timestamp", "local_timestamp").cast(pl.Datetime("us", "UTC")))
    frame.sink_parquet(ticks, compression="zstd", compression_level=1)

    stamp, price, amount = pl.col("timestamp").to_physical(), pl.col("price"), pl.col("amount")
    # Time and row in one number: trades of one microsecond keep the order of the file.
    order = stamp % (60 * US) * 2**36 + pl.col("row").cast(pl.Int64)
    minutes = (
        pl.scan_parquet(ticks)
        .with_row_index("row")
        .group_by("exchange", "symbol", open_time=stamp // (60 * US) * 60)
        .agg(
            open=price.min_by(order),
            high=price.max(),
            low=price.min(),
            close=price.max_by(order),
            volume=amount.sum(),
            quote_volume=(price * amount).sum(),
            buy_volume=amount.filter(pl.col("side") == "buy").sum(),
            sell_volume=amount.filter(pl.col("side") == "sell").sum(),
            trade_count=pl.len().cast(pl.Int64),
        )
        .sort("exchange", "symbol", "open_time")
        .collect(engine="streaming")
    )
    keys = ("exchange", "symbol", "open_time")
    sums = [pl.col(name).sum() for name in minutes.columns if name.endswith(("volume", "count"))]
    larger = [
        minutes.with_columns(open_time=pl.col("open_time") // seconds * seconds)
        .group_by(keys, maintain_order=True)
        .agg(pl.col("open").first(), pl.col("high").max(), pl.col("low").min(), pl.col("close").last(), *sums)
        .with_columns(timeframe=pl.lit(name))
        for name, seconds in SECONDS.items()
    ]
    pl.concat(larger).write_parquet(candles, compression="zstd", compression_level=1)
