"""Compares the versions of a feed's day in the lake; judging uses the comparisons to limit a refresh.

The comparison runs after a fetch and before judging. Only feeds with more than one version are compared, and
each pair only once: files never change, so the result stays valid. Trades are read as candles read them: rows
that repeat a trade count once, and ties of time are broken in the same way. Files are read group by group:
memory has a group of rows, a row per minute and, for trades with numeric ids, the ids.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pyarrow.parquet as pq

from backfill_assets.failures import DamagedFile, Unreadable
from backfill_assets.feeds import Feed
from backfill_assets.id_laws import ID_LAWS, IdLaw, law_of
from backfill_assets.lake import paths
from backfill_assets.lake.evidence import Largest, Restatement
from backfill_assets.lake.manifests import FeedManifest, Version, update_manifest
from backfill_assets.lake.parallel import parallel_map
from backfill_assets.lake.store import Store
from backfill_assets.quality.profiles import profile_of
from backfill_assets.ticks.partials import minute_candles
from backfill_assets.ticks.repeats import repeated_rows
from backfill_assets.ticks.schemas import PRICES

if TYPE_CHECKING:
    import numpy as np
    import polars as pl
    from numpy.typing import NDArray

#: Sums of the same amounts, added up in another order, differ by less than this.
ROUNDING: Final = 1e-9
#: Feeds compared at once: each has a group of rows and the ids of two files in memory.
WORKERS: Final = 2

_KEY: Final = ("symbol", "minute_us")


def compare_versions(
    store: Store, manifests: Mapping[Feed, FeedManifest], laws: Sequence[IdLaw] = ID_LAWS
) -> int:
    """Store how each newer version of every feed of the day differs from the older ones.

    Parameters
    ----------
    laws
        The laws of the venues' ids.

    Returns
    -------
    int
        How many pairs were compared.
    """
    several = [(feed, manifest) for feed, manifest in manifests.items() if len(manifest.versions) > 1]
    return sum(parallel_map(lambda found: _compare(store, *found, laws), several, WORKERS))


def _compare(store: Store, feed: Feed, manifest: FeedManifest, laws: Sequence[IdLaw]) -> int:
    made = comparisons(store, feed, manifest, laws)
    if made:
        keep_comparisons(store, feed, manifest.day, made)
    return len(made)


def comparisons(store: Store, feed: Feed, manifest: FeedManifest, laws: Sequence[IdLaw]) -> list[Restatement]:
    """The comparisons of the manifest's versions that it lacks."""
    law = law_of(laws, feed, manifest.day)
    made = []
    for old, new in combinations(manifest.versions, 2):
        if manifest.restatement(old.content, new.content) is not None:
            continue
        # A missing or damaged file is compared after it is fetched again; settling the day reports a damaged
        # profile.
        with suppress(DamagedFile, Unreadable):
            made.append(_restatement(store, feed, manifest.day, old, new, law))
    return made


def keep_comparisons(store: Store, feed: Feed, day: str, made: Sequence[Restatement]) -> None:
    """Add comparisons to the feed's manifest."""
    update_manifest(store, feed, day, lambda found: with_comparisons(found, made))


def with_comparisons(manifest: FeedManifest, made: Sequence[Restatement]) -> FeedManifest:
    """The manifest with these comparisons and without those of versions that are no longer stored."""
    held = {v.content for v in manifest.versions}
    compared = {(r.before, r.after): r for r in (*manifest.compared, *made)}
    ordered = tuple(compared[key] for key in sorted(compared) if held.issuperset(key))
    return manifest.model_copy(update={"compared": ordered})


def _restatement(
    store: Store, feed: Feed, day: str, old: Version, new: Version, law: IdLaw | None
) -> Restatement:
    names = (old.content, new.content)
    with (
        store.local_copy(paths.ticks_data(feed, day, old.content)) as before,
        store.local_copy(paths.ticks_data(feed, day, new.content)) as after,
    ):
        if not feed.type.makes_candles:
            return compare_rows(before, after, names)
        profiles = (profile_of(old), profile_of(new))
        return compare_trades(
            before,
            after,
            names,
            numeric_ids=all(profile.has_numeric_ids for profile in profiles),
            ids_are_order=law is not None and law.gives_order,
            repeats=(profiles[0].may_repeat_trades(law), profiles[1].may_repeat_trades(law)),
        )


