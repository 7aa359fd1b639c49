"""Candles held against somebody else's: the exchange's own, and other venues' of the same pair.

K4 and K5. Others may be wrong, late or of another market, so both only warn. A source of reference candles is
anything that gives a day of minutes for a market; a vendor's candle API can be one.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from backfill_assets.candles.partials import BASE_TIMEFRAME
from backfill_assets.failures import PermanentFailure
from backfill_assets.settings import ComparisonSettings

if TYPE_CHECKING:
    import polars as pl

_PRICES: Final = ("open", "high", "low", "close")
_NEEDED: Final = ("open_time", *_PRICES, "volume")
#: Seconds, milliseconds and microseconds since the epoch are told apart by size, up to the year 2286.
_SECONDS_BELOW: Final = 10_000_000_000
_MILLISECONDS_BELOW: Final = 1_000 * _SECONDS_BELOW

Rows = list[dict[str, Any]]


class ReferenceCandles(Protocol):
    """Somebody else's one-minute candles."""

    def minutes(self, exchange: str, symbol: str, day: str) -> pl.DataFrame | None:
        """A day's candles of a market, or None if there are none to compare with.

        Columns: ``open_time`` (Datetime in UTC), ``open``, ``high``, ``low``, ``close``, ``volume`` (Float64)
        and, where it is known, ``trade_count`` (Int64). Minutes filled without trades have volume 0.
        """
        ...


@dataclass(frozen=True, slots=True)
class ReferenceDirectory:
    """Files ``{exchange}/{symbol}/{day}.csv`` or ``.parquet`` below a directory.

    ``open_time`` is a time in UTC or a number since the epoch in seconds, milliseconds or microseconds.
    """

    folder: Path

    def minutes(self, exchange: str, symbol: str, day: str) -> pl.DataFrame | None:
        """See ``ReferenceCandles``; a file that cannot be read as candles is a ``PermanentFailure``."""
        import polars as pl

        base = self.folder / exchange / symbol
        for suffix, read in ((".parquet", pl.read_parquet), (".csv", _read_csv)):
            file = base / f"{day}{suffix}"
            if file.is_file():
                try:
                    return _normalized(read(file))
                except (pl.exceptions.PolarsError, OSError) as error:
                    reason = " ".join(str(error).split())[:200]
                    needed = ", ".join(_NEEDED)
                    msg = f"{file}: cannot be read as candles ({reason}): it needs the columns {needed}"
                    raise PermanentFailure(msg) from error
        return None


def against_reference(
    candles: pl.DataFrame, day: str, reference: ReferenceCandles, limits: ComparisonSettings
) -> Rows:
    """K4: for each market that the reference knows, how many of its traded minutes are the same.

    Open, high, low, close and count must be equal, volume within ``limits.reference_volume``. A minute that
    only one side has is a difference; minutes that the reference filled are no minutes of it.
    """
    import polars as pl

    rows: Rows = []
    base = candles.filter(pl.col("timeframe") == BASE_TIMEFRAME)
    for exchange, symbol in base.select("exchange", "symbol").unique().sort("exchange", "symbol").iter_rows():
        theirs = reference.minutes(exchange, symbol, day)
        if theirs is None:
            continue
        ours = base.filter((pl.col("exchange") == exchange) & (pl.col("symbol") == symbol))
        both = ours.join(
            theirs.filter(pl.col("volume") > 0), on="open_time", how="full", suffix="_theirs", coalesce=True
        )
        same = pl.all_horizontal(
            *(pl.col(name) == pl.col(f"{name}_theirs") for name in _PRICES),
            (pl.col("volume") - pl.col("volume_theirs")).abs()
            <= limits.reference_volume * pl.max_horizontal("volume", "volume_theirs"),
            *(
                [pl.col("trade_count") == pl.col("trade_count_theirs")]
                if "trade_count_theirs" in both.columns
                else []
            ),
        )
        judged = both.select("open_time", same.fill_null(value=False).alias("same")).sort("open_time")
        rows.append(_row({"exchange": exchange, "symbol": symbol}, judged))
    return rows


def across_venues(candles: pl.DataFrame, tolerance: float) -> Rows:
    """K5: for each market with minutes in common with other venues, how many have the venues' price.

    A minute agrees if its vwap is at most ``tolerance`` from the median of all venues' of the same pair.
    """
    import polars as pl

    minute = ["symbol", "open_time"]
    shared = (
        candles.filter(pl.col("timeframe") == BASE_TIMEFRAME)
        .with_columns(
            pl.len().over(minute).alias("venues"), pl.col("vwap").median().over(minute).alias("usual")
        )
        .filter(pl.col("venues") > 1)
        .with_columns(((pl.col("vwap") / pl.col("usual") - 1).abs() <= tolerance).alias("same"))
        .sort("exchange", "symbol", "open_time")
    )
    return [
        _row({"exchange": exchange, "symbol": symbol}, group)
        for (exchange, symbol), group in shared.group_by(["exchange", "symbol"], maintain_order=True)
    ]


def _row(market: dict[str, Any], judged: pl.DataFrame) -> dict[str, Any]:
    equal = int(judged["same"].sum())
    differing = judged.filter(~judged["same"])
    return {
        **market,
        "minutes": judged.height,
        "equal": equal,
        "share": equal / judged.height if judged.height else 1.0,
        "first_difference": str(differing["open_time"][0]) if differing.height else "",
    }


def _read_csv(file: Path) -> pl.DataFrame:
    import polars as pl

    # Types by the whole file: integers that turn to decimals later would break a guess by its first rows.
    return pl.read_csv(file, infer_schema_length=None, try_parse_dates=True)


def _normalized(frame: pl.DataFrame) -> pl.DataFrame:
    import polars as pl

    time = pl.col("open_time")
    kind = frame.schema.get("open_time")
    if kind is not None and kind.is_integer():
        unit = (
            pl.when(time < _SECONDS_BELOW)
            .then(1_000_000)
            .when(time < _MILLISECONDS_BELOW)
            .then(1_000)
            .otherwise(1)
        )
        time = (time * unit).cast(pl.Datetime("us", "UTC"))
    elif isinstance(kind, pl.Datetime):
        time = (
            time.dt.replace_time_zone("UTC") if kind.time_zone is None else time.dt.convert_time_zone("UTC")
        )
        time = time.dt.cast_time_unit("us")
    else:
        time = time.str.to_datetime(time_unit="us", time_zone="UTC")
    values = [pl.col(name).cast(pl.Float64) for name in (*_PRICES, "volume")]
    counts = [pl.col("trade_count").cast(pl.Int64)] if "trade_count" in frame.columns else []
    return frame.select(time.alias("open_time"), *values, *counts)
