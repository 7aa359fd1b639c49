"""How far a day's candles agree with others: the exchange's own, other venues', and markets that cross.

The comparisons were made with the candles; here they become lines of a page.
"""

from __future__ import annotations

from dataclasses import dataclass

from backfill_assets.candles.comparison import agrees
from backfill_assets.quality.measures import DayMeasures
from backfill_assets.settings import ComparisonSettings


@dataclass(frozen=True, slots=True)
class AgreementLine:
    """How many of a market's minutes somebody else's candles agree with."""

    market: str
    against: str
    minutes: int
    equal: int
    share: float
    #: Whether the limits of the settings are met; if not, a check warns and nothing is held.
    enough: bool
    first_difference: str


def agreements_of(measures: DayMeasures, limits: ComparisonSettings) -> tuple[AgreementLine, ...]:
    """All comparisons, those that agree too little first."""
    rows = [("the exchange's own candles", row) for row in measures.reference]
    rows += [("the other venues", row) for row in measures.venues]
    rows += [(row["against"], row) for row in measures.symbols]
    lines = [
        AgreementLine(
            market=f"{row['exchange']} {row['symbol']}",
            against=against,
            minutes=row["minutes"],
            equal=row["equal"],
            share=row["share"],
            enough=agrees(row, limits),
            first_difference=row["first_difference"][11:16],
        )
        for against, row in rows
    ]
    return tuple(sorted(lines, key=lambda line: (line.enough, line.market, line.against)))
