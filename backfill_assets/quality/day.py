"""The verdicts of a day, made from what the lake holds, and which versions count because of them.

Judging is repeatable: it reads manifests, writes the verdicts beside them, and lets the version count that
``choice`` picks. A day's verdict depends on its neighbours' accepted ids, so whoever changes a day judges
both neighbours again; in whatever order days are run, the verdicts end up the same.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from pydantic import BaseModel, ConfigDict

from backfill_assets.days import shift
from backfill_assets.feeds import Feed
from backfill_assets.lake import documents, paths
from backfill_assets.lake.gather import gather
from backfill_assets.lake.manifests import (
    DayRecord,
    FeedManifest,
    Version,
    load_day_record,
    load_manifest,
    update_manifest,
)
from backfill_assets.lake.snapshot import snapshot
from backfill_assets.lake.store import Store
from backfill_assets.quality.approvals import Approval, Decisions, Retraction, load_decisions
from backfill_assets.quality.baseline import notional_of_feeds
from backfill_assets.quality.choice import Choice, choose
from backfill_assets.quality.consistency import consistency_of
from backfill_assets.quality.context import Surroundings, context_of, surroundings
from backfill_assets.quality.profiles import profile_of
from backfill_assets.quality.restatement import Restatement, load_restatements
from backfill_assets.quality.scores import DayScores, judge_day
from backfill_assets.quality.verdict import (
    Context,
    Verdict,
    judge_feed,
    missing_verdict,
    rules_hash,
)
from backfill_assets.settings import ThresholdSettings

#: How often one change makes a neighbour be judged; changes that settle need fewer.
MOST_VISITS: Final = 8


class FeedVerdicts(BaseModel):
    """Stored beside a feed's manifest: the verdict on the version that counts, and on a pending one."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    accepted: Verdict | None = None
    candidate: Verdict | None = None


