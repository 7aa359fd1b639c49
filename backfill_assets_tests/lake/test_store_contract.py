"""Promises of every store, on a directory and on a bucket."""

import hashlib
import io
import multiprocessing
import os
import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from backfill_assets.days import utc_now
from backfill_assets.failures import DamagedFile, PermanentFailure, Superseded
from backfill_assets.lake import gcs
from backfill_assets.lake.local import LocalStore
from backfill_assets.lake.ranges import TAIL_BYTES, read_footer
from backfill_assets.lake.store import Store, open_store
from backfill_assets.settings import LakeSettings

PATH = "ticks/binance/trades/BTCUSDT/2024-01-01/manifest.json"

fork = multiprocessing.get_context("fork")


def a_file(folder: Path, data: bytes) -> Path:
    file = folder / hashlib.sha256(data).hexdigest()
    file.write_bytes(data)
    return file


def as_another_process(store: Store, folder: Path) -> Store:
    """The same lake without this process's copies, which are kept by scratch folder."""
    return open_store(LakeSettings(uri=store.uri, scratch=str(folder / "scratch")))


def stored_table(store: Store, folder: Path, path: str) -> pa.Table:
    """A Parquet file of more than a megabyte in the lake, in groups of 10,000 rows."""
    rows = 100_000
    numbers = random.Random(4)
    table = pa.table({"row": range(rows), "price": [numbers.random() for _ in range(rows)]})
    pq.write_table(table, folder / "table", row_group_size=10_000, use_dictionary=False)
    store.put_file(folder / "table", path)
    return table


def test_stores_are_equal_by_their_address(store: Store, lake: LakeSettings) -> None:
    again, other = open_store(lake), open_store(LakeSettings(uri=f"{lake.uri}-2"))
    assert store == again
    assert hash(store) == hash(again)
    assert store != other
    assert store != store.uri
    assert len({store, again, other}) == 2


def test_nothing_is_read_where_nothing_was_written(store: Store) -> None:
    assert store.read(PATH) is None
    assert store.size(PATH) is None
    assert not store.exists(PATH)
    assert list(store.list("")) == []


def test_what_was_written_is_read_with_the_generation_that_writing_returned(store: Store) -> None:
    generation = store.replace(PATH, b"one", None)
    stored = store.read(PATH)
    assert stored is not None
    assert (stored.data, stored.generation) == (b"one", generation)
    assert store.size(PATH) == 3
    assert store.exists(PATH)


def test_a_replacement_of_the_known_generation_succeeds(store: Store) -> None:
    first = store.replace(PATH, b"one", None)
    second = store.replace(PATH, b"two", first)
    stored = store.read(PATH)
    assert stored is not None
    assert (stored.data, stored.generation) == (b"two", second)
    assert first != second


@pytest.mark.parametrize("data", [b"one", b"three"])
def test_a_replacement_of_an_old_generation_is_refused_and_writes_nothing(store: Store, data: bytes) -> None:
    first = store.replace(PATH, b"one", None)
    store.replace(PATH, b"two", first)
    with pytest.raises(Superseded, match="another writer was faster"):
        store.replace(PATH, data, first)
    stored = store.read(PATH)
    assert stored is not None
    assert stored.data == b"two"


def test_what_exists_is_not_made_a_second_time_even_with_the_same_bytes(store: Store) -> None:
    store.replace(PATH, b"one", None)
    with pytest.raises(Superseded):
        store.replace(PATH, b"one", None)


def test_what_was_deleted_meanwhile_is_not_replaced(store: Store) -> None:
    generation = store.replace(PATH, b"one", None)
    store.delete(PATH)
    with pytest.raises(Superseded):
        store.replace(PATH, b"two", generation)
    assert store.read(PATH) is None
    store.replace(PATH, b"two", None)


def test_deleting_what_is_not_there_is_no_error(store: Store) -> None:
    store.delete(PATH)


def test_a_data_file_is_stored_and_lent_with_the_same_bytes(store: Store, tmp_path: Path) -> None:
    file = a_file(tmp_path, b"rows" * 1000)
    store.put_file(file, "ticks/a/b.parquet")
    assert store.size("ticks/a/b.parquet") == 4000
    with store.local_copy("ticks/a/b.parquet") as copy:
        assert copy.read_bytes() == file.read_bytes()
        assert copy.suffix == ".parquet"


