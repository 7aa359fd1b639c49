"""What a source answers for one market of a day, and the protocol of sources that are asked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, Protocol

from backfill_assets.failures import TransientFailure
from backfill_assets.references.conventions import MINUTES_PER_DAY, Convention

if TYPE_CHECKING:
    import polars as pl

#: ``whole``: the day's candles. ``partial``: not all of them. ``empty``: the source knows the market and gave
#: no candle. ``absent``: it does not have the market, or not this day of it. ``failed``: it gave no answer.
State = Literal["whole", "partial", "empty", "absent", "failed"]

#: What installs the libraries of the sources.
INSTALL: Final = "pip install 'backfill-assets[reference]'"


@dataclass(frozen=True, slots=True)
class Answer:
    """The candles of one market.

    Attributes
    ----------
    state
        See ``State``.
    asked
        The source's own name of the market; empty where it has none.
    minutes
        Columns ``open_time`` (Datetime in UTC), ``open``, ``high``, ``low``, ``close``, ``volume`` (Float64),
        by time, as the source gave them; None without a candle.
    contract_size
        Base currency of one contract, where volumes are in contracts; None where that is not a fixed amount.
    reason
        Why the day is not whole, in one line.
    """

    state: State
    asked: str = ""
    minutes: pl.DataFrame | None = None
    contract_size: float | None = 1.0
    reason: str = ""


class CandleApi(Protocol):
    """A source that is asked over a network."""

    @property
    def name(self) -> str:
        """Of the source in the settings, the lake and messages."""
        ...

    def convention(self, exchange: str) -> Convention | None:
        """How its candles of the exchange are made; None if that is not known."""
        ...

    def unit(self, exchange: str) -> str:
        """The service that answers for the exchange: once it fails, it is not asked again in this run."""
        ...

    def asked_for(self, exchange: str) -> bool:
        """Whether the settings let the exchange be compared with this source."""
        ...

    def fetch(self, exchange: str, symbol: str, day: str) -> Answer:
        """Ask for the one-minute candles of a market's day.

        Raises
        ------
        TransientFailure
            The service did not answer, or not with candles: a later run may succeed.
        PermanentFailure
            A library, a key or a setting is missing or wrong.
        """
        ...

    def missing_market(self, exchange: str, symbol: str) -> str:
        """Ask whether the source has the market: why it does not, in one line; empty if it does.

        Raises
        ------
        TransientFailure, PermanentFailure
            As in ``fetch``.
        """
        ...


def read_minutes(rows: list[list[float | None]], day: str) -> pl.DataFrame:
    """Candles of the day from rows of milliseconds, open, high, low, close and volume; others are left out.

    Raises
    ------
    TransientFailure
        A row lacks a value.
    """
    import polars as pl

    names = ("time", "open", "high", "low", "close", "volume")
    try:
        frame = pl.DataFrame(rows, schema=dict.fromkeys(names, pl.Float64), orient="row", strict=False)
    except (pl.exceptions.PolarsError, TypeError, ValueError) as error:
        msg = f"rows are no candles ({' '.join(str(error).split())[:100]})"
        raise TransientFailure(msg) from error
    if any(frame.null_count().row(0)):
        msg = "a candle lacks a value"
        raise TransientFailure(msg)
    time = pl.col("time").cast(pl.Int64).cast(pl.Datetime("ms", "UTC")).dt.cast_time_unit("us")
    found = frame.select(time.alias("open_time"), *names[1:]).unique("open_time", keep="last")
    return found.filter(pl.col("open_time").dt.date() == pl.lit(day).str.to_date()).sort("open_time")


def answer_of(
    minutes: pl.DataFrame, asked: str, convention: Convention, contract_size: float | None
) -> Answer:
    """The answer that these candles are: a source that fills empty minutes has all of a day."""
    if minutes.is_empty():
        if convention.reach_minutes:
            return Answer(
                "absent", asked, reason=f"gave 0 of {MINUTES_PER_DAY:,} minutes: {_reach(convention)}"
            )
        return Answer("empty", asked, reason="gave no candle of the day")
    if convention.empty == "flat" and minutes.height < MINUTES_PER_DAY:
        reason = f"gave {minutes.height:,} of {MINUTES_PER_DAY:,} minutes, and only these are compared"
        if convention.reach_minutes:
            reason += f": {_reach(convention)}"
        return Answer("partial", asked, minutes, contract_size, reason)
    return Answer("whole", asked, minutes, contract_size)


def _reach(convention: Convention) -> str:
    return f"it has the newest {convention.reach_minutes:,} minutes only"
