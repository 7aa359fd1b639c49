"""The limits of a rehearsal: read from the package's file and the user's, and compared with measurements."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import Field

from backfill_assets.failures import BadInput
from backfill_assets.rehearsal.measures import MEASURES, Measure
from backfill_assets.rehearsal.model import Measurement, Outcome, Promise
from backfill_assets.settings import DEFAULT_LIMITS, limits_file, load_file, settings_file
from backfill_assets.yaml_files import Strict, did_you_mean, read_mapping, validated

EVERY: Final = "every"
Mode = Literal["quick", "full", "replay"]
_Positive = Annotated[float, Field(gt=0)]
_Count = Annotated[float, Field(ge=0)]


class Limits(Strict):
    """Limits by measure; None means no limit."""

    seconds: _Positive | None = None
    cpu_seconds: _Positive | None = None
    peak_mb: _Positive | None = None
    bytes_fetched: _Count | None = None
    requests: _Count | None = None
    retries: _Count | None = None
    rows: _Count | None = None


class _LimitsFile(Strict):
    quick: dict[str, Limits] = {}
    full: dict[str, Limits] = {}
    replay: dict[str, Limits] = {}


@dataclass(frozen=True, slots=True)
class LimitsOfScenarios:
    """Files of limits; the first takes precedence."""

    files: tuple[_LimitsFile, ...]

    def of(self, scenario: str, mode: Mode) -> Limits:
        """The limits of a scenario; its own limits take precedence over those of every scenario."""
        found: dict[str, float] = {}
        for name in (scenario, EVERY):
            for file in self.files:
                by_scenario: Mapping[str, Limits] = getattr(file, mode)
                said = by_scenario.get(name, Limits()).model_dump(exclude_none=True)
                found = said | found
        return Limits(**found)


def load_limits(path: Path, scenarios: Collection[str]) -> LimitsOfScenarios:
    """Read a file of limits, with the package's file as fallback.

    Raises
    ------
    SettingsError
        The file cannot be read, or has unknown keys or bad values.
    BadInput
        The file names an unknown scenario.
    """
    files = [path] if path == DEFAULT_LIMITS else [path, DEFAULT_LIMITS]
    return LimitsOfScenarios(tuple(_read(file, scenarios) for file in files))


def limits_of_settings(scenarios: Collection[str], environment: str = "") -> LimitsOfScenarios:
    """Return the limits that the settings of ``environment`` (a name or a file) or ``BACKFILL_ENV`` name."""
    path = settings_file(environment)
    return load_limits(limits_file(path, load_file(path).rehearsal.limits), scenarios)


def _read(path: Path, scenarios: Collection[str]) -> _LimitsFile:
    content = read_mapping(path, f"limits; see {DEFAULT_LIMITS}")
    file = validated(_LimitsFile, content, path, page="see docs/settings.md")
    for mode, by_scenario in file:
        for name in by_scenario:
            if name != EVERY and name not in scenarios:
                hint = did_you_mean(name, scenarios) or f"known: {EVERY}, {', '.join(scenarios)}"
                msg = f"{path}: {mode}: {name!r} is not a scenario; {hint}"
                raise BadInput(msg)
    return file


def judged(scenario: str, measured: Measurement, limits: Limits) -> list[Outcome]:
    """Return one outcome per limit; a scenario that made no request has no measurements to judge."""
    promise = Promise.WITHIN_LIMITS
    if not measured.requests:
        return [Outcome(scenario, promise, "its measurements are taken", "no run was started", None)]
    found = []
    for measure in MEASURES:
        limit: float | None = getattr(limits, measure.name)
        if limit is not None:
            value = measure.of(measured)
            kept = value >= limit if measure.is_better_high else value <= limit
            found.append(Outcome(scenario, promise, _expected(measure, limit), measure.text(value), kept))
    return found


def _expected(measure: Measure, limit: float) -> str:
    bound = "at least" if measure.is_better_high else "at most"
    return f"{measure.words}: {bound} {measure.text(limit)}"