class AcceptedVersions(BaseModel):
    """Which versions of a day's feeds count, as one hash."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    day: str
    versions: str


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
    #: Why the accepted version counts by somebody's wish; null where its verdict decides.
    approval: Approval | None = None
    #: Why a version that the lake holds does not count, by somebody's wish.
    retraction: Retraction | None = None
    #: What the candidate changes against the accepted version, else what that changed against the one that
    #: counted before; null where there is no other version, or the two were not compared.
    restatement: Restatement | None = None
    #: Why the candidate waits for an approval though its rows are good: it restates too much, or nobody knows
    #: how much; empty where that is not so.
    excess: str = ""

    @property
    def accepted(self) -> Version | None:
        """The version that is merged and published, if any."""
        return self.manifest.accepted

    @property
    def restatement_summary(self) -> str | None:
        """What is restated, and why that waits for an approval if it does; null where nothing is."""
        parts = [self.restatement.summary] if self.restatement else []
        return "; ".join([*parts, *([f"pending: {self.excess}"] if self.excess else [])]) or None


@dataclass(frozen=True, slots=True)
class JudgedDay:
    """A day as the lake has it: its feeds, its scores, and whether its neighbours are final."""

    day: str
    record: DayRecord | None
    feeds: tuple[JudgedFeed, ...]
    scores: DayScores
    sealed: bool

    @property
    def versions(self) -> str:
        """Hash of the versions that count; without any it is that of none."""
        accepted = [f"{f.feed}:{f.accepted.content}" for f in self.feeds if f.accepted is not None]
        return hashlib.sha256("\n".join(accepted).encode()).hexdigest()

    def accepted_feeds(self, data_type: str) -> list[tuple[JudgedFeed, Version]]:
        """Feeds of the data type that have an accepted version, in order."""
        of_type = [f for f in self.feeds if f.feed.data_type == data_type]
        return [(f, f.accepted) for f in of_type if f.accepted is not None]


def judge(store: Store, day: str, thresholds: ThresholdSettings) -> JudgedDay:
    """Judge every expected feed of the day and let the verdicts decide which versions count.

    Of each feed's versions ``choice`` picks the one that counts. An accepted version whose verdict has
    turned, because a neighbour has changed, counts no more, and an earlier one may count again.
    """
    with snapshot(store) as lake:
        return _judge(lake, day, thresholds)


def _judge(store: Store, day: str, thresholds: ThresholdSettings) -> JudgedDay:
    record = load_day_record(store, day)
    if record is None:
        return JudgedDay(day, None, (), judge_day((), (), thresholds), sealed=False)
    around = surroundings(store, _expected(record), day, thresholds)

    def judge_one(expected: tuple[Feed, tuple[tuple[str, str], ...]]) -> JudgedFeed:
        feed, symbols = expected
        return _judge_feed(store, feed, symbols, day, around, thresholds)

    feeds = tuple(gather(judge_one, _expected(record), store.parallel_reads))
    scores = judge_day(
        [f.verdict for f in feeds],
        [f.accepted is not None for f in feeds],
        thresholds,
        consistencies=gather(
            lambda f: consistency_of(store, f.feed, day, f.accepted), feeds, store.parallel_reads
        ),
        notional=notional_of_feeds(
            around.baseline, day, [(f.feed, f.symbols) for f in feeds], thresholds.notional_days
        ),
    )
    judged = JudgedDay(day, record, feeds, scores, sealed=_sealed(store, day, [f.feed for f in feeds]))
    kept = AcceptedVersions(day=day, versions=judged.versions)
    documents.update(store, paths.accepted_versions(day), AcceptedVersions, lambda _: kept)
    return judged


def accepted_versions(store: Store, day: str) -> str | None:
    """``JudgedDay.versions`` as last judged, whoever asked for it; None if that never was."""
    found, _ = documents.load(store, paths.accepted_versions(day), AcceptedVersions)
    return found.versions if found is not None else None


def judge_with_neighbours(store: Store, day: str, thresholds: ThresholdSettings) -> JudgedDay:
    """Judge a day that has changed, then the days whose verdicts its ids bear on, then the day once more.

    Where that moves a neighbour's versions, its own neighbours are next. It ends: of two files that meet,
    only one is ever blamed for their border, so a day is not judged by what its own verdict has caused. Of
    two versions of a day each may drive the other out by way of a neighbour; there ``MOST_VISITS`` ends it.
    """
    judge(store, day, thresholds)
    waiting = [shift(day, -1), shift(day, 1)]
    visits: Counter[str] = Counter()
    while waiting:
        neighbour = waiting.pop(0)
        visits[neighbour] += 1
        moved = any(feed.moved for feed in judge(store, neighbour, thresholds).feeds)
        if moved and visits[neighbour] < MOST_VISITS:
            waiting += [d for d in (shift(neighbour, -1), shift(neighbour, 1)) if d not in waiting]
    return judge(store, day, thresholds)


def _expected(record: DayRecord) -> list[tuple[Feed, tuple[tuple[str, str], ...]]]:
    return [(Feed.parse(e.feed), e.symbols) for e in record.expected]


def _judge_feed(
    store: Store,
    feed: Feed,
    symbols: tuple[tuple[str, str], ...],
    day: str,
    around: Surroundings,
    thresholds: ThresholdSettings,
) -> JudgedFeed:
    found = manifest = around.manifests[feed]
    context, rules = context_of(store, feed, day, around), rules_hash(thresholds)

    def verdict_on(version: Version, context: Context = context) -> Verdict:
        profile = profile_of(version)
        return judge_feed(feed, day, version.content, profile, context, thresholds)

    verdicts = {version.content: verdict_on(version) for version in found.versions}
    chosen = _choice(store, feed, day, found, verdicts, rules, thresholds)
    contents = tuple(verdicts)
    if found.settle(contents, chosen.accepted) != found:
        manifest = update_manifest(store, feed, day, lambda m: m.settle(contents, chosen.accepted))
    on_accepted = verdicts[chosen.accepted] if chosen.accepted else None
    on_candidate = verdicts[manifest.candidate.content] if manifest.candidate else None
    if manifest.candidate is not None and manifest.candidate.content in chosen.held_back:
        reasons = (chosen.held_back[manifest.candidate.content],)
        on_candidate = verdict_on(manifest.candidate, context.model_copy(update={"held_back": reasons}))
    verdict = on_accepted or on_candidate
    if verdict is None:
        reason = manifest.absent.reason if manifest.absent else "not fetched yet"
        verdict = on_candidate = missing_verdict(feed, day, reason, context, rules)
    stored = FeedVerdicts(accepted=on_accepted, candidate=on_candidate)
    documents.update(store, paths.verdict(feed, day), FeedVerdicts, lambda _: stored)
    return JudgedFeed(
        feed,
        symbols,
        manifest,
        verdict,
        moved=manifest.accepted != found.accepted,
        approval=chosen.approval,
        retraction=chosen.retraction,
        restatement=chosen.restatement,
        excess=chosen.excess,
    )


def _choice(
    store: Store,
    feed: Feed,
    day: str,
    manifest: FeedManifest,
    verdicts: Mapping[str, Verdict],
    rules: str,
    thresholds: ThresholdSettings,
) -> Choice:
    """Choose with what people have decided and what was compared, read only where there is any."""
    decisions = load_decisions(store, feed, day) if manifest.decided else Decisions(feed=str(feed), day=day)
    compared = load_restatements(store, feed, day) if len(verdicts) > 1 else None
    return choose(verdicts, decisions, compared, rules, thresholds.restatement)


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
