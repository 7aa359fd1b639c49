"""The scenario in which BigQuery fails, and a person changes tables at its console."""

from __future__ import annotations

from typing import Final

from backfill_assets.failures import PermanentFailure
from backfill_assets.rehearsal.cloud import JOB_SECONDS, Cloud, cloud
from backfill_assets.rehearsal.house import House, Run
from backfill_assets.rehearsal.model import Promise
from backfill_assets.rehearsal.stage import Stage
from backfill_assets.warehouse.catalog import CANDLES, COVERAGE, INSTRUMENTS, TICKS

_TRADES: Final = TICKS["trades"]
#: Number of loads that fail: more than a run tries.
_EVERY_TRY: Final = 9


def warehouse(stage: Stage) -> None:
    """BigQuery fails: load errors, 503s, lost answers, slow jobs, used job ids, a quota, other columns."""
    try:
        with cloud(stage.folder / "bigquery") as service, stage.house(cloud=service) as house:
            _fails_for_good(stage, house, service)
            _is_changed_by_somebody(stage, house, service)
            _fails_for_a_while(stage, house, service)
    except PermanentFailure as failure:
        if stage.outcomes:
            raise
        stage.not_run(tuple(Promise), "a day in BigQuery's stand-in", str(failure))


def _fails_for_good(stage: Stage, house: House, service: Cloud) -> None:
    """A load that is refused and a used-up quota fail the run at once, and only their tables are missing."""
    errors = {
        _TRADES: {"reason": "invalid", "message": "refused by the rehearsal"},
        CANDLES: {"reason": "quotaExceeded", "message": "used up by the rehearsal"},
    }
    service.standin.arm(
        load_errors=[{**error, "table": t.name} for t, error in errors.items() for _ in range(_EVERY_TRY)]
    )
    run = house.run(stage.day)
    left = service.standin.armed()
    service.standin.arm()
    for table, error in errors.items():
        tries = _EVERY_TRY - sum(e.get("table") == table.name for e in left.load_errors)
        _is_said(stage, run, f"a load of {table.name} ends with {error['reason']}", error["message"])
        stage.check(
            Promise.CONTAINED,
            f"{error['reason']}: the table is loaded once, and stays empty",
            f"{tries} loads, {service.rows(table, stage.day)} rows",
            kept=tries == 1 and service.rows(table, stage.day) == 0,
        )
    _other_tables_are_out(stage, house, "beside the loads that fail", {"trades", "candles"})
    _is_bad(stage, house, run, "with loads that fail")


def _is_changed_by_somebody(stage: Stage, house: House, service: Cloud) -> None:
    """A column of another type fails its table alone; a missing column is added."""
    service.drift(CANDLES, as_text="open")
    service.drift(COVERAGE, without=COVERAGE.columns[-1].name)
    run = house.run(stage.day)
    _is_said(stage, run, "a column of candles has another type", "column open is STRING")
    _other_tables_are_out(stage, house, "beside the changed table", {"candles"})
    _is_bad(stage, house, run, "with a changed table")
    service.drop(CANDLES)


def _fails_for_a_while(stage: Stage, house: House, service: Cloud) -> None:
    """All passing faults in one run: it ends in the tables of an undisturbed run, with exit code 0."""
    for table in (_TRADES, COVERAGE, INSTRUMENTS):
        service.drop(table)
    service.standin.arm(
        load_delay_seconds=4 * JOB_SECONDS,
        slow_tables=[COVERAGE.name],
        used_ids=[_TRADES.name],
        load_errors=[{"table": CANDLES.name, "reason": "backendError", "message": "passes"}],
        lost_answers=1,
        unavailable=2,
    )
    run = house.run(stage.day)
    left = service.standin.armed()
    happened = {
        "two requests answered with 503": left.unavailable == 0,
        "an answer lost after the job was accepted": left.lost_answers == 0,
        "a job id that was already used": not left.used_ids,
        "a job that takes too long": not left.slow_tables and "was canceled" in run.text,
        "a load error that passes": not left.load_errors and "backendError" in run.text,
    }
    for about, is_seen in happened.items():
        stage.check(
            Promise.DETECTED,
            f"{about}: the run met it, and went on",
            "met" if is_seen else "not met",
            kept=is_seen,
        )
    stage.succeeded(Promise.RECOVERED, run, "the run with faults that pass")
    stage.ends_undisturbed(house, "after the faults")
    stage.is_told(house, stage.day, "after the faults", bad=False)


def _is_said(stage: Stage, run: Run, about: str, words: str) -> None:
    said = [line for line in run.text.splitlines() if words in line]
    stage.check(
        Promise.DETECTED,
        f"{about}: the run fails and says so",
        f"exit code {run.code}, {said[-1].strip()[:200] if said else 'not said'}",
        kept=run.code == 1 and bool(said),
    )


def _other_tables_are_out(stage: Stage, house: House, about: str, but: set[str]) -> None:
    """Every table except these has the rows of the undisturbed run."""
    found = house.published(stage.day)
    wanted = {g: c for g, c in stage.undisturbed.contents.items() if g.table not in but | {"quality"}}
    missing = sorted({group.table for group, content in wanted.items() if found.get(group) != content})
    stage.check(
        Promise.CONTAINED,
        f"{about}: {', '.join(sorted({group.table for group in wanted}))} are published",
        f"not as they should be: {', '.join(missing)}" if missing else "each as in an undisturbed run",
        kept=bool(wanted) and not missing,
    )


def _is_bad(stage: Stage, house: House, run: Run, about: str) -> None:
    state = house.state(stage.day)
    stage.check(
        Promise.DETECTED,
        f"{about}: the day does not count as published",
        f"exit code {run.code}, {state.outcome}",
        kept=run.code == 1 and state.outcome != "published",
    )
    stage.is_harmless(house, about)
    stage.is_told(house, stage.day, about, bad=True)
