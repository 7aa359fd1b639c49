"""Approving a version that its verdict leaves out, and withdrawing one that counts: what people do by hand.

``lake.evidence`` says what a decision is, ``selection`` what it means for a version. Here it is checked
and written down, and the day settled at once. Publishing reads what was settled, so the day has only to be
run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from backfill_assets.days import utc_now
from backfill_assets.failures import PermanentFailure
from backfill_assets.feeds import Feed
from backfill_assets.lake.evidence import Approval, Retraction
from backfill_assets.lake.manifests import FeedManifest, update_manifest
from backfill_assets.lake.store import Store
from backfill_assets.quality.measures import load_measures
from backfill_assets.quality.settle import settle
from backfill_assets.quality.settled import HeldVersion, SettledFeed, day_of, load_settled
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
    version: HeldVersion
    #: What counts now; null if nothing does.
    accepted: HeldVersion | None
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
    feeds = [f for f in _feeds(store, day, feed) if f.candidate is not None]
    if not feeds:
        msg = f"nothing is pending of {feed or 'any feed'} on {day}: there is no version to approve"
        raise PermanentFailure(msg)
    versions = [f.candidate for f in feeds if f.candidate is not None]
    rules = rules_hash(thresholds)
    for decided, version in zip(feeds, versions, strict=True):
        approval = Approval(content=version.content, rules=rules, reason=why, approved_at=utc_now())
        _decide(store, decided.feed, day, approval)
    return _after(store, day, feeds, versions, thresholds)


def retract(store: Store, day: str, feed: str, reason: str, thresholds: ThresholdSettings) -> Decided:
    """Withdraw the accepted version of a feed; its content counts no more until it is approved.

    An earlier version that is good counts again, or a pending one that is.

    Raises
    ------
    PermanentFailure
        The day was never run, the feed is none of it or has nothing accepted, or there is no reason.
    """
    why = _checked(reason)
    (found,) = _feeds(store, day, feed)
    version = found.accepted
    if version is None:
        msg = f"nothing of {feed} is accepted on {day}: there is no version to retract"
        raise PermanentFailure(msg)
    retraction = Retraction(content=version.content, reason=why, retracted_at=utc_now())
    _decide(store, found.feed, day, retraction)
    return _after(store, day, [found], [version], thresholds)[0]


def _decide(store: Store, feed: Feed, day: str, decision: Approval | Retraction) -> None:
    def change(manifest: FeedManifest) -> FeedManifest:
        return manifest.model_copy(update={"decisions": (*manifest.decisions, decision)})

    update_manifest(store, feed, day, change)


def _checked(reason: str) -> str:
    if not reason.strip():
        msg = "a decision needs a reason, for whoever reads it later: give one with --reason"
        raise PermanentFailure(msg)
    return " ".join(reason.split())


def _feeds(store: Store, day: str, feed: str | None) -> list[SettledFeed]:
    """The day's feeds, or the one that is named."""
    settled = load_settled(store, day)
    if settled is None:
        msg = f"nothing is recorded of {day}: run the day first"
        raise PermanentFailure(msg)
    found = [f for f in settled.feeds if feed in (None, str(f.feed))]
    if feed is not None and not found:
        known = ", ".join(sorted(str(f.feed) for f in settled.feeds))
        msg = f"{feed} is no feed of {day}: choose from {known}"
        raise PermanentFailure(msg)
    return found


def _after(
    store: Store,
    day: str,
    feeds: Sequence[SettledFeed],
    versions: Sequence[HeldVersion],
    thresholds: ThresholdSettings,
) -> list[Decided]:
    settled = settle(store, day, thresholds)
    now = {f.feed: f.accepted for f in settled.feeds}
    state = day_of(settled, load_measures(store, day)).scores.state
    return [
        Decided(str(f.feed), day, version, now[f.feed], state)
        for f, version in zip(feeds, versions, strict=True)
    ]
