"""The exchange's public archive of days: Binance's files of all trades, each with its checksum.

A file is downloaded once, verified by its checksum, and read as a stream within bounds. Only the rows around
the holes are stored, with the sha256 of the whole file. A file covers a day of trading time, so a hole at
midnight may need two files.
"""

from __future__ import annotations

import hashlib
import re
import time
import urllib.error
import urllib.request
import zipfile
import zlib
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, Protocol

from backfill_assets.days import MICROSECONDS_PER_MILLISECOND, day_of, day_range
from backfill_assets.failures import BackfillError, TransientFailure, redacted
from backfill_assets.feeds import Feed
from backfill_assets.files import temporary_folder
from backfill_assets.heal.conclusions import Hole, Issued, Unproven
from backfill_assets.heal.sources import Answered, Body, Budget, SourceName

ADDRESS: Final = "https://data.binance.vision"
#: The largest files of a day have 1 GB; a checksum is one line.
MOST_BYTES: Final = 4 * 2**30
_MOST_CHECKSUM_BYTES: Final = 4_096
#: Rows of digits compress to a fifth or a tenth of their size; a zip bomb compresses to a thousandth.
MOST_INFLATION: Final = 100
#: A file of 1 GB over 10 Mbit/s takes a quarter of this time.
_DOWNLOAD_SECONDS: Final = 3_600.0
_BLOCK: Final = 1 << 20
#: Longest row.
_LONGEST_ROW: Final = 1_000
#: Since 2025 the files have microseconds; milliseconds of the same days have three digits fewer.
_LEAST_MICROSECONDS: Final = 10**14
_CHECKSUM: Final = re.compile(r"([0-9a-f]{64}) [ *](\S+)\s*")

#: Folder of the files by exchange: https://github.com/binance/binance-public-data. Files of futures lack the
#: last column, which this module does not read.
_FOLDERS: Final = {"binance": "spot", "binance-futures": "futures/um"}
EXCHANGES: Final = tuple(_FOLDERS)


class _Files(Protocol):
    """Source of the rows of a day's file."""

    def rows(self, day: str, windows: Sequence[tuple[int, int]]) -> tuple[Body, list[Body]]:
        """Return the checksum's body, and the file's rows in each window of ids."""
        ...


class Archive:
    """Asks Binance's archive for one market."""

    def __init__(
        self,
        feed: Feed,
        *,
        endpoint: str = "",
        timeout_seconds: float = 30.0,
        budget: Budget | None = None,
        scratch: Path | None = None,
        bodies: Sequence[Body] | None = None,
    ) -> None:
        self._symbol = feed.dataset_symbol
        self._exchange = feed.exchange
        folder = f"{(endpoint or ADDRESS).rstrip('/')}/data/{_FOLDERS[feed.exchange]}/daily/trades"
        self._files: _Files = (
            _Downloaded(self._symbol, folder, endpoint, timeout_seconds, budget or Budget(1), scratch)
            if bodies is None
            else _Stored(bodies, self._symbol)
        )

    @property
    def name(self) -> SourceName:
        """See ``Source.name``."""
        return "archive"

    @property
    def asked(self) -> str:
        """See ``Source.asked``."""
        return f"the archive of {self._exchange} for {self._symbol}"

    def ask(self, holes: Sequence[Hole]) -> Iterator[tuple[Hole, Answered | BackfillError]]:
        """See ``Source.ask``; reads every file once for all holes."""
        days = {hole: day_range(*map(day_of, hole.times_us)) for hole in holes}
        found: dict[tuple[str, Hole], tuple[Body, Body]] = {}
        failures: dict[str, BackfillError] = {}
        for day in sorted({day for of_hole in days.values() for day in of_hole}):
            here = sorted((h for h in holes if day in days[h]), key=lambda h: h.before.id)
            windows = [(hole.before.id, hole.after.id) for hole in here]
            try:
                checksum, parts = self._files.rows(day, windows)
            except BackfillError as found_none:
                failures[day] = found_none
            else:
                found |= {(day, hole): (checksum, part) for hole, part in zip(here, parts, strict=True)}
        for hole in holes:
            failure = next((failures[day] for day in days[hole] if day in failures), None)
            if failure is not None:
                yield hole, failure
                continue
            bodies = [body for day in days[hole] for body in found[day, hole]]
            try:
                yield hole, Answered(tuple(bodies), tuple(_issued(bodies[1::2])))
            except Unproven as unproven:
                yield hole, unproven


def _name(symbol: str, day: str) -> str:
    return f"{symbol}-trades-{day}.zip"


def _insist_on_checksum(checksum: bytes, name: str, sha256: str) -> None:
    found = _CHECKSUM.fullmatch(checksum.decode(errors="replace"))
    if found is None or found[2] != name:
        msg = f"the archive's checksum file of {name} does not contain its checksum"
        raise Unproven(msg)
    if found[1] != sha256:
        msg = f"the archive's file {name} does not have the sha256 of its checksum"
        raise Unproven(msg)


def _issued(parts: Sequence[Body]) -> Iterator[Issued]:
    for part in parts:
        for line in part.data.decode(errors="replace").splitlines():
            cells = line.split(",")
            try:
                number, price, amount, at = int(cells[0]), float(cells[1]), float(cells[2]), int(cells[4])
                side = {"true": "sell", "false": "buy"}[cells[5].strip().lower()]
            except (KeyError, LookupError, ValueError) as error:
                msg = f"a row of the archive's file cannot be read: {line[:80]!r}"
                raise Unproven(msg) from error
            in_us = at if at >= _LEAST_MICROSECONDS else at * MICROSECONDS_PER_MILLISECOND
            yield Issued(number, number, in_us, side, price, amount)


