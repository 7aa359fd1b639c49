"""The instruments of an exchange on a day, as stored in the lake: one Parquet file, one manifest.

``instruments`` defines the file's columns and makes its rows; this module lets the stages before and after it
find the table.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

import pyarrow.parquet as pq

from backfill_assets.failures import Unreadable
from backfill_assets.lake import documents, paths
from backfill_assets.lake.documents import Document
from backfill_assets.lake.store import Store
from backfill_assets.lake.tables import store_table

if TYPE_CHECKING:
    import pyarrow as pa


class Outage(Document):
    """A known outage of the vendor's capture, cut to the day."""

    start_us: int
    end_us: int
    details: str = ""


class InstrumentsManifest(Document):
    """Names the file that counts.

    If the document is damaged, a run of the day asks the vendor for it again. Until then it does not count as
    missing: a day judged without its instruments would change.
    """

    remedy: ClassVar[str] = "a run of the day asks the vendor for it again"

    exchange: str
    day: str
    content: str
    rows: int
    bytes: int
    #: ``instruments`` or ``exchange_details``, depending on the endpoint that the key covers.
    source: str
    #: Hash of everything that the rows are made from; empty if unknown.
    inputs: str = ""
    #: The outages that the vendor reported when the instruments were stored.
    outages: tuple[Outage, ...] = ()
    #: ``instruments.findings.LookedAt`` of this content as JSON; null if the file was not examined.
    looked_at: dict[str, Any] | None = None


def store_instruments(
    store: Store,
    exchange: str,
    day: str,
    table: pa.Table,
    source: str,
    outages: tuple[Outage, ...] = (),
    look_at: Callable[[pa.Table], dict[str, Any]] | None = None,
    inputs: str = "",
) -> InstrumentsManifest:
    """Store the table in place of the one that the manifest named before; the same rows give the same bytes.

    Parameters
    ----------
    look_at
        Returns ``looked_at`` of the table; called once per content.
    """
    former = readable_instruments(store, exchange, day)
    file = store_table(store, table, lambda content: paths.instruments_data(exchange, day, content))
    known = former.looked_at if former is not None and former.content == file.content else None
    manifest = InstrumentsManifest(
        exchange=exchange,
        day=day,
        **file.model_dump(),
        source=source,
        inputs=inputs,
        outages=outages,
        looked_at=known or (look_at(table) if look_at is not None else None),
    )
    path = paths.instruments_manifest(exchange, day)
    documents.update(store, path, InstrumentsManifest, lambda _: manifest, anew=True)
    return manifest


def load_instruments(store: Store, exchange: str, day: str) -> InstrumentsManifest | None:
    """Return the manifest; None if the day's instruments were never stored."""
    return documents.load(store, paths.instruments_manifest(exchange, day), InstrumentsManifest)


def readable_instruments(store: Store, exchange: str, day: str) -> InstrumentsManifest | None:
    """Return the manifest; None also if it cannot be read, for callers that store it again."""
    try:
        return load_instruments(store, exchange, day)
    except Unreadable:
        return None


def read_instruments(store: Store, exchange: str, day: str) -> pa.Table | None:
    """Return the table; None if the day's instruments were never stored."""
    manifest = load_instruments(store, exchange, day)
    return None if manifest is None else read_table(store, manifest)


def read_table(store: Store, manifest: InstrumentsManifest) -> pa.Table:
    """Return the table that the manifest names."""
    data = paths.instruments_data(manifest.exchange, manifest.day, manifest.content)
    with store.local_copy(data) as file:
        return pq.read_table(file)
