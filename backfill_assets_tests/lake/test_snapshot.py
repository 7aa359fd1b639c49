"""Within a snapshot a document is read once; own writes are seen, and after the block everything is."""

from __future__ import annotations

from pathlib import Path

import pytest

from backfill_assets.failures import Superseded
from backfill_assets.lake.local import LocalStore
from backfill_assets.lake.snapshot import snapshot
from backfill_assets.lake.store import Store

PATH, OTHER = "days/2024-01-01.json", "days/2024-01-02.json"


@pytest.fixture
def lake(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "lake")


def data(store: Store, path: str = PATH) -> bytes | None:
    found = store.read(path)
    return None if found is None else found.data


def test_a_document_stays_as_it_was_first_read_until_the_block_ends(lake: LocalStore) -> None:
    first = lake.replace(PATH, b"one", None)
    with snapshot(lake) as seen:
        assert (data(seen), data(seen, OTHER)) == (b"one", None)
        lake.replace(PATH, b"two", first)
        lake.replace(OTHER, b"new", None)
        assert (data(seen), data(seen, OTHER)) == (b"one", None)
        with snapshot(lake) as another:
            assert data(another) == b"two"
    assert (data(seen), data(seen, OTHER)) == (b"two", b"new"), "nothing is remembered after the block"


def test_a_snapshot_within_a_snapshot_is_the_same_and_outlives_the_inner_block(lake: LocalStore) -> None:
    first = lake.replace(PATH, b"one", None)
    with snapshot(lake) as seen:
        with snapshot(seen) as inner:
            assert inner is seen
            assert data(inner) == b"one"
        lake.replace(PATH, b"two", first)
        assert data(seen) == b"one"


def test_what_is_written_through_it_is_seen_at_once_and_is_in_the_lake(lake: LocalStore) -> None:
    with snapshot(lake) as seen:
        assert data(seen) is None
        generation = seen.replace(PATH, b"one", None)
        found = seen.read(PATH)
        assert found is not None
        assert (found.data, found.generation, data(lake)) == (b"one", generation, b"one")
        seen.delete(PATH)
        assert (data(seen), data(lake)) == (None, None)


def test_whoever_was_overtaken_learns_it_and_sees_what_is_there_now(lake: LocalStore) -> None:
    first = lake.replace(PATH, b"one", None)
    with snapshot(lake) as seen:
        found = seen.read(PATH)
        assert found is not None
        lake.replace(PATH, b"two", first)
        with pytest.raises(Superseded):
            seen.replace(PATH, b"mine", found.generation)
        assert (data(seen), data(lake)) == (b"two", b"two")


def test_it_is_the_same_lake(lake: LocalStore, tmp_path: Path) -> None:
    with snapshot(lake) as seen:
        assert seen == lake
        assert lake != LocalStore(tmp_path / "another")
        assert hash(seen) == hash(lake)
        assert (seen.uri, seen.uri_of(PATH)) == (lake.uri, lake.uri_of(PATH))
        lake.replace(PATH, b"one", None)
        assert (list(seen.list("days/")), seen.exists(PATH), seen.size(PATH)) == ([PATH], True, 3)
        with seen.local_copy(PATH) as file:
            assert file.read_bytes() == b"one"
