"""The file of the numbers by minute that only comparisons read, so that manifests are small without them.

Decoding makes the numbers (``ticks.bands``, ``ticks.tops``) and the manifest names their file. Comparisons
are made beside trades (``beside_trades``) and, of books, when the day is settled (``context``).
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

from backfill_assets.failures import DamagedFile
from backfill_assets.feeds import Feed
from backfill_assets.lake import paths
from backfill_assets.lake.manifests import Version
from backfill_assets.lake.parallel import parallel_map
from backfill_assets.lake.store import Store
from backfill_assets.lake.tables import DataFile, store_table
from backfill_assets.quality.profiles import MinuteNumbers

#: The numbers of a file, in order of ``dataset_symbol``.
Numbers = tuple[MinuteNumbers, ...]

LOGGER: Final = logging.getLogger(__name__)
#: Increase it when the same rows give other numbers, or their file has another layout.
NUMBERS_VERSION: Final = 1
_SCHEMA: Final = pa.schema(
    [
        ("dataset_symbol", pa.string()),
        ("symbol", pa.string()),
        ("name", pa.string()),
        ("packed", pa.binary()),
    ]
)


def store_numbers(store: Store, feed: Feed, day: str, numbers: Sequence[MinuteNumbers]) -> DataFile | None:
    """Store the numbers of a feed's file, one row per symbol and name; None without any."""
    rows = [
        {"dataset_symbol": one.dataset_symbol, "symbol": one.symbol, "name": name, "packed": packed}
        for one in numbers
        for name, packed in sorted(one.packed.items())
    ]
    if not rows:
        return None
    return store_table(
        store,
        pa.Table.from_pylist(rows, schema=_SCHEMA),
        lambda content: paths.partials_data(feed, day, content),
        use_dictionary=False,
        write_statistics=False,
    )


def read_numbers(
    store: Store, day: str, versions: Iterable[tuple[Feed, Version]]
) -> dict[tuple[Feed, str], Numbers | None]:
    """Return the numbers of versions by feed and content; None for a file that cannot be read.

    Each file is opened once, and one line of the log names an unreadable one. Versions without a file are
    left out.
    """
    files = {
        (feed, version.content): paths.partials_data(feed, day, version.minute_numbers.content)
        for feed, version in versions
        if version.minute_numbers is not None
    }
    several = [*dict.fromkeys(files.values())]
    read = parallel_map(lambda path: _read(store, path), several, store.parallel_reads)
    by_path = dict(zip(several, read, strict=True))
    return {key: by_path[path] for key, path in files.items()}


def _read(store: Store, path: str) -> Numbers | None:
    try:
        with store.local_copy(path) as file, pq.ParquetFile(file) as opened:
            rows = opened.read().to_pylist()
    except DamagedFile as failure:
        LOGGER.warning("its minutes are compared with no other file: %s", failure)
        return None
    by_symbol: dict[tuple[str, str | None], dict[str, bytes]] = {}
    for row in rows:
        by_symbol.setdefault((row["dataset_symbol"], row["symbol"]), {})[row["name"]] = row["packed"]
    return tuple(
        MinuteNumbers(dataset_symbol=own, symbol=symbol, packed=packed)
        for (own, symbol), packed in by_symbol.items()
    )
