"""Scenarios as tests play them, and the promises that a scenario breaks."""

from __future__ import annotations

from pathlib import Path

from backfill_assets.rehearsal.model import Promise, ScenarioResult
from backfill_assets.rehearsal.scenarios import SCENARIOS, play
from backfill_assets.rehearsal.stage import Stage, Undisturbed

DAY = "2024-01-02"


def result(name: str, folder: Path, compared: Undisturbed) -> ScenarioResult:
    stage = Stage(name, folder / name, DAY, compared)
    return play(SCENARIOS[name], stage, folder / "logs")


def broken(found: ScenarioResult) -> set[Promise]:
    said = [f"{o.promise}: {o.expected}: {o.seen}" for o in found.outcomes if o.kept is False]
    print(*said, sep="\n")
    return {promise for promise in Promise if found.state(promise) == "broken"}
