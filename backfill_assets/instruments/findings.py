"""Findings on an exchange's instruments of a day, made once per content, when the file is stored."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING

from pydantic import ValidationError

from backfill_assets.instruments.schemas import instrument_schema
from backfill_assets.lake.documents import Document
from backfill_assets.lake.listing import InstrumentsManifest, read_table
from backfill_assets.lake.store import Store
from backfill_assets.quality.findings import Finding, look_at

if TYPE_CHECKING:
    import pyarrow as pa


class LookedAt(Document):
    """The findings of the schema, and how many rows each expected data set symbol has."""

    schema_finding: Finding
    listed: dict[str, int]


def look_at_listing(table: pa.Table) -> LookedAt:
    """Examine the table of one exchange."""
    import polars as pl

    frame = pl.DataFrame(table)
    expected = frame.filter("expected") if "expected" in frame.columns else frame
    return LookedAt(
        schema_finding=look_at(instrument_schema(), frame, ("exchange", "dataset_symbol")),
        listed=dict(Counter(expected["dataset_symbol"].to_list())),
    )


def looked_at(store: Store, manifest: InstrumentsManifest) -> LookedAt:
    """Return the findings that the manifest keeps; if it has none, examine the file now."""
    if manifest.looked_at is not None:
        with suppress(ValidationError):
            return LookedAt.model_validate(manifest.looked_at)
    return look_at_listing(read_table(store, manifest))
