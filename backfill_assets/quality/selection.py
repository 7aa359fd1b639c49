"""Selects the version of a feed that counts: a pure fold over the versions, from the oldest to the newest.

A version replaces the one before it if its verdict is ``publish`` and it changes no more than the limits of
restatements allow, or if it was approved. The result depends on the versions, their verdicts and the
decisions, not on when the day was settled before: versions that do not count are kept, so a neighbor that
comes later can change the selection, and change it back.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from backfill_assets.lake.evidence import Approval, Restatement, Retraction
from backfill_assets.lake.manifests import FeedManifest
from backfill_assets.quality.remedies import approve_command
from backfill_assets.quality.verdict import Verdict
from backfill_assets.settings import RestatementSettings

NOT_COMPARED: Final = "it was not compared with the accepted version: materialize the day's ticks"


@dataclass(frozen=True, slots=True)
class Selection:
    """The version that counts, and the decisions and comparisons behind it."""

    #: Content of the version that counts; null if none does.
    accepted: str | None
    #: The approval by which it counts; null where its verdict decides.
    approval: Approval | None = None
    #: The retraction of the newest withdrawn version; null where nothing is withdrawn.
    retraction: Retraction | None = None
    #: The change from the version that counts to the newest; if that one counts, from the one before it.
    restatement: Restatement | None = None
    #: Why the newest version waits for an approval: it restates too much; empty otherwise.
    excess: str = ""
    #: By content, why a version does not count though its rows are good.
    held_back: Mapping[str, str] = field(default_factory=dict)
    #: Content of the version that would count by an approval that a change of rules has voided, and a
    #: sentence with the remedy.
    voided: str | None = None
    why_voided: str = ""


def select_version(
    verdicts: Mapping[str, Verdict], manifest: FeedManifest, judged_by: str, limits: RestatementSettings
) -> Selection:
    """Select among versions, given by content in the order in which they were fetched.

    Parameters
    ----------
    manifest
        Has the decisions and the comparisons of the versions.
    judged_by
        Hash of the rules that judge the feed.
    """
    accepted: str | None = None
    before: str | None = None
    held_back: dict[str, str] = {}
    excess = ""
    withdrawn: Retraction | None = None
    for content, verdict in verdicts.items():
        excess = ""
        if manifest.approval(content, judged_by) is None:
            retraction = manifest.retraction(content)
            if retraction is not None:
                withdrawn = retraction
                held_back[content] = f"retracted: {retraction.reason}"
                continue
            if verdict.outcome != "publish":
                continue
            if accepted is not None and (
                reason := _too_different(manifest.restatement(accepted, content), limits)
            ):
                command = approve_command(manifest.day, manifest.feed, content)
                held_back[content] = excess = f"{reason}; or, if it shall count: {command}"
                continue
        before, accepted = accepted, content
    newest = next(reversed([*verdicts]), None)
    pair = (accepted, newest) if newest != accepted else (before, accepted)
    # A void approval matters only for a version that is newer than the one that counts.
    contents = [*verdicts]
    later = contents[contents.index(accepted) + 1 :] if accepted else contents
    voided = next((c for c in reversed(later) if manifest.void_approval(c, judged_by)), None)
    return Selection(
        accepted=accepted,
        approval=manifest.approval(accepted, judged_by) if accepted else None,
        retraction=withdrawn,
        restatement=manifest.restatement(*pair),
        excess=excess,
        held_back=held_back,
        voided=voided,
        why_voided=_why_voided(manifest, voided, judged_by) if voided else "",
    )


def _why_voided(manifest: FeedManifest, content: str, judged_by: str) -> str:
    void = manifest.void_approval(content, judged_by)
    given = f" of {void.approved_at:%Y-%m-%d} ({void.reason})" if void else ""
    command = approve_command(manifest.day, manifest.feed, content)
    return (
        f"the approval{given} is void, because the rules that judge the feed have changed: "
        f"look at the file again, then {command}"
    )


def _too_different(difference: Restatement | None, limits: RestatementSettings) -> str:
    """Why a version may not replace the accepted one by itself; empty if it may."""
    if difference is None:
        return NOT_COMPARED
    beyond = difference.beyond(limits)
    if not beyond:
        return ""
    return f"it restates more than the limits allow: {', '.join(beyond)}; look at what it changes"
