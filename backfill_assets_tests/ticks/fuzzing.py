"""Mutated files for the code that reads ticks, in loops of microseconds; a command, and the tests beside it.

    python -m backfill_assets_tests.ticks.fuzzing --inputs 1000000
    NUMBA_BOUNDSCHECK=1 python -m backfill_assets_tests.ticks.fuzzing --storm --inputs 10000000
    python -m backfill_assets_tests.ticks.fuzzing --first 4711 --inputs 1

An input is a pure function of its number. 64 consecutive inputs mutate the same lines; one parser reads them
and one profile counts them, like parts of one file. Every eighth is read by the kernels alone and by
the reference parser: rows and refusals must be equal. Every 32nd is counted twice, cut into other blocks: the
profiles must be equal. Every 1,024th goes the whole way from gzip to partial candles. The only failure
allowed is ``CorruptFeed`` with a line and a column. Arrays that kernels fill or read end at a page that no
process may touch, so a load or a store behind them ends the process, with ``NUMBA_BOUNDSCHECK`` or without.
The file ``--last`` keeps the number of the input that ended it. ``--shrink`` looks for the smallest part of a
failing input that still fails. ``--storm`` runs only the kernels, and is fifteen times as fast.
"""

from __future__ import annotations

import argparse
import ctypes
import faulthandler
import gzip
import itertools
import math
import mmap
import os
import random
import re
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, Final

import numpy as np

from backfill_assets.days import MICROSECONDS_PER_DAY, start_us
from backfill_assets.failures import CorruptFeed
from backfill_assets.feeds import DATA_TYPES, Feed
from backfill_assets.tardis.columns import CsvField, csv_fields, csv_header
from backfill_assets.ticks import jit
from backfill_assets.ticks import profile as profile_module
from backfill_assets.ticks.blocks import SLACK, Block
from backfill_assets.ticks.decode import decode
from backfill_assets.ticks.parser import LineParser, NameTable
from backfill_assets.ticks.partials import (
    MinuteCandles,
    minute_candles,
    of_exchange,
    partial_candles,
    seam_window,
)
from backfill_assets.ticks.profile import ProfileParameters, Profiler
from backfill_assets.ticks.reference_parser import Reader
from backfill_assets.ticks.rowgroups import Layout, RowGroup
from backfill_assets.ticks.stored import stored_file

DAY: Final = "2024-02-29"
START: Final = start_us(DAY)
SYMBOLS: Final = {"BTCUSDT": "BTC-USDT", "ETHUSDT": "ETH-USDT"}
STEPS: Final = {"BTCUSDT": (0.5, 0.01), "ETHUSDT": (0.1,)}
_FILE: Final = "fuzzed"

#: The profile's stores, so small that ordinary inputs fill them.
SMALL_STORES: Final = {
    "BITMAP_PAGES": 8, "WINDOW_IDS": 16, "_SEEN": 4, "_MOST_SEEN": 32, "_EDGES": 8, "_MOST_EDGES": 32,
    "_SILENCES": 201,
}  # fmt: skip

