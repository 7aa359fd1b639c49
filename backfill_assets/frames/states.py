"""The state of each day of a range for one market, and the error or warning about days that fall short."""

from __future__ import annotations

import sys
import warnings
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from backfill_assets.days import shift, utc_now
from backfill_assets.failures import PermanentFailure
from backfill_assets.feeds import GROUPED_SYMBOLS
from backfill_assets.readable_numbers import plural

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
#: Most days, and most commands, that a message names one by one.
_NAMED: Final = 5
#: Most days that a person runs in one process; more are a backfill.
_MOST_RUN: Final = 31
_PACKAGE: Final = f"{Path(__file__).parents[1]}/"


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
        Why the market, or some of all markets, is left out or not final yet; empty otherwise.
    remedies
        The commands that make a ``provisional`` day final; none while the vendor has no file of the next day.
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
    remedies: tuple[str, ...] = ()

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
        With ``final`` also those of the day before and the day after.
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
        of_type = [r for r in rows if r["exchange"] == exchange and r["data_type"] == data_type]
        feeds = _feeds_of(symbol, of_type)
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
            unsealed = [r for r in feeds if not r["sealed"]]
            waits = [
                why for n in (shift(day, -1), shift(day, 1)) for why in _waits(n, of_day.get(n, []), unsealed)
            ] or [("its neighbor days are newer", f"backfill-assets run --date {day}")]
            reasons, remedies = ([*dict.fromkeys(filter(None, texts))] for texts in zip(*waits, strict=True))
            return DayState(
                day,
                "provisional",
                reasons="; ".join(reasons),
                is_awaited=True,
                is_generated=generated,
                remedies=tuple(remedies),
            )
        lacking = [r for r in feeds if not r["published"]] if symbol is None else []
        if rows[0]["day_state"] == "published" and not lacking:
            return DayState(day, "published", sealed, is_generated=generated)
        return DayState(day, "degraded", sealed, _why_left_out(lacking), is_generated=generated)

    return tuple(of(day) for day in days)


def _feeds_of(symbol: str | None, of_type: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The market's feeds among those of its exchange and data type; without a symbol, all of them."""
    own = [r for r in of_type if symbol in (None, r["symbol"])]
    # The rows of a group do not list its symbols.
    return own or [r for r in of_type if r["dataset_symbol"] in GROUPED_SYMBOLS]


def _waits(
    neighbor: str, quality: Sequence[Mapping[str, Any]], feeds: Iterable[Mapping[str, Any]]
) -> Iterator[tuple[str, str]]:
    """Yield why feeds wait for their files of this day, and the command that helps, if one does."""
    run = f"backfill-assets run --date {neighbor}"
    if not quality:
        if neighbor >= utc_now().date().isoformat():
            yield f"the vendor publishes {neighbor} on {shift(neighbor, 1)}", ""
        else:
            yield f"{neighbor} was not run", run
        return
    for feed in feeds:
        kind = (feed["exchange"], feed["data_type"])
        there = _feeds_of(feed["symbol"], [r for r in quality if (r["exchange"], r["data_type"]) == kind])
        if not there:
            yield f"{neighbor} was run without {feed['symbol']}", run
        # The file of a held day counts, too.
        for row in there:
            if row["verdict"] == "missing":
                yield f"{neighbor} has no file of {row['symbol']}", run
            elif row["verdict"] != "publish":
                look = f"backfill-assets quality --date {neighbor}"
                yield f"the file of {row['symbol']} on {neighbor} does not count", look


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


def gaps_text(days: Sequence[DayState], about: str) -> str:
    """Return one line about days that are not published in full; empty if there are none."""
    gaps = [day for day in days if day.is_gap]
    if not gaps:
        return ""
    counts = ", ".join(f"{n:,} {state}" for state, n in Counter(day.state for day in gaps).items())
    named = [f"{d.day} {d.state}{f' ({d.reasons[:160]})' if d.reasons else ''}" for d in gaps[:_NAMED]]
    more = f" and {len(gaps) - _NAMED:,} more" if len(gaps) > _NAMED else ""
    verb = "falls" if len(days) == 1 else "fall"
    short = f"{len(gaps):,} of {plural(len(days), 'day')} {verb} short ({counts})"
    return f"{about}: {short}: {'; '.join(named)}{more}"


def _advice(days: Sequence[DayState], served: str) -> str:
    """The commands that fill the gaps or show their reasons, and the arguments that do without."""
    waiting = [day for day in days if day.state == "provisional"]
    degraded = [day.day for day in days if day.state == "degraded"]
    today = utc_now().date().isoformat()
    gaps = [
        day.day
        for day in days
        if day.is_gap and day.state not in ("provisional", "degraded") and day.day < today
    ]
    # A run of the gaps also runs the neighbor days that are among them.
    commands = [f"{served}{_run_command(gaps[0], gaps[-1], len(gaps))}"] if gaps else []
    commands += dict.fromkeys(
        f"{served if ' run ' in command else ''}{command}"
        for day in waiting
        for command in day.remedies
        if command.rpartition(" ")[2] not in gaps
    )
    advice = [f"run {' and '.join(commands[:_NAMED])}"] if commands else []
    if degraded:
        end = f" --end {degraded[-1]}" if degraded[1:] else ""
        advice.append(f"see backfill-assets quality --date {degraded[0]}{end}")
    advice.append("choose 'warn' or 'mask' for on_gap (--on-gap)")
    return ", or ".join([*advice, *(["leave out final"] if waiting else [])])


def _run_command(first: str, last: str, count: int) -> str:
    if count > _MOST_RUN:
        return f"backfill-assets backfill --start {first} --end {last}"
    return f"backfill-assets run --date {first}" + (f" --end {last}" if last != first else "")


def _callers_level() -> int:
    """The stack level of the code that called the package, as ``warnings`` counts it from this caller."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_PACKAGE):
        level, frame = level + 1, frame.f_back
    return level


def tell_gaps(days: Sequence[DayState], on_gap: OnGap, about: str, served: str = "") -> frozenset[str]:
    """Raise or warn about days that are not published in full, and return the days whose rows to return.

    ``mask`` neither raises nor warns, and keeps only days that are published in full.

    Parameters
    ----------
    served
        The words before a command that runs days, where the settings need a stand-in.
    """
    gaps = [day.day for day in days if day.is_gap]
    if on_gap == "mask":
        return frozenset(day.day for day in days if not day.is_gap)
    if gaps:
        msg = gaps_text(days, about)
        if on_gap == "raise":
            msg += f"; {_advice(days, served)}"
            raise DataGap(msg, days)
        warnings.warn(msg, DataGapWarning, stacklevel=_callers_level())
    return frozenset(day.day for day in days if day.state in WITH_ROWS)
