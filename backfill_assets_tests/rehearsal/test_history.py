"""The history of rehearsals: bounded, whole at any moment, and a slowdown shows against it."""

from __future__ import annotations

import io
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml
from rich.console import Console

from backfill_assets.failures import BadInput
from backfill_assets.rehearsal import history
from backfill_assets.rehearsal.model import Measurement, Outcome, Promise, Rehearsal, ScenarioResult
from backfill_assets.rehearsal.report import html_text, json_text, show

REPOSITORY = Path(__file__).parents[2]
NOW = datetime(2024, 1, 3, 9, tzinfo=UTC)
MEASURED = Measurement(20.0, 15.0, 500.0, 20_000_000, 24, 0, 70_000)


def rehearsal(measured: Measurement = MEASURED, *, kept: bool = True, mode: str = "quick") -> Rehearsal:
    outcome = Outcome("normal", Promise.RECOVERED, "expected", "seen", kept)
    return Rehearsal("2024-01-02", mode, 30.0, (ScenarioResult("normal", "a summary", (outcome,), measured),))


def with_history(file: Path, *former: Rehearsal) -> None:
    for count, one in enumerate(former):
        history.add(file, one, NOW + timedelta(days=count))


def marked(file: Path, now: Rehearsal) -> list[str]:
    return [trend.measure for _, trend in history.compared(now, history.load(file)).regressions()]


def test_a_slowdown_is_marked_in_every_report_and_a_near_miss_is_not(tmp_path) -> None:
    file = tmp_path / "history.jsonl"
    with_history(file, *[rehearsal(replace(MEASURED, seconds=seconds)) for seconds in (19.0, 20.0, 60.0)])
    assert marked(file, rehearsal(replace(MEASURED, seconds=30.0))) == []
    slow = history.compared(rehearsal(replace(MEASURED, seconds=30.2)), history.load(file))
    said = "worse than before: normal, duration: 30.2 s; the median of 3 former rehearsals is 20.0 s"
    printed = io.StringIO()
    show(slow, Console(file=printed, width=200, force_terminal=False))
    assert said in printed.getvalue()
    assert "+51%" in printed.getvalue()
    page = html_text(slow)
    assert f'<p class="worse">{said}</p>' in page
    assert "19.0 s · 20.0 s · 60.0 s" in page
    assert json.loads(json_text(slow))["results"][0]["trends"][0]["median"] == 20.0
    assert slow.exit_code == 0


@pytest.mark.parametrize(
    ("change", "is_marked"),
    [
        ({"cpu_seconds": 23.0}, True),
        ({"peak_mb": 760.0}, True),
        ({"bytes_fetched": 31_000_000}, True),
        ({"requests": 45}, True),
        ({"retries": 11}, True),
        ({"rows": 40_000}, True),
        ({"retries": 10}, False),
        ({"requests": 44}, False),
        ({"rows": 140_000, "seconds": 1.0, "cpu_seconds": 1.0}, False),
    ],
)
def test_each_measure_is_marked_where_it_is_much_worse(change, is_marked, tmp_path) -> None:
    file = tmp_path / "history.jsonl"
    with_history(file, *[rehearsal()] * 3)
    assert marked(file, rehearsal(replace(MEASURED, **change))) == (list(change) if is_marked else [])


@pytest.mark.parametrize(
    "former",
    [
        [rehearsal()] * 2,
        [rehearsal(mode="full")] * 3,
        [rehearsal(kept=False)] * 3,
        [replace(rehearsal(), results=())] * 3,
    ],
    ids=["too few", "of another kind", "broken ones", "other scenarios"],
)
def test_nothing_is_compared_with_what_cannot_be_compared(former, tmp_path) -> None:
    file = tmp_path / "history.jsonl"
    with_history(file, *former)
    found = history.compared(rehearsal(replace(MEASURED, seconds=900.0)), history.load(file))
    assert found.results[0].trends == ()


def test_a_scenario_that_was_not_played_has_no_trend(tmp_path) -> None:
    file = tmp_path / "history.jsonl"
    with_history(file, *[rehearsal()] * 3)
    assert marked(file, rehearsal(Measurement(seconds=0.1))) == []


def test_only_the_latest_are_kept_and_compared(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(history, "MOST", 5)
    file = tmp_path / "new" / "history.jsonl"
    with_history(file, *[rehearsal(replace(MEASURED, seconds=float(n))) for n in range(8)])
    assert [one.scenarios["normal"].measured.seconds for one in history.load(file)] == [3.0, 4, 5, 6, 7]
    monkeypatch.setattr(history, "MOST_COMPARED", 3)
    [found] = history.compared(rehearsal(), history.load(file)).results
    assert found.trends[0].former == (5.0, 6.0, 7.0)


def test_rehearsals_that_end_together_are_all_kept(tmp_path) -> None:
    file = tmp_path / "history.jsonl"
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: history.add(file, rehearsal(), NOW), range(24)))
    assert len(history.load(file)) == 24


def test_a_damaged_line_is_refused_with_its_number_and_left_as_it_is(tmp_path) -> None:
    file = tmp_path / "history.jsonl"
    with_history(file, rehearsal())
    file.write_text(file.read_text() + '{"day": "2024-01-02"\n')
    before = file.read_bytes()
    with pytest.raises(BadInput, match="line 2 is not a measurement of a rehearsal: remove that line"):
        history.add(file, rehearsal(), NOW)
    assert file.read_bytes() == before


def test_each_night_goes_on_with_the_history_of_the_nights_before() -> None:
    workflow = yaml.safe_load((REPOSITORY / ".github" / "workflows" / "rehearsal.yml").read_text())
    steps = workflow["jobs"]["rehearse"]["steps"]
    used = [step.get("uses", step.get("run", "")).partition("@")[0] for step in steps]
    restored, rehearsed, saved = (
        next(n for n, words in enumerate(used) if words.startswith(wanted))
        for wanted in ("actions/cache/restore", "scripts/run_daily_backfill_test.sh", "actions/cache/save")
    )
    assert restored < rehearsed < saved
    before, after = steps[restored]["with"], steps[saved]["with"]
    # The script writes it there, and a night that breaks a promise also keeps it.
    script = (REPOSITORY / "scripts" / "run_daily_backfill_test.sh").read_text()
    assert before["path"] == after["path"] == "rehearsals/history.jsonl"
    assert '--history "${LOG_DIR:-rehearsals}/history.jsonl"' in script
    assert "LOG_DIR" not in steps[rehearsed].get("env", {})
    assert steps[saved]["if"] == "always()"
    # A cache with an existing key is not saved, and the prefix of its key finds a cache.
    assert "${{ github.run_id }}-${{ github.run_attempt }}" in after["key"]
    assert before["key"] == after["key"]
    assert after["key"].startswith(before["restore-keys"])
