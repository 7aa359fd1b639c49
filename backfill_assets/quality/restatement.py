"""What a newer file of a feed's day changes against an older one, and whether that is within the limits.

A vendor that corrects a file rewrites what others have computed from it. A small correction is taken over; a
large one waits for somebody's approval while the older version stays published. The comparison is a pure
function of two files: ``ticks`` makes it after a fetch, for each pair of versions that the lake holds, and
keeps it here; judging reads it. A pair that was not compared counts as beyond the limits.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

from pydantic import BaseModel, ConfigDict

from backfill_assets.feeds import Feed
from backfill_assets.lake import documents, paths
from backfill_assets.lake.store import Store
from backfill_assets.settings import RestatementSettings

NOT_COMPARED: Final = (
    "it was not compared with the accepted version: materialize the day's ticks, or approve it"
)


class Largest(BaseModel):
    """The largest relative difference of something, and the minute that has it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    difference: float
    symbol: str
    minute_us: int

    @property
    def at(self) -> str:
        """The minute for people, such as ``12:34``; with its day where that may be another."""
        return datetime.fromtimestamp(self.minute_us / 1e6, tz=UTC).strftime("%Y-%m-%d %H:%M")


class Restatement(BaseModel):
    """What the version ``after`` changes against the version ``before``.

    Attributes
    ----------
    before, after
        sha256 of the two Parquet files.
    rows_before, rows_after
        Rows of each.
    ids_added, ids_removed
        Ids that only one of them has; null where a row of either has no numeric id.
    minutes, minutes_differing
        Minutes with rows in either file, by market, and those of them that are not the same. Of trades a
        minute is its base candle: open, high, low, close, volume and number of trades. Of other data types it
        is its rows.
    price
        Largest relative difference of open, high, low or close of a minute that both files have; null where
        no price differs.
    volume
        Largest difference of a minute's volume, relative to the larger of that minute's volume before and the
        mean of all minutes before, so that a trade more in a thin minute is not the end of the world; null
        where no volume differs.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    before: str
    after: str
    rows_before: int
    rows_after: int
    ids_added: int | None = None
    ids_removed: int | None = None
    minutes: int = 0
    minutes_differing: int = 0
    price: Largest | None = None
    volume: Largest | None = None

    @property
    def summary(self) -> str:
        """One line for people."""
        parts = [f"rows {self.rows_before:,} → {self.rows_after:,}"]
        if self.ids_added is not None and self.ids_removed is not None:
            parts.append(f"ids +{self.ids_added:,} −{self.ids_removed:,}")
        parts.append(f"{self.minutes_differing:,} of {self.minutes:,} minutes differ")
        for name, largest in (("price", self.price), ("volume", self.volume)):
            if largest is not None:
                parts.append(f"{name} by up to {largest.difference:.3%} ({largest.symbol} {largest.at})")
        return ", ".join(parts)

    def beyond(self, limits: RestatementSettings) -> tuple[str, ...]:
        """A sentence for each limit that is exceeded."""
        rows = max(abs(self.rows_after - self.rows_before), self.ids_added or 0, self.ids_removed or 0)
        found = []
        if rows > max(limits.excused, limits.rows * self.rows_before):
            share = rows / self.rows_before if self.rows_before else 1.0
            found.append(f"{rows:,} rows are others ({share:.2%}, at most {limits.rows:.2%})")
        if self.minutes_differing > max(limits.excused, limits.candles * self.minutes):
            share = self.minutes_differing / self.minutes
            found.append(
                f"{self.minutes_differing:,} of {self.minutes:,} minutes differ "
                f"({share:.2%}, at most {limits.candles:.2%})"
            )
        for name, largest, limit in (
            ("price", self.price, limits.price),
            ("volume", self.volume, limits.volume),
        ):
            if largest is not None and largest.difference > limit:
                found.append(
                    f"{name} of {largest.symbol} differs by {largest.difference:.2%} at {largest.at} "
                    f"(at most {limit:.2%})"
                )
        return tuple(found)


class RestatementRecord(BaseModel):
    """Kept beside a feed's day: the comparisons of its versions, oldest first."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    feed: str
    day: str
    compared: tuple[Restatement, ...] = ()

    def of(self, before: str, after: str) -> Restatement | None:
        """The comparison of these two contents, if it was made."""
        return next((r for r in self.compared if (r.before, r.after) == (before, after)), None)


def load_restatements(store: Store, feed: Feed, day: str) -> RestatementRecord:
    """Return the feed's comparisons; an empty record if there is none."""
    found, _ = documents.load(store, paths.restatement(feed, day), RestatementRecord)
    return found or RestatementRecord(feed=str(feed), day=day)


def save_restatements(store: Store, feed: Feed, record: RestatementRecord) -> None:
    """Keep the record in place of an earlier one."""
    documents.update(store, paths.restatement(feed, record.day), RestatementRecord, lambda _: record)
