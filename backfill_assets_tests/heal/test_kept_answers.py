"""Kept answers, recovered trades and healed versions are verified byte by byte, and no command frees them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path

import pytest

from backfill_assets.days import utc_now
from backfill_assets.lake import paths
from backfill_assets.settings import LakeSettings
from backfill_assets.warehouse.garbage import garbage
from backfill_assets.warehouse.verify import verify_days
from backfill_assets_tests.heal.healed_lake import BINANCE, DAY, HealedLake, without_ids
from backfill_assets_tests.heal.test_healing import SUMMED_UP, archive_only


@pytest.fixture
def lake(tmp_path: Path) -> Iterator[HealedLake]:
    """One hole that the exchange answers, and one that its archive answers."""
    with ExitStack() as running:
        made = HealedLake.of(tmp_path, without_ids(500, 700), never=(1_000,), feed=BINANCE)
        running.enter_context(made.standin)
        archive_only(made)
        assert made.heal().is_whole
        yield made


def answers(lake: HealedLake) -> list[str]:
    return sorted(lake.store.list(f"receipts/{lake.feed.exchange}/"))


def problems(lake: HealedLake, *, mend: bool = False) -> tuple[str, ...]:
    [found] = verify_days(lake.store, [], [DAY], mend=mend)
    return found.problems


def test_every_kept_file_that_is_damaged_or_gone_is_a_problem_with_the_command_that_brings_it_back(
    lake: HealedLake,
) -> None:
    assert problems(lake) == ()
    [base, healed] = [version.content for version in lake.manifest.versions]
    assert lake.manifest.versions[-1].healed is not None
    kept = answers(lake)
    assert len(kept) >= 5, "checksum, rows of three holes, recovered trades of two"
    ticks = [paths.ticks_data(BINANCE, DAY, content) for content in (healed, base)]
    for path in (*kept, *ticks):
        file = Path(lake.store.uri_of(path))
        whole = file.read_bytes()
        file.write_bytes(bytes([whole[0] ^ 1]) + whole[1:])
        # Several receipts have the checksum of the archive's file.
        [problem] = set(problems(lake))
        assert path in problem
        told = f"'backfill-assets heal --date {DAY} --feed {BINANCE}' fetches it again"
        assert (told in problem) is (path in kept)
        file.unlink()
        # The vendor's version no longer counts, and need not be there.
        assert bool(problems(lake)) is (path != ticks[1])
        file.write_bytes(whole)
    assert problems(lake) == ()


def test_a_damaged_answer_is_set_aside_and_asked_for_again(lake: HealedLake) -> None:
    before = {path: Path(lake.store.uri_of(path)).read_bytes() for path in answers(lake)}
    for path in before:
        Path(lake.store.uri_of(path)).write_bytes(b"x")
        assert problems(lake, mend=True)
        assert not lake.store.exists(path)
        asked = len(lake.standin.requests)
        assert lake.heal().is_whole
        assert len(lake.standin.requests) > asked
        assert {path: Path(lake.store.uri_of(path)).read_bytes() for path in answers(lake)} == before
        assert problems(lake) == ()


def test_a_lost_answer_to_which_another_has_come_is_named_no_more(lake: HealedLake) -> None:
    [first, *others] = lake.manifest.receipts
    lake.store.delete(paths.receipt_data(BINANCE, DAY, first.answers[-1].content, "csv"))
    # The exchange itself answers this time.
    lake.standin.faults.clear(SUMMED_UP)
    assert lake.heal().is_whole
    assert {receipt.source for receipt in lake.manifest.receipts} == {"exchange", "archive"}
    assert [r for r in lake.manifest.receipts if r in others] == others
    assert first not in lake.manifest.receipts
    assert problems(lake) == ()
    assert lake.heal(dry_run=True).is_whole


def test_what_a_manifest_names_is_spared_and_an_answer_that_none_names_is_garbage(lake: HealedLake) -> None:
    def found() -> list[str]:
        later = utc_now() + timedelta(days=1)
        own = LakeSettings(uri=str(lake.days.folder / "lake"), scratch=str(lake.days.folder))
        return [one.path for one in garbage(lake.store, own, later) if one.kind != "temporary"]

    assert found() == []
    orphan = paths.receipt_data(BINANCE, DAY, "0" * 64, "csv")
    shutil.copy(lake.store.uri_of(answers(lake)[0]), lake.store.uri_of(orphan))
    assert found() == [orphan]