#: Cells that have broken readers of numbers, times, ids, texts and lines before.
WILD: Final = (
    b"", b"\x00", b"\xff\xfe", b"-", b"-1", b"-0", b".", b"-.5", b"5.", b"+1", b"0", b"00", b"007", b"1_0",
    b" 1", b"x" * 300,
    b"1" * 15, b"9" * 15, b"0." + b"9" * 15, b"1" * 16, b"9" * 17, b"9" * 18, b"1" + b"0" * 18, b"9" * 19,
    b"9223372036854775807", b"9223372036854775808", b"18446744073709551615", b"18446744073709551616",
    b"1e308", b"1.7976931348623157e308", b"1e309", b"1e-320", b"4.9e-324", b"1e-400", b"1e+21", b"9.9e-7",
    b"1E5", b"1e", b"e5", b"NaN", b"nan", b"inf", b"-inf", b"0x10", b"1" * 400, b"." + b"0" * 400 + b"1",
    b"x" * 60, b"x" * 4000, b'"', b'""', b'"1"', b"\r", b"1\r", b"\r1", b"\n", b"\r\n", b",", b",,", b"\t",
    b"buy", b"sell", b"unknown", b"buyer", b"true", b"false", b"bid", b"ask", b"buy\x00", "é".encode(),
    "\U0001f600".encode(), b"\xed\xa0\x80", b"\xc0\x80", b"\xf4\x90\x80\x80", b"\xef\xbb\xbf", b"BTCUSDT",
    b"ETHUSDT\x00", b"A[1]?*", b"../../etc", b"%s%n", b"2024-02-29", b"1709164800000", b"1709164800",
    b"253402300800000000", b"999999999999999999",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Input:
    """Lines after the header, and the way in which the parser gets them.

    ``capacity`` is the rows of a group, ``cuts`` the number of lines in each block but the last.
    """

    data_type: str
    lines: tuple[bytes, ...]
    capacity: int = 64
    cuts: tuple[int, ...] = ()

    @property
    def body(self) -> bytes:
        """The bytes behind the header."""
        return b"\n".join((*self.lines, b"")) if self.lines else b""


class Difference(AssertionError):
    """Two ways to read an input gave different results."""


#: Inputs that mutate the same lines, and are read as one file.
TOGETHER: Final = 64
#: How often an input is compared with the reference parser, counted twice, and taken all the way.
_COMPARED, _COUNTED, _WHOLE = 8, 32, 1024


@cache
def _types() -> tuple[str, ...]:
    """Data types in the wanted proportion: wide ones take long."""
    wide = {name for name in DATA_TYPES if len(csv_fields(name)) > 20}
    return tuple(name for name in DATA_TYPES for _ in range(1 if name in wide else 3)) + ("trades",) * 9


@lru_cache(1)
def _plain(block: int) -> tuple[str, tuple[bytes, ...]]:
    """Data type and lines of ``TOGETHER`` inputs."""
    rng = random.Random(block)
    data_type = rng.choice(_types())
    lines = _plain_lines(rng, csv_fields(data_type), rng.choice((1, 2, 3, 3, 4, 8, 20)))
    return data_type, tuple(lines)


def made_input(number: int) -> Input:
    """The input of this number."""
    rng = random.Random(~number)
    data_type, plain = _plain(number // TOGETHER)
    lines = list(plain)
    for _ in range(rng.choice((0, 1, 1, 1, 2, 3, 8))):
        _MUTATIONS[rng.randrange(len(_MUTATIONS))](rng, lines)
        lines = lines or [b""]
    if rng.random() < 0.01:
        lines = lines[:8] * rng.choice((2, 10, 60))
    whole = tuple(b"\n".join(lines).split(b"\n"))
    cuts = tuple(rng.randrange(1, 4) for _ in range(rng.choice((0, 0, 1, 5))))
    return Input(data_type, whole, rng.choice((1, 2, 7, 64)), cuts)


def _plain_lines(rng: random.Random, fields: Sequence[CsvField], count: int) -> list[bytes]:
    at, number, lines = START + rng.randrange(MICROSECONDS_PER_DAY), rng.randrange(1, 10**9), []
    names = [b"binance,BTCUSDT"] * 4
    if rng.random() < 0.4:
        names += [b"binance,ETHUSDT", b"binance,X%d" % rng.randrange(9), b"deribit,BTCUSDT"]
    for _ in range(count):
        at += rng.choice((0, 1, 1000, 40_000, 1_000_000, 7_000_000, 60_000_000))
        number += rng.choice((1, 1, 1, 1, 0, 2, 7, -3, 40_000, 10**7))
        cells = [rng.choice(names)]
        cells += [_plain_cell(rng, field, at, number) for field in fields[2:]]
        lines.append(b",".join(cells))
    return lines


def _plain_cell(rng: random.Random, field: CsvField, at: int, number: int) -> bytes:
    if field.kind == "time":
        return b"%d" % (at + rng.randrange(-1000, 90_000))
    if field.kind == "number":
        return b"%d.%02d" % (rng.randrange(1, 300), rng.randrange(100)) if rng.random() < 0.9 else b""
    if field.words:
        return rng.choice(field.words).encode() if rng.random() < 0.95 else b""
    return b"%d" % number if rng.random() < 0.9 else b"a%d" % number


Mutation = Callable[[random.Random, list[bytes]], None]


def _of_bytes(change: Callable[[random.Random, bytearray, int], None]) -> Mutation:
    def mutate(rng: random.Random, lines: list[bytes]) -> None:
        n = rng.randrange(len(lines))
        line = bytearray(lines[n])
        if line:
            change(rng, line, rng.randrange(len(line)))
            lines[n] = bytes(line)

    return mutate


def _of_cells(change: Callable[[random.Random, list[bytes], int], None]) -> Mutation:
    def mutate(rng: random.Random, lines: list[bytes]) -> None:
        n = rng.randrange(len(lines))
        cells = lines[n].split(b",")
        change(rng, cells, rng.randrange(len(cells)))
        lines[n] = b",".join(cells)

    return mutate


@_of_bytes
def _flip(rng: random.Random, line: bytearray, at: int) -> None:
    line[at] ^= 1 << rng.randrange(8)


@_of_bytes
def _put_byte(rng: random.Random, line: bytearray, at: int) -> None:
    line[at] = rng.choice(b'\x00\r\n,.-+"eE0159 \x7f\x80\xff')


@_of_bytes
def _insert(rng: random.Random, line: bytearray, at: int) -> None:
    line[at:at] = rng.choice((b"\x00", b"\r", b"\n", b",", b"9" * 9, b".", b'"', b"\xc3", b"\r\n", b"e1"))


@_of_bytes
def _cut_out(rng: random.Random, line: bytearray, at: int) -> None:
    del line[at : at + rng.randrange(1, 20)]


@_of_bytes
def _end_early(rng: random.Random, line: bytearray, at: int) -> None:
    del line[at:]


@_of_cells
def _wild_cell(rng: random.Random, cells: list[bytes], at: int) -> None:
    cells[at] = rng.choice(WILD)


@_of_cells
def _glued_cell(rng: random.Random, cells: list[bytes], at: int) -> None:
    cells[at] = rng.choice((cells[at] + rng.choice(WILD), rng.choice(WILD) + cells[at]))


@_of_cells
def _drop_cell(rng: random.Random, cells: list[bytes], at: int) -> None:
    del cells[at]


@_of_cells
def _double_cell(rng: random.Random, cells: list[bytes], at: int) -> None:
    cells.insert(at, cells[rng.randrange(len(cells))])


@_of_cells
def _digits(rng: random.Random, cells: list[bytes], at: int) -> None:
    cells[at] = b"%d" % rng.randrange(10 ** rng.randrange(1, 25))


@_of_cells
def _decimal(rng: random.Random, cells: list[bytes], at: int) -> None:
    whole, places = rng.randrange(10 ** rng.randrange(1, 18)), rng.randrange(1, 20)
    cells[at] = rng.choice((b"", b"-")) + b"%d." % whole + b"%d" % rng.randrange(10**places)


def _distant_time(rng: random.Random, lines: list[bytes]) -> None:
    n = rng.randrange(len(lines))
    cells = lines[n].split(b",")
    if len(cells) > 3:
        away = rng.choice((MICROSECONDS_PER_DAY, 301_000_000, 10**15, START, 10**18 - 1 - START))
        cells[rng.choice((2, 3))] = b"%d" % (START + rng.choice((-1, 1)) * away)
        lines[n] = b",".join(cells)


def _swap(rng: random.Random, lines: list[bytes]) -> None:
    a, b = rng.randrange(len(lines)), rng.randrange(len(lines))
    lines[a], lines[b] = lines[b], lines[a]


def _double(rng: random.Random, lines: list[bytes]) -> None:
    n = rng.randrange(len(lines))
    lines[n:n] = lines[n : n + 3] * rng.randrange(1, 4)


def _drop(rng: random.Random, lines: list[bytes]) -> None:
    del lines[rng.randrange(len(lines))]


def _empty_line(rng: random.Random, lines: list[bytes]) -> None:
    lines.insert(rng.randrange(len(lines) + 1), rng.choice((b"", b"\r", b",", b"," * 200, b"\x00" * 40)))


def _other_names(rng: random.Random, lines: list[bytes]) -> None:
    count = rng.choice((3, 9, 40))
    for n, line in enumerate(lines):
        cells = line.split(b",")
        if len(cells) > 1:
            cells[1] = b"S%d" % rng.randrange(count)
            lines[n] = b",".join(cells)


def _carriage_returns(rng: random.Random, lines: list[bytes]) -> None:
    lines[:] = [line + b"\r" for line in lines]


_MUTATIONS: Final = (
    _flip, _flip, _put_byte, _put_byte, _insert, _cut_out, _end_early, _wild_cell, _wild_cell, _wild_cell,
    _glued_cell, _drop_cell, _double_cell, _digits, _decimal, _distant_time, _swap, _double, _drop,
    _empty_line, _other_names, _carriage_returns,
)  # fmt: skip


def guarded(shape: tuple[int, ...], kind: Any) -> Any:
    """Zeros whose last byte is the last of a page; the next page ends any process that touches it."""
    count = math.prod(shape)
    size = count * np.dtype(kind).itemsize
    if not size:
        return np.zeros(shape, kind)
    memory, room = _guarded_memory(size)
    return np.frombuffer(memory, kind, count, room - size).reshape(shape)


_LIBC: Final = ctypes.CDLL(None, use_errno=True)


def _guarded_memory(size: int) -> tuple[mmap.mmap, int]:
    """Whole pages for ``size`` bytes and their size, followed by one page that may not be touched."""
    room = -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
    memory = mmap.mmap(-1, room + mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    if _LIBC.mprotect(ctypes.c_void_p(address + room), ctypes.c_size_t(mmap.PAGESIZE), 0):
        raise OSError(ctypes.get_errno(), "mprotect")
    return memory, room


class _GuardedNames(NameTable):
    """The names, with a guard right behind their slack."""

    def add(self, text: bytes) -> None:
        super().add(text)
        texts = guarded(self.texts.shape, np.uint8)
        texts[:] = self.texts
        self.texts = texts


@cache
def _layout(data_type: str) -> Layout:
    return Layout.of(data_type)


@cache
def _group(data_type: str, capacity: int, text_bytes: int, use: str) -> RowGroup:
    """A group for ``use`` with guarded arrays, used again as in ``decode``."""
    group = RowGroup(_layout(data_type), capacity, text_bytes)
    for name in ("codes", "integers", "numbers", "word_codes", "text_ends", "texts"):
        array = getattr(group, name)
        setattr(group, name, guarded(array.shape, array.dtype))
    return group


_BLOCK_ROOM: Final = 1 << 20


@cache
def _block_memory() -> Any:
    """Memory for a block that ends at the end of the memory, with digits in its slack."""
    memory, _ = _guarded_memory(_BLOCK_ROOM)
    memory[_BLOCK_ROOM - SLACK : _BLOCK_ROOM] = b"7" * SLACK
    return memory


def _blocks(lines: Sequence[bytes], cuts: Sequence[int]) -> list[bytes]:
    edges = [0, *(at for at in itertools.accumulate(cuts) if at < len(lines)), len(lines)]
    return [b"\n".join((*lines[a:b], b"")) for a, b in itertools.pairwise(edges)]


@dataclass(slots=True)
class Reading:
    """The result of an input: the rows of each filled group, the names, and the refusal."""

    groups: list[tuple[Any, ...]]
    names: list[Any]
    refusal: str = ""


class Session:
    """A parser, and the profile of all its rows; ``keep`` copies the rows of each group."""

    def __init__(self, data_type: str, *, fast: bool, keep: bool = False, counts: bool = True) -> None:
        self.data_type = data_type
        self.names: list[Any] = []
        self._use = "fast" if fast else "slow"
        self._keep = keep
        self.profiler: Profiler | None = None
        if counts:
            kind = DATA_TYPES[data_type]
            self.profiler = Profiler(
                "binance", DAY, ProfileParameters(), trades=kind.has_trades, updates=not kind.has_fills,
                data_type=data_type, grids=STEPS,
            )  # fmt: skip
        reader = Reader(_FILE, csv_fields(data_type))
        self._parser = LineParser(reader, SYMBOLS, self._register, fast=fast)
        self._parser._table = _GuardedNames()

    def _register(self, name: Any) -> None:
        self.names.append(name)
        if self.profiler is not None:
            self.profiler.register(name)

    def read(self, lines: Sequence[bytes], *, capacity: int, cuts: Sequence[int] = ()) -> Reading:
        """Read lines as ``decode`` does, without files; raises every error except ``CorruptFeed``."""
        longest = max(map(len, lines), default=0)
        room = 512 if longest <= 512 else 1 << (longest - 1).bit_length()
        group = _group(self.data_type, capacity, room, self._use)
        group.restart(0)
        found = Reading([], self.names)
        buffer, end = _block_memory(), _BLOCK_ROOM - SLACK
        try:
            for block in _blocks(lines, cuts):
                position = end - len(block)
                buffer[position:end] = block
                while position < end:
                    start = group.rows
                    position = self._parser.parse(Block(buffer, end), position, group)
                    if self.profiler is not None:
                        self.profiler.add(group.counted(), start, group.rows)
                    if group.full:
                        self._end(group, found)
                        group.restart(group.first_row + group.rows)
            self._end(group, found)
        except CorruptFeed as failure:
            found.refusal = str(failure)
        return found

    def _end(self, group: RowGroup, found: Reading) -> None:
        if self._keep:
            found.groups.append(_rows(group))

    def profile(self) -> str:
        """The profile of all rows, with the numbers that are not in its document."""
        assert self.profiler is not None
        found = self.profiler.finish(has_header=True)
        return f"{found.model_dump_json()}{found.numbers}"


def _rows(group: RowGroup) -> tuple[Any, ...]:
    n = group.rows
    ends = group.text_ends[:, : n + 1].copy()
    texts = [bytes(row[: last[-1]]) for row, last in zip(group.texts, ends, strict=True)]
    numbers = group.numbers[:, :n].copy()
    numbers[np.isnan(numbers)] = np.nan
    return (
        n, group.codes[:n].tobytes(), group.integers[:, :n].tobytes(), numbers.tobytes(),
        group.word_codes[:, :n].tobytes(), ends.tobytes(), texts,
    )  # fmt: skip


_REFUSAL: Final = re.compile(rf"{_FILE}: line \d+, column [^:]+: [^\n]+")


def compare(given: Input) -> None:
    """Read by kernels and by the reference parser; raises ``Difference`` if they disagree."""
    fast, slow = (
        Session(given.data_type, fast=fast, keep=True, counts=False).read(
            given.lines, capacity=given.capacity, cuts=given.cuts if fast else ()
        )
        for fast in (True, False)
    )
    if (fast.refusal, fast.names) != (slow.refusal, slow.names):
        msg = f"kernels: {fast.refusal!r} {fast.names}; reference: {slow.refusal!r} {slow.names}"
        raise Difference(msg)
    if fast.groups != slow.groups:
        msg = f"rows differ: {fast.groups} and {slow.groups}"
        raise Difference(msg)


def compare_profiles(given: Input) -> None:
    """Count an input in its blocks, and by the reference parser in one; ``Difference`` if they disagree."""
    found = []
    for fast in (True, False):
        session = Session(given.data_type, fast=fast)
        capacity, cuts = (given.capacity, given.cuts) if fast else (64, ())
        if session.read(given.lines, capacity=capacity, cuts=cuts).refusal:
            return
        found.append(session.profile())
    if found[0] != found[1]:
        msg = f"profiles differ: {found[0]} and {found[1]}"
        raise Difference(msg)


def go_all_the_way(given: Input, folder: Path) -> bool:
    """Decode a file, read its totals, make its candles; False if it was refused."""
    source, target = folder / "fuzzed.csv.gz", folder / "fuzzed.parquet"
    body = csv_header(given.data_type).encode() + b"\n" + given.body
    source.write_bytes(gzip.compress(body, 1, mtime=0))
    feed = Feed("binance", given.data_type, "BTCUSDT")
    candles = MinuteCandles(by_id=given.capacity > 2, window=seam_window(DAY, 300))
    try:
        decoded = decode(
            source, target, feed=feed, day=DAY, symbols=SYMBOLS, parameters=ProfileParameters(), grids=STEPS,
            row_group_rows=given.capacity, block_bytes=200,
            candles=candles if feed.type.makes_candles else None,
        )  # fmt: skip
    except CorruptFeed:
        return False
    decoded.profile.model_dump_json()
    stored = stored_file(target, decoded.totals)
    if stored.rows != decoded.rows or sum(found.rows for found in decoded.totals) != decoded.rows:
        msg = f"{decoded.rows} rows decoded, {stored.rows} stored, totals {decoded.totals}"
        raise Difference(msg)
    if feed.type.makes_candles:
        ids = decoded.profile.has_numeric_ids
        if ids or not candles.by_id:
            of_file = partial_candles(
                target, exchange="binance", day=DAY, seam_window_seconds=300, numeric_ids=candles.by_id
            )
            if not of_exchange("binance", candles.table()).equals(of_file):
                msg = f"candles differ: {candles.table()} of the pass, {of_file} of the file"
                raise Difference(msg)
        minute_candles(target, numeric_ids=ids, every_symbol=True)
    return True


def check(number: int, given: Input, folder: Path, session: Session | None = None) -> bool:
    """Check an input in the ways of its number; True if all of it was rows."""
    session = session or Session(given.data_type, fast=True)
    found = session.read(given.lines, capacity=given.capacity, cuts=given.cuts)
    if found.refusal and not _REFUSAL.fullmatch(found.refusal):
        msg = f"a refusal without line and column: {found.refusal!r}"
        raise Difference(msg)
    if number % _COMPARED == 0:
        compare(given)
    if number % _COUNTED == 0:
        compare_profiles(given)
    if number % _WHOLE == 0:
        go_all_the_way(given, folder)
    return not found.refusal


def shrunk(given: Input, fails: Callable[[Input], bool]) -> Input:
    """The smallest input found that still fails: fewer lines, then fewer bytes in each."""
    size = max(1, len(given.lines) // 2)
    while size:
        for at in range(len(given.lines) - size, -1, -size):
            smaller = replace(given, lines=given.lines[:at] + given.lines[at + size :])
            if smaller.lines and fails(smaller):
                given = smaller
        size //= 2
    for n in range(len(given.lines)):
        size = max(1, len(given.lines[n]) // 2)
        while size:
            for at in range(len(given.lines[n]) - size, -1, -size):
                line = given.lines[n][:at] + given.lines[n][at + size :]
                smaller = replace(given, lines=(*given.lines[:n], line, *given.lines[n + 1 :]))
                if fails(smaller):
                    given = smaller
            size //= 2
    return given


def _fails(number: int, folder: Path) -> Callable[[Input], bool]:
    def fails(given: Input) -> bool:
        try:
            check(number, given, folder)
        except Exception:  # noqa: BLE001 - any failure is one to shrink
            return True
        return False

    return fails


def small_stores() -> None:
    """Guard the profile's stores, and make them so small that ordinary inputs fill them."""
    for name, size in SMALL_STORES.items():
        setattr(profile_module, name, size)
    jit.untouched = guarded


def run(first: int, inputs: int, last: Path | None = None) -> tuple[int, int]:
    """Check inputs from the first one's block on; returns how many, and how many were rows to the end."""
    small_stores()
    begin, whole, session = first // TOGETHER * TOGETHER, 0, None
    with tempfile.TemporaryDirectory() as folder:
        for number in range(begin, first + inputs):
            given = made_input(number)
            if last is not None:
                last.write_text(f"{number}\n")
            try:
                if session is None:
                    session = Session(given.data_type, fast=True)
                whole += check(number, given, Path(folder), session)
                if number % TOGETHER == TOGETHER - 1:
                    session.profile()
                    session = None
            except Exception as failure:
                failure.add_note(f"input {number}: {given}")
                raise
    return first + inputs - begin, whole


#: Bytes with a meaning for the parser, and bytes without one.
_ALPHABET: Final = np.frombuffer(b'0123456789.,,-+eE"\r\n\n \x00\x7f\x80\xffbustn', np.uint8)
#: Blocks that mutate the same lines.
_ROUNDS: Final = 4_000


def run_storm(first: int, inputs: int) -> tuple[int, int]:
    """Blocks for the kernels alone, in a compiled loop; returns how many, and how many rows were counted."""
    from backfill_assets_tests.ticks.kernel_storm import storm

    small_stores()
    done = rows = 0
    while done < inputs:
        data_type, lines = _plain(first // TOGETHER + done // _ROUNDS)
        counted = _storm(storm, first + done, min(_ROUNDS, inputs - done), data_type, lines)
        done, rows = done + min(_ROUNDS, inputs - done), rows + counted
    return done, rows


def _storm(storm: Any, seed: int, rounds: int, data_type: str, lines: Sequence[bytes]) -> int:
    session = Session(data_type, fast=True)
    session.read(lines, capacity=64)
    profiler, names, layout = session.profiler, session._parser._table, _layout(data_type)
    assert profiler is not None
    rng = random.Random(seed)
    group = _group(data_type, rng.choice((1, 3, 64)), rng.choice((16, 256, 4096)), "storm")
    plain = np.frombuffer(b"\n".join((*lines, b"")), np.uint8)
    trades = None
    if DATA_TYPES[data_type].has_trades:
        prices = profiler._prices
        trades = (
            (
                profiler._symbol_of, profiler._repeats, profiler._window, profiler._counts,
                profiler._notional, profiler._ring, profiler._minutes, profiler._shared,
            ),
            (
                profiler._page_table, profiler._page_keys, profiler._pages, profiler._seen, profiler._edges,
                profiler._found,
            ),
            prices._state(),
        )  # fmt: skip
    rows, _ = storm(
        seed, rounds, plain, _ALPHABET, guarded((len(plain) + SLACK,), np.uint8),
        (names.texts, names.ends, names.table), (layout.plan, layout.words),
        (group.codes, group.integers, group.numbers, group.word_codes, group.text_ends, group.texts),
        np.zeros((128, 4), np.int64),
        (profiler._bounds, profiler._feed, profiler._clock, profiler._clock_range, profiler._code_rows),
        trades,
    )  # fmt: skip
    session.profile()
    return int(rows)


def main() -> None:
    """Run the command of the module's docstring."""
    parser = argparse.ArgumentParser(description="Fuzz the reading of ticks.")
    parser.add_argument("--first", type=int, default=0, help="number of the first input")
    parser.add_argument("--inputs", type=int, default=100_000)
    parser.add_argument("--storm", action="store_true", help="the kernels alone, in a compiled loop")
    parser.add_argument("--last", type=Path, help="file for the number of the input at work")
    parser.add_argument("--shrink", action="store_true", help="print the smallest part that fails of --first")
    options = parser.parse_args()
    faulthandler.enable()
    if options.shrink:
        small_stores()
        with tempfile.TemporaryDirectory() as folder:
            fails = _fails(options.first, Path(folder))
            print(shrunk(made_input(options.first), fails))
        return
    begin = time.perf_counter()
    if options.storm:
        inputs, rows = run_storm(options.first, options.inputs)
        found = f"{rows:,} rows counted"
    else:
        inputs, whole = run(options.first, options.inputs, options.last)
        found = f"{whole:,} read to the end"
    seconds = time.perf_counter() - begin
    checks = "with" if os.environ.get("NUMBA_BOUNDSCHECK") == "1" else "without"
    print(f"{inputs:,} inputs {checks} bounds checks, {seconds:.0f} s: {found}, none failed")


if __name__ == "__main__":
    main()