def test_a_data_file_too_large_for_one_request_is_stored_whole(store: Store, tmp_path: Path) -> None:
    file = a_file(tmp_path, random.Random(1).randbytes(9 << 20))
    store.put_file(file, "big.parquet")
    with store.local_copy("big.parquet") as copy:
        assert hashlib.sha256(copy.read_bytes()).hexdigest() == file.name


def named(data: bytes) -> str:
    """The place of a data file with these bytes."""
    return f"ticks/kraken/trades/SPOT/2024-01-01/{hashlib.sha256(data).hexdigest()}.parquet"


def written_as(store: Store, path: str) -> str:
    """A value that changes whenever the object is written."""
    file, stored = Path(store.uri_of(path)), store.read(path)
    assert stored is not None
    return str(file.stat().st_ino) if file.exists() else stored.generation


def damage(store: Store, path: str, data: bytes) -> None:
    """Write other bytes without the store's knowledge."""
    stored = store.read(path)
    store.replace(path, data, stored.generation if stored else None)


def test_bytes_are_stored_like_a_file_with_them(store: Store, tmp_path: Path) -> None:
    path = named(b"rows")
    damage(store, path, b"rowz")
    store.put_bytes(b"rows", path)
    before = written_as(store, path)
    store.put_bytes(b"rows", path)
    store.put_file(a_file(tmp_path, b"rows"), path)
    assert written_as(store, path) == before
    with store.local_copy(path) as copy, store.open_ranges(path) as ranges:
        assert copy.read_bytes() == ranges.read() == b"rows"


def test_a_data_file_that_is_there_is_not_written_again(store: Store, tmp_path: Path) -> None:
    store.put_file(a_file(tmp_path, b"rows"), named(b"rows"))
    before = written_as(store, named(b"rows"))
    store.put_file(a_file(tmp_path, b"rows"), named(b"rows"))
    assert written_as(store, named(b"rows")) == before


@pytest.mark.parametrize("other", [b"rowz", b"\0\0\0\0", b"ro", b""])
def test_a_data_file_that_is_not_what_its_name_says_is_lent_to_nobody(
    store: Store, tmp_path: Path, other: bytes
) -> None:
    path = named(b"rows")
    damage(store, path, other)
    for read in (lambda: store.local_copy(path).__enter__(), lambda: store.open_ranges(path)):
        with pytest.raises(DamagedFile, match="does not have the bytes that its name says") as e:
            read()
        assert store.uri_of(path) in str(e.value)
        assert "verify --date 2024-01-01 --mend" in str(e.value)
        assert e.value.path == path
    store.put_file(a_file(tmp_path, b"rows"), path)
    with store.local_copy(path) as copy, store.open_ranges(path) as ranges:
        assert copy.read_bytes() == ranges.read() == b"rows"


def test_a_file_that_is_set_aside_is_out_of_the_way_and_still_there(store: Store) -> None:
    path = named(b"rows")
    damage(store, path, b"rowz")
    store.set_aside(path)
    assert list(store.list("")) == [f"damaged/{path}"]
    stored = store.read(f"damaged/{path}")
    assert stored is not None
    assert stored.data == b"rowz"
    store.set_aside(path)


def test_a_data_file_that_was_cut_short_from_outside_is_written_again(store: Store, tmp_path: Path) -> None:
    store.put_file(a_file(tmp_path, b"ro"), "a.parquet")
    store.put_file(a_file(tmp_path, b"rows"), "a.parquet")
    with store.local_copy("a.parquet") as copy:
        assert copy.read_bytes() == b"rows"


@pytest.mark.parametrize("size", [1, TAIL_BYTES, TAIL_BYTES + 1, 300_000])
def test_any_part_of_a_data_file_is_read_as_from_a_file(store: Store, tmp_path: Path, size: int) -> None:
    numbers = random.Random(size)
    data = numbers.randbytes(size)
    store.put_file(a_file(tmp_path, data), "a.parquet")
    store = as_another_process(store, tmp_path)
    plain = io.BytesIO(data)
    with store.open_ranges("a.parquet") as ranges:
        assert ranges.readable()
        assert ranges.seekable()
        for _ in range(30):
            whence = numbers.choice([os.SEEK_SET, os.SEEK_CUR, os.SEEK_END])
            base = {os.SEEK_SET: 0, os.SEEK_CUR: plain.tell(), os.SEEK_END: size}[whence]
            offset, length = numbers.randint(0, size + 5) - base, numbers.choice([0, 1, 1000, size, -1])
            assert ranges.seek(offset, whence) == plain.seek(offset, whence)
            assert ranges.read(length) == plain.read(length)
            assert ranges.tell() == plain.tell()
        with pytest.raises((ValueError, OSError)):
            ranges.seek(-1)
    with pytest.raises(ValueError, match="closed"):
        ranges.read(1)


