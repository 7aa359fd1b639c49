"""What people have decided about versions of a feed's day: approvals and retractions, as the lake keeps them.

A decision binds to the content of a file, an approval to the rules, too: under other rules it says nothing.
Only the documents and what they mean for a version are here. ``day`` reads them when it judges, ``decisions``
writes them.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from backfill_assets.feeds import Feed
from backfill_assets.lake import documents, paths
from backfill_assets.lake.store import Store


class Approval(BaseModel):
    """Somebody wants this version to count, whatever its verdict and however much it restates.

    Attributes
    ----------
    content
        sha256 of the approved Parquet file.
    rules
        Hash of the rules whose verdict was overruled; under others the approval is void.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["approval"] = "approval"
    content: str
    rules: str
    reason: str
    approved_at: AwareDatetime


class Retraction(BaseModel):
    """Somebody wants this version not to count, whatever its verdict, until it is approved.

    Attributes
    ----------
    content
        sha256 of the withdrawn Parquet file.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["retraction"] = "retraction"
    content: str
    reason: str
    retracted_at: AwareDatetime


class Decisions(BaseModel):
    """All decisions on a feed's day, in the order in which they were made; of one content the last holds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    feed: str
    day: str
    decisions: tuple[Annotated[Approval | Retraction, Field(discriminator="kind")], ...] = ()

    def approval(self, content: str, rules: str) -> Approval | None:
        """The approval of this content that holds under these rules."""
        last = self._last(content)
        return last if isinstance(last, Approval) and last.rules == rules else None

    def retraction(self, content: str) -> Retraction | None:
        """The retraction of this content, if nobody has approved it since."""
        last = self._last(content)
        return last if isinstance(last, Retraction) else None

    def having(self, decision: Approval | Retraction) -> Decisions:
        """After one more decision."""
        return self.model_copy(update={"decisions": (*self.decisions, decision)})

    def _last(self, content: str) -> Approval | Retraction | None:
        return next((d for d in reversed(self.decisions) if d.content == content), None)


def load_decisions(store: Store, feed: Feed, day: str) -> Decisions:
    """Return what was decided on the feed's day; an empty document if nothing was."""
    found, _ = documents.load(store, paths.decisions(feed, day), Decisions)
    return found or Decisions(feed=str(feed), day=day)


def add_decision(store: Store, feed: Feed, day: str, decision: Approval | Retraction) -> Decisions:
    """Append a decision by compare-and-swap."""
    empty = Decisions(feed=str(feed), day=day)
    stored = documents.update(
        store, paths.decisions(feed, day), Decisions, lambda found: (found or empty).having(decision)
    )
    return stored or empty
