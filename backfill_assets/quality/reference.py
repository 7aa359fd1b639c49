"""Somebody else's candles to hold ours against: what a source of them must give, and one that reads files.

A source is anything that gives a day of minutes for a market; a vendor's candle API can be one. Here and not
beside the comparison, because they are witnesses of prices before there are any candles of ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from backfill_assets.failures import PermanentFailure
from backfill_assets.settings import ComparisonSettings, resolve

if TYPE_CHECKING:
    import polars as pl

PRICES: Final = ("open", "high", "low", "close")
_NEEDED: Final = ("open_time", *PRICES, "volume")
#: Seconds, milliseconds and microseconds since the epoch are told apart by size, up to the year 2286.
_SECONDS_BELOW: Final = 10_000_000_000
_MILLISECONDS_BELOW: Final = 1_000 * _SECONDS_BELOW


class ReferenceCandles(Protocol):
    """Somebody else's one-minute candles."""

    def minutes(self, exchange: str, symbol: str, day: str) -> pl.DataFrame | None:
        """A day's candles of a market, or None if there are none to compare with.

        Columns: ``open_time`` (Datetime in UTC), ``open``, ``high``, ``low``, ``close``, ``volume`` (Float64)
        and, where it is known, ``trade_count`` (Int64). Minutes filled without trades have volume 0.
        """
        ...

    def trouble(self) -> str:
        """Why it has no candles of any day, in one line with the remedy; empty if it has some."""
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

    def trouble(self) -> str:
        """See ``ReferenceCandles``."""
        if not self.folder.is_dir():
            return (
                f"comparison.reference: there is no folder {self.folder}: correct the path, or remove the key"
            )
        if any(next(self.folder.glob(f"*/*/[0-9]*.{kind}"), None) for kind in ("csv", "parquet")):
            return ""
        return (
            f"comparison.reference: {self.folder} holds no EXCHANGE/SYMBOL/DAY.csv or .parquet: "
            "name the folder above those of the exchanges, or remove the key"
        )


def reference_of(limits: ComparisonSettings) -> ReferenceCandles | None:
    """The source of reference candles that the settings name; None if they name none."""
    folder = resolve(limits.reference)
    return ReferenceDirectory(Path(folder).expanduser()) if folder else None


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
    values = [pl.col(name).cast(pl.Float64) for name in (*PRICES, "volume")]
    counts = [pl.col("trade_count").cast(pl.Int64)] if "trade_count" in frame.columns else []
    return frame.select(time.alias("open_time"), *values, *counts)
