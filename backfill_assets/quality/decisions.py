"""Decisions of people: to approve a version that its verdict leaves out, and to withdraw one that counts.

``lake.evidence`` defines a decision, and ``selection`` applies it to versions. Here a decision is checked and
recorded, and the day is settled at once. Publishing reads the settled day, so the day only has to be run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from backfill_assets.days import utc_now
from backfill_assets.failures import BadInput, PermanentFailure
from backfill_assets.feeds import Feed
from backfill_assets.lake import documents, paths
from backfill_assets.lake.evidence import Approval, Retraction
from backfill_assets.lake.manifests import (
    DayRecord,
    Dropped,
    ExpectedSymbols,
    FeedManifest,
    load_manifest,
    update_manifest,
)
from backfill_assets.lake.store import Store
from backfill_assets.quality.measures import load_measures
from backfill_assets.quality.remedies import SHOWN_DIGITS, approve_command, retract_command, run_day
from backfill_assets.quality.settle import settle
from backfill_assets.quality.settled import HeldVersion, SettledFeed, day_of, load_settled
from backfill_assets.quality.verdict import approval_rules, rules_hash
from backfill_assets.settings import ThresholdSettings

#: Digits of a content that name a version; fewer could be a slip.
_FEWEST_DIGITS = 8


@dataclass(frozen=True, slots=True)
class Decided:
    """The effect of a decision on one feed."""

    feed: str
    day: str
    verb: Literal["approved", "retracted"]
    #: The version that was approved or withdrawn.
    version: HeldVersion
    #: The version that counts now; null if none does.
    accepted: HeldVersion | None
    #: State of the day after the decision.
    day_state: str
    #: The command that publishes the decision.
    publish: str

    @property
    def lines(self) -> list[str]:
        """The effect for people to read."""
        which, decided = _which(self.version), f"{self.feed} of {self.day}: {self.verb}"
        if self.accepted is None:
            return [f"{decided}, nothing counts now {which}"]
        if self.accepted.content == self.version.content:
            return [f"{decided} and accepted {which}"]
        fetched = f"fetched {self.accepted.fetched_at:%Y-%m-%d %H:%M} UTC"
        return [
            f"{decided} {which}",
            f"the version that counts now: {_which(self.accepted)}, {fetched}; to withdraw it, too: "
            f"{retract_command(self.day, self.feed, self.accepted.content)}",
        ]


def approve(
    store: Store,
    day: str,
    feed: str | None,
    contents: Sequence[str],
    reason: str,
    thresholds: ThresholdSettings,
) -> list[Decided]:
    """Let the pending versions with these contents count.

    Parameters
    ----------
    feed
        The feed of the version; without one, the contents are looked up among all feeds of the day.
    contents
        The first digits of the sha256 of each version.

    Raises
    ------
    PermanentFailure
        The day was never run, the day does not have the feed, another version or none is pending, or the
        reason is empty. The message has the command for the version that is pending now.
    """
    why = _checked(reason)
    feeds = _feeds(store, day, feed)
    pending = {f.feed: f.candidate for f in feeds if f.candidate is not None}
    # An older version whose approval was voided by a change of rules can be approved again.
    voided = [(f.feed, f.voided) for f in feeds if f.voided is not None and f.voided != f.candidate]
    if not pending:
        msg = f"nothing is pending of {feed or 'any feed'} on {day}: there is no version to approve"
        raise PermanentFailure(msg)
    words = ", ".join(f"{found} {_which(version)}" for found, version in pending.items())
    command = approve_command(day, feed, *dict.fromkeys(version.content for version in pending.values()))
    offered = [*pending.items(), *voided]
    named = _named([version for _, version in offered], contents, "pending", f"{words}: {command}")
    chosen = [(found, version) for found, version in offered if version in named]
    rules = rules_hash(thresholds)
    for found, _ in chosen:
        load_manifest(store, found, day)  # ensures that all can be read before the first is changed
    for found, version in chosen:
        approval = Approval(
            content=version.content,
            rules=rules,
            judged_by=approval_rules(found, day, thresholds),
            reason=why,
            approved_at=utc_now(),
        )
        _decide(store, found, day, approval)
    return _after(store, day, chosen, "approved", thresholds)


def retract(
    store: Store, day: str, feed: str, content: str, reason: str, thresholds: ThresholdSettings
) -> Decided:
    """Withdraw the accepted version of a feed; its content does not count again until it is approved.

    A good earlier version, or a good pending one, counts in its place.

    Parameters
    ----------
    content
        The first digits of the sha256 of that version.

    Raises
    ------
    PermanentFailure
        The day was never run, the day does not have the feed, another version or none is accepted, or the
        reason is empty. The message has the command for the version that is accepted now.
    """
    why = _checked(reason)
    (found,) = _feeds(store, day, feed)
    version = found.accepted
    if version is None:
        msg = f"nothing of {feed} is accepted on {day}: there is no version to retract"
        raise PermanentFailure(msg)
    command = retract_command(day, feed, version.content)
    _named([version], [content] if content else [], "accepted", f"{feed} {_which(version)}: {command}")
    retraction = Retraction(content=version.content, reason=why, retracted_at=utc_now())
    _decide(store, found.feed, day, retraction)
    return _after(store, day, [(found.feed, version)], "retracted", thresholds)[0]


def drop(store: Store, day: str, feed: str, reason: str, thresholds: ThresholdSettings) -> str:
    """Remove a feed from the feeds that the day expects; the record of the day keeps it with the reason.

    Returns
    -------
    str
        The change that was made, and the command that publishes it.

    Raises
    ------
    PermanentFailure
        The day was never run, the day does not have the feed, the feed has an accepted version, or the reason
        is empty.
    """
    why = _checked(reason)
    (found,) = _feeds(store, day, feed)
    if found.accepted is not None:
        command = retract_command(day, feed, found.accepted.content)
        msg = f"a version of {feed} is accepted on {day}: withdraw it first: {command}"
        raise PermanentFailure(msg)

    def change(record: DayRecord | None) -> DayRecord:
        record = _insist_on_record(record, day)
        gone = [
            Dropped(**e.model_dump(), reason=why, dropped_at=utc_now())
            for e in record.expected
            if e.feed == feed
        ]
        left = tuple(e for e in record.expected if e.feed != feed)
        return record.model_copy(update={"expected": left, "dropped": (*record.dropped, *gone)})

    return _after_record(store, day, f"{feed} of {day}: dropped", change, thresholds)


def restore(store: Store, day: str, feed: str, thresholds: ThresholdSettings) -> str:
    """Let the day expect a dropped feed again.

    Raises
    ------
    PermanentFailure
        The day was never run, or the feed is not dropped.
    """

    def change(record: DayRecord | None) -> DayRecord:
        record = _insist_on_record(record, day)
        back = [ExpectedSymbols(feed=d.feed, symbols=d.symbols) for d in record.dropped if d.feed == feed]
        if not back:
            known = ", ".join(d.feed for d in record.dropped) or "none is"
            msg = f"{feed} is not dropped on {day} ({known}): nothing to restore"
            raise PermanentFailure(msg)
        expected = tuple(sorted((*record.expected, *back), key=lambda e: Feed.parse(e.feed)))
        left = tuple(d for d in record.dropped if d.feed != feed)
        return record.model_copy(update={"expected": expected, "dropped": left})

    return _after_record(store, day, f"{feed} of {day}: expected again", change, thresholds)


def _insist_on_record(record: DayRecord | None, day: str) -> DayRecord:
    if record is None:
        msg = f"nothing is recorded of {day}: run the day first"
        raise PermanentFailure(msg)
    return record


def _after_record(
    store: Store,
    day: str,
    done: str,
    change: Callable[[DayRecord | None], DayRecord],
    thresholds: ThresholdSettings,
) -> str:
    documents.update(store, paths.day_record(day), DayRecord, change)
    found = day_of(settle(store, day, thresholds), load_measures(store, day))
    return f"{done}; {what_next(day, found.scores.state, run_day(day, generated=found.is_generated))}"


def what_next(day: str, state: str, command: str) -> str:
    """Name the next step for a day in this state after a decision; ``command`` runs the day."""
    if state == "held":
        return (
            f"{day} is held and a run publishes nothing of it: mend its other feeds as its report says, "
            f"then run it: {command}"
        )
    return f"{day} is {state}; publish it: {command}"


def _decide(store: Store, feed: Feed, day: str, decision: Approval | Retraction) -> None:
    def change(manifest: FeedManifest) -> FeedManifest:
        return manifest.model_copy(update={"decisions": (*manifest.decisions, decision)})

    update_manifest(store, feed, day, change)


def _which(version: HeldVersion) -> str:
    return f"({version.rows:,} rows, {version.content[:SHOWN_DIGITS]})"


def _named(
    versions: Sequence[HeldVersion], contents: Sequence[str], role: str, remedy: str
) -> list[HeldVersion]:
    """The versions with these contents; a content that no version has is refused, with the remedy."""
    if not contents:
        msg = f"say with --content which version is meant; {role} now: {remedy}"
        raise PermanentFailure(msg)
    found = []
    for content in contents:
        of_content = [v for v in versions if v.content.startswith(content.lower())]
        # Feeds of one day may have the same content: files without rows.
        if len(content) < _FEWEST_DIGITS or len({v.content for v in of_content}) != 1:
            msg = f"no version {content} is {role}: look at the one that is, then decide on it; {remedy}"
            raise PermanentFailure(msg)
        found += of_content
    return found


def _checked(reason: str) -> str:
    if not reason.strip():
        msg = "a decision needs a reason for later readers: give one with --reason"
        raise BadInput(msg)
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
    decided: Sequence[tuple[Feed, HeldVersion]],
    verb: Literal["approved", "retracted"],
    thresholds: ThresholdSettings,
) -> list[Decided]:
    settled = settle(store, day, thresholds)
    now = {f.feed: f.accepted for f in settled.feeds}
    found = day_of(settled, load_measures(store, day))
    state, publish = found.scores.state, run_day(day, generated=found.is_generated)
    return [Decided(str(feed), day, verb, version, now[feed], state, publish) for feed, version in decided]