def compare_trades(
    before: Path,
    after: Path,
    names: tuple[str, str],
    *,
    numeric_ids: bool,
    ids_are_order: bool = True,
    repeats: tuple[bool, bool] = (False, False),
) -> Restatement:
    """Compare one file of trades with another by the partial candles of every minute in either file.

    Parameters
    ----------
    names
        Contents of the two files.
    numeric_ids
        Whether every row of both files has an integer as its id.
    ids_are_order
        Whether ids break ties of time.
    repeats
        Whether rows of each file may repeat a trade.
    """
    import polars as pl

    by_id = numeric_ids and ids_are_order
    old, new = (
        _candles(path, numeric_ids=by_id, repeats=twice)
        for path, twice in zip((before, after), repeats, strict=True)
    )
    both = old.join(new, on=list(_KEY), how="full", suffix="_after", coalesce=True)
    mean = pl.lit(old["volume"].mean() if old.height else 0.0, pl.Float64)
    volume, volume_after = pl.col("volume").fill_null(0.0), pl.col("volume_after").fill_null(0.0)
    moved = (volume_after - volume).abs()
    compared = both.select(
        *_KEY,
        price=pl.max_horizontal(
            (pl.col(f"{name}_after") - pl.col(name)).abs() / pl.col(name) for name in PRICES
        ),
        # Compared with a file without trades, every trade is new.
        volume=pl.when(moved > ROUNDING * pl.max_horizontal(volume, volume_after))
        .then(
            pl.when(pl.max_horizontal(volume, mean) > 0)
            .then(moved / pl.max_horizontal(volume, mean))
            .otherwise(1.0)
        )
        .otherwise(0.0),
        other_count=pl.col("trade_count").ne_missing(pl.col("trade_count_after")),
    )
    differs = (pl.col("price").fill_null(1.0) > 0) | (pl.col("volume") > 0) | pl.col("other_count")
    ids, ids_after = (_ids(path) if numeric_ids else None for path in (before, after))
    return Restatement(
        before=names[0],
        after=names[1],
        rows_before=pq.read_metadata(before).num_rows,
        rows_after=pq.read_metadata(after).num_rows,
        ids_added=_only_in(ids_after, ids),
        ids_removed=_only_in(ids, ids_after),
        minutes=compared.height,
        minutes_differing=compared.filter(differs).height,
        price=_largest(compared, "price"),
        volume=_largest(compared, "volume"),
    )


def compare_rows(before: Path, after: Path, names: tuple[str, str]) -> Restatement:
    """Compare two files of any other data type by the minutes of arrival whose rows differ, in any order."""
    import polars as pl

    # A minute that is equal in both files appears twice.
    minutes = pl.concat([_hashes(before), _hashes(after)])
    return Restatement(
        before=names[0],
        after=names[1],
        rows_before=pq.read_metadata(before).num_rows,
        rows_after=pq.read_metadata(after).num_rows,
        minutes=minutes.select(_KEY).n_unique(),
        minutes_differing=minutes.unique(keep="none").select(_KEY).n_unique(),
    )


def _candles(path: Path, *, numeric_ids: bool, repeats: bool) -> pl.DataFrame:
    import polars as pl

    left_out = repeated_rows(path) if repeats else None
    candles = minute_candles(path, numeric_ids=numeric_ids, left_out=left_out, every_symbol=True)
    return pl.DataFrame(candles).select(
        "symbol",
        *PRICES,
        "trade_count",
        minute_us=pl.col("open_time").dt.epoch("us"),
        volume=pl.col("volume") + pl.col("volume_error"),
    )


def _ids(path: Path) -> dict[str, NDArray[np.int64]]:
    """The ids of each market, once."""
    import polars as pl

    found = [
        group.select(symbol="dataset_symbol", id=pl.col("id").cast(pl.Int64)).unique()
        for group in _groups(path, ["dataset_symbol", "id"])
    ]
    markets = pl.concat(found).group_by("symbol")
    return {str(symbol): ids["id"].unique().to_numpy() for (symbol,), ids in markets}


def _hashes(path: Path) -> pl.DataFrame:
    """The rows of each minute and two sums of halves of their hashes, which are the same in any row order."""
    import polars as pl

    found = []
    for group in _groups(path):
        # One row more or less changes the numbers of all later rows, and canonical symbols are ours.
        hashes = group.drop("row", "symbol", strict=False).hash_rows()
        rows = group.select(
            symbol="dataset_symbol",
            minute_us=pl.col("local_timestamp").dt.truncate("1m").dt.epoch("us"),
            rows=pl.lit(1, pl.Int64),
            low=hashes % 2**32,
            high=hashes // 2**32,
        )
        found.append(rows.group_by(_KEY).sum())
    return pl.concat(found).group_by(_KEY).sum()


def _groups(path: Path, columns: list[str] | None = None) -> Iterator[pl.DataFrame]:
    """The file's groups of rows, after one without rows; texts are plain strings in every encoding."""
    import polars as pl
    from polars import selectors

    with pq.ParquetFile(path) as file:
        for group in range(-1, file.num_row_groups):
            table = file.read_row_group(group, columns) if group >= 0 else file.schema_arrow.empty_table()
            yield pl.DataFrame(table).with_columns(selectors.categorical().cast(pl.String))


def _only_in(
    ids: dict[str, NDArray[np.int64]] | None, others: dict[str, NDArray[np.int64]] | None
) -> int | None:
    import numpy as np

    if ids is None or others is None:
        return None
    none = np.empty(0, np.int64)
    return sum(
        len(np.setdiff1d(own, others.get(symbol, none), assume_unique=True)) for symbol, own in ids.items()
    )


def _largest(compared: pl.DataFrame, name: str) -> Largest | None:
    """The largest difference, the first of equal ones by time and market; None without a difference."""
    import polars as pl

    found = compared.filter(pl.col(name) > 0).sort(
        name, "minute_us", "symbol", descending=[True, False, False]
    )
    if not found.height:
        return None
    row = found.row(0, named=True)
    return Largest(difference=row[name], symbol=row["symbol"], minute_us=row["minute_us"])
