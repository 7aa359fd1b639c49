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

from backfill_assets.days import shift, utc_now
from backfill_assets.failures import BadInput
from backfill_assets.rehearsal.clock_faults import clock
from backfill_assets.rehearsal.confined import confinement
from backfill_assets.rehearsal.environment import FIRST_DAY, USUAL, Environment
from backfill_assets.rehearsal.house import RUN_SECONDS, House, rehearsal_market
from backfill_assets.rehearsal.limits import Limits, LimitsOfScenarios, judged, load_limits
from backfill_assets.rehearsal.model import Promise, Rehearsal, ScenarioResult
from backfill_assets.rehearsal.network_faults import network, wrong_answers
from backfill_assets.rehearsal.poison import poisoned, poisoned_metadata
from backfill_assets.rehearsal.process_faults import disk_full, hung, killed, stopped, two_at_once
from backfill_assets.rehearsal.real_sources import normal_at_real_sources
from backfill_assets.rehearsal.replay import prepare, take_out
from backfill_assets.rehearsal.service_faults import database_away, service
from backfill_assets.rehearsal.soak import soak
from backfill_assets.rehearsal.stage import (
    FULL_SOAK_MINUTES,
    QUICK_SOAK_MINUTES,
    Stage,
    Undisturbed,
    undisturbed,
)
from backfill_assets.rehearsal.upgrade import upgrade
from backfill_assets.rehearsal.vendor_faults import dns, not_exported_yet, refused, restated
from backfill_assets.rehearsal.warehouse_faults import warehouse
from backfill_assets.settings import DEFAULT_LIMITS, Settings
from backfill_assets.yaml_files import did_you_mean

_BOOKS: Final = ("quotes", "book_snapshot_5", "book_snapshot_25", "incremental_book_L2")
#: The market of the large file, its trades a day, and the memory and the time that a run may take.
_LARGE: Final = ("binance", "BTC-USDT")
_LARGE_ROWS: Final = 20_000_000
_MOST_MB: Final = 1_000
_LARGE_SECONDS: Final = 1_200.0
#: The stand-in makes the file while the run waits for it.
_LARGE_ANSWER_SECONDS: Final = 600.0


def normal(stage: Stage) -> None:
    """Nothing goes wrong, and a second run has nothing to do; in --full on each day of the environment."""
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
        for other in stage.environment.test_data.days if stage.is_full and not stage.replay else ():
            if other != day:
                stage.succeeded(Promise.RECOVERED, house.run(other), f"the run of {other}")
                stage.has_all_trades(house, other, f"the run of {other}")


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
    """One file of 20 million trades; the memory of the run stays below 1 GB, where possible by a cgroup."""
    market = rehearsal_market({_LARGE: _LARGE_ROWS})
    with stage.house(market=market, answer_seconds=_LARGE_ANSWER_SECONDS) as house:
        code = limited_run(stage, house, _MOST_MB)
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


def limited_run(stage: Stage, house: House, limit_mb: int) -> int | None:
    """Run the day under a limit of the kernel if one can be set; return the exit code."""
    confined = confinement(limit_mb)
    code = house.start(stage.day, confined=confined).wait(_LARGE_SECONDS)
    expected = f"in a cgroup of {limit_mb} MB: exit code 0"
    if confined.why_not:
        stage.not_run((Promise.CONTAINED,), expected, confined.why_not)
    else:
        stage.check(Promise.CONTAINED, expected, f"exit code {code}", kept=code == 0)
    return code


@dataclass(frozen=True, slots=True)
class Scenario:
    """A scenario by its name; the first line of its docstring is its summary.

    Attributes
    ----------
    why_no_replay
        The reason why it cannot be played on a published day; empty if it can.
    """

    name: str
    play: Callable[[Stage], None]
    why_no_replay: str = ""

    @property
    def summary(self) -> str:
        """The course of events, in one line."""
        return (self.play.__doc__ or "").partition("\n")[0]


_NO_REPLAY: Final = {
    "poisoned-metadata": "it needs data sets of three exchanges to rename and to leave out",
    "warehouse": "the stand-in for BigQuery is too slow for a day of any size",
    "clock": "it needs twenty days, among them a leap day and a new year",
    "upgrade": "it has a lake of its own",
    "soak": "it needs hundreds of days",
    "high-load": "it needs several days without a comparison",
    "low-memory": "it has a file of its own, of 20 million trades",
}
SCENARIOS: Final[dict[str, Scenario]] = {
    name: Scenario(name, play, _NO_REPLAY.get(name, ""))
    for name, play in {
        "normal": normal,
        "network": network,
        "wrong-answers": wrong_answers,
        "refused": refused,
        "dns": dns,
        "not-exported-yet": not_exported_yet,
        "killed": killed,
        "hung": hung,
        "stopped": stopped,
        "two-at-once": two_at_once,
        "restated": restated,
        "disk-full": disk_full,
        "poisoned": poisoned,
        "poisoned-metadata": poisoned_metadata,
        "warehouse": warehouse,
        "service": service,
        "database-away": database_away,
        "clock": clock,
        "upgrade": upgrade,
        "soak": soak,
        "high-load": high_load,
        "low-memory": low_memory,
    }.items()
}


