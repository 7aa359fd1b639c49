"""Healed versions: the vendor's rows together with rows recovered from second sources, in their places.

The rows are written in the vendor's form and decoded like a vendor's file, so profile, partial candles and
verdict are made as for every file. ``heal`` asks the sources and judges their answers; this module takes
stored trades from receipts, so a run needs neither a network nor the exchange's client.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from backfill_assets.days import MICROSECONDS_PER_MILLISECOND
from backfill_assets.failures import DamagedFile, Unreadable
from backfill_assets.feeds import Feed
from backfill_assets.files import temporary_folder
from backfill_assets.lake import paths
from backfill_assets.lake.evidence import HealedRows, Receipt, TradeRow
from backfill_assets.lake.manifests import DayRecord, FeedManifest, Version, update_manifest
from backfill_assets.lake.store import Store
from backfill_assets.quality.profiles import profile_of
from backfill_assets.quality.receipts import count_of, without
from backfill_assets.quality.rules import violations
from backfill_assets.quality.settled import load_settled
from backfill_assets.settings import Settings
from backfill_assets.tardis.columns import csv_header
from backfill_assets.ticks.decode import decode
from backfill_assets.ticks.fetch import candles_to_fill, decoded_version, scratch_folder, store_candles
from backfill_assets.ticks.grids import price_grids
from backfill_assets.ticks.profile import ProfileParameters
from backfill_assets.ticks.stored import stored_file

if TYPE_CHECKING:
    import polars as pl
    import pyarrow.parquet as pq

#: Header of stored recovered trades, one trade per line.
ROWS_HEADER: Final = "id,timestamp,side,price,amount"
#: Compression level of the temporary file that is written only to be decoded.
_FASTEST: Final = 1


def rows_file(trades: Iterable[TradeRow]) -> bytes:
    """The stored file of recovered trades; equal trades give equal bytes."""
    lines = [f"{t.id},{t.time_us},{t.side},{t.price!r},{t.amount!r}" for t in trades]
    return "\n".join([ROWS_HEADER, *lines, ""]).encode()


def read_rows(data: bytes) -> list[TradeRow]:
    """The trades of a stored file."""
    cells = [line.split(",") for line in data.decode().splitlines()[1:]]
    return [
        TradeRow(id=int(c[0]), time_us=int(c[1]), side=c[2], price=float(c[3]), amount=float(c[4]))
        for c in cells
    ]


def recovered_trades(store: Store, feed: Feed, day: str, receipts: Iterable[Receipt]) -> list[TradeRow]:
    """The trades of the receipts, once each, in order of their ids.

    Raises
    ------
    DamagedFile
        A stored file of trades is missing or damaged.
    """
    found: dict[int, TradeRow] = {}
    for receipt in receipts:
        if receipt.rows is None:
            continue
        with store.local_copy(paths.receipt_data(feed, day, receipt.rows.content, "csv")) as file:
            found |= {trade.id: trade for trade in read_rows(file.read_bytes())}
    return [found[number] for number in sorted(found)]


def lacks_recovered(version: Version, receipts: Iterable[Receipt]) -> bool:
    """Whether the version lacks an id whose trade a receipt has.

    Raises
    ------
    Unreadable
        The version's profile is damaged.
    """
    recovered = sorted(ids for receipt in receipts for ids in receipt.recovered)
    gaps = [
        (gap.first_missing, gap.last_missing)
        for symbol in (profile_of(version).symbols if recovered else ())
        for gap in symbol.gaps
    ]
    return any(count_of(without(gap, recovered)) < count_of([gap]) for gap in gaps)


def with_recovered_rows(
    store: Store, record: DayRecord, manifests: Mapping[Feed, FeedManifest], settings: Settings
) -> dict[Feed, FeedManifest]:
    """The manifests after a fetch, each with a healed version if the newest lacks recovered trades.

    If a vendor serves the same file again, the recovered rows stay. Files that break a hard rule are left as
    they are, since rows cannot repair them.
    """
    names = {e.feed: dict(e.symbols) for e in record.expected_feeds}
    found = dict(manifests)
    for feed, manifest in manifests.items():
        newest = manifest.newest
        if newest is None or not manifest.receipts:
            continue
        # Settling reports a damaged profile, and verify reports a damaged file.
        with suppress(Unreadable, DamagedFile):
            if lacks_recovered(newest, manifest.receipts) and not violations(
                profile_of(newest), settings.thresholds.rows, grouped=feed.is_grouped
            ):
                healed = heal_version(store, settings, feed, record.day, names[feed], newest, manifest)
                accepted = accepted_content(store, feed, record.day)
                add_healed = partial(FeedManifest.with_version, version=healed, accepted=accepted)
                found[feed] = update_manifest(store, feed, record.day, add_healed)
    return found


def accepted_content(store: Store, feed: Feed, day: str) -> str | None:
    """The content that counts by the day's document."""
    settled = load_settled(store, day)
    known = settled.feed(feed) if settled else None
    return known.accepted.content if known and known.accepted else None


