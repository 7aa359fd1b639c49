"""The verdicts of a day, made from what the lake holds, and which versions count because of them.

The only module of this folder that touches the lake. Judging is repeatable: it reads manifests, writes the
verdicts beside them, and moves versions between candidate and accepted. A day's verdict depends on its
neighbours' accepted ids, so whoever changes a day judges both neighbours again; in whatever order days are
run, the verdicts end up the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Final

from pydantic import BaseModel, ConfigDict

from backfill_assets.days import MICROSECONDS_PER_SECOND, end_us, shift, start_us
from backfill_assets.feeds import Feed
from backfill_assets.lake import documents, paths
from backfill_assets.lake.gather import gather
from backfill_assets.lake.listing import read_instruments
from backfill_assets.lake.manifests import (
    DayRecord,
    FeedManifest,
    Version,
    load_day_record,
    load_manifest,
    update_manifest,
)
from backfill_assets.lake.store import Store
from backfill_assets.quality.baseline import notional_of_feeds
from backfill_assets.quality.consistency import consistency_of
from backfill_assets.quality.profiles import FeedProfile
from backfill_assets.quality.scores import DayScores, judge_day
from backfill_assets.quality.verdict import (
    Context,
    Verdict,
    arrival_edges,
    judge_feed,
    missing_verdict,
    rules_hash,
)
from backfill_assets.settings import ThresholdSettings

_LISTING: Final = ["dataset_symbol", "available_since", "listing", "available_to", "expiry"]


class FeedVerdicts(BaseModel):
    """Stored beside a feed's manifest: the verdict on the version that counts, and on a pending one."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    accepted: Verdict | None = None
    candidate: Verdict | None = None


@dataclass(frozen=True, slots=True)
class JudgedFeed:
    """One expected feed of a day with its manifest and its verdict."""

    feed: Feed
    #: Pairs (venue's symbol, canonical symbol).
    symbols: tuple[tuple[str, str], ...]
    manifest: FeedManifest
    #: On the accepted version; without one, on the candidate or on the absence.
    verdict: Verdict
    #: Whether this judgement changed which version is accepted.
    moved: bool = False

    @property
    def accepted(self) -> Version | None:
        """The version that is merged and published, if any."""
        return self.manifest.accepted


@dataclass(frozen=True, slots=True)
class JudgedDay:
    """A day as the lake has it: its feeds, its scores, and whether its neighbours are final."""

    day: str
    record: DayRecord | None
    feeds: tuple[JudgedFeed, ...]
    scores: DayScores
    sealed: bool

    def accepted_feeds(self, data_type: str) -> list[tuple[JudgedFeed, Version]]:
        """Feeds of the data type that have an accepted version, in order."""
        of_type = [f for f in self.feeds if f.feed.data_type == data_type]
        return [(f, f.accepted) for f in of_type if f.accepted is not None]


def judge(store: Store, day: str, thresholds: ThresholdSettings) -> JudgedDay:
    """Judge every expected feed of the day and let the verdicts decide which versions count.

    A candidate whose verdict is ``publish`` becomes accepted. An accepted version whose verdict has turned,
    because a neighbour has changed, becomes a candidate again.
    """
    record = load_day_record(store, day)
    if record is None:
        return JudgedDay(day, None, (), judge_day((), (), thresholds), sealed=False)
    windows = _windows(store, record)

    def judge_one(expected: tuple[Feed, tuple[tuple[str, str], ...]]) -> JudgedFeed:
        feed, symbols = expected
        return _judge_feed(store, feed, symbols, day, windows[feed], thresholds)

    feeds = tuple(gather(judge_one, _expected(record), store.parallel_reads))
    scores = judge_day(
        [f.verdict for f in feeds],
        [f.accepted is not None for f in feeds],
        thresholds,
        consistencies=gather(
            lambda f: consistency_of(store, f.feed, day, f.accepted), feeds, store.parallel_reads
        ),
        notional=notional_of_feeds(
            store, day, [(f.feed, f.symbols) for f in feeds], thresholds.notional_days
        ),
    )
    return JudgedDay(day, record, feeds, scores, sealed=_sealed(store, day, [f.feed for f in feeds]))


def judge_with_neighbours(store: Store, day: str, thresholds: ThresholdSettings) -> JudgedDay:
    """Judge a day that has changed, then the days whose verdicts its ids bear on, then the day once more.

    Where that moves a neighbour's versions, its own neighbours are next. It ends: of two days that meet, only
    one is ever blamed for their border, so a day is not judged by what its own verdict has caused.
    """
    judge(store, day, thresholds)
    waiting = [shift(day, -1), shift(day, 1)]
    while waiting:
        neighbour = waiting.pop(0)
        if any(feed.moved for feed in judge(store, neighbour, thresholds).feeds):
            waiting += [d for d in (shift(neighbour, -1), shift(neighbour, 1)) if d not in waiting]
    return judge(store, day, thresholds)


def _expected(record: DayRecord) -> list[tuple[Feed, tuple[tuple[str, str], ...]]]:
    return [(Feed.parse(e.feed), e.symbols) for e in record.expected]


