"""The tables of an environment, by market and time range; ``backfill_assets.open`` returns them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

from backfill_assets.days import day_range, shift
from backfill_assets.failures import BadInput
from backfill_assets.feeds import DATA_TYPES, GROUPED_SYMBOLS
from backfill_assets.frames.arguments import (
    insist_on_choice,
    insist_on_feeds,
    insist_on_listed,
    insist_on_market,
    insist_on_texts,
    insist_on_type,
)
from backfill_assets.frames.frame import Frame
from backfill_assets.frames.ranges import Moment, TimeRange, time_range
from backfill_assets.frames.sources import Source, empty, open_source
from backfill_assets.frames.states import (
    EXPECTED,
    DayState,
    OnGap,
    condition_of_rows,
    market_states,
    tell_gaps,
)
from backfill_assets.lake.store import Store, open_store
from backfill_assets.settings import BASE_TIMEFRAME, TIMEFRAMES, Settings, current_settings, standin_command
from backfill_assets.warehouse.catalog import CANDLES, COVERAGE, INSTRUMENTS, QUALITY, TICKS
from backfill_assets.warehouse.tables import Table
from backfill_assets.warehouse.views import DAYS, DUCKDB

if TYPE_CHECKING:
    import polars as pl

Book = Literal["book_snapshot_5", "book_snapshot_25", "incremental_book_L2"]

_TRADES: Final = "trades"
#: Columns of ``quality`` that determine the states of days.
_STATE_COLUMNS: Final = (
    *("date", "exchange", "symbol", "data_type", "dataset_symbol", "verdict", "published", "sealed"),
    *("pending", "reasons", "day_state", "generated"),
)


class Data:
    """Candles, ticks, coverage and quality of any range; opened by ``backfill_assets.open``.

    Times are UTC, and ranges are half-open: they include ``start`` and exclude ``end``. Each is a string
    (``2024-01-31``, ``2024-01-31T09:00``), a date or a datetime; a value without a zone is UTC. Without
    ``end`` the range is the UTC day of ``start``.

    Every frame carries the state of each UTC day of its range (``Frame.days``). Unless all days are published
    in full, ``on_gap`` decides: ``raise`` raises ``DataGap``; ``warn`` returns the existing rows and warns
    with ``DataGapWarning``; ``mask`` returns only the days that are published in full, without a warning.
    ``final`` takes only days that nothing outside the day can still change.

    Raises
    ------
    BadInput
        An argument has another type or value than it may have, or the range is empty.
    DataGap
        Days are not published in full, and ``on_gap`` is ``raise``.
    """

    def __init__(self, settings: Settings, source: str = "warehouse") -> None:
        self.settings = settings
        self._source: Source = open_source(settings, source)
        self._name = source

    def candles(
        self,
        exchange: str,
        symbol: str | None,
        timeframe: str,
        start: Moment,
        end: Moment | None = None,
        *,
        final: bool = False,
        fill: bool = False,
        on_gap: OnGap = "raise",
    ) -> Frame:
        """Candles whose ``open_time`` is in the range, ordered by day, market and time.

        Parameters
        ----------
        symbol
            The market's canonical symbol, such as ``BTC-USDT`` or ``BTC-USDT-PERP``; None is all markets of
            the exchange.
        timeframe
            One of ``1m 3m 5m 15m 30m 1h 2h 4h 6h 8h 12h 1d``; if it is not stored, it is made from ``1m``.
        fill
            Add a flat candle at the last price, without volume, where it is proven that no trade happened;
            the timeframe must be a stored one.

        Returns
        -------
        Frame
            Columns of the table ``candles``.
        """
        import polars as pl

        insist_on_choice("timeframe", timeframe, TIMEFRAMES)
        where = {"exchange": exchange} | ({} if symbol is None else {"symbol": symbol})
        insist_on_texts(**where)
        within = time_range(start, end)
        is_stored = timeframe in self.settings.candles.timeframes
        insist_on_type("fill", fill, bool, "give True or False")
        if fill:
            stored = self.settings.candles.timeframes
            insist_on_choice("stored timeframe, as fill needs one", timeframe, stored)
        about = f"{exchange} {symbol or 'all markets'} {timeframe} candles"
        given, states = self._judged(within, CANDLES, exchange, symbol, about, on_gap, final=final)

        def rows(days: Sequence[str]) -> pl.LazyFrame:
            stored = timeframe if is_stored else BASE_TIMEFRAME
            found = self._source.rows(CANDLES, days, where | {"timeframe": stored})
            if not is_stored:
                found = _rolled_up(found, days, timeframe)
            if fill:
                covered = self._source.rows(COVERAGE, days, where | {"timeframe": timeframe})
                flat = _flat(covered, TIMEFRAMES[timeframe])
                found = pl.concat([found, flat]).sort("date", "symbol", "open_time")
            return _within(found, "open_time", within)

        return Frame(rows, given, states, about)

    def ticks(
        self,
        data_type: str,
        exchange: str,
        symbol: str,
        start: Moment,
        end: Moment | None = None,
        *,
        final: bool = False,
        on_gap: OnGap = "raise",
    ) -> Frame:
        """Rows of one market in a tick table that arrived in the range (``local_timestamp``), in that order.

        Returns
        -------
        Frame
            Columns of the table named by ``data_type``.
        """
        insist_on_choice("data type", data_type, DATA_TYPES)
        where = {"exchange": exchange, "symbol": symbol}
        insist_on_texts(**where)
        within = time_range(start, end)
        about = f"{exchange} {symbol} {data_type}"
        given, states = self._judged(within, TICKS[data_type], exchange, symbol, about, on_gap, final=final)

        def rows(days: Sequence[str]) -> pl.LazyFrame:
            return _within(self._source.rows(TICKS[data_type], days, where), "local_timestamp", within)

        return Frame(rows, given, states, about)

    def trades(
        self,
        exchange: str,
        symbol: str,
        start: Moment,
        end: Moment | None = None,
        *,
        final: bool = False,
        on_gap: OnGap = "raise",
    ) -> Frame:
        """``ticks`` of ``trades``."""
        return self.ticks(_TRADES, exchange, symbol, start, end, final=final, on_gap=on_gap)

    def quotes(
        self,
        exchange: str,
        symbol: str,
        start: Moment,
        end: Moment | None = None,
        *,
        final: bool = False,
        on_gap: OnGap = "raise",
    ) -> Frame:
        """``ticks`` of ``quotes``: best bid and ask."""
        return self.ticks("quotes", exchange, symbol, start, end, final=final, on_gap=on_gap)

    def book(
        self,
        exchange: str,
        symbol: str,
        start: Moment,
        end: Moment | None = None,
        *,
        data_type: Book = "book_snapshot_25",
        final: bool = False,
        on_gap: OnGap = "raise",
    ) -> Frame:
        """``ticks`` of an order book: snapshots of 5 or 25 levels, or single changes of levels."""
        insist_on_choice("data type of books", data_type, get_args(Book))
        return self.ticks(data_type, exchange, symbol, start, end, final=final, on_gap=on_gap)

    def coverage(
        self,
        exchange: str,
        symbol: str,
        timeframe: str,
        start: Moment,
        end: Moment | None = None,
        *,
        on_gap: OnGap = "raise",
    ) -> Frame:
        """The state of every bucket of one market: traded, proven empty, or lost.

        One row is a run of buckets in the same state; runs are those of whole days.
        """
        self.insist_on_stored(timeframe)
        insist_on_texts(exchange=exchange, symbol=symbol)
        within = time_range(start, end)
        about = f"{exchange} {symbol} {timeframe} coverage"
        given, states = self._judged(within, COVERAGE, exchange, symbol, about, on_gap)
        return Frame(lambda days: self.coverage_of(exchange, symbol, timeframe, days), given, states, about)

    def coverage_of(self, exchange: str, symbol: str, timeframe: str, days: Sequence[str]) -> pl.LazyFrame:
        """The coverage of these days in any condition."""
        where = {"exchange": exchange, "symbol": symbol, "timeframe": timeframe}
        return self._source.rows(COVERAGE, days, where).sort("first_open_time")

    def quality(
        self,
        start: Moment,
        end: Moment | None = None,
        *,
        exchange: str = "",
        symbol: str = "",
        data_type: str = "",
    ) -> Frame:
        """Verdict, scores and evidence of every expected feed and day; days without a row are missing.

        Returns
        -------
        Frame
            Columns of the table ``quality``, and ``condition``, a word of ``states.CONDITIONS``.

        Raises
        ------
        BadInput
            Days of the range were run but none has such a feed.
        """
        import polars as pl

        within = time_range(start, end)
        chosen = _chosen(exchange=exchange, data_type=data_type, symbol=symbol)
        rows = self._source.quality(within.days)
        insist_on_feeds(rows.select("exchange", "data_type", "symbol").collect(), chosen)
        wanted = [pl.col(name) == value for name, value in chosen.items()]
        found = (rows.filter(*wanted) if wanted else rows).with_columns(condition=condition_of_rows())
        return Frame(lambda _: found, (), self._day_states(rows, within.days), "quality")

    def days(self, start: Moment, end: Moment | None = None) -> Frame:
        """One row per UTC day that was run: its state, its scores and the feeds left out.

        Returns
        -------
        Frame
            Columns of the view ``days``.
        """
        import duckdb
        import polars as pl

        within = time_range(start, end)
        rows = self._source.quality(within.days)
        with duckdb.connect() as connection:
            connection.register(QUALITY.name, rows.collect())
            found = connection.sql(DAYS.sql(DUCKDB, lambda table: table)).to_arrow_table()
        by_date = pl.DataFrame(pl.from_arrow(found)).lazy().sort("date")
        return Frame(lambda _: by_date, (), self._day_states(rows, within.days), "days")

    def instruments(
        self, start: Moment, end: Moment | None = None, *, exchange: str = "", symbol: str = ""
    ) -> Frame:
        """Instruments as listed on each day, with the values valid on that day.

        Returns
        -------
        Frame
            Columns of the table ``instruments``.

        Raises
        ------
        BadInput
            Days of the range were run but none has a feed of the exchange.
        """
        within = time_range(start, end)
        where = _chosen(exchange=exchange, symbol=symbol)
        feeds = self._source.quality(within.days)
        insist_on_feeds(feeds.select("exchange").collect(), _chosen(exchange=exchange))
        states = self._day_states(feeds, within.days)

        def rows(days: Sequence[str]) -> pl.LazyFrame:
            return self._source.rows(INSTRUMENTS, days, where)

        return Frame(rows, within.days, states, "instruments")

    def __repr__(self) -> str:
        return f"<backfill_assets data of {self.settings.name}, from its {self._name}>"

    def insist_on_stored(self, timeframe: str) -> None:
        """Raise ``BadInput`` unless candles of the timeframe are stored."""
        insist_on_choice("stored timeframe", timeframe, self.settings.candles.timeframes)

    @cached_property
    def store(self) -> Store:
        """The lake."""
        return open_store(self.settings.lake)

    def _judged(
        self,
        within: TimeRange,
        table: Table,
        exchange: str,
        symbol: str | None,
        about: str,
        on_gap: OnGap,
        *,
        final: bool = False,
    ) -> tuple[list[str], tuple[DayState, ...]]:
        """The days whose rows to return, and the states of all days."""
        insist_on_choice("value of on_gap", on_gap, get_args(OnGap))
        insist_on_type("final", final, bool, "give True or False")
        states = self.market_states(table, exchange, symbol, within.days, final=final)
        given = tell_gaps(states, on_gap, about, standin_command(self.settings))
        return [day for day in within.days if day in given], states

    def market_states(
        self, table: Table, exchange: str, symbol: str | None, days: Sequence[str], *, final: bool = False
    ) -> tuple[DayState, ...]:
        """The state of a market in a table on each day, or of all markets of the exchange together.

        Candles and coverage are those of the feeds of trades.

        Raises
        ------
        BadInput
            Days of the range were run but none has such a market.
        """
        import polars as pl

        data_type = _TRADES if table in (CANDLES, COVERAGE) else table.name
        # The days beside a range tell why its first and its last day are not final.
        read = day_range(shift(days[0], -1), shift(days[-1], 1)) if final else days
        found = self._source.quality(read).select(_STATE_COLUMNS).collect(engine="streaming")
        # One row a day of other feeds is enough to tell that the day was run.
        is_of_market = (
            pl.lit(value=True)
            if symbol is None
            else (pl.col("symbol") == symbol) | pl.col("dataset_symbol").is_in([symbol, *GROUPED_SYMBOLS])
        )
        of_market = found.filter(
            pl.col("date").is_first_distinct()
            | (pl.col("exchange") == exchange) & (pl.col("data_type") == data_type) & is_of_market
        )
        rows = of_market.iter_rows(named=True)
        not_made = self._source.not_made(table, days)
        states = market_states(rows, days, data_type, exchange, symbol, final=final, not_made=not_made)
        if not any(state.state in EXPECTED for state in states):
            asked = [row for row in found.rows(named=True) if row["date"].isoformat() in days]
            insist_on_market(asked, data_type, exchange, symbol)
        elif symbol is not None:
            is_own = (pl.col("exchange") == exchange) & (pl.col("symbol") == symbol)
            if found.filter(is_own).is_empty():
                # The rows of a group do not list its symbols.
                listed = self._source.rows(INSTRUMENTS, days, {"exchange": exchange}).select("symbol")
                insist_on_listed(listed.collect()["symbol"].unique(), exchange, symbol)
        return states

    def _day_states(self, quality: pl.LazyFrame, days: Sequence[str]) -> tuple[DayState, ...]:
        """The state of each day, for all markets together."""
        import polars as pl

        found: Mapping[str, tuple[Any, bool, bool]] = {
            day.isoformat(): (state, sealed, generated)
            for day, state, sealed, generated in quality.group_by("date")
            .agg(pl.col("day_state").first(), pl.col("sealed").all(), pl.col("generated").any())
            .collect()
            .iter_rows()
        }
        states = {day: found.get(day, ("missing", False, False)) for day in days}
        return tuple(
            DayState(day, state, sealed, is_awaited=state == "held", is_generated=generated)
            for day, (state, sealed, generated) in states.items()
        )


def _chosen(**named: str | None) -> dict[str, str]:
    """The columns and values that choose rows; None and an empty text choose all."""
    insist_on_texts(**{name: value for name, value in named.items() if value is not None})
    return {name: value for name, value in named.items() if value}


def _within(rows: pl.LazyFrame, column: str, within: TimeRange) -> pl.LazyFrame:
    """Keep only rows of the range; whole days need no filter on time."""
    import polars as pl

    if within.is_whole_days:
        return rows
    return rows.filter(pl.col(column).is_between(within.start, within.end, closed="left"))


def _rolled_up(rows: pl.LazyFrame, days: Sequence[str], timeframe: str) -> pl.LazyFrame:
    """Roll candles of the base timeframe up to a timeframe that is not stored, day by day."""
    import polars as pl

    from backfill_assets.candles.merge import rolled_up
    from backfill_assets.candles.schemas import CANDLE_SCHEMA

    base = rows.collect()
    made = [
        pl.DataFrame(pl.from_arrow(rolled_up(of_day.to_arrow().cast(CANDLE_SCHEMA), day, timeframe)))
        for day in days
        for of_day in [base.filter(pl.col("date") == pl.lit(day).str.to_date())]
        if of_day.height
    ]
    return pl.concat([empty(CANDLES), *made]).lazy()


def _flat(covered: pl.LazyFrame, seconds: int) -> pl.LazyFrame:
    """Return a flat candle for every bucket proven empty, as in the view ``candles_filled``."""
    import polars as pl

    step, nothing = f"{seconds}s", empty(CANDLES).schema
    prices = dict.fromkeys(("open", "high", "low", "close", "vwap"), pl.col("previous_close"))
    times = dict.fromkeys(("open_time", "first_trade_time", "last_trade_time"), pl.col("open_time"))
    amounts = dict.fromkeys(("volume", "quote_volume", "buy_volume", "sell_volume"), pl.lit(0.0))
    units = dict.fromkeys(("volume_unit", "quote_unit"), pl.lit(None, pl.String))
    values = prices | times | amounts | units | {"trade_count": pl.lit(0)}
    empties = covered.filter(pl.col("state") == "proven_empty", pl.col("previous_close").is_not_null())
    spread = empties.with_columns(
        open_time=pl.datetime_ranges("first_open_time", "last_open_time", interval=step)
    ).explode("open_time")
    return spread.select(
        values.get(name, pl.col(name)).cast(kind).alias(name) for name, kind in nothing.items()
    )


def open_data(settings: str | Path | None, source: Literal["warehouse", "lake"]) -> Data:
    """See ``backfill_assets.open``."""
    insist_on_choice("source", source, ("warehouse", "lake"))
    if settings is None:
        return Data(current_settings(), source)
    remedy = "give a settings file, the name of one in the package, or nothing for that of BACKFILL_ENV"
    insist_on_type("settings", settings, (str, os.PathLike), remedy)
    if not str(settings) or "\n" in str(settings):
        # The content of a file may have a secret.
        kind = "a text of several lines" if str(settings) else "an empty text"
        msg = f"settings is {kind}: {remedy}"
        raise BadInput(msg)
    # A path without a separator is no name.
    named = settings if isinstance(settings, str) else str(Path(settings).expanduser().absolute())
    return Data(current_settings(named), source)
