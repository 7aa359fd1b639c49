"""The recent days that are due: reads the lake only, without Dagster.

A day is due if it is not published everywhere, or if the published versions differ from those that count, and
a run could change that. A held day is not requested again until something about it is new.
"""

from __future__ import annotations

import logging
from datetime import date, timedelta
from typing import Final

from pydantic import BaseModel

from backfill_assets.failures import Unreadable
from backfill_assets.lake import documents, paths
from backfill_assets.lake.manifests import DayRecord, load_day_record
from backfill_assets.lake.store import Store
from backfill_assets.logs import bound
from backfill_assets.quality.measures import DayMeasures
from backfill_assets.quality.settled import Day, load_day
from backfill_assets.report.month import DaySummary, has_page, load_summary
from backfill_assets.settings import Settings
from backfill_assets.warehouse import ledger
from backfill_assets.warehouse.catalog import CANDLES, COVERAGE, QUALITY
from backfill_assets.warehouse.overall import tick_tables
from backfill_assets.warehouse.presence import data_files, is_out, lost_files, unpublished_tables
from backfill_assets.warehouse.publisher import is_withdrawn, made_fingerprint, ticks_fingerprint

LOGGER: Final = logging.getLogger(__name__)


def look_back(today: date, settings: Settings) -> list[str]:
    """Return the days before today that the schedule covers, oldest first."""
    days = settings.schedule.look_back_days
    return [(today - timedelta(days=back)).isoformat() for back in range(days, 0, -1)]


def due_days(store: Store, today: date, settings: Settings) -> list[str]:
    """Return the days of the look-back to run."""
    return [day for day in look_back(today, settings) if is_due(store, settings, day)]


def awaiting_export(store: Store, today: date, settings: Settings) -> list[str]:
    """Return the days of the look-back that wait for an exchange whose data may still come by itself."""
    found = []
    for day in look_back(today, settings):
        try:
            record = load_day_record(store, day)
        except Unreadable as failure:
            # The run requested by the other schedule writes the record again.
            with bound(day=day):
                LOGGER.warning("%s", failure)
        else:
            found += [day] if record is not None and _may_come(record) else []
    return found


def _may_come(record: DayRecord) -> bool:
    if not record.awaited:
        return bool(record.awaiting_export)
    return any(awaited.is_passing for awaited in record.awaited)


def is_due(store: Store, settings: Settings, day: str) -> bool:
    """Whether a run of the day could publish new data or restore lost or damaged data."""
    found = load_day(store, day)
    if found is None or found.settled.awaiting_export:
        return True
    if any(feed.judged is None and not feed.is_absent for feed in found.feeds):
        return True
    if found.scores.state == "held":
        return not is_out(store, settings, QUALITY.name, day) or _is_to_be_taken_back(store, found)
    if _is_damaged(store, day):
        return True
    data_types = {feed.feed.data_type for feed in found.feeds}
    return bool(
        unpublished_tables(store, settings, day, data_types)
        or outdated_tables(store, found)
        or lost_files(store, day, data_files(store, found))
    )


def _is_damaged(store: Store, day: str) -> bool:
    """Whether the day's page or another document beside the settled day is damaged; a run makes it again."""
    made: tuple[tuple[str, type[BaseModel]], ...] = (
        (paths.day_record(day), DayRecord),
        (paths.measures(day), DayMeasures),
        (paths.day_summary(day), DaySummary),
    )
    if any(documents.damage(store, path, model) for path, model in made):
        return True
    summary = load_summary(store, day)
    return summary is not None and not has_page(store, summary)


def _is_to_be_taken_back(store: Store, found: Day) -> bool:
    """Whether tables hold retracted rows; other rows of a held day stay as they are."""
    return is_withdrawn(store, found) and bool(outdated_tables(store, found))


def outdated_tables(store: Store, found: Day) -> list[str]:
    """Return the day's published tables with versions, or candles of versions, that no longer count."""
    wanted = {table.name: ticks_fingerprint(table, found) for table in tick_tables(store, found)}
    wanted |= {table.name: made_fingerprint(table, found) for table in (CANDLES, COVERAGE)}
    entries = {table: ledger.entry(store, table, found.day) for table in wanted}
    return [
        table for table, entry in entries.items() if entry is not None and entry.fingerprint != wanted[table]
    ]
