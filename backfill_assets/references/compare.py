"""Compares one market's minutes with those of a source, under the convention of the source.

This is consistency K4. Sources may be wrong, late or of other venues, so a difference warns and never gates.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from backfill_assets.candles.comparison import PRICES, agreement_row
from backfill_assets.lake.documents import Document
from backfill_assets.references.conventions import Convention
from backfill_assets.settings import ComparisonSettings

if TYPE_CHECKING:
    import polars as pl

#: Differing minutes stored for a market: the first ones of the day.
DIFFERENCES_KEPT: Final = 20
#: From this median distance of the closes, the source has probably given another market.
ANOTHER_MARKET: Final = 0.1

_SIDES: Final = (*PRICES, "volume")


class Difference(Document):
    """A minute on our side and the source's: the open, high, low, close and volume that each side has."""

    time: str
    ours: tuple[float | None, ...]
    theirs: tuple[float | None, ...]


class ComparedMarket(Document):
    """How many minutes of a market agree with a source.

    Attributes
    ----------
    source, exchange, symbol
        The source and the market.
    minutes, equal, share
        Minutes compared, minutes that agree, and their share.
    first_difference, longest_run
        Time of the first minute that differs, and the most minutes in a row that differ.
    apart
        Median distance of the closes, as a share.
    differences
        The first minutes that differ.
    """

    source: str
    exchange: str
    symbol: str
    minutes: int
    equal: int
    share: float
    first_difference: str
    longest_run: int
    apart: float
    differences: tuple[Difference, ...] = ()


def compare_market(
    ours: pl.DataFrame,
    theirs: pl.DataFrame,
    convention: Convention,
    limits: ComparisonSettings,
    *,
    contract_size: float | None = 1.0,
    close_before: float | None = None,
) -> dict[str, Any]:
    """Compare a market's one-minute candles of a day.

    Parameters
    ----------
    ours
        ``open_time``, ``open``, ``high``, ``low``, ``close``, ``volume`` (null if unknown), ``trade_count``.
    theirs
        The same columns as the source gave them; ``trade_count`` may be missing.
    contract_size
        Base currency of one of the source's contracts; None if that is not a fixed amount.
    close_before
        Our last price before the day, if it is known.

    Returns
    -------
    dict
        The fields of ``ComparedMarket`` after ``symbol``. Minutes agree if prices and count are equal and
        volumes differ by at most ``limits.reference_volume``; candles of several venues agree if all prices
        are within ``limits.venue_vwap``.
    """
    import polars as pl

    theirs = theirs.sort("open_time")
    ours = ours.sort("open_time")
    if convention.empty == "flat":
        # Such a source gives empty minutes too, so a minute that it did not give is unknown.
        ours = ours.filter(pl.col("open_time").is_in(theirs["open_time"].implode()))
    if convention.opens_at == "previous_close":
        ours = _opened_at_previous_close(ours, theirs, close_before)
    traded = _without_fillers(theirs, convention)
    if contract_size is not None:
        traded = traded.with_columns(pl.col("volume") * contract_size)
    both = ours.join(
        traded,
        on="open_time",
        how="inner" if convention.is_composite else "full",
        suffix="_theirs",
        coalesce=True,
    ).sort("open_time")
    tolerance = limits.venue_vwap if convention.is_composite else 0.0
    same = [
        (pl.col(name) - pl.col(f"{name}_theirs")).abs() <= tolerance * pl.col(f"{name}_theirs")
        for name in PRICES
    ]
    if convention.volume != "unrelated" and contract_size is not None:
        same.append(
            pl.col("volume").is_null()
            | (
                (pl.col("volume") - pl.col("volume_theirs")).abs()
                <= limits.reference_volume * pl.max_horizontal("volume", "volume_theirs")
            )
        )
    if "trade_count_theirs" in both.columns:
        same.append(pl.col("trade_count") == pl.col("trade_count_theirs"))
    judged = both.with_columns(pl.all_horizontal(*same).fill_null(value=False).alias("same"))
    apart = judged.select((pl.col("close") / pl.col("close_theirs") - 1).abs().median()).item()
    differing = judged.filter(~pl.col("same")).head(DIFFERENCES_KEPT)
    return {
        **agreement_row({}, judged.select("open_time", "same")),
        "apart": apart or 0.0,
        "differences": tuple(
            Difference(
                time=str(row["open_time"]),
                ours=tuple(row[name] for name in _SIDES),
                theirs=tuple(row[f"{name}_theirs"] for name in _SIDES),
            )
            for row in differing.iter_rows(named=True)
        ),
    }


def _without_fillers(theirs: pl.DataFrame, convention: Convention) -> pl.DataFrame:
    """The source's candles without those of minutes without trades."""
    import polars as pl

    if convention.empty == "omitted":
        return theirs
    is_filler = pl.col("volume") == 0
    if convention.empty == "flat":
        close, before = pl.col("close"), pl.col("close").shift(1)
        flat = pl.all_horizontal(*(pl.col(name) == close for name in PRICES))
        is_filler &= flat & (close == before).fill_null(value=True)
    return theirs.filter(~is_filler)


def _opened_at_previous_close(
    ours: pl.DataFrame, theirs: pl.DataFrame, close_before: float | None
) -> pl.DataFrame:
    """Our candles as made by a source that opens each candle at the close before it.

    If our close before the day is not known, the source's own open replaces it.
    """
    import polars as pl

    before = pl.coalesce(pl.col("close").shift(1), pl.lit(close_before, pl.Float64), pl.col("their_open"))
    joined = ours.join(
        theirs.select("open_time", their_open="open"), on="open_time", how="left", maintain_order="left"
    )
    return joined.with_columns(
        before.alias("open"),
        pl.max_horizontal("high", before).alias("high"),
        pl.min_horizontal("low", before).alias("low"),
    ).drop("their_open")
