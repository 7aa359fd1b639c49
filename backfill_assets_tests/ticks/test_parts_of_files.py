"""Parts of a tick file answer some questions, so a store that lends no whole file is enough for them."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from backfill_assets.lake.local import LocalStore
from backfill_assets.lake.manifests import load_day_record, load_manifest, load_manifests
from backfill_assets.quality.witnesses import ask_witnesses
from backfill_assets.ticks.checks import look_at_footers
from backfill_assets_tests.quality import damaged_days as dd
from backfill_assets_tests.quality.damaged_days import DAY, SAMPLES
from backfill_assets_tests.quality.filed_days import FiledDays

OURS, THEIRS = SAMPLES["A liquid"], SAMPLES["B liquid"]


class LendsNothing(LocalStore):
    """A lake in a folder whose files can only be read in parts."""

    def local_copy(self, path: str) -> AbstractContextManager[Path]:
        pytest.fail(f"{path} was asked for as a whole")


@pytest.fixture
def lake(tmp_path: Path) -> FiledDays:
    """A good file, and one of another venue with a wrong price."""
    lake = FiledDays(tmp_path)
    lake.bring_rows(THEIRS, DAY, dd.good_rows(THEIRS, DAY), row_group_rows=1_000)
    lake.bring_rows(OURS, DAY, dd.changed(1, price=dd.priced(1.05))(OURS, dd.good_rows(OURS, DAY)))
    lake.store = LendsNothing(Path(lake.store.uri))
    return lake


def test_what_a_footer_says_is_read_from_the_footer_alone(lake: FiledDays) -> None:
    """The version has an earlier layout, which stored no facts about its file."""
    found = look_at_footers(lake.store, DAY)
    assert (found.rows, found.failures) == (2, 0)


def test_a_witness_is_asked_by_the_parts_around_the_spikes(lake: FiledDays) -> None:
    record = load_day_record(lake.store, DAY)
    assert record is not None
    assert ask_witnesses(lake.store, record, load_manifests(lake.store, record), lake.settings) == 1
    (evidence,) = load_manifest(lake.store, OURS.feed, DAY).spikes.values()
    assert evidence.witnesses == (str(THEIRS.feed),)
    assert [len(times) for times in evidence.refuted.values()] == [1]
