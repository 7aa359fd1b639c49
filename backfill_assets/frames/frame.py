"""Rows of a range with the states of its days, in the forms that common libraries read."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backfill_assets.frames.arguments import insist_on_type
from backfill_assets.frames.output import arrow_table, format_of, new_file, write_rows
from backfill_assets.frames.states import DayState, gaps_text

if TYPE_CHECKING:
    import duckdb
    import pandas as pd
    import polars as pl
    import pyarrow as pa


class Frame:
    """Rows that are read on demand; columns and types are those of ``docs/data.md``.

    Attributes
    ----------
    days
        The state of each UTC day of the range, in order.
    """

    def __init__(
        self,
        rows: Callable[[Sequence[str]], pl.LazyFrame],
        given: Sequence[str],
        days: Sequence[DayState],
        about: str,
    ) -> None:
        """Take ``rows``, which returns the rows of any of the ``given`` days."""
        self._rows = rows
        self._given = given
        self._about = about
        self.days = tuple(days)

    @property
    def gaps(self) -> str:
        """One line about the days that are not published in full; empty if there are none."""
        return gaps_text(self.days, self._about)

    @property
    def is_generated(self) -> bool:
        """Whether prices of the range come from the stand-in for Tardis and are not market prices."""
        return any(day.is_generated for day in self.days)

    @cached_property
    def _query(self) -> pl.LazyFrame:
        return self._rows(self._given)

    def lazy(self) -> pl.LazyFrame:
        """The rows as a lazy polars query that reads only the columns and rows it needs."""
        return self._query

    def to_polars(self) -> pl.DataFrame:
        """The rows as a polars frame; times are ``Datetime('us', 'UTC')``."""
        return self._query.collect(engine="streaming")

    def to_arrow(self) -> pa.Table:
        """The rows as an Arrow table; times are ``timestamp[us, tz=UTC]``."""
        return arrow_table(self.to_polars())

    def to_pandas(self) -> pd.DataFrame:
        """The rows as a pandas frame with a plain index; times are ``datetime64[us, UTC]``."""
        found: pd.DataFrame = self.to_arrow().to_pandas(date_as_object=False)
        return found

    def to_duckdb(self, connection: duckdb.DuckDBPyConnection | None = None) -> duckdb.DuckDBPyRelation:
        """The rows as a DuckDB relation, in ``connection`` or DuckDB's default connection.

        Raises
        ------
        BadInput
            The connection is none of DuckDB.
        """
        import duckdb

        kinds, remedy = (duckdb.DuckDBPyConnection, type(None)), "give what duckdb.connect() returns"
        insist_on_type("connection", connection, kinds, remedy)
        return (connection or duckdb.default_connection()).from_arrow(self.to_arrow())

    def by_day(self) -> Iterator[pl.DataFrame]:
        """The rows of each day with rows to return, in order, read one day after the other."""
        for days in [[day] for day in self._given] or [[]]:
            yield self._rows(days).collect(engine="streaming")

    def write(self, file: str | Path) -> int:
        """Write the rows to a file that ends in ``.parquet``, ``.csv`` or ``.arrow``; return their number.

        A range of any length needs memory for one day. The file appears when it is complete, and replaces a
        file of the same name.

        Raises
        ------
        BadInput
            The file is no path, or its name ends differently.
        PermanentFailure
            The file cannot be written.
        """
        insist_on_type("file", file, (str, os.PathLike), "give a path, such as 'candles.parquet'")
        form = format_of(Path(file))
        with new_file(Path(file)) as sink:
            return write_rows(self.by_day(), form, sink)

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        """Let any library that accepts Arrow read the rows: ``pl.DataFrame(frame)``, ``pa.table(frame)``."""
        return self.to_arrow().__arrow_c_stream__(requested_schema)

    def __repr__(self) -> str:
        counts = ", ".join(f"{n} {state}" for state, n in Counter(day.state for day in self.days).items())
        origin = ", generated" if self.is_generated else ""
        return f"<{self._about}{origin}; days: {counts}>"
