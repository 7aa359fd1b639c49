"""The state of each day of a range for one market, and the error or warning about days that fall short."""

from __future__ import annotations

import warnings
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from backfill_assets.failures import BadInput, PermanentFailure
from backfill_assets.feeds import GROUPED_SYMBOLS
from backfill_assets.readable_numbers import plural
from backfill_assets.yaml_files import did_you_mean

if TYPE_CHECKING:
    import polars as pl

State = Literal["published", "degraded", "provisional", "left_out", "not_expected", "held", "missing"]
OnGap = Literal["raise", "warn", "mask"]
Condition = Literal["available", "degraded", "pending", "missing"]

#: Meaning of each state for a reader.
MEANINGS: Final[Mapping[State, str]] = {
    "published": "all expected rows are there",
    "degraded": "the rows are there, but a score of the day is not above its threshold",
    "provisional": "asked for final data only: a file of a neighboring day may still change it",
    "left_out": "the day is published without this market, because its file did not count",
    "not_expected": "the day is published, and this market was not requested",
    "held": "the day's verdict forbids publishing",
    "missing": "the day was not published",
}
#: The condition of a day of a feed or a market in one word, the best first.
CONDITIONS: Final[Mapping[Condition, str]] = {
    "available": "its rows are in the tables",
    "degraded": "its rows are in the tables, and the day falls short somewhere",
    "pending": "its file is in the lake, and its rows wait for a decision or for the rest of the day",
    "missing": "it has no file, or the day was not run",
}
#: States in which the tables have rows.
WITH_ROWS: Final = frozenset[State]({"published", "degraded"})
#: States in which the market was requested.
EXPECTED: Final = WITH_ROWS | frozenset[State]({"provisional", "left_out"})
#: Most days that a message names one by one.
_NAMED: Final = 5
#: Most values that a message offers.
_OFFERED: Final = 20


@dataclass(frozen=True, slots=True)
class DayState:
    """One UTC day of a range.

    Attributes
    ----------
    state
        See ``MEANINGS``.
    sealed
        Whether nothing outside the day can still change its rows.
    reasons
        Why the market, or some of all markets, is left out; empty otherwise.
    is_awaited
        Whether rows that are not in the tables may still come from a file in the lake.
    is_generated
        Whether the prices come from the stand-in for Tardis and are not market prices.
    """

    day: str
    state: State
    sealed: bool = False
    reasons: str = ""
    is_awaited: bool = False
    is_generated: bool = False

    @property
    def condition(self) -> Condition:
        """See ``CONDITIONS``."""
        if self.state in WITH_ROWS:
            return "available" if self.state == "published" else "degraded"
        return "pending" if self.is_awaited else "missing"

    @property
    def is_gap(self) -> bool:
        """Whether the day is not published in full."""
        return self.state != "published"


class DataGap(PermanentFailure):
    """Raised when days of the range are missing, held or degraded; ``days`` has all days of the range."""

    def __init__(self, message: str, days: Sequence[DayState]) -> None:
        super().__init__(message)
        self.days = tuple(days)


class DataGapWarning(UserWarning):
    """Warns that days of the range are missing, held or degraded; the existing rows were returned."""


def market_states(
    quality: Iterable[Mapping[str, Any]],
    days: Sequence[str],
    data_type: str,
    exchange: str,
    symbol: str | None,
    *,
    final: bool = False,
    not_made: Collection[str] = (),
) -> tuple[DayState, ...]:
    """Return the market's state on each day; without a symbol, that of all the exchange's markets together.

    Parameters
    ----------
    quality
        Rows of the table ``quality`` as dictionaries; rows of other feeds tell which days were published.
    final
        Treat days that may still change as ``provisional``.
    not_made
        Days without the wanted table, though they were run.
    """
    of_day: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for row in quality:
        of_day[row["date"].isoformat()].append(row)

    def of(day: str) -> DayState:
        rows = of_day.get(day)
        if not rows:
            return DayState(day, "missing")
        is_held = rows[0]["day_state"] == "held"
        feeds = [r for r in rows if r["exchange"] == exchange and r["data_type"] == data_type]
        own = [r for r in feeds if symbol in (None, r["symbol"])]
        # The rows of a group do not list its symbols.
        feeds = own or [r for r in feeds if r["dataset_symbol"] in GROUPED_SYMBOLS]
        awaited = any(r["pending"] or r["verdict"] != "missing" for r in feeds)
        generated = any(r["generated"] for r in feeds)
        if is_held:
            return DayState(day, "held", is_awaited=awaited)
        if not feeds:
            return DayState(day, "not_expected")
        there = [r for r in feeds if r["published"]]
        if there and day in not_made:
            return DayState(day, "missing", is_awaited=True, is_generated=generated)
        if not there:
            return DayState(day, "left_out", reasons=_why_left_out(feeds), is_awaited=awaited)
        sealed = all(r["sealed"] for r in feeds)
        if final and not sealed:
            return DayState(day, "provisional", is_awaited=True, is_generated=generated)
        lacking = [r for r in feeds if not r["published"]] if symbol is None else []
        if rows[0]["day_state"] == "published" and not lacking:
            return DayState(day, "published", sealed, is_generated=generated)
        return DayState(day, "degraded", sealed, _why_left_out(lacking), is_generated=generated)

    return tuple(of(day) for day in days)


