"""A source's answer for one market of a day, and the protocol of sources that are asked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, Protocol

from backfill_assets.failures import TransientFailure
from backfill_assets.references.conventions import MINUTES_PER_DAY, Convention

if TYPE_CHECKING:
    import polars as pl

#: ``whole``: all candles of the day. ``partial``: some of them. ``empty``: the source has the market but gave
#: no candle. ``absent``: it does not have the market, or not this day of it. ``failed``: it gave no answer.
State = Literal["whole", "partial", "empty", "absent", "failed"]

#: The command that installs the libraries of the sources.
INSTALL: Final = "pip install 'backfill-assets[reference]'"


@dataclass(frozen=True, slots=True)
class Answer:
    """The candles of one market.

    Attributes
    ----------
    state
        See ``State``.
    asked
        The source's own name of the market; empty if it has none.
    minutes
        Columns ``open_time`` (Datetime in UTC), ``open``, ``high``, ``low``, ``close``, ``volume`` (Float64),
        sorted by time, as the source gave them; None without a candle.
    contract_size
        Base currency of one contract if volumes are in contracts; None if that is not a fixed amount.
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
        """Name of the source in the settings, the lake and messages."""
        ...

    def convention(self, exchange: str) -> Convention | None:
        """How the source makes its candles of the exchange; None if that is not known."""
        ...

    def unit(self, exchange: str) -> str:
        """The service that answers for the exchange; after a failure this run does not ask it again."""
        ...

    def asked_for(self, exchange: str) -> bool:
        """Whether the settings let the exchange be compared with this source."""
        ...

    def fetch(self, exchange: str, symbol: str, day: str) -> Answer:
        """Ask for the one-minute candles of a market's day.

        Raises
        ------
        TransientFailure
            The service did not answer, or its answer has no candles: a later run may succeed.
        PermanentFailure
            A library, a key or a setting is missing or wrong.
        """
        ...

    def missing_market(self, exchange: str, symbol: str) -> str:
        """Return why the source does not have the market, in one line; empty if it has it.

        Raises
        ------
        TransientFailure, PermanentFailure
            As in ``fetch``.
        """
        ...


def read_minutes(rows: list[list[float | None]], day: str) -> pl.DataFrame:
    """Candles from rows of milliseconds, open, high, low, close and volume, without those of other days.

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
    """The answer with these candles; a source that fills empty minutes must give every minute of the day."""
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
