"""Writes the pages to ``reports/`` in the lake; they show the present lake, with many writers in any order.

A page is replaced by compare-and-swap: the writer reads the stored page, then the lake, and writes only if no
other writer was faster, so the page of the latest reading stays.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Final

from backfill_assets.days import shift
from backfill_assets.failures import PermanentFailure, Superseded, Unreadable
from backfill_assets.lake import documents, paths
from backfill_assets.lake.parallel import parallel_map
from backfill_assets.lake.store import Store, Stored
from backfill_assets.quality.settled import load_day
from backfill_assets.report.model import day_report
from backfill_assets.report.month import (
    DaySummary,
    build_version,
    documents_hash,
    documents_of,
    load_summary,
    month_report,
    page_problem,
    summarize,
)
from backfill_assets.report.page import day_page, month_page
from backfill_assets.settings import Settings
from backfill_assets.warehouse.catalog import TABLES
from backfill_assets.warehouse.overall import day_overall

LOGGER: Final = logging.getLogger(__name__)
#: Increased when the page of a day shows other content or shows it in another way.
PAGE_VERSION: Final = 6
#: How often other writers may be faster; each of them has just read the lake, too.
ATTEMPTS: Final = 20


def write_reports(store: Store, settings: Settings, day: str) -> str:
    """Write the pages of a day, of its neighbors that have one, and of their months.

    A neighbor may have changed: this day seals it, or its candles have trades from this day's files.

    Returns
    -------
    str
        Path of the day's page in the lake.
    """
    path = write_day(store, settings, day, was_run=True)
    months = {day[:7]}
    for neighbour in sorted(_pages_beside(store, day)):
        # If the neighbor's document is lost, its page stays as it was.
        if load_day(store, neighbour) is None:
            continue
        try:
            write_day(store, settings, neighbour)
        except PermanentFailure as failure:
            LOGGER.warning("the page of %s is not written again beside %s: %s", neighbour, day, failure)
        else:
            months.add(neighbour[:7])
    for month in sorted(months):
        write_month(store, settings, month)
    return path


def write_day(store: Store, settings: Settings, day: str, *, was_run: bool = False) -> str:
    """Write the page of a day and its summary, unless nothing has changed.

    Parameters
    ----------
    was_run
        Whether the day's own run has published it; its summary then gets the version of the build.

    Raises
    ------
    PermanentFailure
        The lake has nothing of the day.
    """
    path, beside = paths.day_report(day), _pages_beside(store, day)
    for _ in range(ATTEMPTS):
        (inputs, made_of), former = _inputs(store, settings, day, beside), load_summary(store, day)
        built = build_version(settings) if was_run else former.build_version if former is not None else ""
        # A summary of an earlier version has neither the page's hash nor the objects of a bucket.
        is_new = former is None or not former.page_content or former.inputs != inputs
        if former is not None and not is_new and not page_problem(store, day):
            wanted = former.model_copy(update={"build_version": built, "documents": made_of})
            if former != wanted:
                _write_summary(store, wanted)
            break
        page = _replace(store, path, lambda: _page_of(store, settings, day, beside))
        found = load_day(store, day)
        if found is None:
            break
        overall = day_overall(store, found, settings.overall)
        summary = summarize(store, found, overall, built, inputs, made_of)
        written = {"page_bytes": len(page), "page_content": hashlib.sha256(page).hexdigest()}
        _write_summary(store, summary.model_copy(update=written))
        # The run of a neighbor day may have written the page meanwhile, and its summary before this one.
        if not page_problem(store, day):
            break
    return path


def _write_summary(store: Store, summary: DaySummary) -> None:
    documents.update(store, paths.day_summary(summary.day), DaySummary, lambda _: summary)


def _pages_beside(store: Store, day: str) -> frozenset[str]:
    return frozenset(d for d in (shift(day, -1), shift(day, 1)) if store.exists(paths.day_report(d)))


def _inputs(store: Store, settings: Settings, day: str, beside: frozenset[str]) -> tuple[str, str]:
    """Hashes of everything on which the page of the day depends, and of the day's documents alone."""
    own = documents_of(day)
    read = [*own, paths.comparison(day), *(paths.publication(table.name, day) for table in TABLES)]
    digests = parallel_map(lambda path: documents.digest(store, path), read, store.parallel_reads)
    shown = {"candles", "comparison", "overall", "thresholds"}
    parts = [
        str(PAGE_VERSION),
        ",".join(sorted(beside)),
        settings.model_dump_json(include=shown),
        *digests,
    ]
    inputs = hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]
    return inputs, documents_hash(digests[: len(own)])


def current_page(store: Store, settings: Settings, name: str) -> str | None:
    """Return the page of a day (``YYYY-MM-DD``) or month (``YYYY-MM``) for the present lake, if it has one.

    The stored page of a day is as old as the last run that wrote it; a run of only some assets does not write
    it. An outdated, damaged or lost page is made again for the answer.
    """
    if len(name) == len("YYYY-MM"):
        known = store.exists(paths.month_report(name))
        return month_page(month_report(store, settings, name)) if known else None
    stored = _stored(store, paths.day_report(name))
    beside, summary = _pages_beside(store, name), load_summary(store, name)
    if stored is None and summary is None:
        return None
    if stored is not None and (summary is None or not page_problem(store, name)):
        is_current = summary is not None and summary.inputs == _inputs(store, settings, name, beside)[0]
        if is_current or load_day(store, name) is None:
            return stored.data.decode(errors="replace")
    if load_day(store, name) is None:
        return None
    return _page_of(store, settings, name, beside)


def _page_of(store: Store, settings: Settings, day: str, beside: frozenset[str]) -> str:
    return day_page(day_report(store, settings, day), frozenset({*beside, day[:7]}))


def write_month(store: Store, settings: Settings, month: str, *, fresh: bool = False) -> str:
    """Write the page of a month; see ``month_report``."""
    path = paths.month_report(month)
    _replace(store, path, lambda: month_page(month_report(store, settings, month, fresh=fresh)))
    return path


def write_page(store: Store, settings: Settings, day: str, month: str, out: Path | None) -> str:
    """Write the page of ``day``, or of ``month`` if ``day`` is empty, to the lake or to the file ``out``.

    Returns
    -------
    str
        Place of the page: a file path or ``gs://…``.

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
        # A single file has no pages of days beside it to link to.
        page = month_page(replace(month_report(store, settings, month, fresh=True), pages=frozenset()))
    try:
        out.write_text(page, encoding="utf-8")
    except OSError as error:
        msg = f"{out}: cannot be written ({error.strerror}): give --out a file in an existing folder"
        raise PermanentFailure(msg) from error
    return str(out.resolve())


def _stored(store: Store, path: str) -> Stored | None:
    """The stored page; also None if a folder is in its place, which the store moves away."""
    try:
        return store.read(path)
    except Unreadable:
        return None


def _replace(store: Store, path: str, make: Callable[[], str]) -> bytes:
    """Replace the page, and return the page that is now stored."""
    for _ in range(ATTEMPTS):
        stored = _stored(store, path)
        data = make().encode()
        if stored is not None and stored.data == data:
            return data
        try:
            store.replace(path, data, None if stored is None else stored.generation)
        except Superseded:
            continue
        return data
    msg = (
        f"{store.uri_of(path)}: other writers were faster {ATTEMPTS} times; run again when fewer are at work"
    )
    raise Superseded(msg)
