"""Which candles the OHLCV table gets, and when: what ``bigquery/candles`` publishes, behind the same gate.

A day that is written brings along its neighbours that are in the table already and whose edge candles it has
changed.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import pyarrow.parquet as pq

from backfill_assets.days import shift
from backfill_assets.failures import DayHeld
from backfill_assets.warehouse.catalog import CANDLES
from backfill_assets.warehouse.ohlcv.table import TOTALS
from backfill_assets.warehouse.ohlcv.target import Target
from backfill_assets.warehouse.ohlcv.writing import DayCandles, Written, insert_ohlcv_backfill, stored_day
from backfill_assets.warehouse.publisher import NotMade, Publisher
from backfill_assets.warehouse.totals import compare_totals, file_totals


@dataclass(frozen=True, slots=True)
class OhlcvDay:
    """Writes and compares days of one target; ``publisher`` reads the lake and asks the verdict."""

    publisher: Publisher
    target: Target

    @property
    def timeframes(self) -> tuple[str, ...]:
        """Those of the settings, in their order."""
        settings = self.publisher.settings
        return settings.ohlcv.timeframes or settings.candles.timeframes

    def write(self, day: str) -> list[Written]:
        """Write the day, then its neighbours that are in the table.

        Raises
        ------
        DayHeld
            The day's verdict forbids it; nothing was written.
        """
        # Asked before the database is: a held day needs none.
        self._read(day)
        written = [self._write_one(day)]
        for neighbour in (shift(day, -1), shift(day, 1)):
            stored = stored_day(self.target, neighbour)
            try:
                if stored is not None and stored.fingerprint != self._read(neighbour).fingerprint:
                    written.append(self._write_one(neighbour))
            except (DayHeld, NotMade):
                # What the neighbour published stays as it is until its own run decides.
                continue
        return written

    def differences(self, day: str) -> list[str]:
        """How the table differs from what was last written, one line each; empty if it does not.

        That is the lake as it is now, unless a neighbour's run has changed it since: then the neighbour
        writes this day again, and until it has, the totals of the last writing are what must be there.
        """
        wanted = self._read(day)
        stored = stored_day(self.target, day)
        if stored is None:
            return [f"{day} was never written to {self.target.table}"]
        expected = wanted.totals if stored.fingerprint == wanted.fingerprint else stored.written
        return compare_totals(expected, stored.found, table=TOTALS)

    def _write_one(self, day: str) -> Written:
        batch_rows = self.publisher.settings.ohlcv.batch_rows
        return insert_ohlcv_backfill(self.target, day, partial(self._read, day), batch_rows=batch_rows)

    def _read(self, day: str) -> DayCandles:
        partition = self.publisher.partition(CANDLES, day)
        with partition.load() as load:
            [path] = [file.path for file in load.files if file.path is not None]
            return DayCandles(
                fingerprint=f"{partition.fingerprint}:{','.join(self.timeframes)}",
                rows=pq.read_table(
                    path, filters=[("timeframe", "in", list(self.timeframes))], partitioning=None
                ),
                totals=tuple(t for t in file_totals(TOTALS, [path]) if t.group[2] in self.timeframes),
            )
