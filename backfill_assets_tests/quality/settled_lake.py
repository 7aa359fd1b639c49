"""Lakes with hand-made manifests: the expected feeds of a day, and their files."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, Final

from backfill_assets.days import MICROSECONDS_PER_DAY, start_us
from backfill_assets.feeds import ExpectedFeed, Feed
from backfill_assets.lake import documents, paths
from backfill_assets.lake.evidence import Restatement
from backfill_assets.lake.manifests import (
    Absence,
    DayRecord,
    Source,
    Version,
    expected_symbols,
    load_manifest,
    update_manifest,
)
from backfill_assets.lake.store import Store
from backfill_assets.quality.decisions import Decided, approve, retract
from backfill_assets.quality.minute_numbers import store_numbers
from backfill_assets.quality.profiles import FeedProfile
from backfill_assets.quality.settled import HeldVersion, SettledFeed, load_settled
from backfill_assets.settings import ThresholdSettings
from backfill_assets.ticks.restatements import keep_comparisons
from backfill_assets_tests.quality.quality_samples import FEED, SECOND, profile, symbol

NOW: Final = datetime(2024, 1, 10, tzinfo=UTC)


def expect(
    store: Store, day: str, *feeds: Feed, not_listed: tuple[str, ...] = (), market: str | None = None
) -> None:
    """Record the required feeds of the day; ``BTCUSDT`` means BTC-USDT, or every feed means ``market``."""
    expected = [
        ExpectedFeed(f, ((f.dataset_symbol, market or f"{f.dataset_symbol[:-4]}-USDT"),))
        for f in feeds or (FEED,)
    ]
    record = DayRecord(day=day, expected=expected_symbols(expected), not_listed=not_listed, recorded_at=NOW)
    documents.update(store, paths.day_record(day), DayRecord, lambda _: record)


def ids(
    day: str, first: int, last: int, *, head_us: int = SECOND, tail_us: int = SECOND, **changes: object
) -> FeedProfile:
    """A file of the day with these consecutive ids, silent for so long at its ends."""
    edges = (start_us(day) + head_us, start_us(day) + MICROSECONDS_PER_DAY - tail_us)
    times = {
        "first_timestamp_us": edges[0],
        "last_timestamp_us": edges[1],
        "first_local_timestamp_us": edges[0],
        "last_local_timestamp_us": edges[1],
    }
    trades = symbol(first, last, first_trade_us=edges[0], last_trade_us=edges[1], **changes)
    return profile(trades, **times)


def version(found: FeedProfile, fetched_at: datetime = NOW) -> Version:
    """A version with this profile; each set of counts is a content of its own."""
    text = found.model_dump_json()
    content = hashlib.sha256(text.encode()).hexdigest()
    return Version(
        content=content,
        rows=found.rows,
        bytes=1,
        source=Source(url="http://127.0.0.1/file.csv.gz", raw_bytes=1, raw_sha256=content),
        profile=found.model_dump(mode="json"),
        schema_version=1,
        profile_parameters="p",
        fetched_at=fetched_at,
    )


def held(found: FeedProfile) -> HeldVersion | None:
    """The version with this profile as a day's document names it."""
    return HeldVersion.of(version(found))


def bring(store: Store, day: str, brought: Version, feed: Feed = FEED) -> str:
    """Add the version to the feed's manifest as a fetch does; returns its content."""
    accepted = contents(store, day, feed)[0]
    update_manifest(store, feed, day, lambda manifest: manifest.with_version(brought, accepted))
    return brought.content


def fetch(store: Store, day: str, found: FeedProfile, feed: Feed = FEED) -> str:
    """Store a file with these counts; returns its content."""
    numbers = store_numbers(store, feed, day, found.numbers)
    return bring(store, day, version(found).model_copy(update={"minute_numbers": numbers}), feed)


def compare(store: Store, day: str, feed: Feed = FEED, **found: Any) -> None:
    """Record that newer versions change nothing of the older ones, or ``found``, without any files."""
    versions = load_manifest(store, feed, day).versions
    compared = [
        Restatement(
            **{
                "before": old.content,
                "after": new.content,
                "rows_before": old.rows,
                "rows_after": old.rows,
                **found,
            }
        )
        for old, new in itertools.combinations(versions, 2)
    ]
    keep_comparisons(store, feed, day, compared)


def absent(store: Store, day: str, feed: Feed = FEED) -> None:
    """Record the vendor's permanent answer that it has no such file."""
    update_manifest(
        store, feed, day, lambda m: m.with_absence(Absence(reason="no such data set", seen_at=NOW))
    )


def settled_feed(store: Store, day: str, feed: Feed = FEED) -> SettledFeed:
    """The feed in the day's document."""
    settled = load_settled(store, day)
    found = settled.feed(feed) if settled else None
    assert found is not None
    return found


def contents(store: Store, day: str, feed: Feed = FEED) -> tuple[str | None, str | None]:
    """Content of the accepted version and of the candidate, by the day's document."""
    settled = load_settled(store, day)
    found = settled.feed(feed) if settled else None
    if found is None:
        return None, None
    return (
        found.accepted.content if found.accepted else None,
        found.candidate.content if found.candidate else None,
    )


def everything(store: Store, days: Iterable[str], feed: Feed = FEED) -> dict[str, bytes]:
    """Bytes of every manifest and of every settled document of the days."""
    found = {
        path: store.read(path)
        for day in days
        for path in (paths.ticks_manifest(feed, day), paths.settled_day(day))
    }
    return {path: stored.data for path, stored in found.items() if stored is not None}


def approve_pending(
    store: Store, day: str, feed: str | None, reason: str, thresholds: ThresholdSettings
) -> list[Decided]:
    """Approve the pending version of the feed, or of all feeds of the day, by its content."""
    settled = load_settled(store, day)
    pending = [f.candidate for f in settled.feeds if feed in (None, str(f.feed))] if settled else []
    return approve(store, day, feed, [v.content for v in pending if v], reason, thresholds)


def retract_accepted(
    store: Store, day: str, feed: str, reason: str, thresholds: ThresholdSettings
) -> Decided:
    """Retract the accepted version of the feed, by its content."""
    settled = load_settled(store, day)
    accepted = [f.accepted for f in settled.feeds if str(f.feed) == feed] if settled else []
    return retract(store, day, feed, "".join(v.content for v in accepted if v), reason, thresholds)
