"""Comparing the versions that the lake holds of a feed's day, so that judging knows what a refresh changes.

Done after a fetch and before judging. Only feeds with more than one version are looked at, and a pair that
was compared before is not compared again: files never change, so what was found of two of them holds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import TYPE_CHECKING, Final

import pyarrow.parquet as pq

from backfill_assets.feeds import Feed
from backfill_assets.lake import paths
from backfill_assets.lake.evidence import Restatement
from backfill_assets.lake.manifests import FeedManifest, Version, update_manifest, valid
from backfill_assets.lake.parallel import parallel_map
from backfill_assets.lake.store import Store
from backfill_assets.quality.differences import TRADE_COLUMNS, compare_rows, compare_trades
from backfill_assets.quality.profiles import profile_of

if TYPE_CHECKING:
    import pyarrow as pa

#: Feeds compared at once: each holds a group of rows and the ids of two files in memory.
WORKERS: Final = 2


def compare_versions(store: Store, manifests: Mapping[Feed, FeedManifest]) -> int:
    """Keep what the newer versions of every feed of the day change against the older ones.

    Returns
    -------
    int
        How many pairs were compared.
    """
    several = [(feed, manifest) for feed, manifest in manifests.items() if len(manifest.versions) > 1]
    return sum(parallel_map(lambda found: _compare(store, *found), several, WORKERS))


def _compare(store: Store, feed: Feed, manifest: FeedManifest) -> int:
    pairs = list(combinations(manifest.versions, 2))
    made = [
        _restatement(store, feed, manifest.day, old, new)
        for old, new in pairs
        if manifest.restatement(old.content, new.content) is None
        and valid(store, feed, manifest.day, old)
        and valid(store, feed, manifest.day, new)
    ]
    if made:
        keep_comparisons(store, feed, manifest.day, made)
    return len(made)


def keep_comparisons(store: Store, feed: Feed, day: str, made: Sequence[Restatement]) -> None:
    """Add comparisons to the feed's manifest; those of versions that are no longer held go."""

    def change(manifest: FeedManifest) -> FeedManifest:
        held = {v.content for v in manifest.versions}
        compared = {(r.before, r.after): r for r in (*manifest.compared, *made)}
        ordered = tuple(compared[key] for key in sorted(compared) if held.issuperset(key))
        return manifest.model_copy(update={"compared": ordered})

    update_manifest(store, feed, day, change)


def _restatement(store: Store, feed: Feed, day: str, old: Version, new: Version) -> Restatement:
    names = (old.content, new.content)
    with (
        store.local_copy(paths.ticks_data(feed, day, old.content)) as before,
        store.local_copy(paths.ticks_data(feed, day, new.content)) as after,
        pq.ParquetFile(before) as old_file,
        pq.ParquetFile(after) as new_file,
    ):
        if feed.type.makes_candles:
            trades = _groups(old_file, TRADE_COLUMNS), _groups(new_file, TRADE_COLUMNS)
            numeric = _numeric_ids(old) and _numeric_ids(new)
            return compare_trades(*trades, names, numeric_ids=numeric)
        return compare_rows(_groups(old_file), _groups(new_file), names)


def _groups(file: pq.ParquetFile, columns: tuple[str, ...] | None = None) -> Iterator[pa.Table]:
    wanted = list(columns) if columns else None
    for group in range(file.num_row_groups):
        yield file.read_row_group(group, columns=wanted)


def _numeric_ids(version: Version) -> bool:
    return profile_of(version).has_numeric_ids
