"""Comparing the versions that the lake holds of a feed's day, so that judging knows what a refresh changes.

Done after a fetch and before judging. Only feeds with more than one version are looked at, and a pair that
was compared before is not compared again: files never change, so what was found of two of them holds.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from typing import TYPE_CHECKING, Final

import pyarrow.parquet as pq

from backfill_assets.feeds import Feed
from backfill_assets.lake import paths
from backfill_assets.lake.gather import gather
from backfill_assets.lake.manifests import FeedManifest, Version, load_day_record, load_manifest, valid
from backfill_assets.lake.store import Store
from backfill_assets.quality.differences import TRADE_COLUMNS, compare_rows, compare_trades
from backfill_assets.quality.profiles import profile_of
from backfill_assets.quality.restatement import (
    Restatement,
    RestatementRecord,
    load_restatements,
    save_restatements,
)

if TYPE_CHECKING:
    import pyarrow as pa

#: Feeds compared at once: each holds a group of rows and the ids of two files in memory.
WORKERS: Final = 2


def compare_versions(store: Store, day: str) -> int:
    """Keep what the newer versions of every feed of the day change against the older ones.

    Returns
    -------
    int
        How many pairs were compared.
    """
    record = load_day_record(store, day)
    feeds = [Feed.parse(e.feed) for e in record.expected] if record else []
    manifests = gather(lambda feed: load_manifest(store, feed, day), feeds, store.parallel_reads)
    several = [(f, m) for f, m in zip(feeds, manifests, strict=True) if len(m.versions) > 1]
    return sum(gather(lambda found: _compare(store, *found), several, WORKERS))


def _compare(store: Store, feed: Feed, manifest: FeedManifest) -> int:
    known = load_restatements(store, feed, manifest.day)
    pairs = list(combinations(manifest.versions, 2))
    kept = [found for old, new in pairs if (found := known.of(old.content, new.content)) is not None]
    made = [
        _restatement(store, feed, manifest.day, old, new)
        for old, new in pairs
        if known.of(old.content, new.content) is None
        and valid(store, feed, manifest.day, old)
        and valid(store, feed, manifest.day, new)
    ]
    if made:
        compared = {(r.before, r.after): r for r in (*kept, *made)}
        ordered = tuple(compared[key] for key in sorted(compared))
        save_restatements(store, feed, RestatementRecord(feed=str(feed), day=manifest.day, compared=ordered))
    return len(made)


def _restatement(store: Store, feed: Feed, day: str, old: Version, new: Version) -> Restatement:
    names = (old.content, new.content)
    with (
        store.local_copy(paths.ticks_data(feed, day, old.content)) as before,
        store.local_copy(paths.ticks_data(feed, day, new.content)) as after,
        pq.ParquetFile(before) as old_file,
        pq.ParquetFile(after) as new_file,
    ):
        if feed.data_type == "trades":
            trades = _groups(old_file, TRADE_COLUMNS), _groups(new_file, TRADE_COLUMNS)
            numeric = _numeric_ids(old) and _numeric_ids(new)
            return compare_trades(*trades, names, numeric_ids=numeric)
        return compare_rows(_groups(old_file), _groups(new_file), names)


def _groups(file: pq.ParquetFile, columns: tuple[str, ...] | None = None) -> Iterator[pa.Table]:
    wanted = list(columns) if columns else None
    for group in range(file.num_row_groups):
        yield file.read_row_group(group, columns=wanted)


def _numeric_ids(version: Version) -> bool:
    profile = profile_of(version)
    return all(s.numeric_ids == s.rows for s in profile.symbols)
