"""A heal killed at any write leaves no partial state; the same command then ends as if undisturbed.

Between both, another command settles the day. It has liquidations, which are compared with its trades.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from backfill_assets.feeds import Feed
from backfill_assets.heal import healing
from backfill_assets.heal.holes import feeds_to_heal
from backfill_assets.lake.evidence import PricesBesideTrades
from backfill_assets.lake.manifests import load_manifest
from backfill_assets.quality.settle import settle
from backfill_assets.quality.settled import SettledFeed, load_settled
from backfill_assets_tests.heal.healed_lake import (
    DAY,
    LIQUIDATIONS,
    THRESHOLDS,
    Damage,
    HealedLake,
    without_ids,
)
from backfill_assets_tests.times import takes_minutes

ROOT = Path(__file__).parents[2]
#: The least number of writes of a heal of two holes.
LEAST_WRITES = 7

#: More missing ids than a published file may have.
MANY: Final = without_ids(*range(700, 850))


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


def stored(lake: HealedLake, feed: Feed) -> SettledFeed:
    """The feed as the heal has left it, without settling the day again."""
    settled = load_settled(lake.store, DAY)
    found = settled.feed(feed) if settled else None
    assert found is not None
    return found


def compared(lake: HealedLake) -> list[PricesBesideTrades]:
    """The comparison of the liquidations with the trades, as the day was judged by it."""
    found = stored(lake, LIQUIDATIONS)
    assert found.accepted is not None
    return [*found.verdict.context.beside_trades[found.accepted.content].prices]


def outcome(lake: HealedLake) -> dict[str, object]:
    """The state of the day, without the times and addresses of its requests."""
    found, manifest = stored(lake, lake.feed), lake.manifest
    beside = load_manifest(lake.store, LIQUIDATIONS, DAY).beside_trades
    return {
        "accepted": found.accepted and found.accepted.content,
        "state": found.verdict.completeness_state,
        "versions": [version.content for version in manifest.versions],
        "receipts": [
            (r.first_id, r.never_issued, r.recovered, [answer.content for answer in r.answers])
            for r in manifest.receipts
        ],
        "restatements": manifest.compared,
        "liquidations": compared(lake),
        "inputs": {content: one.inputs for content, one in beside.items()},
    }


def damaged_lake(folder: Path, damage: Damage) -> HealedLake:
    lake = HealedLake.of(folder, damage, never=(1_000,))
    lake.bring_liquidations()
    return lake


def heal_again(lake: HealedLake) -> None:
    """Settle the day, as an approval does, and heal the feeds that still lack trades."""
    settle(lake.store, DAY, THRESHOLDS)
    feeds, unreadable = feeds_to_heal(lake.store, lake.settings, DAY)
    assert unreadable == []
    if feeds:
        assert lake.heal().is_whole


class Killed(BaseException):
    """No handler of the heal catches it."""


@pytest.mark.parametrize("damage", [without_ids(700), MANY], ids=["a published day", "a quarantined one"])
def test_a_day_is_never_judged_by_a_comparison_with_the_trades_before_the_heal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: Damage
) -> None:
    undisturbed = damaged_lake(tmp_path / "undisturbed", damage)
    before = compared(undisturbed)
    with undisturbed.standin:
        assert undisturbed.heal().is_whole
    expected = outcome(undisturbed)
    lake = damaged_lake(tmp_path / "killed", damage)

    def killed(*_: object) -> None:
        raise Killed

    with lake.standin:
        with monkeypatch.context() as patched:
            patched.setattr(healing, "compare_with_trades", killed)
            with pytest.raises(Killed):
                lake.heal()
        heal_again(lake)
    assert outcome(lake) == expected
    is_many = damage is MANY
    assert (compared(lake) != before) is is_many, "only minutes without a trade could not be compared"


@pytest.mark.story
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(without_ids(700), id="a published day"),
        pytest.param(MANY, id="a quarantined one", marks=takes_minutes),
    ],
)
def test_a_heal_that_is_killed_at_any_write_converges_when_it_is_typed_again(
    tmp_path: Path, healer: subprocess.Popen[str], damage: Damage
) -> None:
    undisturbed = damaged_lake(tmp_path / "undisturbed", damage)
    vendor = outcome(undisturbed)["accepted"]
    with undisturbed.standin:
        assert undisturbed.heal().is_whole
        expected = outcome(undisturbed)
    rows = stored(undisturbed, undisturbed.feed).verdict.healed_rows
    code, number = -signal.SIGKILL, 0
    while code:
        number += 1
        lake = damaged_lake(tmp_path / str(number), damage)
        with lake.standin:
            code = killed_at(healer, lake, number)
            assert code in (0, -signal.SIGKILL)
            is_healed = outcome(lake)["accepted"] == expected["accepted"]
            assert is_healed or outcome(lake)["accepted"] == vendor, "never something between"
            assert stored(lake, lake.feed).verdict.healed_rows == (rows if is_healed else 0)
            heal_again(lake)
            assert outcome(lake) == expected
            asked = len(lake.standin.requests)
            assert lake.heal().is_whole
            assert len(lake.standin.requests) == asked
    assert number > LEAST_WRITES