def _judge_feed(
    store: Store,
    feed: Feed,
    symbols: tuple[tuple[str, str], ...],
    day: str,
    window: tuple[int, int],
    thresholds: ThresholdSettings,
) -> JudgedFeed:
    found = manifest = load_manifest(store, feed, day)
    before, after = (load_manifest(store, feed, shift(day, days)).accepted for days in (-1, 1))
    context = Context(
        window_start_us=window[0],
        window_end_us=window[1],
        previous=_last_ids(before, feed, end_us(shift(day, -1))),
        following=_first_ids(after, feed, start_us(shift(day, 1))),
    )

    def verdict_on(version: Version | None) -> Verdict | None:
        if version is None:
            return None
        profile = FeedProfile.model_validate(version.profile)
        return judge_feed(feed, day, version.content, profile, context, thresholds)

    on_accepted, on_candidate = verdict_on(manifest.accepted), verdict_on(manifest.candidate)
    if on_accepted is not None and on_accepted.outcome != "publish":
        manifest = update_manifest(store, feed, day, partial(_demote, on_accepted.content))
        on_candidate, on_accepted = on_candidate or on_accepted, None
    if on_candidate is not None and on_candidate.outcome == "publish":
        content = on_candidate.content or ""
        manifest = update_manifest(store, feed, day, lambda found: found.promote(content))
        on_accepted, on_candidate = on_candidate, None
    verdict = on_accepted or on_candidate
    if verdict is None:
        reason = manifest.absent.reason if manifest.absent else "not fetched yet"
        verdict = missing_verdict(feed, day, reason, context, rules_hash(thresholds))
        on_candidate = verdict
    stored = FeedVerdicts(accepted=on_accepted, candidate=on_candidate)
    documents.update(store, paths.verdict(feed, day), FeedVerdicts, lambda _: stored)
    return JudgedFeed(feed, symbols, manifest, verdict, moved=manifest.accepted != found.accepted)


def _demote(content: str | None, found: FeedManifest) -> FeedManifest:
    """Take an accepted version back to candidate, unless the manifest has moved on."""
    if found.accepted is None or found.accepted.content != content:
        return found
    return found.model_copy(update={"accepted": None, "candidate": found.candidate or found.accepted})


def _last_ids(before: Version | None, feed: Feed, border_us: int) -> dict[str, tuple[int, int]]:
    if before is None:
        return {}
    profile = FeedProfile.model_validate(before.profile)
    return {
        s.dataset_symbol: (s.id_max, border_us - arrival_edges(profile, s, grouped=feed.is_grouped)[1])
        for s in profile.symbols
        if s.id_max is not None and s.numeric_ids == s.rows
    }


def _first_ids(after: Version | None, feed: Feed, border_us: int) -> dict[str, tuple[int, int]]:
    if after is None:
        return {}
    profile = FeedProfile.model_validate(after.profile)
    return {
        s.dataset_symbol: (s.id_min, arrival_edges(profile, s, grouped=feed.is_grouped)[0] - border_us)
        for s in profile.symbols
        if s.id_min is not None and s.numeric_ids == s.rows
    }


def _windows(store: Store, record: DayRecord) -> dict[Feed, tuple[int, int]]:
    """The day clipped to listing and expiry, per feed; the whole day where the instruments do not say."""
    start, end = start_us(record.day), end_us(record.day)
    feeds = [feed for feed, _ in _expected(record)]
    exchanges = sorted({feed.exchange for feed in feeds})
    tables = gather(lambda e: read_instruments(store, e, record.day), exchanges, store.parallel_reads)
    windows = dict.fromkeys(feeds, (start, end))
    for exchange, table in zip(exchanges, tables, strict=True):
        for row in table.select(_LISTING).to_pylist() if table is not None else ():
            feeds_of_row = [
                f for f in feeds if (f.exchange, f.dataset_symbol) == (exchange, row["dataset_symbol"])
            ]
            opened = [_us(row[c]) for c in ("available_since", "listing") if row[c] is not None]
            closed = [_us(row[c]) for c in ("available_to", "expiry") if row[c] is not None]
            window = (max([start, *opened]), min([end, *closed]))
            windows.update(dict.fromkeys(feeds_of_row, window))
    return windows


def _us(moment: datetime) -> int:
    return int(moment.timestamp()) * MICROSECONDS_PER_SECOND + moment.microsecond


def _sealed(store: Store, day: str, feeds: Sequence[Feed]) -> bool:
    """Whether the files of both neighbours are terminal: accepted, not listed, or absent for good."""
    for neighbour in (shift(day, -1), shift(day, 1)):
        record = load_day_record(store, neighbour)
        if record is None or record.awaiting_export:
            return False
        listed = {feed for feed, _ in _expected(record)}
        expected = [feed for feed in feeds if feed in listed]
        manifests = gather(partial(_manifest_of, store, neighbour), expected, store.parallel_reads)
        if not all(m.accepted is not None or m.is_missing for m in manifests):
            return False
    return True


def _manifest_of(store: Store, day: str, feed: Feed) -> FeedManifest:
    return load_manifest(store, feed, day)