def chosen(names: Sequence[str]) -> list[Scenario]:
    """Return the scenarios of these names; without names all.

    Raises
    ------
    BadInput
        A name is unknown; the message lists the known ones.
    """
    for name in names:
        if name not in SCENARIOS:
            hint = did_you_mean(name, SCENARIOS)
            msg = f"{name!r} is not a scenario; {f'{hint} ' if hint else ''}known: {', '.join(SCENARIOS)}"
            raise BadInput(msg)
    return [SCENARIOS[name] for name in names or SCENARIOS]


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
    limits: LimitsOfScenarios,
    replayed: Settings | None = None,
    environment: Environment = USUAL,
    soak_minutes: float | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Rehearsal:
    """Play the scenarios.

    Parameters
    ----------
    day
        UTC day.
    logs
        Folder that keeps the logs of all runs.
    limits
        Limits of the scenarios.
    replayed
        Settings of the lake that has published the day; the day replaces a generated one.
    environment
        Limits, sources and markets.
    soak_minutes
        Duration of ``soak``, if the default of the mode is not wanted.
    say
        Called with a line for each scenario that begins or has ended.

    Raises
    ------
    BackfillError
        The undisturbed run fails.
    """
    began, results = time.monotonic(), []
    minutes = soak_minutes or (FULL_SOAK_MINUTES if is_full else QUICK_SOAK_MINUTES)
    with _ending_in_order() as insist_on_going_on, tempfile.TemporaryDirectory(prefix="rehearsal-") as root:
        replay = take_out(replayed, day, Path(root) / "replayed") if replayed else None
        if replay is not None:
            say(f"{day} as it was published; first run: {', '.join(replay.beside) or 'no day beside it'}")
            prepare(replay)
        compared = Undisturbed({}, 0, 0)
        if not environment.is_real:
            say(f"the undisturbed run of {day}, to compare with")
            compared = undisturbed(Path(root) / "undisturbed", day, replay, environment)
        for scenario in scenarios:
            insist_on_going_on()
            folder = Path(root) / scenario.name
            stage = Stage(
                *(scenario.name, folder, day, compared),
                is_full=is_full,
                replay=replay,
                environment=environment,
                soak_minutes=minutes,
            )
            say(f"{scenario.name}: {scenario.summary}")
            results.append(play(scenario, stage, logs / scenario.name, limits))
            for outcome in results[-1].outcomes:
                if outcome.kept is not True:
                    say(f"  {'broken' if outcome.kept is False else 'not run'}: {outcome.line}")
    mode = "full" if is_full else "quick"
    if environment.name != USUAL.name:
        mode = f"{mode}, {environment.name}"
    if replay:
        mode = f"{mode}, replay of {day}"
    return Rehearsal(day, mode, time.monotonic() - began, tuple(results))


@contextmanager
def _ending_in_order() -> Iterator[Callable[[], None]]:
    """End processes, mounts and folders even if the rehearsal itself is asked to end.

    The function that is yielded also ends it once it was asked: an exception raised in a destructor is lost.
    """
    asked: list[int] = []

    def end(number: int, frame: FrameType | None) -> None:
        del frame
        asked.append(number)
        sys.exit(128 + number)

    def insist_on_going_on() -> None:
        if asked:
            sys.exit(128 + asked[0])

    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield insist_on_going_on
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def play(
    scenario: Scenario, stage: Stage, logs: Path, limits: LimitsOfScenarios | None = None
) -> ScenarioResult:
    """Play one scenario; one that cannot go on has broken its promise to recover.

    Parameters
    ----------
    limits
        Its limits; by default those of the package.
    """
    expected, why = "it is played in this environment", stage.environment.why_not(scenario.name)
    if stage.replay is not None:
        expected, why = "it is played on a published day", scenario.why_no_replay
    if why:
        stage.not_run(tuple(Promise), expected, why)
        return ScenarioResult(scenario.name, scenario.summary, tuple(stage.outcomes))
    with stage.measured() as measured:
        try:
            (normal_at_real_sources if stage.environment.is_real else scenario.play)(stage)
        except Exception as failure:  # noqa: BLE001 - it is told as broken, and the others are still played
            stage.check(
                Promise.RECOVERED,
                "the scenario can be played to its end",
                f"{type(failure).__name__}: {failure}",
                kept=False,
            )
    stage.within_infrastructure()
    stage.keep_logs(logs)
    known = limits or load_limits(DEFAULT_LIMITS, SCENARIOS)
    # The limits are those of generated days.
    limited = Limits() if stage.environment.is_real else known.of(scenario.name, stage.mode)
    held = judged(scenario.name, measured[0], limited)
    return ScenarioResult(scenario.name, scenario.summary, (*stage.outcomes, *held), measured[0])
