"""Versions of a feed's day: the effect of each event on their manifest, and its limits."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from backfill_assets.feeds import ExpectedFeed, Feed
from backfill_assets.lake import documents, paths
from backfill_assets.lake.evidence import Approval, Decisions, Retraction
from backfill_assets.lake.manifests import (
    EARLIER_VERSIONS,
    Absence,
    DayRecord,
    FeedManifest,
    Source,
    Version,
    expected_symbols,
    load_day_record,
    load_manifest,
    update_manifest,
    valid,
)
from backfill_assets.lake.store import Store
from backfill_assets.lake.tables import DataFile

FEED, DAY = Feed("binance", "trades", "BTCUSDT"), "2024-01-01"
EMPTY = FeedManifest(feed=str(FEED), day=DAY)
EARLY, LATE = datetime(2024, 1, 2, 9, tzinfo=UTC), datetime(2024, 1, 3, 9, tzinfo=UTC)
ABSENT = Absence(reason="no such file", seen_at=EARLY)


def version(content: str, **changes: Any) -> Version:
    source = Source(url="https://example.com/x.csv.gz", raw_bytes=10, raw_sha256="f" * 64)
    values: dict[str, Any] = {
        "content": content,
        "rows": 3,
        "bytes": 4,
        "source": source,
        "profile": {"rows": 3, "holes": [[1, 2]]},
        "schema_version": 1,
        "profile_parameters": "p",
        "fetched_at": EARLY,
    }
    return Version(**{**values, **changes})


A, B = version("a"), version("b")


def fetched(*contents: str, accepted: str | None = None) -> FeedManifest:
    """The manifest after fetches of these contents, while ``accepted`` counted."""
    manifest = EMPTY
    for content in contents:
        manifest = manifest.with_version(version(content), accepted)
    return manifest


def as_json(held: Version) -> dict[str, Any]:
    return held.model_dump(mode="json")


def contents(manifest: FeedManifest) -> list[str]:
    return [v.content for v in manifest.versions]


def test_an_empty_manifest_has_no_version_and_is_not_called_missing() -> None:
    assert EMPTY.newest is None
    assert not EMPTY.is_missing


def test_versions_are_held_in_the_order_of_their_fetching() -> None:
    manifest = fetched("a", "b")
    assert (manifest.newest, contents(manifest)) == (B, ["a", "b"])
    assert (manifest.version("a"), manifest.version("c"), manifest.version(None)) == (A, None, None)


def test_so_many_earlier_versions_are_held_and_the_accepted_one_always() -> None:
    manifest = fetched("a", *(f"v{n}" for n in range(EARLIER_VERSIONS + 3)), accepted="a")
    assert len(manifest.versions) == EARLIER_VERSIONS + 2
    assert contents(manifest)[0] == "a"
    assert manifest.newest == version(f"v{EARLIER_VERSIONS + 2}")


def test_a_file_that_comes_again_after_another_is_the_newest_once_more() -> None:
    assert contents(fetched("a", "b", "a")) == ["b", "a"]
    assert contents(fetched("a", "b", "c", "a", accepted="b")) == ["b", "c", "a"]


def test_the_order_of_fetching_survives_a_clock_that_is_behind() -> None:
    manifest = EMPTY.with_version(version("a", fetched_at=LATE), "a").with_version(B, "a")
    assert contents(manifest) == ["a", "b"]
    assert manifest.versions[1].fetched_at == LATE


def test_a_refresh_that_brings_the_accepted_rows_changes_nothing() -> None:
    assert fetched("a").with_version(version("a", fetched_at=LATE), "a") == fetched("a")


def test_a_refresh_that_brings_the_accepted_rows_drops_the_versions_after_them() -> None:
    assert contents(fetched("a", "b", "c", "b", accepted="b")) == ["a", "b"]


def test_a_version_that_is_approved_while_its_feed_is_fetched_is_not_dropped() -> None:
    approval = Approval(content="b", rules="r", reason="checked", approved_at=EARLY)
    approved = fetched("a", "b").model_copy(update={"decisions": (approval,)})
    assert contents(approved.with_version(A, "a")) == ["b", "a"]
    for number in range(EARLIER_VERSIONS + 3):
        approved = approved.with_version(version(f"v{number}"), "a")
    assert {"a", "b"} <= set(contents(approved))
    retracted = Retraction(content="b", reason="was wrong", retracted_at=LATE)
    taken_back = fetched("a", "b").model_copy(update={"decisions": (approval, retracted)})
    assert contents(taken_back.with_version(A, "a")) == ["a"]


@pytest.mark.parametrize(
    "change",
    [
        {"profile_parameters": "q"},
        {"schema_version": 2},
        {"minute_numbers": DataFile(content="n", rows=1, bytes=2)},
    ],
)
def test_accepted_rows_counted_anew_take_over_the_evidence(change: dict[str, Any]) -> None:
    again = version("a", fetched_at=LATE, **change)
    assert fetched("a").with_version(again, "a").versions == (again,)


def test_a_version_fetched_again_changes_nothing_but_new_evidence_does() -> None:
    manifest = fetched("a")
    assert manifest.with_version(version("a", fetched_at=LATE), None) == manifest
    assert manifest.with_version(version("a", profile_parameters="q"), None).newest != A


def test_a_manifest_that_also_said_which_version_counts_is_read_on(store: Store) -> None:
    old, late = version("old"), version("late", fetched_at=LATE)
    former = {"feed": str(FEED), "day": DAY, "absent": None, "decided": False}
    former |= {"accepted": as_json(A), "candidate": as_json(late), "earlier": [as_json(old)]}
    store.replace(paths.ticks_manifest(FEED, DAY), json.dumps(former).encode(), None)
    assert contents(load_manifest(store, FEED, DAY)) == ["old", "a", "late"]


def test_decisions_in_a_document_of_their_own_are_read_on_and_come_first(store: Store) -> None:
    first, second = (
        Retraction(content="a", reason=reason, retracted_at=EARLY) for reason in ("first", "second")
    )
    former = Decisions(feed=str(FEED), day=DAY, decisions=(first,))
    documents.update(store, paths.decisions(FEED, DAY), Decisions, lambda _: former)
    update_manifest(store, FEED, DAY, lambda m: m.with_version(A, None).model_copy(update={"decided": True}))
    assert load_manifest(store, FEED, DAY).decisions == (first,)
    update_manifest(store, FEED, DAY, lambda m: m.model_copy(update={"decisions": (second,)}))
    found = load_manifest(store, FEED, DAY)
    assert (found.decisions, found.retraction("a")) == ((first, second), second)


def test_an_absent_feed_without_a_version_is_missing() -> None:
    assert EMPTY.with_absence(ABSENT).is_missing


def test_an_absence_keeps_what_was_fetched_before() -> None:
    manifest = fetched("a", "b").with_absence(ABSENT)
    assert contents(manifest) == ["a", "b"]
    assert not manifest.is_missing


def test_an_absence_seen_again_changes_nothing_but_another_reason_does() -> None:
    manifest = EMPTY.with_absence(ABSENT)
    assert manifest.with_absence(Absence(reason="no such file", seen_at=LATE)) == manifest
    assert manifest.with_absence(Absence(reason="not listed", seen_at=LATE)) != manifest


@pytest.mark.parametrize("before", [EMPTY, fetched("a")])
def test_a_fetch_ends_an_absence(before: FeedManifest) -> None:
    assert before.with_absence(ABSENT).with_version(A, None).absent is None


def test_manifests_leave_unknown_keys_out_and_take_no_time_without_a_zone() -> None:
    assert FeedManifest.model_validate({"feed": str(FEED), "day": DAY, "color": 1}) == EMPTY
    with pytest.raises(ValidationError):
        version("a", fetched_at=datetime(2024, 1, 1))  # noqa: DTZ001 - the mistake under test
    with pytest.raises(ValidationError):
        EMPTY.day = "2024-01-02"  # type: ignore[misc]


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_profile_with_a_number_that_json_cannot_say_is_refused(store: Store, bad: float) -> None:
    with pytest.raises(ValueError, match="Out of range"):
        update_manifest(
            store, FEED, DAY, lambda m: m.with_version(version("a", profile={"deep": [bad]}), None)
        )
    assert list(store.list("")) == []


def test_a_manifest_survives_the_lake_unchanged(store: Store) -> None:
    assert load_manifest(store, FEED, DAY) == EMPTY
    written = update_manifest(store, FEED, DAY, lambda m: m.with_version(A, None).with_version(B, "a"))
    assert load_manifest(store, FEED, DAY) == written
    assert store.exists("ticks/binance/trades/BTCUSDT/2024-01-01/manifest.json")


def test_an_empty_manifest_that_stays_empty_is_not_written(store: Store) -> None:
    assert update_manifest(store, FEED, DAY, lambda m: m) == EMPTY
    assert list(store.list("")) == []


def test_a_day_record_gives_back_the_expected_feeds_in_order(store: Store) -> None:
    bitcoin = ExpectedFeed(FEED, (("btcusdt", "BTC-USDT"),))
    ether = ExpectedFeed(Feed("binance", "trades", "ETHUSDT"), (("ethusdt", "ETH-USDT"),))
    assert expected_symbols([ether, bitcoin]) == expected_symbols([bitcoin, ether])
    record = DayRecord(
        day=DAY,
        expected=expected_symbols([ether, bitcoin]),
        not_listed=("kraken/trades/ADA-USDT",),
        awaiting_export=(str(FEED),),
        recorded_at=EARLY,
    )
    assert load_day_record(store, DAY) is None
    documents.update(store, paths.day_record(DAY), DayRecord, lambda _: record)
    loaded = load_day_record(store, DAY)
    assert loaded == record
    assert loaded.expected_feeds == (bitcoin, ether)


def test_a_version_is_valid_only_while_its_data_file_is_there_in_full_size(
    store: Store, tmp_path: Path
) -> None:
    assert not valid(store, FEED, DAY, A)
    (tmp_path / "short").write_bytes(b"row")
    store.put_file(tmp_path / "short", paths.ticks_data(FEED, DAY, "a"))
    assert not valid(store, FEED, DAY, A)
    (tmp_path / "full").write_bytes(b"rows")
    store.put_file(tmp_path / "full", paths.ticks_data(FEED, DAY, "a"))
    assert valid(store, FEED, DAY, A)
