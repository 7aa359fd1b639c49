"""How well a feed's candles agree with its ticks and with each other, as kept in the lake.

Only the record and its score are here: the comparisons are made by ``candles``, which lies downstream, and
kept so that verdicts, tables and pages show them without computing anything again.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from backfill_assets.feeds import Feed
from backfill_assets.lake import documents, paths
from backfill_assets.lake.manifests import Version
from backfill_assets.lake.store import Store

#: Data types of which candles are made; a feed of any other has no consistency to show.
COMPARED: frozenset[str] = frozenset({"trades"})


class ConsistencyRecord(BaseModel):
    """Two equalities for one accepted version of a feed on one day.

    Attributes
    ----------
    content
        sha256 of the ticks whose candles were compared.
    partials
        sha256 of the partial candles that were compared with the ticks; empty where it was not recorded.
    inputs
        Hash of everything that the comparison rests on, the accepted files of the neighbouring days included.
    buckets_against_ticks, buckets_between_timeframes
        How many buckets were compared.
    misses_against_ticks
        K1: base buckets that are not those computed again from the ticks (listed up to a limit, all of one).
    misses_between_timeframes
        K2: larger buckets that are not the roll-up of the base buckets.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    feed: str
    day: str
    content: str
    partials: str = ""
    inputs: str
    buckets_against_ticks: int
    misses_against_ticks: int
    buckets_between_timeframes: int
    misses_between_timeframes: int

    @property
    def score(self) -> float:
        """1 if both equalities hold, else 0: a candle that is almost right is wrong."""
        return 0.0 if self.misses_against_ticks or self.misses_between_timeframes else 1.0


def load_consistency(store: Store, feed: Feed, day: str) -> ConsistencyRecord | None:
    """Return the feed's record; None if its candles were never compared."""
    return documents.load(store, paths.consistency(feed, day), ConsistencyRecord)[0]


def save_consistency(store: Store, feed: Feed, record: ConsistencyRecord) -> None:
    """Keep the record in place of an earlier one."""
    documents.update(store, paths.consistency(feed, record.day), ConsistencyRecord, lambda _: record)


def consistency_of(store: Store, feed: Feed, day: str, accepted: Version | None) -> float | None:
    """Score of the accepted version; null if it has none, or if just this version was not compared yet."""
    if accepted is None or feed.data_type not in COMPARED:
        return None
    record = load_consistency(store, feed, day)
    return record.score if record is not None and record.content == accepted.content else None
