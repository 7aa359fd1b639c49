"""One market's minutes beside those of a source, each made as its convention says.

K4 of the consistencies. Sources may be wrong, late or of other venues, so a difference warns and never gates.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from backfill_assets.candles.comparison import PRICES, agreement_row
from backfill_assets.lake.documents import Document
from backfill_assets.references.conventions import Convention
from backfill_assets.settings import ComparisonSettings

if TYPE_CHECKING:
    import polars as pl

#: Differing minutes that are kept of a market, the first of the day.
DIFFERENCES_KEPT: Final = 20
#: Median distance of the closes from which on a source is likely to have given another market.
ANOTHER_MARKET: Final = 0.1

_SIDES: Final = (*PRICES, "volume")


class Difference(Document):
    """A minute of ours and of the source: open, high, low, close, volume, as far as each side has them."""

    time: str
    ours: tuple[float | None, ...]
    theirs: tuple[float | None, ...]


class ComparedMarket(Document):
    """How many minutes of a market agree with a source.

    Attributes
    ----------
    source, exchange, symbol
        What was compared.
    minutes, equal, share
        Minutes compared, those that agree, and the share of these.
    first_difference, longest_run
        Time of the first minute that differs, and how many in a row differ at most.
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
        The same as the source gave it; ``trade_count`` may be missing.
    contract_size
        Base currency of one of the source's contracts; None if that is not a fixed amount.
    close_before
        Our last price before the day, where it is known.

    Returns
    -------
    dict
        The fields of ``ComparedMarket`` after ``symbol``. Prices and count are equal, volumes within
        ``limits.reference_volume``; candles of several venues agree if all prices are within
        ``limits.venue_vwap``.
    """
    import polars as pl

    theirs = theirs.sort("open_time")
    ours = ours.sort("open_time")
    if convention.empty == "flat":
        # A minute that such a source did not give is none that it calls empty.
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
    """The source's candles without those that say that nothing was traded."""
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
    """Our candles as a source makes them that opens each at the close before it.

    Where our close before the day is not known, the source's own open stands for it.
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
