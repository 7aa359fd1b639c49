"""The candles of a source, stored in the lake as one Parquet file and one document per source and day.

A rerun asks only for markets whose day is not whole; without a network it compares the day with the stored
candles. Only another ``REFERENCES_VERSION`` asks again for markets that a source lacks.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from backfill_assets.failures import DamagedFile, PermanentFailure, TransientFailure
from backfill_assets.lake import documents, paths
from backfill_assets.lake.documents import Derived, Document
from backfill_assets.lake.store import Store
from backfill_assets.lake.tables import DataFile, market_layout, store_table
from backfill_assets.references.answers import Answer, CandleApi, State, answer_of

if TYPE_CHECKING:
    import polars as pl

LOGGER: Final = logging.getLogger(__name__)
#: Increase it when sources are asked for other markets, or candles are compared in another way.
REFERENCES_VERSION: Final = 2

Market = tuple[str, str]


class FetchedMarket(Document):
    """A source's answer for a market; see ``references.answers.Answer``."""

    exchange: str
    symbol: str
    state: State
    asked: str = ""
    rows: int = 0
    contract_size: float | None = 1.0
    reason: str = ""
    version: int = REFERENCES_VERSION

    @property
    def market(self) -> Market:
        """Exchange and canonical symbol."""
        return self.exchange, self.symbol

    @property
    def is_unknown(self) -> bool:
        """Whether the source does not have the market."""
        return self.state == "absent" and not self.is_out_of_reach

    @property
    def is_out_of_reach(self) -> bool:
        """Whether the source has the market but no longer any minute of this day."""
        return self.state == "absent" and bool(self.asked)


class FetchedDay(Derived):
    """A source's answers for a day, by exchange and symbol."""

    day: str
    file: DataFile | None = None
    markets: tuple[FetchedMarket, ...] = ()


def load_fetched(store: Store, source: str, day: str) -> FetchedDay:
    """Return the answers of a source; an empty document if there are none."""
    return documents.load(store, paths.reference_manifest(source, day), FetchedDay) or FetchedDay(day=day)


def read_fetched(store: Store, source: str, fetched: FetchedDay) -> dict[Market, pl.DataFrame]:
    """The candles by market, as the source gave them.

    Raises
    ------
    DamagedFile
        The file is missing or damaged.
    """
    import polars as pl

    if fetched.file is None:
        return {}
    with store.local_copy(paths.reference_data(source, fetched.day, fetched.file.content)) as path:
        frame = pl.read_parquet(path, glob=False, hive_partitioning=False)
    parts = frame.partition_by("exchange", "symbol", as_dict=True, include_key=False)
    return {(str(exchange), str(symbol)): part for (exchange, symbol), part in parts.items()}


def fetch_day(store: Store, api: CandleApi, day: str, markets: Iterable[Market]) -> FetchedDay:
    """Ask for the markets whose candles of the day are not stored, and store the answers.

    When a service fails, the failure is the answer for all its markets, and it is not asked again.
    """
    former = load_fetched(store, api.name, day)
    try:
        held = read_fetched(store, api.name, former)
    except DamagedFile as failure:
        LOGGER.warning("%s: it is fetched again", failure)
        former, held = FetchedDay(day=day), {}
    known = {one.market: one for one in former.markets}
    due = [market for market in markets if _is_due(api, market, known.get(market))]
    if not due:
        return former
    broken: dict[str, str] = {}
    for market in due:
        unit = api.unit(market[0])
        if unit in broken:
            answer = Answer("failed", reason=broken[unit])
        else:
            try:
                answer = api.fetch(*market, day)
            except (TransientFailure, PermanentFailure) as failure:
                broken[unit] = str(failure)
                answer = Answer("failed", reason=broken[unit])
        answer = _with_held(api, market, answer, held.get(market), known.get(market))
        if answer.minutes is not None:
            held[market] = answer.minutes
        known[market] = _document(market, answer)
    return _kept(store, api.name, day, known, held)


def _is_due(api: CandleApi, market: Market, known: FetchedMarket | None) -> bool:
    """Whether a request can help: the market was never asked for, or its answer may be better now."""
    convention = api.convention(market[0])
    if convention is None or not api.asked_for(market[0]):
        return False
    if known is None or known.state in ("empty", "failed"):
        return True
    if known.state == "absent":
        return known.version != REFERENCES_VERSION
    # A source that keeps only the newest minutes has fewer of the day's later.
    return known.state == "partial" and convention.reach_minutes is None


def _with_held(
    api: CandleApi, market: Market, answer: Answer, held: pl.DataFrame | None, known: FetchedMarket | None
) -> Answer:
    """The answer together with the minutes stored before."""
    import polars as pl

    convention = api.convention(market[0])
    if held is None or known is None or convention is None:
        return answer
    if answer.minutes is None:
        return replace(
            answer, state="partial", asked=known.asked, minutes=held, contract_size=known.contract_size
        )
    whole = pl.concat([held, answer.minutes]).unique("open_time", keep="last").sort("open_time")
    return answer_of(whole, answer.asked, convention, answer.contract_size)


def _document(market: Market, answer: Answer) -> FetchedMarket:
    return FetchedMarket(
        exchange=market[0],
        symbol=market[1],
        state=answer.state,
        asked=answer.asked,
        rows=answer.minutes.height if answer.minutes is not None else 0,
        contract_size=answer.contract_size,
        reason=answer.reason,
    )


def _kept(
    store: Store,
    source: str,
    day: str,
    known: Mapping[Market, FetchedMarket],
    held: Mapping[Market, pl.DataFrame],
) -> FetchedDay:
    """Store the candles and the document that names them; a file that no document names is garbage."""
    import polars as pl

    file = None
    if held:
        frames = [
            frame.select(pl.lit(exchange).alias("exchange"), pl.lit(symbol).alias("symbol"), pl.all())
            for (exchange, symbol), frame in sorted(held.items())
        ]
        table = pl.concat(frames).to_arrow()
        layout = market_layout(table.schema)
        file = store_table(store, table, lambda content: paths.reference_data(source, day, content), **layout)
    made = FetchedDay(day=day, file=file, markets=tuple(known[market] for market in sorted(known)))
    documents.update(store, paths.reference_manifest(source, day), FetchedDay, lambda _: made)
    return made