def heal_version(
    store: Store,
    settings: Settings,
    feed: Feed,
    day: str,
    symbols: Mapping[str, str],
    base: Version,
    manifest: FeedManifest,
) -> Version:
    """Store the file of the rows of ``base`` with all recovered trades that it lacks.

    Parameters
    ----------
    symbols
        Canonical symbol for the text of the file's symbol column.
    manifest
        The manifest with the receipts.

    Returns
    -------
    Version
        The version of that file, which the caller puts into the feed's manifest.

    Raises
    ------
    DamagedFile
        The file of ``base``, or one of recovered trades, is missing or damaged.
    """
    trades = recovered_trades(store, feed, day, manifest.receipts)
    parameters = ProfileParameters.of(settings.thresholds)
    candles = candles_to_fill(feed, day, parameters, settings.thresholds.id_laws)
    with temporary_folder(scratch_folder(settings), "lake.scratch") as folder:
        source, target = folder / "healed.csv.gz", folder / "healed.parquet"
        with store.local_copy(paths.ticks_data(feed, day, base.content)) as file:
            added = write_healed(file, source, trades)
        decoded = decode(
            source,
            target,
            feed=feed,
            day=day,
            symbols=symbols,
            parameters=parameters,
            grids=price_grids(store, day, {feed: symbols})[feed],
            candles=candles,
        )
        stored = stored_file(target, decoded.totals)
        version = decoded_version(feed, decoded, base.source, stored, symbols, parameters).model_copy(
            update={
                "candles": store_candles(store, feed, day, candles, decoded.profile, parameters),
                "healed": HealedRows(
                    base=base.content,
                    rows=added + (base.healed.rows if base.healed else 0),
                    sources=tuple(dict.fromkeys(r.asked for r in manifest.receipts if r.rows is not None)),
                ),
            }
        )
        store.put_file(target, paths.ticks_data(feed, day, version.content))
    return version


def write_healed(ticks: Path, target: Path, trades: Sequence[TradeRow]) -> int:
    """Write the rows of a tick file and the trades that it lacks, in the vendor's form.

    A recovered trade has no time of arrival. It counts as having arrived when it was traded, but between the
    rows with the ids before and after it, so that the file stays in the order of arrival. Its time is cut to
    milliseconds if all times of the file are in milliseconds.

    Returns
    -------
    int
        How many rows were added.
    """
    import polars as pl
    import pyarrow.parquet as pq

    with pq.ParquetFile(ticks) as file, gzip.open(target, "wb", compresslevel=_FASTEST) as out:
        placed = _placed(file, trades)
        new = placed
        out.write(f"{csv_header('trades')}\n".encode())
        last = file.num_row_groups - 1
        for group in range(file.num_row_groups):
            rows = _as_written(pl.DataFrame(file.read_row_group(group)))
            until = rows["local_timestamp"][-1]
            is_here = pl.lit(value=True) if group == last else pl.col("local_timestamp") < until
            here = new.filter(is_here)
            new = new.filter(~is_here)
            # Rows of the file come before recovered ones of the same arrival.
            if here.height:
                rows = pl.concat([rows, here]).sort("local_timestamp", maintain_order=True)
            out.write(rows.write_csv(include_header=False).encode())
    return placed.height


def _placed(file: pq.ParquetFile, trades: Sequence[TradeRow]) -> pl.DataFrame:
    """The trades that the file lacks, as rows of the file in order of arrival."""
    import numpy as np
    import polars as pl

    found, in_milliseconds = [], True
    for group in range(file.num_row_groups):
        rows = _as_written(pl.DataFrame(file.read_row_group(group)))
        exchange, symbol = rows.row(0)[:2]
        in_milliseconds &= bool((rows["timestamp"] % MICROSECONDS_PER_MILLISECOND == 0).all())
        found.append(rows.select(pl.col("id").cast(pl.Int64), "local_timestamp"))
    held = pl.concat(found).sort("id", maintain_order=True)
    ids, local = held["id"].to_numpy(), held["local_timestamp"].to_numpy()
    known = set(np.intersect1d(ids, np.array([t.id for t in trades], np.int64)).tolist())
    placed = []
    for trade in trades:
        after = int(np.searchsorted(ids, trade.id))
        if trade.id in known or not 0 < after < len(ids):
            continue
        early, late = sorted((int(local[after - 1]), int(local[after])))
        cut = trade.time_us % MICROSECONDS_PER_MILLISECOND if in_milliseconds else 0
        placed.append((trade.time_us - cut, min(max(trade.time_us, early), late), trade))
    return pl.DataFrame(
        {
            "exchange": [exchange] * len(placed),
            "symbol": [symbol] * len(placed),
            "timestamp": [time for time, _, _ in placed],
            "local_timestamp": [arrival for _, arrival, _ in placed],
            "id": [str(trade.id) for *_, trade in placed],
            "side": [trade.side for *_, trade in placed],
            "price": [trade.price for *_, trade in placed],
            "amount": [trade.amount for *_, trade in placed],
        },
        schema={
            **dict.fromkeys(("exchange", "symbol"), pl.String),
            **dict.fromkeys(("timestamp", "local_timestamp"), pl.Int64),
            **dict.fromkeys(("id", "side"), pl.String),
            **dict.fromkeys(("price", "amount"), pl.Float64),
        },
    ).sort("local_timestamp", maintain_order=True)


def _as_written(group: pl.DataFrame) -> pl.DataFrame:
    """The columns in the form of the vendor's file."""
    import polars as pl

    times = [pl.col(name).dt.epoch("us") for name in ("timestamp", "local_timestamp")]
    texts = [pl.col(name).cast(pl.String) for name in ("id", "side")]
    names = [pl.col("exchange").cast(pl.String), pl.col("dataset_symbol").cast(pl.String).alias("symbol")]
    return group.select(*names, *times, *texts, "price", "amount")
