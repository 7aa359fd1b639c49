"""The scenario of odd days and odd clocks: how days join, and when the schedules run them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from datetime import time as clock_time
from typing import Final

import duckdb

from backfill_assets.alerts.incidents import load_incidents
from backfill_assets.days import day_range, shift
from backfill_assets.failures import BackfillError
from backfill_assets.quality.settled import load_day
from backfill_assets.rehearsal.deployment import Deployment
from backfill_assets.rehearsal.house import House
from backfill_assets.rehearsal.model import Promise
from backfill_assets.rehearsal.moved_clock import MovedClock
from backfill_assets.rehearsal.quick import LOOKED
from backfill_assets.rehearsal.stage import Stage

_MINUTES: Final = 1_440
#: A leap day, a month's first day after it, and the days around a new year.
_CLOCK_DAYS: Final = ("2024-02-29", "2024-03-01", "2023-12-31", "2024-01-01")
#: Completeness states that need the neighboring days: the ids join across midnight.
_JOINED: Final = frozenset({"proven", "head_proven"})
#: Few feeds, since they are fetched for each of many days.
_MARKETS: Final = (("binance",), ("BTC-USDT",))
_BEFORE_NINE: Final = clock_time(8, 59)
_NINE: Final = clock_time(9)
#: The time at which the daemon comes back.
_NOON: Final = clock_time(12)
#: Number of schedule checks to wait for, and for how long: the second begins after the clock was moved.
_LOOKS: Final = 3
_LOOKS_SECONDS: Final = 60.0
#: The sensor checks within this time once an incident is due.
_SENSOR_SECONDS: Final = 15.0
_DAYS_SECONDS: Final = 180.0
#: Longer than the interval of the sensor of incidents.
_SENSOR: Final = timedelta(minutes=10)
_LOOKS_OF_SENSOR: Final = 3
_SHORT_AWAY: Final = 4
_LONG_AWAY: Final = 10


def clock(stage: Stage) -> None:
    """A leap day, ends of a month and a year; 09:00, a daemon that was away, a clock that steps back."""
    _odd_days(stage)
    _schedules(stage)


def _odd_days(stage: Stage) -> None:
    with stage.house(name="odd-days") as house:
        for day in _CLOCK_DAYS:
            stage.succeeded(Promise.RECOVERED, house.run(day), f"the run of {day}")
        for day in _CLOCK_DAYS:
            stage.has_all_trades(house, day, "every row of the day")
            short = _markets_without_whole_day(house, day)
            stage.check(
                Promise.NOTHING_LOST,
                f"{day}: the coverage of each market has {_MINUTES} minutes",
                ", ".join(short) or "each has",
                kept=not short,
            )
            stage.is_told(house, day, "after its run", bad=False)
        for day in _CLOCK_DAYS[1::2]:
            found = load_day(house.store, day)
            states = {
                str(feed.feed): feed.verdict.completeness_state
                for feed in (found.feeds if found else ())
                if feed.feed.exchange in ("binance", "coinbase")
            }
            loose = [f"{feed} is {state}" for feed, state in states.items() if state not in _JOINED]
            stage.check(
                Promise.NOTHING_LOST,
                f"{day}: the ids of each numbered feed join those of the day before",
                ", ".join(loose) or f"{len(states)} feeds join",
                kept=bool(states) and not loose,
            )


def _markets_without_whole_day(house: House, day: str) -> list[str]:
    """Return the markets whose coverage of minutes is not one day long."""
    file = house.warehouse / "coverage" / f"{day}.parquet"
    if not file.exists():
        return ["there is no coverage"]
    with duckdb.connect() as connection:
        rows = connection.execute(
            "SELECT exchange, symbol, sum(buckets) FROM read_parquet(?) WHERE timeframe = '1m' GROUP BY ALL",
            [str(file)],
        ).fetchall()
    return [f"{exchange} {symbol}: {n}" for exchange, symbol, n in rows if n != _MINUTES]


class _Calendar:
    """A daemon under a clock that is moved, and the days that it requests."""

    def __init__(self, house: House, clock: MovedClock, first: str) -> None:
        self.house = house
        self.clock = clock
        self._first = date.fromisoformat(first)
        self._back = house.settings.schedule.look_back_days

    def set(self, days: int, moment: clock_time) -> None:
        """Move the clock to a time of a day, counted from the first."""
        self.clock.set(datetime.combine(self._first + timedelta(days=days), moment, UTC))

    def looked_back(self, days: int) -> list[str]:
        """The days that the schedules look back to, the given number of days after the first."""
        today = (self._first + timedelta(days=days)).isoformat()
        return day_range(shift(today, -self._back), shift(today, -1))

    def asked(self) -> dict[str, int]:
        """The largest number of requests for a file of each day."""
        found: dict[str, int] = {}
        paths = [request.path for request in self.house.standin.requests if "/datasets/" in request.path]
        for path in set(paths):
            day = "-".join(path.split("/datasets/")[1].split("/")[2:5])
            found[day] = max(found.get(day, 0), paths.count(path))
        return found

    def are_published(self, days: Sequence[str]) -> bool:
        """Whether all of the days are published."""
        return all(self.house.state(day).outcome == "published" for day in days)

    def files(self) -> dict[str, int]:
        """Every published file, with the time at which it was written."""
        return {str(f): f.stat().st_mtime_ns for f in sorted(self.house.warehouse.glob("[!.]*/*.parquet"))}

    def late(self) -> list[str]:
        """The days that an incident reports as late."""
        return sorted(i.day for i in load_incidents(self.house.store).open if i.rule == "day_late")


def _schedules(stage: Stage) -> None:
    first = shift(stage.day, 1)
    with stage.house(markets=_MARKETS) as house:
        start = datetime.combine(date.fromisoformat(first), clock_time(8, 30), UTC)
        clock = MovedClock(house.folder / "clock", start)
        house.standin.clock = clock.now
        calendar = _Calendar(house, clock, first)
        with Deployment(house, is_quick=True, variables=clock.variables, has_service=False) as daemon:
            _looks(daemon)
            _nine(stage, calendar, daemon)
            _steps_back(stage, calendar, daemon)
            known = calendar.asked()
            for away in (_SHORT_AWAY, _LONG_AWAY):
                known = _is_away(stage, calendar, daemon, away, known)
        stage.has_all_trades(house, shift(first, _SHORT_AWAY + _LONG_AWAY - 1), "after the return")


def _looks(daemon: Deployment) -> None:
    """Wait until the daemon has checked its schedules several times."""
    log = daemon.process("daemon").log

    def seen() -> int:
        return log.read_text(encoding="utf-8", errors="replace").count(LOOKED)

    before = seen()
    if not daemon.wait(lambda: seen() >= before + _LOOKS, _LOOKS_SECONDS):
        msg = f"the daemon did not check its schedules within {_LOOKS_SECONDS:g} s"
        raise BackfillError(msg)


def _nine(stage: Stage, calendar: _Calendar, daemon: Deployment) -> None:
    """At 08:59 no day is requested, and at 09:00 every day of the look-back."""
    calendar.set(0, _BEFORE_NINE)
    _looks(daemon)
    before = calendar.asked()
    shown = calendar.clock.now().strftime("%H:%M:%S")
    stage.check(
        Promise.CONTAINED,
        "until 08:59 UTC no day is asked for",
        f"{len(before)} days at {shown}",
        kept=not before and shown < "09:00",
    )
    calendar.set(0, _NINE)
    _are_asked(stage, calendar, daemon, calendar.looked_back(0), "at 09:00 UTC yesterday and the days before")


def _are_asked(
    stage: Stage, calendar: _Calendar, daemon: Deployment, days: Sequence[str], about: str
) -> None:
    daemon.wait(lambda: calendar.are_published(days), _DAYS_SECONDS)
    out = [day for day in days if calendar.are_published([day])]
    stage.check(
        Promise.RECOVERED,
        f"{about}: {days[0]} to {days[-1]} are asked for and published",
        f"{len(out)} of {len(days)} published",
        kept=out == list(days),
    )
    again = {day: count for day, count in calendar.asked().items() if count != 1}
    stage.check(
        Promise.CONTAINED,
        f"{about}: each day's files are asked for once",
        ", ".join(f"{day}: {count} times" for day, count in again.items()) or "each once",
        kept=not again,
    )


def _steps_back(stage: Stage, calendar: _Calendar, daemon: Deployment) -> None:
    """The clock shows 08:59 again, then the day before; no day is requested or published again."""
    # The last of the runs may be about to end.
    _looks(daemon)
    runs, files = _runs(daemon), calendar.files()
    for days in (0, -1):
        for moment in (_BEFORE_NINE, _NINE):
            calendar.set(days, moment)
            _looks(daemon)
    more = _runs(daemon) - runs
    stage.check(
        Promise.CONTAINED,
        "the clock steps back to 08:59, and to the day before: no run is started",
        f"{runs} runs before, {more} since",
        kept=bool(runs) and not more,
    )
    again = [file for file, written in calendar.files().items() if files.get(file, written) != written]
    stage.check(
        Promise.NOTHING_WRONG_PUBLISHED,
        "the clock steps back: no file is published again",
        f"{len(files)} files, {len(again)} written again",
        kept=bool(files) and not again,
    )


def _runs(daemon: Deployment) -> int:
    """Count the runs in the daemon's records: each has its own database of events."""
    return sum(file.stem != "index" for file in (daemon.home / "history" / "runs").glob("*.db"))