def test_parquet_is_read_by_parts(store: Store, tmp_path: Path) -> None:
    table = stored_table(store, tmp_path, "a.parquet")
    store = as_another_process(store, tmp_path)
    with store.open_ranges("a.parquet") as ranges, pq.ParquetFile(ranges, pre_buffer=True) as file:
        group = file.read_row_group(3, columns=["price"])
        assert group.equals(table.select(["price"]).slice(30_000, 10_000))
        assert file.read(use_threads=True).equals(table)
    footer = read_footer(store, "a.parquet")
    assert (footer.num_rows, footer.num_row_groups) == (100_000, 10)
    assert footer.row_group(3).column(0).statistics.min == 30_000


def test_a_data_file_that_was_deleted_is_gone_for_readers_that_had_it(store: Store, tmp_path: Path) -> None:
    store.put_file(a_file(tmp_path, b"rows"), "day/a.parquet")
    with store.local_copy("day/a.parquet"):
        pass
    store.delete("day/a.parquet")
    with pytest.raises(PermanentFailure, match="gone"), store.local_copy("day/a.parquet"):
        pytest.fail("lent a file that was deleted")
    with pytest.raises(PermanentFailure, match="gone"):
        store.open_ranges("day/a.parquet")


def test_many_threads_borrow_one_data_file(store: Store, tmp_path: Path) -> None:
    data = random.Random(5).randbytes(1 << 20)
    store.put_file(a_file(tmp_path, data), "a.parquet")
    store = as_another_process(store, tmp_path)

    def borrowed(_: int) -> bytes:
        with store.local_copy("a.parquet") as copy:
            return copy.read_bytes()

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(borrowed, range(16))) == {data}


def test_a_data_file_that_is_gone_is_named_with_what_to_do(store: Store) -> None:
    path = named(b"rows")
    with pytest.raises(DamagedFile, match="is gone") as e, store.local_copy(path):
        pytest.fail("lent a file that is not there")
    assert "backfill --start 2024-01-01 --end 2024-01-01" in str(e.value)
    assert store.uri_of(path) in str(e.value)
    with pytest.raises(DamagedFile) as ranges:
        store.open_ranges(path)
    assert str(ranges.value) == str(e.value)


def test_an_error_of_the_borrower_passes_through_unchanged(store: Store, tmp_path: Path) -> None:
    store.put_file(a_file(tmp_path, b"rows"), "a.parquet")
    with pytest.raises(PermissionError, match="mine"), store.local_copy("a.parquet"):
        raise PermissionError(13, "mine")


def test_listing_gives_all_that_begins_with_the_prefix_in_order_and_no_more(store: Store) -> None:
    paths = ["days/b.json", "days/a.json", "days-off/x.json", "days/a/deep/er.json", "other/.BXBT/m.json"]
    for path in paths:
        store.replace(path, b"{}", None)
    assert list(store.list("")) == sorted(paths)
    assert list(store.list("days/")) == ["days/a.json", "days/a/deep/er.json", "days/b.json"]
    assert list(store.list("days/a")) == ["days/a.json", "days/a/deep/er.json"]
    assert list(store.list("days")) == sorted(paths)[:4]
    assert list(store.list("nowhere/")) == []


@pytest.mark.parametrize("path", ["", "/etc/passwd", "../x", "a/../../x", "a//b", "a/", ".locks/00", "a\0"])
def test_a_path_that_leaves_the_lake_or_means_the_stores_own_files_is_refused(
    store: Store, path: str
) -> None:
    for call in (
        store.read,
        store.size,
        store.delete,
        store.open_ranges,
        lambda p: store.replace(p, b"", None),
    ):
        with pytest.raises(ValueError, match="not a path inside the lake"):
            call(path)


