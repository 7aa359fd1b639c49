"""Scenarios with daemon and service in place: they are killed, or lose their database, with days at work."""

from __future__ import annotations

import time
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final

from backfill_assets.alerts.incidents import Incident
from backfill_assets.days import day_range, shift
from backfill_assets.failures import BackfillError
from backfill_assets.rehearsal import tables
from backfill_assets.rehearsal.deployment import Deployment, Watched, watched
from backfill_assets.rehearsal.house import House, rehearsal_market
from backfill_assets.rehearsal.model import Promise
from backfill_assets.rehearsal.postgres import binaries, restartable_server
from backfill_assets.rehearsal.stage import Stage
from backfill_assets.standins.faults import Fault

_QUICK_DAYS: Final = 2
_FULL_DAYS: Final = 6
#: The vendor's delay for one file of each day, so that days are at work for a while.
_THINKS_SECONDS: Final = 2.0
#: Longest time until a day that was ordered is at work.
WORK_SECONDS: Final = 90.0
#: Longest time until an incident or its end is reported.
_QUICK_TOLD_SECONDS: Final = 60.0
_FULL_TOLD_SECONDS: Final = 900.0
#: Longer than the daemon takes to load its code again, and to give up the database meanwhile.
_QUICK_AWAY_SECONDS: Final = 35.0
_FULL_AWAY_SECONDS: Final = 60.0
#: Dagster tries to connect for eleven seconds.
_SAID_SECONDS: Final = 40.0
_LOST: Final = "daemon gives no sign of life"
_ALL: Final = (
    *(Promise.DETECTED, Promise.CONTAINED, Promise.RECOVERED, Promise.NOTHING_LOST),
    *(Promise.NOTHING_WRONG_PUBLISHED, Promise.SOMEBODY_TOLD),
)


def service(stage: Stage) -> None:
    """Daemon, service and runs are killed in the middle of a backfill that was ordered over HTTP."""
    days = _days(stage)
    expected = _one_after_the_other(stage, days)
    with stage.house() as house, Deployment(house, is_quick=not stage.is_full) as deployment:
        _slow_down(house, days)
        job = deployment.order(days[0], days[-1])
        with watched(deployment, job) as seen:
            cut = deployment.wait(lambda: _at_work(deployment, job), WORK_SECONDS) or {}
            left = [*deployment.kill("daemon"), *deployment.kill("service")]
            stage.check(
                Promise.CONTAINED,
                "daemon, service and runs killed while days are at work: no process is left",
                f"{len(left)} left" if cut else "no day was at work",
                kept=bool(cut) and not left,
            )
            stage.is_harmless(house, "after the kill")
            deployment.start_service()
            _is_missed(stage, deployment, house)
            deployment.start_daemon()
            status = _goes_on(stage, deployment, job, days)
        _are_run_again(stage, cut, status)
        _never_went_back(stage, seen)
        _is_back(stage, deployment, house)
        for day in days:
            stage.ends_as(house, day, expected[day], "after the kill")


def database_away(stage: Stage) -> None:
    """Dagster's Postgres is away for some seconds, in --full for a minute, with days at work."""
    seconds = _FULL_AWAY_SECONDS if stage.is_full else _QUICK_AWAY_SECONDS
    if not binaries():
        why = "there is no Postgres (initdb and postgres)"
        stage.not_run(_ALL, f"Dagster's Postgres is away for {seconds:g} s", why)
        return
    day = stage.day
    with restartable_server() as server, stage.house() as house:
        house.secrets.append(server.password)
        variables = {"DAGSTER_POSTGRES_URL": server.url}
        with Deployment(house, is_quick=not stage.is_full, variables=variables) as deployment:
            _slow_down(house, [day])
            job = deployment.order(day, day)
            with watched(deployment, job) as seen:
                came = deployment.wait(lambda: _at_work(deployment, job), WORK_SECONDS)
                server.stop()
                gone = time.monotonic()
                _is_said(stage, deployment, job, came=bool(came))
                time.sleep(max(0.0, gone + seconds - time.monotonic()))
                stage.is_harmless(house, "while the database is away")
                server.start()
                _goes_on(stage, deployment, job, [day])
            _never_went_back(stage, seen)
            stage.ends_undisturbed(house, "with the database back")
            ready = deployment.wait(lambda: deployment.is_ready()[0], _told_seconds(stage))
            _, words = deployment.is_ready()
            stage.check(
                Promise.RECOVERED, "with the database back the service is ready", words, kept=bool(ready)
            )
            _nothing_is_left(stage, deployment)


def _is_said(stage: Stage, deployment: Deployment, job: str, *, came: bool) -> None:
    """The service answers, and says which part is missing and when to ask again."""
    path = f"/api/v1/backfill/status/{job}"
    deployment.wait(lambda: deployment.refusal(path)[0] == HTTPStatus.SERVICE_UNAVAILABLE, _SAID_SECONDS)
    status, later, words = deployment.refusal(path)
    alive, _, _ = deployment.refusal("/healthz")
    stage.check(
        Promise.DETECTED,
        "while the database is away, with a day at work: the API answers 503 with Retry-After",
        f"{status}, Retry-After {later or 'none'}: {words[:200]}" if came else "no day was at work",
        kept=came and status == HTTPStatus.SERVICE_UNAVAILABLE and later.isdecimal(),
    )
    stage.check(
        Promise.CONTAINED,
        "while the database is away: the service lives",
        f"/healthz: {alive}",
        kept=alive == HTTPStatus.OK,
    )


