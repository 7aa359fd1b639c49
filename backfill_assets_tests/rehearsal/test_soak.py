"""Flat measures: each measure of each process is compared, warm-up is left out, and a leak is seen."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from backfill_assets.rehearsal.model import Rehearsal, ScenarioResult
from backfill_assets.rehearsal.report import show
from backfill_assets.rehearsal.soak import Look, judge
from backfill_assets.rehearsal.stage import Stage, Undisturbed

MB = 2**20


def flat(count: int = 12) -> list[Look]:
    memory, handles, threads = {"daemon": 100 * MB, "service": 80 * MB}, {"daemon": 16}, {"daemon": 15}
    return [Look(6 * n, memory, handles, threads, 5_000_000 + 400_000 * n) for n in range(1, count + 1)]


def broken(looks: list[Look], folder: Path) -> list[str]:
    stage = Stage("soak", folder, "2024-01-02", Undisturbed({}, 0, 0))
    judge(stage, looks)
    assert len(stage.outcomes) == 4
    return [outcome.expected.split()[0] for outcome in stage.outcomes if outcome.kept is False]


def test_what_does_not_grow_is_flat_and_so_is_what_has_grown_in_the_warm_up(tmp_path) -> None:
    assert broken(flat(), tmp_path) == []
    warming = [replace(look, memory={"daemon": 50 * MB, "service": 60 * MB}) for look in flat()[:4]]
    assert broken([*warming, *flat()[4:]], tmp_path) == []
    one_high = [replace(look, memory={"daemon": 900 * MB}) if look.days == 60 else look for look in flat()]
    assert broken(one_high, tmp_path) == []


@pytest.mark.parametrize("measure", ["memory", "handles", "threads"])
def test_a_leak_in_one_process_is_seen(measure, tmp_path) -> None:
    def leaking(look: Look) -> Look:
        before = getattr(look, measure)
        return replace(look, **{measure: before | {"daemon": before["daemon"] * (1 + look.days / 100)}})

    assert broken([leaking(look) for look in flat()], tmp_path) == [measure]


def test_records_that_grow_by_more_for_each_day_are_seen(tmp_path) -> None:
    growing = [replace(look, records=look.records + 2_000 * look.days**2) for look in flat()]
    assert broken(growing, tmp_path) == ["Dagster's"]


def test_the_terminal_shows_how_much_each_process_has_grown(tmp_path) -> None:
    stage = Stage("soak", tmp_path, "2024-01-02", Undisturbed({}, 0, 0))
    late = [replace(look, memory={"daemon": 104 * MB, "service": 80 * MB}) for look in flat()[8:]]
    judge(stage, [*flat()[:8], *late])
    result = ScenarioResult("soak", "a summary", tuple(stage.outcomes))
    said = io.StringIO()
    show(Rehearsal("2024-01-02", "quick", 12.0, (result,)), Console(file=said, width=200))
    memory, _, _, records, _ = said.getvalue().splitlines()[-5:]
    assert memory == (
        "kept: soak, contained: expected memory of daemon and service grow by less than 5% from day 30 to "
        "day 72; seen: MB 180 to 184 (+2.2%): daemon 100 to 104 (+4.0%), service 80 to 80 (+0.0%)"
    )
    assert records.endswith("seen: kB a day 67 to 67 (+0.0%), 9 MB in all")


def test_too_few_looks_judge_nothing(tmp_path) -> None:
    stage = Stage("soak", tmp_path, "2024-01-02", Undisturbed({}, 0, 0))
    judge(stage, flat(8))
    assert [outcome.kept for outcome in stage.outcomes] == [None]