def test_uris_begin_with_the_lakes_own(store: Store) -> None:
    assert store.uri_of("days/2024-01-01.json") == f"{store.uri}/days/2024-01-01.json"


def test_a_lake_opened_anew_holds_what_was_written(store: Store, lake: LakeSettings) -> None:
    store.replace(PATH, b"one", None)
    stored = open_store(lake).read(PATH)
    assert stored is not None
    assert stored.data == b"one"


def test_of_many_threads_that_saw_the_same_exactly_one_wins(store: Store) -> None:
    generation = store.replace(PATH, b"start", None)

    def attempt(number: int) -> bool:
        try:
            store.replace(PATH, str(number).encode(), generation)
        except Superseded:
            return False
        return True

    with ThreadPoolExecutor(16) as pool:
        won = list(pool.map(attempt, range(16)))
    stored = store.read(PATH)
    assert won.count(True) == 1
    assert stored is not None
    assert stored.data == str(won.index(True)).encode()


def test_threads_that_store_the_same_data_file_at_once_all_succeed(store: Store, tmp_path: Path) -> None:
    file = a_file(tmp_path, b"rows" * 100_000)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: store.put_file(file, "a.parquet"), range(8)))
    with store.local_copy("a.parquet") as copy:
        assert copy.read_bytes() == file.read_bytes()
    assert list(store.list("")) == ["a.parquet"]


def _borrow(lake: LakeSettings, expected: bytes) -> None:
    with open_store(lake).local_copy("a.parquet") as copy:
        assert copy.read_bytes() == expected


def test_forked_children_borrow_too_and_leave_the_parents_copy(
    store: Store, lake: LakeSettings, tmp_path: Path
) -> None:
    store.put_file(a_file(tmp_path, b"rows"), "a.parquet")
    with store.local_copy("a.parquet") as copy:
        children = [fork.Process(target=_borrow, args=(lake, b"rows")) for _ in range(2)]
        for child in children:
            child.start()
        for child in children:
            child.join()
        assert [child.exitcode for child in children] == [0, 0]
        assert copy.read_bytes() == b"rows"


def _write_for_ever(lake: LakeSettings, big: Path) -> None:
    store = open_store(lake)
    while True:
        stored = store.read(PATH)
        number = 0 if stored is None else stored.data[0] + 1
        store.replace(PATH, bytes([number % 250]) * 300_000, None if stored is None else stored.generation)
        store.delete("data/big.parquet")
        store.put_file(big, "data/big.parquet")


def test_a_writer_killed_at_any_moment_leaves_nothing_half_and_nothing_locked(
    store: Store, lake: LakeSettings, tmp_path: Path
) -> None:
    big = a_file(tmp_path, random.Random(2).randbytes(3 << 20))
    moments, killed_inside = random.Random(3), 0
    for _ in range(12):
        writer = fork.Process(target=_write_for_ever, args=(lake, big))
        writer.start()
        end = time.monotonic() + 0.1 + moments.uniform(0, 0.2)
        while time.monotonic() < end:
            _assert_whole(store, big)
        writer.kill()
        writer.join()
        _assert_whole(store, big)
        killed_inside += int(store.exists(PATH))
        stored = store.read(PATH)
        store.replace(PATH, b"\0" * 300_000, None if stored is None else stored.generation)
    assert killed_inside > 0
    assert set(store.list("")) <= {PATH, "data/big.parquet"}


def _assert_whole(store: Store, big: Path) -> None:
    stored = store.read(PATH)
    if stored is not None:
        assert stored.data == stored.data[:1] * 300_000
    assert store.size("data/big.parquet") in (None, big.stat().st_size)


def _count(lake: LakeSettings, times: int, start: Callable[[], object]) -> None:
    store = open_store(lake)
    start()
    for _ in range(times):
        while True:
            stored = store.read(PATH)
            value = 0 if stored is None else int(stored.data)
            try:
                store.replace(PATH, str(value + 1).encode(), None if stored is None else stored.generation)
            except Superseded:
                time.sleep(random.uniform(0, 0.02))
            else:
                break