class _Downloaded:
    """Files downloaded from the archive."""

    def __init__(
        self,
        symbol: str,
        folder: str,
        base: str,
        timeout_seconds: float,
        budget: Budget,
        scratch: Path | None,
    ) -> None:
        self._symbol = symbol
        #: The configured address.
        self._base = base
        self._folder = f"{folder}/{symbol}"
        self._timeout_seconds = timeout_seconds
        self._budget = budget
        self._scratch = scratch

    def rows(self, day: str, windows: Sequence[tuple[int, int]]) -> tuple[Body, list[Body]]:
        """See ``_Files.rows``."""
        name = _name(self._symbol, day)
        address = f"{self._folder}/{name}"
        checksum = b"".join(self._read(f"{address}.CHECKSUM", _MOST_CHECKSUM_BYTES))
        with temporary_folder(self._scratch, "lake.scratch") as folder:
            file, hashed = folder / name, hashlib.sha256()
            with file.open("wb") as out:
                for block in self._read(address, MOST_BYTES):
                    out.write(block)
                    hashed.update(block)
            _insist_on_checksum(checksum, name, hashed.hexdigest())
            parts = _rows_in(file, f"{name.removesuffix('.zip')}.csv", windows)
        shown = redacted(address, base=self._base)
        return (
            Body(f"{shown}.CHECKSUM", checksum),
            [Body(shown, part, hashed.hexdigest()) for part in parts],
        )

    def _read(self, address: str, most: int) -> Iterator[bytes]:
        """Yield the body in blocks, within the limits of size and time."""
        self._budget.take()
        shown = redacted(address, base=self._base)
        latest, size = time.monotonic() + _DOWNLOAD_SECONDS, 0
        try:
            with urllib.request.urlopen(address, timeout=self._timeout_seconds) as response:
                while block := response.read(_BLOCK):
                    size += len(block)
                    if size > most:
                        msg = f"{shown} is larger than {most:,} bytes"
                        raise Unproven(msg)
                    if time.monotonic() > latest:
                        msg = f"{shown} takes longer than {_DOWNLOAD_SECONDS:g} s"
                        raise TransientFailure(msg)
                    yield block
                length = response.headers.get("Content-Length")
        except urllib.error.HTTPError as error:
            failure = TransientFailure if error.code == 429 or error.code >= 500 else Unproven
            msg = f"the archive answers {error.code} to {shown}"
            raise failure(msg) from error
        except (OSError, ValueError) as error:
            msg = f"the archive does not answer at {shown} ({redacted(str(error), base=self._base)})"
            raise TransientFailure(msg) from error
        if length is not None and int(length) != size:
            msg = f"{shown} ends after {size:,} of {length} bytes"
            raise TransientFailure(msg)


def _rows_in(file: Path, member: str, windows: Sequence[tuple[int, int]]) -> list[bytes]:
    """Return the rows of the zipped file in each window of ids; the windows are sorted.

    Raises
    ------
    Unproven
        The file is not a zip of this one member, or it inflates beyond ``MOST_INFLATION``.
    """
    most = MOST_INFLATION * file.stat().st_size + _BLOCK
    starts = [first for first, _ in windows]
    parts = [bytearray() for _ in windows]
    try:
        with zipfile.ZipFile(file) as zipped:
            if zipped.namelist() != [member]:
                msg = f"the archive's file does not hold {member} alone"
                raise Unproven(msg)
            with zipped.open(member) as rows:
                size = 0
                while line := rows.readline(_LONGEST_ROW):
                    size += len(line)
                    if size > most:
                        msg = f"{member} inflates beyond {MOST_INFLATION} times its size"
                        raise Unproven(msg)
                    if not line.endswith(b"\n"):
                        msg = f"{member} has a row of more than {_LONGEST_ROW:,} bytes, or ends within one"
                        raise Unproven(msg)
                    digits = line.partition(b",")[0]
                    if not digits.isdigit():
                        continue  # newer files begin with the names of the columns
                    number = int(digits)
                    # A row may lie beside two holes.
                    last = bisect_right(starts, number)
                    for n in range(max(0, last - 2), last):
                        if windows[n][0] <= number <= windows[n][1]:
                            parts[n] += line
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        msg = f"the archive's file of {member} is not a readable zip ({error})"
        raise Unproven(msg) from error
    return [bytes(part) for part in parts]


class _Stored:
    """Stored rows of a file, with its checksum."""

    def __init__(self, bodies: Sequence[Body], symbol: str) -> None:
        self._bodies = bodies
        self._symbol = symbol

    def rows(self, day: str, windows: Sequence[tuple[int, int]]) -> tuple[Body, list[Body]]:
        """See ``_Files.rows``; there is one window."""
        name = _name(self._symbol, day)
        of_day = [b for b in self._bodies if b.request.removesuffix(".CHECKSUM").endswith(f"/{name}")]
        if len(of_day) != 2 or len(windows) != 1:
            msg = f"no stored answer of {name}"
            raise Unproven(msg)
        checksum, part = of_day
        _insist_on_checksum(checksum.data, name, part.whole_sha256)
        return checksum, [part]
