"""Measurements of earlier rehearsals, one line of JSON each, and how the present one compares with them.

A scenario is compared with the median of earlier rehearsals of the same kind in which it kept every promise.
A broken one takes less, or more, for another reason.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict, ValidationError

from backfill_assets.failures import BadInput
from backfill_assets.files import locked, put_in_place
from backfill_assets.rehearsal.measures import MEASURES
from backfill_assets.rehearsal.model import Measurement, Rehearsal, ScenarioResult, Trend

#: Number of rehearsals kept: more than a year of nights.
MOST: Final = 500
#: A median of fewer says little; a median of more hides that all have become slow.
FEWEST_COMPARED, MOST_COMPARED = 3, 20
#: A measure is marked if it exceeds the median by this factor.
REGRESSION: Final = 1.5


class _Scenario(BaseModel):
    model_config = ConfigDict(frozen=True)

    kept: bool
    measured: Measurement


class Former(BaseModel):
    """An earlier rehearsal: when it ended, its day and kind, and its scenarios by name."""

    model_config = ConfigDict(frozen=True)

    ended: datetime
    day: str
    kind: str
    scenarios: dict[str, _Scenario]


def load(file: Path) -> list[Former]:
    """Load the earlier rehearsals, the oldest first; none if there is no file.

    Raises
    ------
    BadInput
        A line is not a measurement of a rehearsal.
    """
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError) as error:
        msg = f"{file}: the history of rehearsals cannot be read: {error}: name another file with --history"
        raise BadInput(msg) from error
    found = []
    for number, line in enumerate(lines, 1):
        try:
            found.append(Former.model_validate_json(line))
        except ValidationError as error:
            msg = f"{file}: line {number} is not a measurement of a rehearsal: remove that line"
            raise BadInput(msg) from error
    return found


def add(file: Path, found: Rehearsal, now: datetime) -> None:
    """Add the rehearsal; drop the oldest. Readers see the file either before or after the change."""
    scenarios = {
        result.scenario: _Scenario(kept=_is_kept(result), measured=result.measured)
        for result in found.results
    }
    entry = Former(ended=now, day=found.day, kind=found.mode, scenarios=scenarios)
    with locked(file.with_name(f".{file.name}.lock")):
        lines = [former.model_dump_json() for former in (*load(file), entry)][-MOST:]
        unfinished = file.with_name(f".{file.name}.new")
        unfinished.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        put_in_place(unfinished, file)


def compared(found: Rehearsal, past: Sequence[Former]) -> Rehearsal:
    """Return the rehearsal with the trend of each scenario."""
    return replace(found, results=tuple(_with_trends(r, found.mode, past) for r in found.results))


def _is_kept(result: ScenarioResult) -> bool:
    return bool(result.outcomes) and not any(outcome.kept is False for outcome in result.outcomes)


def _with_trends(result: ScenarioResult, kind: str, past: Sequence[Former]) -> ScenarioResult:
    of_kind = [former.scenarios.get(result.scenario) for former in past if former.kind == kind]
    former = [one.measured for one in of_kind if one is not None and one.kept][-MOST_COMPARED:]
    # A scenario without requests was not played.
    if len(former) < FEWEST_COMPARED or not result.measured.requests:
        return result
    trends = []
    for measure in MEASURES:
        values = [measure.of(one) for one in former]
        now, median = measure.of(result.measured), statistics.median(values)
        worse, other = (median, now) if measure.is_better_high else (now, median)
        is_marked = worse > REGRESSION * other and worse - other > measure.slack
        trends.append(Trend(measure.name, now, median, tuple(values), is_marked))
    return replace(result, trends=tuple(trends))
