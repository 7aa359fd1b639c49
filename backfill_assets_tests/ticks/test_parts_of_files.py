"""A part of a tick file answers some questions; a store that lends no whole file serves them."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from backfill_assets.ticks.witnesses import ask_witnesses

from backfill_assets.lake.local import LocalStore
from backfill_assets.lake.manifests import load_manifest
from backfill_assets.quality.spikes import load_spikes
from backfill_assets.ticks.schemas import profile_row
from backfill_assets_tests.quality import damaged_days as dd
from backfill_assets_tests.quality.damaged_days import DAY, SAMPLES
from backfill_assets_tests.quality.filed_days import FiledDays

OURS, THEIRS = SAMPLES["A liquid"], SAMPLES["B liquid"]


class LendsNothing(LocalStore):
    """A lake in a folder whose files can be read by parts only."""

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


def test_the_counts_of_a_stored_file_come_from_its_footer(lake: FiledDays) -> None:
    manifest = load_manifest(lake.store, THEIRS.feed, DAY)
    assert manifest.current is not None
    found = profile_row(lake.store, THEIRS.feed, DAY, manifest, manifest.current)
    assert found["stored_rows"] == found["rows"] == len(dd.good_rows(THEIRS, DAY))
    assert found["columns"] is True


def test_a_witness_is_asked_by_the_parts_around_the_spikes(lake: FiledDays) -> None:
    assert ask_witnesses(lake.store, DAY, lake.settings) == 1
    record = load_spikes(lake.store, OURS.feed, DAY)
    assert record is not None
    (evidence,) = record.versions.values()
    assert evidence.witnesses == (str(THEIRS.feed),)
    assert [len(times) for times in evidence.refuted.values()] == [1]
