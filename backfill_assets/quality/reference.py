"""Directories of the exchanges' own candles.

They are here and not beside the comparison, because they are witnesses of prices before the pipeline has made
candles. Fetched candles come after that (``references``).
"""

from __future__ import annotations

import hashlib
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from backfill_assets.failures import PermanentFailure
from backfill_assets.settings import ComparisonSettings, DirectorySource, resolve

if TYPE_CHECKING:
    import polars as pl

PRICES: Final = ("open", "high", "low", "close")
_NEEDED: Final = ("open_time", *PRICES, "volume")
#: Seconds, milliseconds and microseconds since the epoch are distinguished by size, up to the year 2286.
_SECONDS_BELOW: Final = 10_000_000_000
_MILLISECONDS_BELOW: Final = 1_000 * _SECONDS_BELOW


@dataclass(frozen=True, slots=True)
class ReferenceDirectory:
    """Files ``{exchange}/{symbol}/{day}.csv`` or ``.parquet`` below a directory.

    ``open_time`` is a time in UTC or a number since the epoch in seconds, milliseconds or microseconds.
    """

    folder: Path
    #: The setting that names the folder.
    key: str = "comparison.reference"

    def minutes(self, exchange: str, symbol: str, day: str) -> pl.DataFrame | None:
        """A day's candles of a market, or None if there are none to compare with.

        Columns: ``open_time`` (Datetime in UTC), ``open``, ``high``, ``low``, ``close``, ``volume`` (Float64)
        and, where it is known, ``trade_count`` (Int64). Minutes filled without trades have volume 0.

        Raises
        ------
        PermanentFailure
            The file cannot be read as candles.
        """
        import polars as pl

        file = self._file(exchange, symbol, day)
        if file is None:
            return None
        try:
            return _normalized(pl.read_parquet(file) if file.suffix == ".parquet" else _read_csv(file))
        except (pl.exceptions.PolarsError, OSError) as error:
            reason = " ".join(str(error).split())[:200]
            needed = ", ".join(_NEEDED)
            msg = f"{file}: cannot be read as candles ({reason}): it needs the columns {needed}"
            raise PermanentFailure(msg) from error

    def digest(self, exchange: str, symbol: str, day: str) -> str:
        """The sha256 of the market's file; empty without a file, or if it cannot be read."""
        file = self._file(exchange, symbol, day)
        with suppress(OSError):
            return hashlib.sha256(file.read_bytes()).hexdigest() if file is not None else ""
        return ""

    def _file(self, exchange: str, symbol: str, day: str) -> Path | None:
        files = (self.folder / exchange / symbol / f"{day}{suffix}" for suffix in (".parquet", ".csv"))
        return next((file for file in files if file.is_file()), None)

    def trouble(self) -> str:
        """Why the folder has no candles of any day, in one line with the remedy; empty if it has candles."""
        if not self.folder.is_dir():
            return f"{self.key}: there is no folder {self.folder}: correct the path, or remove the key"
        if any(next(self.folder.glob(f"*/*/[0-9]*.{kind}"), None) for kind in ("csv", "parquet")):
            return ""
        return (
            f"{self.key}: {self.folder} holds no EXCHANGE/SYMBOL/DAY.csv or .parquet: "
            "name the folder above those of the exchanges, or remove the key"
        )


def directories_of(limits: ComparisonSettings) -> tuple[ReferenceDirectory, ...]:
    """The directories of candles that the settings name, in their order."""
    named = {"comparison.reference": resolve(limits.reference)}
    for number, source in enumerate(limits.sources):
        if isinstance(source, DirectorySource):
            named[f"comparison.sources[{number}].folder"] = resolve(source.folder)
    found = [(key, folder) for key, folder in named.items() if folder]
    return tuple(ReferenceDirectory(Path(folder).expanduser(), key) for key, folder in found)


def _read_csv(file: Path) -> pl.DataFrame:
    import polars as pl

    # Infer types from the whole file: an integer column with decimals in later rows would break a guess.
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
