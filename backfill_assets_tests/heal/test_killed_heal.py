"""A heal killed at any write leaves no partial state; the same command then ends as if undisturbed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from backfill_assets.quality.settled import SettledFeed, load_settled
from backfill_assets_tests.heal.healed_lake import DAY, HealedLake, without_ids

ROOT = Path(__file__).parents[2]
#: The least number of writes of a heal of two holes.
LEAST_WRITES = 7

pytestmark = [pytest.mark.story, pytest.mark.timeout(900)]


@pytest.fixture
def healer() -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-m", "backfill_assets_tests.heal.killed_heal"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as running:
        yield running
        assert running.stdin is not None
        running.stdin.close()


def killed_at(healer: subprocess.Popen[str], lake: HealedLake, number: int) -> int:
    """Heal in a process that is killed at the n-th write; returns its exit code."""
    assert healer.stdin is not None
    assert healer.stdout is not None
    healer.stdin.write(f"{lake.days.folder} {lake.standin.url} {number}\n")
    healer.stdin.flush()
    return int(healer.stdout.readline())


def stored(lake: HealedLake) -> SettledFeed:
    """The feed as the heal has left it, without settling the day again."""
    settled = load_settled(lake.store, DAY)
    found = settled.feed(lake.feed) if settled else None
    assert found is not None
    return found


def outcome(lake: HealedLake) -> dict[str, object]:
    """The state of the day, without the times and addresses of its requests."""
    found, manifest = stored(lake), lake.manifest
    return {
        "accepted": found.accepted and found.accepted.content,
        "state": found.verdict.completeness_state,
        "versions": [version.content for version in manifest.versions],
        "receipts": [
            (r.first_id, r.never_issued, r.recovered, [answer.content for answer in r.answers])
            for r in manifest.receipts
        ],
    }


def test_a_heal_that_is_killed_at_any_write_converges_when_it_is_typed_again(
    tmp_path: Path, healer: subprocess.Popen[str]
) -> None:
    undisturbed = HealedLake.of(tmp_path / "undisturbed", without_ids(700), never=(1_000,))
    vendor = outcome(undisturbed)["accepted"]
    with undisturbed.standin:
        assert undisturbed.heal().is_whole
        expected = outcome(undisturbed)
    code, number = -signal.SIGKILL, 0
    while code:
        number += 1
        lake = HealedLake.of(tmp_path / str(number), without_ids(700), never=(1_000,))
        with lake.standin:
            code = killed_at(healer, lake, number)
            assert code in (0, -signal.SIGKILL)
            is_healed = outcome(lake)["accepted"] == expected["accepted"]
            assert is_healed or outcome(lake)["accepted"] == vendor, "never something between"
            assert stored(lake).verdict.healed_rows == int(is_healed)
            assert lake.heal().is_whole
            assert outcome(lake) == expected
            asked = len(lake.standin.requests)
            assert lake.heal().is_whole
            assert len(lake.standin.requests) == asked
    assert number > LEAST_WRITES
