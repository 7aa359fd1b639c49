"""Data that no document names any more: replaced versions, orphans, rejected files, temporary folders.

A file is spared if its hash stands anywhere in a document that could name it. These are the manifest beside
it and, for its day and the two beside it, the settled day, the measures, the summary and the ledger with its
open loads. The bytes are searched, so a document of another version of this package spares the files that it
names in its own way. A document that cannot be read, or is lost while the settled day refers to it, spares
all files that it may have named. Beside running days this is safe because of age: a run renews the age of
each file that it is about to name, and no store discards a young file (``Store.discard``).
"""

from __future__ import annotations

import functools
import os
import re
import shutil
import stat
import tempfile
import time
import uuid
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, Literal

from pydantic import BaseModel

from backfill_assets.days import shift, utc_now
from backfill_assets.failures import BadInput, Unreadable
from backfill_assets.files import TEMPORARY_PREFIX
from backfill_assets.lake import documents, paths
from backfill_assets.lake.documents import Document
from backfill_assets.lake.listing import InstrumentsManifest
from backfill_assets.lake.manifests import DayRecord, FeedManifest
from backfill_assets.lake.store import YOUNG, Store
from backfill_assets.quality.measures import DayMeasures
from backfill_assets.quality.settled import SettledDay, load_settled
from backfill_assets.references.fetched import FetchedDay
from backfill_assets.settings import LakeSettings, resolve
from backfill_assets.warehouse import ledger
from backfill_assets.warehouse.catalog import OHLCV, TABLES

Kind = Literal["replaced", "orphan", "rejected", "temporary"]
KINDS: Final[tuple[Kind, ...]] = ("replaced", "orphan", "rejected", "temporary")

_FOLDERS: Final = (
    *("ticks/", "partials/", "receipts/", "instruments/", "candles/", "coverage/", "references/"),
)
_REJECTED: Final = "rejected/"
#: Folder, day and hash of a data file.
_FILE: Final = re.compile(r"(.+?)/(?:date=)?(\d{4}-\d\d-\d\d)/([0-9a-f]{64})\.(?:parquet|csv\.gz|csv|json)")
#: The form in which ``files.temporary_folder`` names the folders of this package's runs.
_TEMPORARY: Final = re.compile(rf"{TEMPORARY_PREFIX}[a-z0-9_]{{8}}")
_AGE: Final = re.compile(r"([1-9]\d{0,4})d")
#: Days whose documents are kept in memory: files come in the order of their days within a feed.
_DAYS_KEPT: Final = 64
#: Largest age of the documents by which a file is freed, since they were read.
_FRESH_SECONDS: Final = 5.0
#: Ages are in days, so smaller differences between clocks change nothing.
_CLOCKS_DIFFER: Final = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Garbage:
    """A file of the lake, or a folder of this machine, that may be freed."""

    kind: Kind
    path: str
    bytes: int


def age_in_days(text: str) -> int:
    """Return the number of ``30d``.

    Raises
    ------
    BadInput
        The text has another form, or names fewer days than a run may still need to name its files.
    """
    found = _AGE.fullmatch(text)
    if found is None or int(found[1]) < YOUNG.days:
        msg = f"older than: '{text}' is not an age: write days, at least {YOUNG.days}d, for example 30d"
        raise BadInput(msg)
    return int(found[1])


def unnamed_files(store: Store) -> dict[str, list[str]]:
    """Return by day the data files that no document names, of any age."""
    documents, unnamed = _Documents(store), defaultdict[str, list[str]](list)
    for folder in _FOLDERS:
        for path in store.list(folder):
            if (found := _FILE.fullmatch(path)) and documents.kind_of(path) is not None:
                unnamed[found[2]].append(path)
    return unnamed


def garbage(store: Store, lake: LakeSettings, before: datetime) -> Iterator[Garbage]:
    """Yield the older data that may be freed; nothing is written."""
    documents = _Documents(store)
    for folder in (*_FOLDERS, _REJECTED):
        for path, found in store.objects(folder).items():
            kind = documents.kind_of(path) if found.changed < before else None
            if kind is not None:
                yield Garbage(kind, path, found.bytes)
    scratch = resolve(lake.scratch)
    yield from _temporary(Path(scratch).expanduser() if scratch else Path(tempfile.gettempdir()), before)


def free(store: Store, found: Iterable[Garbage], before: datetime) -> Iterator[Garbage]:
    """Remove the found data that is still unnamed and old; yield the removed data.

    Raises
    ------
    BadInput
        The clock of this machine differs from the lake's, so no age is known.
    """
    _insist_on_clock(store)
    known, read_at = _Documents(store), time.monotonic()
    for one in found:
        if one.kind == "temporary":
            if _is_older(Path(one.path), before):
                shutil.rmtree(one.path, ignore_errors=True)
                if not Path(one.path).exists():
                    yield one
            continue
        # Hours may lie between the listing and this file.
        if time.monotonic() - read_at > _FRESH_SECONDS:
            known, read_at = _Documents(store), time.monotonic()
        if known.kind_of(one.path) is not None and store.discard(one.path, before):
            yield one


