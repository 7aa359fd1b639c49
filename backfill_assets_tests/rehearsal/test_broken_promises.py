"""Every promise can break: a component that is broken on purpose turns exactly its promise red."""

from __future__ import annotations

import gzip
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from backfill_assets.feeds import Feed
from backfill_assets.progress.reader import Reader
from backfill_assets.rehearsal.house import House
from backfill_assets.rehearsal.limits import load_limits
from backfill_assets.rehearsal.model import Promise
from backfill_assets.rehearsal.scenarios import SCENARIOS, play
from backfill_assets.rehearsal.stage import Stage, undisturbed
from backfill_assets.standins.tardis import TardisStandin
from backfill_assets_tests.rehearsal import mutant
from backfill_assets_tests.rehearsal.played import DAY, broken, result
from backfill_assets_tests.times import takes_minutes

pytestmark = [pytest.mark.story, pytest.mark.timeout(900), takes_minutes]
FEED = Feed.parse("binance/trades/ADAUSDT")


@pytest.mark.parametrize(
    ("mutation", "scenario", "promise"),
    [
        (mutant.ends_with_0_whatever_happens, "stopped", Promise.DETECTED),
        (mutant.leaves_a_process, "stopped", Promise.CONTAINED),
        (mutant.forgets_what_it_has, "normal", Promise.RECOVERED),
        (mutant.forgets_what_it_has, "upgrade", Promise.CONTAINED),
        (mutant.logs_the_key, "normal", Promise.NO_SECRET_IN_LOGS),
        (mutant.asks_without_waiting, "network", Promise.DETECTED),
        (mutant.carries_the_key_everywhere, "network", Promise.NO_SECRET_IN_LOGS),
        (mutant.gives_up_where_nobody_answers, "dns", Promise.DETECTED),
    ],
)
def test_a_broken_component_of_the_pipeline_breaks_its_promise_alone(
    mutation, scenario, promise, compared, tmp_path, monkeypatch
) -> None:
    monkeypatch.setattr(House, "dagster", (sys.executable, mutant.__file__, mutation.__name__))
    assert broken(result(scenario, tmp_path, compared)) == {promise}


@pytest.mark.parametrize(
    ("mutation", "limits", "measure"),
    [
        (mutant.takes_memory, {"peak_mb": 1_000}, "peak memory: "),
        # A second run has nothing to do, but wastes the same time.
        (mutant.dawdles, {"seconds": 20}, "duration: "),
    ],
)
def test_a_run_that_takes_too_much_breaks_its_limits_alone(
    mutation, limits, measure, compared, tmp_path, monkeypatch
) -> None:
    (tmp_path / "limits.yaml").write_text(yaml.safe_dump({"quick": {"normal": limits}}))
    of_user = load_limits(tmp_path / "limits.yaml", SCENARIOS)
    monkeypatch.setattr(House, "dagster", (sys.executable, mutant.__file__, mutation.__name__))
    stage = Stage("normal", tmp_path / "normal", DAY, compared)
    found = play(SCENARIOS["normal"], stage, tmp_path / "logs", of_user)
    assert broken(found) == {Promise.WITHIN_LIMITS}
    assert [o.expected.startswith(measure) for o in found.outcomes if o.kept is False] == [True]


def test_nobody_is_told_where_failed_runs_are_not_looked_at(compared, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(Reader, "failed_alone", lambda self, since, now: [])
    assert broken(result("killed", tmp_path, compared)) == {Promise.SOMEBODY_TOLD}


def dearer(lines: list[bytes]) -> list[bytes]:
    """The same ids at other prices: the file itself does not show it."""
    return [b",".join([*cells[:6], b"1" + cells[6], cells[7]]) for cells in (x.split(b",") for x in lines)]


def shorter(lines: list[bytes]) -> list[bytes]:
    return lines[:-3]


@pytest.mark.parametrize(
    ("edit", "promise"), [(dearer, Promise.NOTHING_WRONG_PUBLISHED), (shorter, Promise.NOTHING_LOST)]
)
def test_rows_that_differ_from_the_markets_are_seen_where_every_run_agrees_on_them(
    edit: Callable[[list[bytes]], list[bytes]], promise, tmp_path, monkeypatch
) -> None:
    true = TardisStandin.dataset

    def changed(self: TardisStandin, feed: Feed, day: str) -> bytes | Path:
        content = true(self, feed, day)
        if feed != FEED or isinstance(content, Path):
            return content
        header, *lines = gzip.decompress(content).splitlines(keepends=True)
        return gzip.compress(b"".join([header, *edit(lines)]), mtime=0)

    monkeypatch.setattr(TardisStandin, "dataset", changed)
    agreed = undisturbed(tmp_path / "agreed", DAY)
    assert broken(result("normal", tmp_path, agreed)) == {promise}
