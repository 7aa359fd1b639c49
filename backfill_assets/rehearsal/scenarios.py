"""The list of scenarios, those without a fault, and the rehearsal that plays them one after the other."""

from __future__ import annotations

import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Final

import duckdb

from backfill_assets.days import shift, utc_now
from backfill_assets.failures import BadInput
from backfill_assets.quality.settled import load_day
from backfill_assets.rehearsal.house import FIRST_DAY, RUN_SECONDS, House, rehearsal_market
from backfill_assets.rehearsal.model import Promise, Rehearsal, ScenarioResult
from backfill_assets.rehearsal.process_faults import disk_full, hung, killed, stopped, two_at_once
from backfill_assets.rehearsal.stage import Stage, undisturbed
from backfill_assets.rehearsal.vendor_faults import network, not_exported_yet, poisoned, refused, restated
from backfill_assets.yaml_files import did_you_mean

_MINUTES: Final = 1_440
#: A leap day, a month's first day after it, and the days around a new year.
_CLOCK_DAYS: Final = ("2024-02-29", "2024-03-01", "2023-12-31", "2024-01-01")
_BOOKS: Final = ("quotes", "book_snapshot_5", "book_snapshot_25", "incremental_book_L2")
#: The market of the large file, its trades a day, and the memory and the time that a run may take.
_LARGE: Final = ("binance", "BTC-USDT")
_LARGE_ROWS: Final = 20_000_000
_MOST_MB: Final = 1_000
_LARGE_SECONDS: Final = 1_200.0
#: The stand-in makes the file while the run waits for it.
_LARGE_ANSWER_SECONDS: Final = 600.0
#: Completeness that only neighbouring days can give: the ids join over midnight.
_JOINED: Final = frozenset({"proven", "head_proven"})


def normal(stage: Stage) -> None:
    """Nothing goes wrong, and a second run has nothing to do."""
    day = stage.day
    with stage.house() as house:
        stage.succeeded(Promise.RECOVERED, house.run(day), "the run")
        stage.ends_undisturbed(house, "the run")
        stage.is_told(house, day, "the run", bad=False)
        before = len(house.standin.requests)
        stage.succeeded(Promise.RECOVERED, house.run(day), "a second run")
        again = [r.path for r in house.standin.requests[before:] if "/datasets/" in r.path]
        stage.check(Promise.RECOVERED, "a second run fetches no file", f"{len(again)} files", kept=not again)
        stage.ends_undisturbed(house, "a second run")


def high_load(stage: Stage) -> None:
    """Several days at once; in --full four days of 60 feeds."""
    days = [shift(stage.day, -n) for n in range(4 if stage.is_full else 3)]
    data_types = ("trades", *_BOOKS) if stage.is_full else ("trades", "quotes")
    with stage.house(data_types=data_types) as house:
        running = {day: house.start(day) for day in days}
        for day, process in running.items():
            code = process.wait(RUN_SECONDS)
            state = house.state(day)
            stage.check(
                Promise.CONTAINED,
                f"{day} beside {len(days) - 1} others: exit code 0, published",
                f"exit code {code}, {state.outcome}, {state.feeds} feeds",
                kept=code == 0 and state.outcome == "published",
            )
            stage.has_all_trades(house, day, "at once")
        for day in days:
            stage.is_told(house, day, "at once", bad=False)


def low_memory(stage: Stage) -> None:
    """One file of 20 million trades; the memory of the run stays below 1 GB."""
    market = rehearsal_market({_LARGE: _LARGE_ROWS})
    with stage.house(market=market, answer_seconds=_LARGE_ANSWER_SECONDS) as house:
        process = house.start(stage.day)
        code = process.wait(_LARGE_SECONDS)
        outcome = house.state(stage.day).outcome
        stage.check(
            Promise.RECOVERED,
            "the run: exit code 0, published",
            f"exit code {code}, {outcome}",
            kept=code == 0 and outcome == "published",
        )
        peak = stage.peak_mb
        stage.check(
            Promise.CONTAINED,
            f"the processes of the run take less than {_MOST_MB} MB",
            f"{peak:.0f} MB",
            kept=0 < peak < _MOST_MB,
        )
        stage.has_all_trades(house, stage.day, "the run")
        stage.is_told(house, stage.day, "the run", bad=False)


def clock(stage: Stage) -> None:
    """A leap day and the ends of a month and of a year, which join their neighbours."""
    with stage.house() as house:
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
    """Markets of which the coverage of minutes is not one day long."""
    file = house.warehouse / "coverage" / f"{day}.parquet"
    if not file.exists():
        return ["there is no coverage"]
    with duckdb.connect() as connection:
        rows = connection.execute(
            "SELECT exchange, symbol, sum(buckets) FROM read_parquet(?) WHERE timeframe = '1m' GROUP BY ALL",
            [str(file)],
        ).fetchall()
    return [f"{exchange} {symbol}: {n}" for exchange, symbol, n in rows if n != _MINUTES]


