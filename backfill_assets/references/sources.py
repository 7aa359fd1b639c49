"""The sources of candles that the settings name: directories of files, and services."""

from __future__ import annotations

from typing import Final

from backfill_assets.references.answers import CandleApi
from backfill_assets.references.ccxt_source import CcxtCandles
from backfill_assets.references.massive_source import MassiveCandles
from backfill_assets.settings import CcxtSource, ComparisonSettings, MassiveSource

#: The names of all services, which are also the folders of their answers in the lake.
SOURCES: Final = (CcxtCandles.name, MassiveCandles.name)


def apis_of(limits: ComparisonSettings) -> list[CandleApi]:
    """The services, in the order of the settings."""
    found: list[CandleApi] = []
    for source in limits.sources:
        if isinstance(source, CcxtSource):
            found.append(CcxtCandles(source))
        elif isinstance(source, MassiveSource):
            found.append(MassiveCandles(source))
    return found
