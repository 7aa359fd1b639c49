"""Which of the last days are due: pure reading of the lake, no Dagster.

A day is due while it is not published everywhere and a run could change that. A held day is not asked for
again until something about it is new.
"""

from __future__ import annotations

from datetime import date, timedelta

from backfill_assets.lake.manifests import load_day_record
from backfill_assets.lake.store import Store
from backfill_assets.quality.day import JudgedDay, judge
from backfill_assets.settings import Settings
from backfill_assets.warehouse import ledger
from backfill_assets.warehouse.catalog import CANDLES, INSTRUMENTS, QUALITY, TICKS


def look_back(today: date, settings: Settings) -> list[str]:
    """The days before today that the schedule answers for, oldest first."""
    days = settings.schedule.look_back_days
    return [(today - timedelta(days=back)).isoformat() for back in range(days, 0, -1)]


def due_days(store: Store, today: date, settings: Settings) -> list[str]:
    """The days of the look-back that are to be run."""
    return [day for day in look_back(today, settings) if is_due(store, day, settings)]


def awaiting_export(store: Store, today: date, settings: Settings) -> list[str]:
    """The days of the look-back that the vendor had not exported when they were last run."""
    records = ((day, load_day_record(store, day)) for day in look_back(today, settings))
    return [day for day, record in records if record is not None and record.awaiting_export]


def is_due(store: Store, day: str, settings: Settings) -> bool:
    """Whether a run of the day could bring something new out."""
    judged = judge(store, day, settings.thresholds)
    if judged.record is None or judged.record.awaiting_export:
        return True
    if any(feed.manifest.current is None and feed.manifest.absent is None for feed in judged.feeds):
        return True
    if judged.scores.state == "held":
        return not _out(store, QUALITY.name, day)
    return not all(_out(store, table, day) for table in _tables(judged))


def _tables(judged: JudgedDay) -> list[str]:
    types = {feed.feed.data_type for feed in judged.feeds}
    return [INSTRUMENTS.name, *(TICKS[t].name for t in sorted(types)), CANDLES.name, QUALITY.name]


def _out(store: Store, table: str, day: str) -> bool:
    entry = ledger.entry(store, table, day)
    return entry is not None and entry.state == "done"
