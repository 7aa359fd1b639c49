"""The views of the warehouse: the usual starts of queries, written once for both dialects of SQL.

A view is made when all tables that it reads have all their columns, so it appears with the first day that
fills them. It names its columns; if a table gains some, the text changes, and the view is replaced. No view
holds a window over candles or ticks, so a filter on ``date`` reaches them and BigQuery reads only the
requested partitions; ``quality`` and ``coverage`` are small.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from backfill_assets.columns import Column
from backfill_assets.feeds import GROUPED_SYMBOLS
from backfill_assets.settings import TIMEFRAMES
from backfill_assets.warehouse.catalog import CANDLES, COVERAGE, QUALITY, TICKS
from backfill_assets.warehouse.tables import Table


@dataclass(frozen=True, slots=True)
class Dialect:
    """The differences between the two engines.

    Attributes
    ----------
    buckets
        Item of FROM that gives each row of the coverage once per bucket, numbered from 0 by a column ``n``.
    later
        The timestamp of the first expression, later by the number of seconds in the second.
    """

    buckets: str
    later: str


#: In DuckDB no filter on the date would pass through UNNEST in FROM.
DUCKDB: Final = Dialect(
    buckets="(SELECT *, UNNEST(range(buckets)) AS n FROM {coverage}) AS coverage",
    later="{time} + to_seconds({seconds})",
)
BIGQUERY: Final = Dialect(
    buckets="{coverage} AS coverage, UNNEST(GENERATE_ARRAY(0, coverage.buckets - 1)) AS n",
    later="TIMESTAMP_ADD({time}, INTERVAL ({seconds}) SECOND)",
)


@dataclass(frozen=True, slots=True)
class View:
    """A view over tables of the catalog.

    Attributes
    ----------
    columns
        Columns in the order of the view; descriptions for the documentation.
    tables
        The tables that it reads; all of them must exist with all their columns.
    template
        The query, with ``{table}`` for each table's full name and ``{buckets}``, ``{later}`` of the dialect.
    """

    name: str
    description: str
    columns: tuple[Column, ...]
    tables: tuple[Table, ...]
    template: str

    def is_possible(self, there: Mapping[str, Collection[str]]) -> bool:
        """Whether these tables, with their columns by name, are all that the view needs."""
        return all({c.name for c in t.columns} <= set(there.get(t.name, ())) for t in self.tables)

    def sql(self, dialect: Dialect, name_of: Callable[[str], str]) -> str:
        """Return the query in that dialect; ``name_of`` gives a table's full name, quoted."""
        names = {table.name: name_of(table.name) for table in self.tables}
        buckets = dialect.buckets.format(coverage=name_of(COVERAGE.name))
        later = dialect.later.format(time="coverage.first_open_time", seconds=f"n * {_SECONDS}")
        return self.template.format(**names, buckets=buckets, later=later)


_SECONDS: Final = (
    "CASE coverage.timeframe " + " ".join(f"WHEN '{t}' THEN {s}" for t, s in TIMEFRAMES.items()) + " END"
)
_GROUPS: Final = ", ".join(f"'{name}'" for name in GROUPED_SYMBOLS)
#: A feed whose rows are in the tables of a day that no file can change any more.
_FINAL: Final = "published AND sealed AND day_state IN ('published', 'degraded')"


def _of(alias: str, columns: Sequence[Column]) -> str:
    return ", ".join(f"{alias}.{column.name}" for column in columns)


def _final(table: Table, data_type: str, symbol: str) -> View:
    """Rows of the table whose feed is final.

    A published feed of the row's own symbol decides for the row; a market with two expected files has both of
    them for that. Rows of other symbols are in a file of many. ``quality`` does not say which symbols a group
    has, so all groups of the exchange that are published must be final.
    """
    feeds = f"SELECT date, exchange, {symbol}, MIN({_FINAL}) AS is_final FROM {{quality}}"
    grouped = f"SELECT date, exchange, MIN({_FINAL}) AS is_final FROM {{quality}}"
    own = f"data_type = '{data_type}' AND dataset_symbol NOT IN ({_GROUPS})"
    whole = f"data_type = '{data_type}' AND dataset_symbol IN ({_GROUPS}) AND published"
    return View(
        name=f"{table.name}_final",
        description=f"Rows of {table.name} of published feeds that are sealed.",
        columns=table.columns,
        tables=(table, QUALITY),
        template=f"""SELECT {_of("rows_of", table.columns)}
FROM {{{table.name}}} AS rows_of
LEFT JOIN ({feeds} WHERE {own} GROUP BY date, exchange, {symbol} HAVING MAX(published)) AS own
  ON rows_of.date = own.date AND rows_of.exchange = own.exchange AND rows_of.{symbol} = own.{symbol}
LEFT JOIN ({grouped} WHERE {whole} GROUP BY date, exchange) AS whole
  ON rows_of.date = whole.date AND rows_of.exchange = whole.exchange
WHERE COALESCE(own.is_final, whole.is_final)""",
    )


_FEED: Final = "exchange || '/' || data_type || '/' || dataset_symbol"
_NAMED: Final = f"{_FEED} || ' (' || verdict || ')'"
_LEFT_OUT: Final = "NOT published AND verdict <> 'publish' AND NOT COALESCE(approved, FALSE)"

