"""How far a day's candles agree with those of sources, of other venues, and of markets that cross.

The assets ``candles`` and ``reference`` make the comparisons; here they become lines of a page.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from backfill_assets.candles.comparison import agrees
from backfill_assets.quality.measures import DayMeasures
from backfill_assets.references.conventions import convention_of
from backfill_assets.references.day import DayComparison
from backfill_assets.settings import ComparisonSettings


@dataclass(frozen=True, slots=True)
class AgreementLine:
    """How many of a market's minutes agree with other candles."""

    market: str
    against: str
    minutes: int
    equal: int
    share: float
    #: Whether the limits of the settings are met; if not, a check warns and nothing is held.
    enough: bool
    first_difference: str


@dataclass(frozen=True, slots=True)
class DifferenceLine:
    """A minute in which our candle and a source's differ: open, high, low, close and volume of each."""

    market: str
    against: str
    time: str
    ours: tuple[float | None, ...]
    theirs: tuple[float | None, ...]

    @property
    def values(self) -> tuple[tuple[float | None, float | None, bool], ...]:
        """Each pair of values, and whether they differ."""
        return tuple((one, other, one != other) for one, other in zip(self.ours, self.theirs, strict=True))


#: Names of sources on pages; another directory has the name of its setting.
_SOURCES: Final = {
    "comparison.reference": "the exchange's own candles",
    "ccxt": "the exchange's own candles (ccxt)",
    "massive": "Massive's candles",
}


def agreements_of(
    measures: DayMeasures, compared: DayComparison | None, limits: ComparisonSettings
) -> tuple[AgreementLine, ...]:
    """All comparisons, those with too little agreement first."""
    rows = [(source_name(one.source), one.model_dump()) for one in (compared.markets if compared else ())]
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


def differences_of(compared: DayComparison | None) -> tuple[DifferenceLine, ...]:
    """The first minutes of each market in which our candle and a source's differ."""
    return tuple(
        DifferenceLine(
            market=f"{one.exchange} {one.symbol}",
            against=source_name(one.source),
            time=minute.time[11:16],
            ours=minute.ours,
            theirs=minute.theirs,
        )
        for one in (compared.markets if compared else ())
        for minute in one.differences
    )


def ways_of(compared: DayComparison | None) -> tuple[str, ...]:
    """How each compared source makes the candles of each exchange, one line each."""
    found = {}
    for one in compared.markets if compared else ():
        way = convention_of(one.source, one.exchange)
        if way is not None:
            found[one.source, one.exchange] = f"{one.exchange}, {source_name(one.source)}: {way.words}"
    return tuple(found[key] for key in sorted(found))


def source_name(source: str) -> str:
    """The name of a source on a page."""
    return _SOURCES.get(source, f"the exchange's own candles ({source})")
