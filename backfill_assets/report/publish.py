"""Where pages lie: ``reports/`` in the lake, as the lake is now, whoever writes them, in any order.

A page is replaced by compare-and-swap: the writer reads what is there, then the lake, and writes only if
nobody was faster, so the page of the latest reading stays.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Final

from backfill_assets.days import shift
from backfill_assets.failures import PermanentFailure, Superseded
from backfill_assets.lake import documents, paths
from backfill_assets.lake.snapshot import snapshot
from backfill_assets.lake.store import Store
from backfill_assets.report.model import day_report, judged_day
from backfill_assets.report.month import DaySummary, making_of, month_report, summarize
from backfill_assets.report.page import day_page, month_page
from backfill_assets.settings import Settings
from backfill_assets.warehouse.overall import day_overall

#: Whoever was faster has just read the lake, too; more than a few in a row are not to be met.
ATTEMPTS: Final = 20


def write_reports(store: Store, settings: Settings, day: str) -> str:
    """Write the pages of a day, of its neighbours that have one, and of their months.

    A neighbour may have changed: it is sealed by this day, or its candles have trades from this file.

    Returns
    -------
    str
        Path of the day's page in the lake.
    """
    path = write_day(store, settings, day, was_run=True)
    months = {day[:7]}
    for neighbour in (shift(day, -1), shift(day, 1)):
        if store.exists(paths.day_report(neighbour)):
            write_day(store, settings, neighbour)
            months.add(neighbour[:7])
    for month in sorted(months):
        write_month(store, settings, month)
    return path


def write_day(store: Store, settings: Settings, day: str, *, was_run: bool = False) -> str:
    """Write the page of a day and its summary; nothing is written where nothing has changed.

    Parameters
    ----------
    was_run
        The day's own run has published it: its summary says by which settings.
    """
    path = paths.day_report(day)
    neighbours = (shift(day, -1), shift(day, 1))

    def page() -> str:
        with snapshot(store) as lake:
            report = day_report(lake, settings, day)
        beside = {d for d in neighbours if store.exists(paths.day_report(d))}
        return day_page(report, frozenset({*beside, day[:7]}))

    _replace(store, path, page)
    with snapshot(store) as lake:
        judged = judged_day(lake, settings, day)
        summary = summarize(judged, day_overall(lake, judged, settings.overall), making_of(settings))

    def change(earlier: DaySummary | None) -> DaySummary:
        kept = earlier.making if earlier is not None else ""
        return summary if was_run else summary.model_copy(update={"making": kept})

    documents.update(store, paths.day_summary(day), DaySummary, change)
    return path


def write_month(store: Store, settings: Settings, month: str, *, fresh: bool = False) -> str:
    """Write the page of a month; see ``month_report``."""
    path = paths.month_report(month)
    _replace(store, path, lambda: month_page(month_report(store, settings, month, fresh=fresh)))
    return path


def write_page(store: Store, settings: Settings, day: str, month: str, out: Path | None) -> str:
    """Write the page of ``day``, or where that is empty of ``month``, to the lake or to a file of its own.

    Returns
    -------
    str
        Where the page is: a file path or ``gs://…``.

    Raises
    ------
    PermanentFailure
        The lake has nothing of the day, or the file cannot be written.
    """
    if out is None:
        if day:
            return store.uri_of(write_day(store, settings, day))
        return store.uri_of(write_month(store, settings, month, fresh=True))
    if day:
        page = day_page(day_report(store, settings, day))
    else:
        # Alone, it has no pages of days beside it to lead to.
        page = month_page(replace(month_report(store, settings, month, fresh=True), pages=frozenset()))
    try:
        out.write_text(page, encoding="utf-8")
    except OSError as error:
        msg = f"{out}: cannot be written ({error.strerror}): give --out a file in a folder that is there"
        raise PermanentFailure(msg) from error
    return str(out.resolve())


def _replace(store: Store, path: str, make: Callable[[], str]) -> None:
    for _ in range(ATTEMPTS):
        stored = store.read(path)
        data = make().encode()
        if stored is not None and stored.data == data:
            return
        try:
            store.replace(path, data, None if stored is None else stored.generation)
        except Superseded:
            continue
        return
    msg = f"{store.uri_of(path)}: others were faster {ATTEMPTS} times; run again when fewer are at work"
    raise Superseded(msg)