def _insist_on_clock(store: Store) -> None:
    """Compare the time that the lake gives a new object with ours: with a clock ahead all data looks old."""
    probe = f"gc/{uuid.uuid4().hex}.json"
    store.replace(probe, b"{}\n", None)
    try:
        theirs = store.objects(probe)[probe].changed
    finally:
        store.delete(probe)
    ours = utc_now()
    if abs(ours - theirs) > _CLOCKS_DIFFER:
        msg = (
            f"{store.uri}: its clock says {theirs:%Y-%m-%d %H:%M} and this machine's {ours:%Y-%m-%d %H:%M} "
            "(UTC), so ages are not known and nothing is freed: set the clock of this machine and run again"
        )
        raise BadInput(msg)


class _Documents:
    """The documents that may name a file, each read once."""

    def __init__(self, store: Store) -> None:
        self._store = store
        kept = functools.lru_cache(_DAYS_KEPT)
        self._of_day, self._of_folder = kept(self._read_day), kept(self._read_folder)
        self._is_clear_day, self._is_clear_folder = kept(self._clear_day), kept(self._clear_folder)

    def kind_of(self, path: str) -> Kind | None:
        """Return the file's kind of garbage; None if it is named, is not a data file, or cannot be judged."""
        found = _FILE.fullmatch(path)
        if found is None:
            return None
        folder, day, content = found[1], found[2], found[3].encode()
        try:
            days = [shift(day, n) for n in (-1, 0, 1)]
            named = [self._of_folder(folder, day), *map(self._of_day, days)]
            if any(content in document for document in named):
                return None
            if not (self._is_clear_folder(folder, day) and all(map(self._is_clear_day, days))):
                return None
        except (Unreadable, ValueError):
            # The entry in the place of a document is not one, or the folder is not named like a day.
            return None
        if folder.startswith(_REJECTED):
            return "rejected"
        owner = named[2] if folder in _MADE else named[0]
        return "replaced" if owner else "orphan"

    def _read_folder(self, folder: str, day: str) -> bytes:
        manifest = _manifest(folder, day)
        return self._read([manifest[0]]) if manifest else b""

    def _read_day(self, day: str) -> bytes:
        return self._read([*_documents_of(day)])

    def _read(self, of_these: Sequence[str]) -> bytes:
        found = (self._store.read(path) for path in of_these)
        return b"\n".join(stored.data for stored in found if stored is not None)

    def _clear_folder(self, folder: str, day: str) -> bool:
        """Whether the manifest of the folder is readable, or never existed."""
        manifest = _manifest(folder, day)
        settled = load_settled(self._store, day)
        if manifest is None:
            # Candles and coverage have a document if the day was settled.
            return settled is None or self._store.exists(paths.measures(day))
        path, model = manifest
        if self._store.exists(path):
            return not documents.damage(self._store, path, model)
        if settled is None:
            return True
        held = [feed.feed for feed in settled.feeds if feed.judged is not None]
        lost = [paths.ticks_manifest(feed, day) for feed in held]
        lost += [paths.instruments_manifest(exchange, day) for exchange in settled.exchanges]
        return path not in lost

    def _clear_day(self, day: str) -> bool:
        return not any(documents.damage(self._store, *one) for one in _documents_of(day).items())


#: Folders of files that documents of the day name; a feed's or exchange's files have a manifest.
_MADE: Final = ("candles", "coverage")


def _manifest(folder: str, day: str) -> tuple[str, type[BaseModel]] | None:
    """The manifest of a feed, whose files are partly elsewhere, or of an exchange."""
    top, _, rest = folder.partition("/")
    if not rest:
        return None
    if top == "instruments":
        return f"{folder}/{day}/{paths.MANIFEST}", InstrumentsManifest
    if top == "references":
        return paths.reference_manifest(rest, day), FetchedDay
    return f"ticks/{rest}/{day}/{paths.MANIFEST}", FeedManifest


def _documents_of(day: str) -> dict[str, type[BaseModel]]:
    """The documents of a day that may name a file; a summary, whose model lies downstream, is any object."""
    return {
        paths.day_record(day): DayRecord,
        paths.settled_day(day): SettledDay,
        paths.measures(day): DayMeasures,
        paths.day_summary(day): Document,
        **{paths.publication(table.name, day): ledger.Entry for table in (*TABLES, OHLCV)},
    }


def _temporary(parent: Path, before: datetime) -> Iterator[Garbage]:
    """Folders that runs of this user have left behind; a run removes its own unless it is killed."""
    for folder in sorted(parent.glob(f"{TEMPORARY_PREFIX}*")):
        if _TEMPORARY.fullmatch(folder.name) and _is_older(folder, before):
            yield Garbage("temporary", str(folder), sum(entry.lstat().st_size for entry in folder.rglob("*")))


def _is_older(folder: Path, before: datetime) -> bool:
    """Whether the folder is this user's and all its content is older."""
    try:
        about = [entry.lstat() for entry in (folder, *folder.rglob("*"))]
    except OSError:
        return False  # in use, or another user's
    newest = max(datetime.fromtimestamp(one.st_mtime, UTC) for one in about)
    return stat.S_ISDIR(about[0].st_mode) and about[0].st_uid == os.getuid() and newest < before
