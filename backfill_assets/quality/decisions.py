"""Approving a version that judging would leave out, and withdrawing one that counts: what people do by hand.

``approvals`` says what a decision means, ``day`` acts on it whenever it judges. Here a decision is checked
and written down, and the day judged at once, with its neighbours, whose verdicts may rest on it. Publishing
asks the verdicts by itself, so the day has only to be run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from backfill_assets.days import utc_now
from backfill_assets.failures import PermanentFailure
from backfill_assets.feeds import Feed
from backfill_assets.lake.manifests import Version, update_manifest
from backfill_assets.lake.store import Store
from backfill_assets.quality.approvals import Approval, Retraction, add_decision
from backfill_assets.quality.day import JudgedFeed, judge, judge_with_neighbours
from backfill_assets.quality.verdict import rules_hash
from backfill_assets.settings import ThresholdSettings

#: Runs a day, and so publishes what a decision has changed.
PUBLISH_COMMAND = "dagster asset materialize -m backfill_assets.definitions --select '*' --partition {day}"


@dataclass(frozen=True, slots=True)
class Decided:
    """What a decision did to one feed."""

    feed: str
    day: str
    #: The version that was approved or withdrawn.
    version: Version
    #: What counts now; null if nothing does.
    accepted: Version | None
    #: State of the day, after.
    day_state: str

    @property
    def lines(self) -> list[str]:
        """The same for people."""
        which = f"{self.version.rows:,} rows, {self.version.content[:12]}"
        if self.accepted is not None and self.accepted.content == self.version.content:
            return [f"{self.feed} of {self.day}: approved and accepted ({which})"]
        if self.accepted is None:
            return [f"{self.feed} of {self.day}: retracted, nothing counts now ({which})"]
        other = f"{self.accepted.rows:,} rows, {self.accepted.content[:12]}"
        fetched = f"fetched {self.accepted.fetched_at:%Y-%m-%d %H:%M} UTC"
        return [
            f"{self.feed} of {self.day}: retracted ({which})",
            f"the version that counts now: {other}, {fetched}; retract it, too, if it shall not count",
        ]


def approve(
    store: Store, day: str, feed: str | None, reason: str, thresholds: ThresholdSettings
) -> list[Decided]:
    """Let the pending version of a feed count, or those of all feeds of the day that have one.

    Raises
    ------
    PermanentFailure
        The day was never run, the feed is none of it, nothing is pending, or there is no reason.
    """
    why = _checked(reason)
    feeds = [f for f in _feeds(store, day, feed, thresholds) if f.manifest.candidate is not None]
    if not feeds:
        msg = f"nothing is pending of {feed or 'any feed'} on {day}: there is no version to approve"
        raise PermanentFailure(msg)
    versions = {f.feed: f.manifest.candidate for f in feeds}
    rules = rules_hash(thresholds)
    for decided, version in versions.items():
        if version is not None:
            approval = Approval(content=version.content, rules=rules, reason=why, approved_at=utc_now())
            _decide(store, decided, day, approval)
    return _after(store, day, feeds, [v for v in versions.values() if v is not None], thresholds)


def retract(store: Store, day: str, feed: str, reason: str, thresholds: ThresholdSettings) -> Decided:
    """Withdraw the accepted version of a feed; its content counts no more until it is approved.

    An earlier version that is good counts again, or a pending one that is.

    Raises
    ------
    PermanentFailure
        The day was never run, the feed is none of it or has nothing accepted, or there is no reason.
    """
    why = _checked(reason)
    (found,) = _feeds(store, day, feed, thresholds)
    version = found.accepted
    if version is None:
        msg = f"nothing of {feed} is accepted on {day}: there is no version to retract"
        raise PermanentFailure(msg)
    retraction = Retraction(content=version.content, reason=why, retracted_at=utc_now())
    _decide(store, found.feed, day, retraction)
    return _after(store, day, [found], [version], thresholds)[0]


def _decide(store: Store, feed: Feed, day: str, decision: Approval | Retraction) -> None:
    # In this order: a mark without a decision costs a read, a decision without the mark would go unread.
    update_manifest(store, feed, day, lambda m: m.model_copy(update={"decided": True}))
    add_decision(store, feed, day, decision)


def _checked(reason: str) -> str:
    if not reason.strip():
        msg = "a decision needs a reason, for whoever reads it later: give one with --reason"
        raise PermanentFailure(msg)
    return " ".join(reason.split())


def _feeds(store: Store, day: str, feed: str | None, thresholds: ThresholdSettings) -> list[JudgedFeed]:
    """The day's feeds, or the one that is named."""
    judged = judge(store, day, thresholds)
    if judged.record is None:
        msg = f"nothing is recorded of {day}: run the day first"
        raise PermanentFailure(msg)
    found = [f for f in judged.feeds if feed in (None, str(f.feed))]
    if feed is not None and not found:
        known = ", ".join(sorted(str(f.feed) for f in judged.feeds))
        msg = f"{feed} is no feed of {day}: choose from {known}"
        raise PermanentFailure(msg)
    return found


def _after(
    store: Store,
    day: str,
    feeds: Sequence[JudgedFeed],
    versions: Sequence[Version],
    thresholds: ThresholdSettings,
) -> list[Decided]:
    judged = judge_with_neighbours(store, day, thresholds)
    now = {f.feed: f.accepted for f in judged.feeds}
    return [
        Decided(str(f.feed), day, version, now[f.feed], judged.scores.state)
        for f, version in zip(feeds, versions, strict=True)
    ]
