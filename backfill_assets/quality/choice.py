"""Which of a feed's versions counts: a pure fold over them, from the oldest to the newest.

A version takes the place of the one before it when its verdict is ``publish`` and it changes no more than
the limits of restatements allow, or when somebody has approved it. The result depends on the versions, their
verdicts and what people decided, and not on when a day was judged before: versions that do not count are
held, so a neighbour that comes later can turn the choice, and turn it back.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from backfill_assets.quality.approvals import Approval, Decisions, Retraction
from backfill_assets.quality.restatement import NOT_COMPARED, Restatement, RestatementRecord
from backfill_assets.quality.verdict import Verdict
from backfill_assets.settings import RestatementSettings


@dataclass(frozen=True, slots=True)
class Choice:
    """The version that counts, and what bears on it besides the verdicts."""

    #: Content of the version that counts; null if none does.
    accepted: str | None
    #: Why it counts by somebody's wish; null where its verdict decides.
    approval: Approval | None = None
    #: Why the newest of the withdrawn versions does not count; null where nothing is withdrawn.
    retraction: Retraction | None = None
    #: What the newest version changes against the one that counts, or that against the one before it.
    restatement: Restatement | None = None
    #: Why the newest version waits for an approval: it restates too much; empty where that is not so.
    excess: str = ""
    #: By content, why a version does not count though its rows are good.
    held_back: Mapping[str, str] = field(default_factory=dict)


def choose(
    verdicts: Mapping[str, Verdict],
    decisions: Decisions,
    compared: RestatementRecord | None,
    rules: str,
    limits: RestatementSettings,
) -> Choice:
    """Choose among versions, given by content in the order of their fetching.

    Parameters
    ----------
    compared
        What the newer ones change against the older ones.
    rules
        Hash of the rules of the verdicts.
    """
    accepted: str | None = None
    before: str | None = None
    held_back: dict[str, str] = {}
    excess = ""
    withdrawn: Retraction | None = None
    for content, verdict in verdicts.items():
        excess = ""
        if decisions.approval(content, rules) is None:
            retraction = decisions.retraction(content)
            if retraction is not None:
                withdrawn = retraction
                held_back[content] = f"retracted: {retraction.reason}"
                continue
            if verdict.outcome != "publish":
                continue
            difference = _difference(compared, accepted, content)
            if accepted is not None and (reason := _too_different(difference, limits)):
                held_back[content] = excess = reason
                continue
        before, accepted = accepted, content
    newest = next(reversed([*verdicts]), None)
    pair = (accepted, newest) if newest != accepted else (before, accepted)
    return Choice(
        accepted=accepted,
        approval=decisions.approval(accepted, rules) if accepted else None,
        retraction=withdrawn,
        restatement=_difference(compared, *pair),
        excess=excess,
        held_back=held_back,
    )


def _difference(
    compared: RestatementRecord | None, before: str | None, after: str | None
) -> Restatement | None:
    if compared is None or before is None or after is None:
        return None
    return compared.of(before, after)


def _too_different(difference: Restatement | None, limits: RestatementSettings) -> str:
    """Why a version may not replace the accepted one by itself; empty if it may."""
    if difference is None:
        return NOT_COMPARED
    beyond = difference.beyond(limits)
    if not beyond:
        return ""
    return f"it restates more than the limits allow: {', '.join(beyond)}; approve it to publish it"