def _days(stage: Stage) -> list[str]:
    if stage.replay is not None:
        return [stage.day]
    count = _FULL_DAYS if stage.is_full else _QUICK_DAYS
    return day_range(shift(stage.day, 1 - count), stage.day)


def _one_after_the_other(stage: Stage, days: list[str]) -> dict[str, tables.Contents]:
    """Return the tables of each day when the days are run one after the other, without any fault."""
    if stage.replay is not None:
        return {stage.day: stage.undisturbed.contents}
    with House(stage.folder / "alone", rehearsal_market()) as house:
        for day in days:
            if (run := house.run(day)).code != 0:
                msg = f"the undisturbed run of {day} ended with exit code {run.code}: {run.text[-300:]}"
                raise BackfillError(msg)
        return {day: house.published(day) for day in days}


def _slow_down(house: House, days: list[str]) -> None:
    for day in days:
        feed = house.feeds(day)[-1]
        house.standin.faults.put_dataset(feed, day, Fault(delay_seconds=_THINKS_SECONDS))


def _at_work(deployment: Deployment, job: str) -> dict[str, str]:
    """Return the days whose runs have fetched some but not all feeds, each with its run."""
    return {day["day"]: day["run_id"] for day in deployment.status(job).get("running", ()) if day["progress"]}


def _told_seconds(stage: Stage) -> float:
    return _FULL_TOLD_SECONDS if stage.is_full else _QUICK_TOLD_SECONDS


def _is_missed(stage: Stage, deployment: Deployment, house: House) -> None:
    """The restarted service reports that the daemon is gone."""
    told = deployment.wait(lambda: _messages(house, _LOST), _told_seconds(stage))
    ready, words = deployment.is_ready()
    stage.check(
        Promise.DETECTED,
        "without a daemon the service is not ready",
        words,
        kept=not ready and "daemon" in words,
    )
    found = deployment.incidents("daemon_lost")
    stage.check(
        Promise.SOMEBODY_TOLD,
        "without a daemon: a message and an open incident say so",
        f"{len(told or ())} messages, {len(found)} open incidents",
        kept=bool(told) and len(found) == 1,
    )


def _messages(house: House, *words: str) -> list[str]:
    return [text for text in house.inbox.messages if all(word in text for word in words)]


def _goes_on(stage: Stage, deployment: Deployment, job: str, days: list[str]) -> Mapping[str, Any]:
    """The job ends by itself, in its first attempt."""
    status = deployment.ended(job)
    expected = {"published": len(days)}
    stage.check(
        Promise.RECOVERED,
        f"the job goes on by itself: attempt 1 succeeds, {len(days)} days published",
        f"attempt {status.get('attempt')}: {status.get('state', 'no answer')}, "
        f"{status.get('days_by_state')}{', ' + status['failure'] if status.get('failure') else ''}",
        kept=(status.get("state"), status.get("attempt"), status.get("days_by_state"))
        == ("succeeded", 1, expected),
    )
    return status


def _are_run_again(stage: Stage, cut: Mapping[str, str], status: Mapping[str, Any]) -> None:
    runs = {day["day"]: day["run_id"] for day in status.get("days", ())}
    again = [day for day, run in cut.items() if runs.get(day) not in (run, None)]
    stage.check(
        Promise.DETECTED,
        f"the runs that were killed are missed: another run does {', '.join(sorted(cut))}",
        f"another run did {', '.join(sorted(again)) or 'none'}",
        kept=sorted(again) == sorted(cut) and bool(cut),
    )


def _never_went_back(stage: Stage, seen: Watched) -> None:
    percents = seen.percents
    stage.check(
        Promise.CONTAINED,
        "the reported progress never falls, and ends at 100 %",
        "; ".join(seen.steps_back) or f"{len(percents)} answers up to {max(percents, default=0):g} %",
        kept=not seen.steps_back and len(set(percents)) > 1 and percents[-1] == 100,
    )


def _is_back(stage: Stage, deployment: Deployment, house: House) -> None:
    """The end of the incident is reported, no other incident is open, and the service is ready."""

    def is_over() -> bool:
        return bool(_messages(house, _LOST, "Ended after")) and not _open_incidents(stage, deployment)

    over = deployment.wait(is_over, _told_seconds(stage))
    left = _open_incidents(stage, deployment)
    ended = _messages(house, _LOST, "Ended after")
    stage.check(
        Promise.SOMEBODY_TOLD,
        "with the daemon back: no incident is open, and its end was reported",
        f"{len(ended)} messages of its end; open: {', '.join(left) or 'none'}",
        kept=bool(over),
    )


def _open_incidents(stage: Stage, deployment: Deployment) -> list[str]:
    """Open incidents of the service and of the day, except those that a user's own day always has."""
    told = deployment.ask("/api/v1/incidents")["incidents"]
    found = [Incident.model_validate(each | {"told": each["opened"]}) for each in told]
    return [
        f"{each.rule} {each.day}"
        for each in found
        if each.day in ("", stage.day) or stage.replay is None
        if each.name not in stage.undisturbed.incidents
    ]


def _nothing_is_left(stage: Stage, deployment: Deployment) -> None:
    over = deployment.wait(lambda: not _open_incidents(stage, deployment), _told_seconds(stage))
    stage.check(
        Promise.SOMEBODY_TOLD,
        "in the end no incident is open",
        ", ".join(_open_incidents(stage, deployment)) or "none is",
        kept=bool(over),
    )