@dataclass(frozen=True, slots=True)
class Scenario:
    """A scenario by its name; its first line of documentation is its summary."""

    name: str
    play: Callable[[Stage], None]
    #: Whether it takes too long for --quick.
    is_long: bool = False

    @property
    def summary(self) -> str:
        """What happens, in one line."""
        return (self.play.__doc__ or "").partition("\n")[0]


SCENARIOS: Final[dict[str, Scenario]] = {
    name: Scenario(name, play, is_long=play is low_memory)
    for name, play in {
        "normal": normal,
        "network": network,
        "refused": refused,
        "not-exported-yet": not_exported_yet,
        "killed": killed,
        "hung": hung,
        "stopped": stopped,
        "two-at-once": two_at_once,
        "restated": restated,
        "disk-full": disk_full,
        "poisoned": poisoned,
        "clock": clock,
        "high-load": high_load,
        "low-memory": low_memory,
    }.items()
}


def chosen(names: Sequence[str], *, is_full: bool) -> list[Scenario]:
    """The scenarios of these names; without names all that fit the mode.

    Raises
    ------
    BadInput
        A name is unknown; the message lists the known ones. A scenario is too long for ``--quick``.
    """
    for name in names:
        if name not in SCENARIOS:
            hint = did_you_mean(name, SCENARIOS)
            msg = f"{name!r} is no scenario; {f'{hint} ' if hint else ''}known: {', '.join(SCENARIOS)}"
            raise BadInput(msg)
        if SCENARIOS[name].is_long and not is_full:
            msg = f"{name} takes too long for --quick: add --full"
            raise BadInput(msg)
    if names:
        return [SCENARIOS[name] for name in names]
    return [scenario for scenario in SCENARIOS.values() if is_full or not scenario.is_long]


def insist_on_day(day: str) -> None:
    """Refuse days that the generated market does not have.

    Raises
    ------
    BadInput
        The day is too early, or not over yet.
    """
    yesterday = shift(utc_now().date().isoformat(), -1)
    if not FIRST_DAY <= day <= yesterday:
        msg = f"{day} cannot be rehearsed: choose a day from {FIRST_DAY} to {yesterday}"
        raise BadInput(msg)


def rehearse(
    day: str,
    scenarios: Sequence[Scenario],
    *,
    is_full: bool,
    logs: Path,
    say: Callable[[str], None] = lambda _: None,
) -> Rehearsal:
    """Play the scenarios.

    Parameters
    ----------
    day
        UTC day.
    logs
        Where the logs of all runs are kept.
    say
        Called with a line for each scenario that begins or has ended.

    Raises
    ------
    BackfillError
        The undisturbed run fails.
    """
    began, results = time.monotonic(), []
    with _ending_in_order(), tempfile.TemporaryDirectory(prefix="rehearsal-") as root:
        say(f"the undisturbed run of {day}, to compare with")
        compared = undisturbed(Path(root) / "undisturbed", day)
        for scenario in scenarios:
            stage = Stage(scenario.name, Path(root) / scenario.name, day, compared, is_full=is_full)
            say(f"{scenario.name}: {scenario.summary}")
            results.append(play(scenario, stage, logs / scenario.name))
            for outcome in results[-1].outcomes:
                if outcome.kept is not True:
                    say(f"  {'broken' if outcome.kept is False else 'not run'}: {outcome.line}")
    mode = "full" if is_full else "quick"
    return Rehearsal(day, mode, time.monotonic() - began, tuple(results))


@contextmanager
def _ending_in_order() -> Iterator[None]:
    """End processes, mounts and folders also when the rehearsal itself is asked to end."""

    def end(number: int, frame: FrameType | None) -> None:
        del frame
        sys.exit(128 + number)

    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def play(scenario: Scenario, stage: Stage, logs: Path) -> ScenarioResult:
    """Play one scenario; one that cannot go on has broken its promise to recover."""
    with stage.measured() as measured:
        try:
            scenario.play(stage)
        except Exception as failure:  # noqa: BLE001 - it is told as broken, and the others are still played
            stage.check(
                Promise.RECOVERED,
                "the scenario can be played to its end",
                f"{type(failure).__name__}: {failure}",
                kept=False,
            )
    stage.keep_logs(logs)
    return ScenarioResult(scenario.name, scenario.summary, tuple(stage.outcomes), measured[0])