def _is_away(
    stage: Stage, calendar: _Calendar, daemon: Deployment, away: int, known: dict[str, int]
) -> dict[str, int]:
    """Keep the daemon down for a number of days; return the days that were requested until then."""
    daemon.kill("daemon")
    back = away if away == _SHORT_AWAY else _SHORT_AWAY + away
    calendar.set(back, _NOON)
    daemon.start_daemon()
    missed = day_range(max(known, default=calendar.looked_back(0)[-1]), calendar.looked_back(back)[-1])[1:]
    within = [day for day in missed if day in calendar.looked_back(back)]
    about = f"the daemon was down for {away} days"
    _are_asked(stage, calendar, daemon, within, about)
    beyond = sorted(set(missed) - set(within))
    asked = sorted(set(calendar.asked()) - set(known))
    stage.check(
        Promise.CONTAINED,
        f"{about}: no other day is asked for",
        f"{len(asked)} days: {asked[0]} to {asked[-1]}" if asked else "none is",
        kept=asked == within,
    )

    def is_told() -> bool:
        return calendar.late() == beyond and _are_named(calendar.house, beyond)

    told = None
    for _ in range(_LOOKS_OF_SENSOR):
        # The sensor checks again after its interval.
        calendar.clock.set(calendar.clock.now() + _SENSOR)
        told = told or daemon.wait(is_told, _SENSOR_SECONDS)
    stage.check(
        Promise.SOMEBODY_TOLD,
        f"{about}: {', '.join(beyond) or 'no day'} beyond the look-back, and no other, is reported as late",
        f"late: {', '.join(calendar.late()) or 'none'}",
        kept=bool(told),
    )
    return calendar.asked()


def _are_named(house: House, days: Sequence[str]) -> bool:
    return all(any(day in message for message in house.inbox.messages) for day in days)
