"""How far a day's candles agree with somebody else's: the exchange's own, and other venues' of the same pair.

The comparisons are those that the checks of ``candles`` make; here they become lines of a page.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from backfill_assets.candles.comparison import across_venues, against_reference
from backfill_assets.failures import PermanentFailure
from backfill_assets.quality.reference import reference_of
from backfill_assets.settings import ComparisonSettings

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True, slots=True)
class AgreementLine:
    """How many of a market's minutes somebody else's candles agree with."""

    market: str
    against: str
    minutes: int
    equal: int
    share: float
    #: Whether the share is what the settings ask for; too low a share warns and never gates.
    enough: bool
    first_difference: str


def agreements_of(
    candles: pa.Table, day: str, limits: ComparisonSettings
) -> tuple[tuple[AgreementLine, ...], str]:
    """Both comparisons, and why that with the reference failed: a page is not lost for somebody's file."""
    import polars as pl

    frame = pl.DataFrame(candles)
    failure, own = "", []
    reference = reference_of(limits)
    if reference is not None:
        try:
            own = against_reference(frame, day, reference, limits)
        except PermanentFailure as error:
            failure = str(error)
    rows = [("the exchange's own candles", row) for row in own]
    rows += [("the other venues", row) for row in across_venues(frame, limits.venue_vwap)]
    lines = [
        AgreementLine(
            market=f"{row['exchange']} {row['symbol']}",
            against=against,
            minutes=row["minutes"],
            equal=row["equal"],
            share=row["share"],
            enough=row["share"] >= limits.agreement,
            first_difference=row["first_difference"][11:16],
        )
        for against, row in rows
    ]
    return tuple(sorted(lines, key=lambda line: (line.enough, line.market, line.against))), failure