_DAY_COLUMNS: Final = (
    Column("date", "DATE", "The UTC day.", required=True),
    Column("state", "STRING", "published, degraded or held.", required=True),
    Column("sealed", "BOOL", "Whether the files of both neighboring days are final.", required=True),
    Column("completeness", "FLOAT64", "The day's score; null when a feed has no evidence."),
    Column("quality", "FLOAT64", "The day's score over accepted feeds."),
    Column("consistency", "FLOAT64", "The day's score over accepted feeds of trades."),
    Column("instruments", "FLOAT64", "Share of the expected symbols with exactly one instrument."),
    Column("warehouse", "FLOAT64", "1 if every table of the day is published and read back, else 0."),
    Column("overall", "FLOAT64", "Product of the day's four scores, each to the power of its weight."),
    Column("overall_weighted_sum", "FLOAT64", "Weighted sum of the day's four scores."),
    Column("feeds", "INT64", "Feeds that the day must have.", required=True),
    Column("accepted", "INT64", "Feeds that are published, or would be if the day were not held.",
           required=True),
    Column("left_out", "STRING", "The others by name, with their verdict; null if there is none."),
    Column("pending", "INT64", "Feeds with a waiting version that is not accepted.", required=True),
)  # fmt: skip

#: Scores of a day are repeated in each of its rows.
_SCORES: Final = {
    "completeness": "day_completeness",
    "quality": "day_quality",
    "consistency": "day_consistency",
    "instruments": "day_instruments",
    "warehouse": "day_warehouse",
    "overall": "day_overall",
    "overall_weighted_sum": "day_overall_weighted_sum",
}

DAYS: Final = View(
    name="days",
    description="One row per day: its state, its scores, and which feeds are left out.",
    columns=_DAY_COLUMNS,
    tables=(QUALITY,),
    template=f"""SELECT date, MAX(day_state) AS state, MIN(sealed) AS sealed,
  {", ".join(f"MAX({column}) AS {name}" for name, column in _SCORES.items())},
  COUNT(*) AS feeds,
  COUNT(CASE WHEN {_LEFT_OUT} THEN NULL ELSE 1 END) AS accepted,
  STRING_AGG(CASE WHEN {_LEFT_OUT} THEN {_NAMED} END, ', ' ORDER BY {_FEED}) AS left_out,
  COUNT(CASE WHEN pending THEN 1 END) AS pending
FROM {{quality}}
GROUP BY date""",
)

_STATE_COLUMNS: Final = (
    Column("day_state", "STRING", "published, degraded or held; null until the day's quality is published."),
    Column("sealed", "BOOL", "Whether the files of both neighboring days are final."),
    Column("state", "STRING", "traded, or traded_partial if it has lost ids; see coverage."),
    Column("provisional", "BOOL", "Whether files of the neighboring days may still add trades to it."),
    Column("flagged", "BOOL", "Whether an unconfirmed price is the high or low of a minute in it."),
)

CANDLES_WITH_STATE: Final = View(
    name="candles_with_state",
    description="Candles with the state of their day and of their bucket.",
    columns=(*CANDLES.columns, *_STATE_COLUMNS),
    tables=(CANDLES, COVERAGE, QUALITY),
    template=f"""SELECT {_of("candles", CANDLES.columns)},
  days.day_state, days.sealed, coverage.state, coverage.provisional, coverage.flagged
FROM {{candles}} AS candles
LEFT JOIN (
  SELECT date, MAX(day_state) AS day_state, MIN(sealed) AS sealed FROM {{quality}} GROUP BY date
) AS days
  ON candles.date = days.date
LEFT JOIN {{coverage}} AS coverage
  ON candles.date = coverage.date AND candles.exchange = coverage.exchange
  AND candles.symbol = coverage.symbol AND candles.timeframe = coverage.timeframe
  AND candles.open_time BETWEEN coverage.first_open_time AND coverage.last_open_time""",
)

_CLOSE: Final = "coverage.previous_close"
_FLAT: Final = {
    **dict.fromkeys(("open", "high", "low", "close", "vwap"), _CLOSE),
    **dict.fromkeys(("volume", "quote_volume", "buy_volume", "sell_volume"), "0.0"),
    **dict.fromkeys(("open_time", "first_trade_time", "last_trade_time"), "{later}"),
    "trade_count": "0",
    # No amount, of any unit.
    **dict.fromkeys(("volume_unit", "quote_unit"), "CAST(NULL AS STRING)"),
}

CANDLES_FILLED: Final = View(
    name="candles_filled",
    description=(
        "Candles, and in every bucket proven to be empty a flat one without volume at the last price. "
        "An untraded bucket without that proof has no row."
    ),
    columns=CANDLES.columns,
    tables=(CANDLES, COVERAGE),
    template=f"""SELECT {_of("candles", CANDLES.columns)}
FROM {{candles}} AS candles
UNION ALL
SELECT {", ".join(f"{_FLAT.get(c.name, f'coverage.{c.name}')} AS {c.name}" for c in CANDLES.columns)}
FROM {{buckets}}
WHERE coverage.state = 'proven_empty' AND coverage.previous_close IS NOT NULL""",
)

VIEWS: Final = (
    DAYS,
    _final(CANDLES, "trades", "symbol"),
    CANDLES_WITH_STATE,
    CANDLES_FILLED,
    *(_final(table, data_type, "dataset_symbol") for data_type, table in TICKS.items()),
)
