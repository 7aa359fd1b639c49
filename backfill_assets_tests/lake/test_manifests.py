"""Candidate and accepted: what each event does to a feed's manifest, and what it must not do."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from backfill_assets.failures import Superseded
from backfill_assets.feeds import ExpectedFeed, Feed
from backfill_assets.lake import documents, paths
from backfill_assets.lake.manifests import (
    EARLIER_VERSIONS,
    Absence,
    DayRecord,
    FeedManifest,
    Partial,
    Source,
    Version,
    add_partial,
    expected_symbols,
    load_day_record,
    load_manifest,
    load_partials,
    update_manifest,
    valid,
    valid_partial,
)
from backfill_assets.lake.store import Store

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


def accept(manifest: FeedManifest, content: str | None) -> FeedManifest:
    """After judging, which lets this content count."""
    return manifest.settle(tuple(v.content for v in manifest.versions), content)


def test_an_empty_manifest_has_no_current_version_and_is_not_called_missing() -> None:
    assert EMPTY.current is None
    assert not EMPTY.is_missing


def test_a_fetch_makes_a_candidate_that_is_current_but_not_accepted() -> None:
    manifest = EMPTY.with_candidate(A)
    assert (manifest.current, manifest.candidate, manifest.accepted) == (A, A, None)


def test_promotion_accepts_the_candidate_that_was_judged() -> None:
    manifest = accept(EMPTY.with_candidate(A), "a")
    assert (manifest.current, manifest.candidate, manifest.accepted) == (A, None, A)


def test_a_version_that_was_judged_before_another_came_does_not_count() -> None:
    with pytest.raises(Superseded, match=r"binance/trades/BTCUSDT of 2024-01-01: other versions are held"):
        EMPTY.with_candidate(A).with_candidate(B).settle(("a",), "a")
    with pytest.raises(Superseded):
        EMPTY.settle(("a",), "a")


def test_settling_twice_changes_nothing() -> None:
    accepted = accept(EMPTY.with_candidate(A), "a")
    assert accept(accepted, "a") == accepted


def test_a_version_that_is_replaced_or_taken_back_is_held() -> None:
    both = accept(EMPTY.with_candidate(A), "a").with_candidate(B)
    replaced = accept(both, "b")
    assert (replaced.accepted, replaced.candidate, replaced.earlier) == (B, None, (A,))
    nothing = accept(replaced, None)
    assert (nothing.accepted, nothing.candidate, nothing.earlier) == (None, B, (A,))
    assert accept(nothing, "a") == both
    assert both.versions == replaced.versions == nothing.versions == (A, B)


def test_so_many_earlier_versions_are_held_and_the_accepted_one_always() -> None:
    manifest = accept(EMPTY.with_candidate(A), "a")
    for n in range(EARLIER_VERSIONS + 3):
        manifest = manifest.with_candidate(version(f"v{n}"))
    assert len(manifest.versions) == EARLIER_VERSIONS + 2
    assert manifest.accepted == A
    assert manifest.candidate == version(f"v{EARLIER_VERSIONS + 2}")


def test_a_file_that_comes_again_after_another_is_the_newest_once_more() -> None:
    manifest = EMPTY.with_candidate(A).with_candidate(B).with_candidate(A)
    assert (manifest.candidate, manifest.earlier) == (A, (B,))


def test_the_order_of_fetching_survives_a_clock_that_is_behind() -> None:
    late = version("a", fetched_at=LATE)
    manifest = accept(EMPTY.with_candidate(late), "a").with_candidate(B)
    assert [v.content for v in manifest.versions] == ["a", "b"]


def test_a_refresh_does_not_take_back_what_is_accepted_until_it_is_promoted() -> None:
    pending = accept(EMPTY.with_candidate(A), "a").with_candidate(B)
    assert (pending.current, pending.accepted) == (B, A)
    assert accept(pending, "b").accepted == B


def test_a_refresh_that_brings_the_accepted_rows_changes_nothing() -> None:
    accepted = accept(EMPTY.with_candidate(A), "a")
    assert accepted.with_candidate(version("a", fetched_at=LATE)) == accepted


def test_a_refresh_that_brings_the_accepted_rows_drops_the_candidate() -> None:
    accepted = accept(EMPTY.with_candidate(A), "a")
    assert accepted.with_candidate(B).with_candidate(A) == accepted


@pytest.mark.parametrize("change", [{"profile_parameters": "q"}, {"schema_version": 2}])
def test_accepted_rows_counted_anew_take_over_the_evidence(change: dict[str, Any]) -> None:
    again = version("a", fetched_at=LATE, **change)
    manifest = accept(EMPTY.with_candidate(A), "a").with_candidate(again)
    assert (manifest.accepted, manifest.candidate) == (again, None)


def test_a_candidate_fetched_again_changes_nothing_but_new_evidence_does() -> None:
    manifest = EMPTY.with_candidate(A)
    assert manifest.with_candidate(version("a", fetched_at=LATE)) == manifest
    assert manifest.with_candidate(version("a", profile_parameters="q")).candidate != A


def test_an_absent_feed_without_a_version_is_missing() -> None:
    assert EMPTY.with_absence(ABSENT).is_missing


def test_an_absence_keeps_what_was_fetched_before() -> None:
    manifest = accept(EMPTY.with_candidate(A), "a").with_candidate(B).with_absence(ABSENT)
    assert (manifest.accepted, manifest.candidate) == (A, B)
    assert not manifest.is_missing


def test_an_absence_seen_again_changes_nothing_but_another_reason_does() -> None:
    manifest = EMPTY.with_absence(ABSENT)
    assert manifest.with_absence(Absence(reason="no such file", seen_at=LATE)) == manifest
    assert manifest.with_absence(Absence(reason="not listed", seen_at=LATE)) != manifest


@pytest.mark.parametrize("before", [EMPTY, accept(EMPTY.with_candidate(A), "a")])
def test_a_fetch_ends_an_absence(before: FeedManifest) -> None:
    assert before.with_absence(ABSENT).with_candidate(A).absent is None


def test_manifests_take_no_unknown_key_and_no_time_without_a_zone() -> None:
    with pytest.raises(ValidationError):
        FeedManifest.model_validate({"feed": str(FEED), "day": DAY, "colour": 1})
    with pytest.raises(ValidationError):
        version("a", fetched_at=datetime(2024, 1, 1))  # noqa: DTZ001 - the mistake under test
    with pytest.raises(ValidationError):
        EMPTY.day = "2024-01-02"  # type: ignore[misc]


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_profile_with_a_number_that_json_cannot_say_is_refused(store: Store, bad: float) -> None:
    with pytest.raises(ValueError, match="Out of range"):
        update_manifest(store, FEED, DAY, lambda m: m.with_candidate(version("a", profile={"deep": [bad]})))
    assert list(store.list("")) == []


def test_a_manifest_survives_the_lake_unchanged(store: Store) -> None:
    assert load_manifest(store, FEED, DAY) == EMPTY
    written = update_manifest(store, FEED, DAY, lambda m: accept(m.with_candidate(A), "a").with_candidate(B))
    assert load_manifest(store, FEED, DAY) == written
    assert store.exists("ticks/binance/trades/BTCUSDT/2024-01-01/manifest.json")


def test_an_empty_manifest_that_stays_empty_is_not_written(store: Store) -> None:
    assert update_manifest(store, FEED, DAY, lambda m: accept(m, None)) == EMPTY
    assert list(store.list("")) == []


def test_a_promotion_loses_to_a_fetch_that_came_between(store: Store) -> None:
    update_manifest(store, FEED, DAY, lambda m: m.with_candidate(A))
    calls = []

    def promote_the_judged(manifest: FeedManifest) -> FeedManifest:
        calls.append(manifest)
        if len(calls) == 1:
            update_manifest(store, FEED, DAY, lambda m: m.with_candidate(B))
        return manifest.settle(("a",), "a")

    with pytest.raises(Superseded, match="other versions are held"):
        update_manifest(store, FEED, DAY, promote_the_judged)
    assert load_manifest(store, FEED, DAY) == EMPTY.with_candidate(A).with_candidate(B)


def test_partial_candles_of_several_versions_stay_side_by_side_whoever_writes_them(store: Store) -> None:
    partials = {f"ticks{n}": Partial(content=f"candles{n}", rows=n, bytes=n) for n in range(8)}
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda item: add_partial(store, FEED, DAY, *item), partials.items()))
    assert load_partials(store, FEED, DAY).partials == partials
    assert add_partial(store, FEED, DAY, "ticks1", partials["ticks1"]).partials == partials


def test_there_are_no_partial_candles_before_any_is_recorded(store: Store) -> None:
    assert load_partials(store, FEED, DAY).partials == {}
    assert not store.exists(paths.candles_manifest(FEED, DAY))


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


def test_partial_candles_are_valid_only_while_their_data_file_is_there(store: Store, tmp_path: Path) -> None:
    partial = Partial(content="a", rows=1, bytes=4)
    assert not valid_partial(store, FEED, DAY, partial)
    (tmp_path / "full").write_bytes(b"rows")
    store.put_file(tmp_path / "full", paths.candles_data(FEED, DAY, "a"))
    assert valid_partial(store, FEED, DAY, partial)