def condition_of_rows() -> pl.Expr:
    """Return the column ``condition`` of ``quality`` rows; for one feed it equals ``DayState.condition``."""
    import polars as pl

    is_published, awaited = pl.col("published"), pl.col("pending") | (pl.col("verdict") != "missing")
    return (
        pl.when(is_published & (pl.col("day_state") == "published"))
        .then(pl.lit("available"))
        .when(is_published)
        .then(pl.lit("degraded"))
        .when(awaited)
        .then(pl.lit("pending"))
        .otherwise(pl.lit("missing"))
    )


def _why_left_out(feeds: Sequence[Mapping[str, Any]]) -> str:
    told = [(r["dataset_symbol"], r["reasons"] or r["verdict"]) for r in feeds]
    return "; ".join(reason if len(told) == 1 else f"{name}: {reason}" for name, reason in told)


def insist_on_market(
    quality: Sequence[Mapping[str, Any]], data_type: str, exchange: str, symbol: str | None
) -> None:
    """Raise ``BadInput`` if days were run and none has the market; suggest close names."""
    if not quality:
        return
    of_type = [row for row in quality if row["data_type"] == data_type]
    feeds = [row for row in of_type if row["exchange"] == exchange]
    if any(symbol in (None, row["symbol"]) or row["dataset_symbol"] in GROUPED_SYMBOLS for row in feeds):
        return
    if feeds:
        about, value = f"{data_type} of {symbol!r} on {exchange}", symbol or ""
        known = sorted({row["symbol"] for row in feeds})
    else:
        about, value = f"{data_type} of an exchange {exchange!r}", exchange
        known = sorted({row["exchange"] for row in of_type})
    named = {row["dataset_symbol"]: row["symbol"] for row in feeds}
    if value in named:
        hint = f"that is the vendor's name of {named[value]}: write {named[value]}"
    else:
        hint = did_you_mean(value, known) or f"they have {', '.join(known) or 'none'}"
    msg = f"no day of the range has {about}; {hint}"
    raise BadInput(msg)


def insist_on_feeds(known: pl.DataFrame, chosen: Mapping[str, str]) -> None:
    """Raise ``BadInput`` if days were run and none has a feed with these values; suggest close names.

    Parameters
    ----------
    known
        Rows of ``quality``.
    chosen
        Values by column, in the order of checking.
    """
    about: list[str] = []
    for name, value in chosen.items():
        about.append(f"{name} {value!r}")
        found = known.filter(known[name] == value)
        if known.height and not found.height:
            names = sorted(known[name].unique())
            hint = did_you_mean(value, names) or f"choose from {', '.join(names[:_OFFERED])}"
            msg = f"no day of the range has feeds of {', '.join(about)}; {hint}"
            raise BadInput(msg)
        known = found


def gaps_text(days: Sequence[DayState], about: str) -> str:
    """Return one line about days that are not published in full; empty if there are none."""
    gaps = [day for day in days if day.is_gap]
    if not gaps:
        return ""
    counts = ", ".join(f"{n} {state}" for state, n in Counter(day.state for day in gaps).items())
    named = [f"{d.day} {d.state}{f' ({d.reasons[:160]})' if d.reasons else ''}" for d in gaps[:_NAMED]]
    more = f" and {len(gaps) - _NAMED} more" if len(gaps) > _NAMED else ""
    short = f"{len(gaps)} of {plural(len(days), 'day')} fall short ({counts})"
    return f"{about}: {short}: {'; '.join(named)}{more}"


def tell_gaps(days: Sequence[DayState], on_gap: OnGap, about: str) -> frozenset[str]:
    """Raise or warn about days that are not published in full, and return the days whose rows to return.

    ``mask`` neither raises nor warns, and keeps only days that are published in full.
    """
    if on_gap not in ("raise", "warn", "mask"):
        msg = f"on_gap is {on_gap!r}: choose 'raise', 'warn' or 'mask'"
        raise BadInput(msg)
    gaps = [day.day for day in days if day.is_gap]
    if on_gap == "mask":
        return frozenset(day.day for day in days if not day.is_gap)
    if gaps:
        msg = gaps_text(days, about)
        if on_gap == "raise":
            msg += (
                f"; run backfill-assets backfill --start {gaps[0]} --end {gaps[-1]}, "
                "or choose 'warn' or 'mask' for on_gap"
            )
            raise DataGap(msg, days)
        warnings.warn(msg, DataGapWarning, stacklevel=4)
    return frozenset(day.day for day in days if day.state in WITH_ROWS)