def test_processes_that_count_together_lose_no_count(store: Store, lake: LakeSettings) -> None:
    together = fork.Barrier(4)
    counters = [fork.Process(target=_count, args=(lake, 25, together.wait)) for _ in range(4)]
    for counter in counters:
        counter.start()
    for counter in counters:
        counter.join()
    stored = store.read(PATH)
    assert [counter.exitcode for counter in counters] == [0] * 4
    assert stored is not None
    assert int(stored.data) == 100


def test_a_listing_tells_size_and_time_and_only_what_is_old_is_discarded(
    store: Store, tmp_path: Path
) -> None:
    data = f"ticks/{'f' * 64}.parquet"
    store.put_file(a_file(tmp_path, b"12345"), data)
    [(path, listed)] = store.objects("ticks/").items()
    assert (path, listed.bytes) == (data, 5)
    assert abs(utc_now() - listed.changed) < timedelta(minutes=5)
    assert not store.discard(data, listed.changed)
    assert store.exists(data)
    assert store.discard(data, listed.changed + timedelta(seconds=1))
    assert not store.exists(data)
    assert not store.discard(data, listed.changed + timedelta(seconds=1)), "there is none"


def test_a_file_that_is_put_again_looks_new(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gcs, "YOUNG", timedelta(0))
    data = "ticks/" + hashlib.sha256(b"12345").hexdigest() + ".parquet"
    store.put_file(a_file(tmp_path, b"12345"), data)
    first = store.objects(data)[data].changed
    time.sleep(0.02)
    store.put_file(a_file(tmp_path, b"12345"), data)
    assert store.objects(data)[data].changed > first
    assert not store.discard(data, first + timedelta(microseconds=1))


def test_a_writer_that_puts_a_file_while_it_is_discarded_has_it(tmp_path: Path) -> None:
    store, file = LocalStore(tmp_path / "lake"), a_file(tmp_path, b"12345")
    data = f"ticks/{file.name}.parquet"
    place, over = tmp_path / "lake" / data, threading.Event()
    discarded: list[bool] = []

    def discard() -> None:
        while not over.is_set():
            if store.discard(data, utc_now() - timedelta(days=1)):
                discarded.append(True)

    discarding = threading.Thread(target=discard)
    discarding.start()
    lost = 0
    try:
        while len(discarded) < 50 and not lost:
            store.put_file(file, data)
            with suppress(FileNotFoundError):
                os.utime(place, (1e9, 1e9))
            store.put_file(file, data)
            # The file may be on its way back at this moment; looks are counted, since a machine may pause.
            looks = 10_000
            while looks and not store.exists(data):
                time.sleep(0.001)
                looks -= 1
            lost += not looks
    finally:
        over.set()
        discarding.join()
    assert lost == 0


class RacingLocalStore(LocalStore):
    """Puts the file again after a discard has read its age."""

    racing: Path | None = None

    def _is_alias(self, file: Path) -> bool:
        if self.racing is not None:
            self.put_file(self.racing, file.relative_to(self._root).as_posix())
        return super()._is_alias(file)


def test_of_a_discard_and_a_writer_in_between_the_writer_wins(tmp_path: Path) -> None:
    store, file = RacingLocalStore(tmp_path / "lake"), a_file(tmp_path, b"12345")
    data = f"ticks/{hashlib.sha256(b'12345').hexdigest()}.parquet"
    store.put_file(file, data)
    os.utime(tmp_path / "lake" / data, (1e9, 1e9))
    before = utc_now() - timedelta(days=1)
    store.racing = file
    assert not store.discard(data, before)
    store.racing = None
    assert store.objects(data)[data].changed > before
    assert store.discard(data, utc_now() + timedelta(minutes=1)), "old again"


def test_a_bucket_is_asked_to_discard_the_generation_that_was_looked_at(
    gcs_lake: LakeSettings, tmp_path: Path
) -> None:
    """The emulator deletes every generation of the object."""
    store = gcs.GcsStore(gcs_lake.uri)
    data, asked = f"ticks/{'f' * 64}.parquet", list[str]()
    store.put_file(a_file(tmp_path, b"12345"), data)
    generation = store._found(data).generation
    session = store._client._http
    session.hooks["response"].append(
        lambda answer, **_: asked.append(f"{answer.request.method} {answer.url}")
    )
    assert store.discard(data, utc_now() + timedelta(minutes=1))
    [deletion] = [request for request in asked if request.startswith("DELETE")]
    assert f"ifGenerationMatch={generation}&" in f"{deletion}&"
