"""The scenario ``normal`` at the user's own sources, whose rows are not known beforehand.

The rows are not compared with the vendor's; ``verify`` checks that lake and warehouse hold the same.
"""

from __future__ import annotations

from contextlib import closing
from datetime import datetime
from typing import Final

from backfill_assets.quality.settled import load_day
from backfill_assets.rehearsal.house import House
from backfill_assets.rehearsal.model import Promise
from backfill_assets.rehearsal.stage import Stage
from backfill_assets.warehouse.protocol import open_warehouse
from backfill_assets.warehouse.verify import verify_days

#: Limit of one attempt at a file, and of a run; a day of a large market has gigabytes.
_ANSWER_SECONDS: Final = 600.0
_RUN_SECONDS: Final = 14_400.0


def normal_at_real_sources(stage: Stage) -> None:
    """Each day is run twice."""
    with stage.house(answer_seconds=_ANSWER_SECONDS) as house:
        for day in stage.environment.test_data.days if stage.is_full else (stage.day,):
            _run(stage, house, day, "the run")
            fetched = _fetched(house, day)
            problems = _problems(house, day)
            stage.check(
                Promise.NOTHING_LOST,
                f"{day}: the warehouse has what the lake has, and both are as they were stored",
                "; ".join(problems[:3]) or f"{len(fetched)} files, all as stored",
                kept=bool(fetched) and not problems,
            )
            stage.is_told(house, day, "after the run", bad=house.state(day).outcome != "published")
            _run(stage, house, day, "a second run")
            again = [feed for feed, moment in _fetched(house, day).items() if fetched.get(feed) != moment]
            stage.check(
                Promise.RECOVERED,
                f"{day}: a second run fetches no file that counts",
                ", ".join(again) or "none",
                kept=not again,
            )


def _run(stage: Stage, house: House, day: str, about: str) -> None:
    code = house.start(day).wait(_RUN_SECONDS)
    outcome = house.state(day).outcome
    stage.check(
        Promise.RECOVERED,
        f"{day}, {about}: exit code 0, published or degraded",
        f"exit code {code}, {outcome}",
        kept=code == 0 and outcome in ("published", "degraded"),
    )


def _fetched(house: House, day: str) -> dict[str, datetime]:
    """Return when each file that counts was fetched."""
    found = load_day(house.store, day)
    return {str(f.feed): f.accepted.fetched_at for f in (found.feeds if found else ()) if f.accepted}


def _problems(house: House, day: str) -> list[str]:
    with closing(open_warehouse(house.settings.warehouse)) as warehouse:
        return [p for one in verify_days(house.store, [warehouse], [day], mend=False) for p in one.problems]
