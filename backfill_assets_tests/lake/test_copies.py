"""Copies of a bucket's files: fetched once, bounded, and deleted with their own process only."""

import errno
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from backfill_assets.failures import PermanentFailure
from backfill_assets.lake.copies import MOST_BYTES, Copies, copies_in, room_for_copies


class Bucket:
    """Writes the copies' files and notes which were asked for."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def fetch(self, name: str, size: int = 100) -> Callable[[Path], None]:
        def fetch(file: Path) -> None:
            self.asked.append(name)
            file.write_bytes(name.encode() * size)

        return fetch


def borrow(copies: Copies, bucket: Bucket, name: str) -> None:
    with copies.lend(f"gs://b/{name}", bucket.fetch(name)) as file:
        assert file.read_bytes() == name.encode() * 100


def files(scratch: Path) -> list[Path]:
    return sorted(file for file in scratch.glob("*/*") if not file.name.startswith("."))


def test_a_file_is_fetched_when_it_is_first_asked_for_and_again_after_it_was_forgotten(
    tmp_path: Path,
) -> None:
    copies, bucket = Copies(tmp_path), Bucket()
    for _ in range(3):
        borrow(copies, bucket, "a")
    copies.forget("gs://b/a")
    assert files(tmp_path) == []
    borrow(copies, bucket, "a")
    assert bucket.asked == ["a", "a"]


def test_a_fetch_that_fails_is_done_again_by_the_next_and_nothing_half_is_lent(tmp_path: Path) -> None:
    copies, bucket = Copies(tmp_path), Bucket()

    def broken(file: Path) -> None:
        file.write_bytes(b"half")
        raise PermanentFailure("broken")

    with pytest.raises(PermanentFailure, match="broken"), copies.lend("gs://b/a", broken):
        pytest.fail("lent what was not fetched")
    assert files(tmp_path) == []
    assert copies.opened("gs://b/a") is None
    borrow(copies, bucket, "a")


def test_threads_wait_for_one_fetch_of_a_file_and_not_for_those_of_others(tmp_path: Path) -> None:
    copies, fetched = Copies(tmp_path), []
    together = threading.Barrier(4)

    def fetch_together(file: Path) -> None:
        together.wait(20)  # four files are being fetched at once
        fetched.append(file)
        file.write_bytes(b"rows")

    def read(number: int) -> bytes:
        with copies.lend(f"gs://b/{number % 4}", fetch_together) as file:
            return file.read_bytes()

    with ThreadPoolExecutor(16) as pool:
        assert set(pool.map(read, range(16))) == {b"rows"}
    assert len(fetched) == 4


def test_those_asked_for_longest_ago_make_room_unless_they_are_borrowed(tmp_path: Path) -> None:
    copies, bucket = Copies(tmp_path, most_bytes=300), Bucket()
    with copies.lend("gs://b/a", bucket.fetch("a")) as held:
        for name in "bc":
            borrow(copies, bucket, name)
        opened = copies.opened("gs://b/b")
        assert opened is not None
        opened.close()
        borrow(copies, bucket, "d")
        assert bucket.asked == ["a", "b", "c", "d"]
        borrow(copies, bucket, "b")
        assert bucket.asked == ["a", "b", "c", "d"], "c was asked for longest ago"
        borrow(copies, bucket, "c")
        assert bucket.asked == ["a", "b", "c", "d", "c"]
        assert held.read_bytes() == b"a" * 100
    assert sum(file.stat().st_size for file in files(tmp_path)) == 300


def test_files_larger_than_the_room_are_kept_for_as_long_as_they_are_borrowed(tmp_path: Path) -> None:
    copies, bucket = Copies(tmp_path, most_bytes=50), Bucket()
    with copies.lend("gs://b/a", bucket.fetch("a")), copies.lend("gs://b/b", bucket.fetch("b")):
        assert len(files(tmp_path)) == 2
        borrow(copies, bucket, "a")
        assert bucket.asked == ["a", "b"]
    assert files(tmp_path) == []


def test_copies_leave_three_quarters_of_the_disk_to_others() -> None:
    assert room_for_copies(MOST_BYTES, free=3 << 30, held=1 << 30) == 1 << 30
    assert room_for_copies(MOST_BYTES, free=1 << 50, held=0) == MOST_BYTES


def test_what_is_forgotten_while_it_is_borrowed_stays_until_it_is_given_back(tmp_path: Path) -> None:
    copies, bucket = Copies(tmp_path), Bucket()
    with copies.lend("gs://b/a", bucket.fetch("a")) as old:
        copies.forget("gs://b/a")
        borrow(copies, bucket, "a")
        assert old.read_bytes() == b"a" * 100
    assert bucket.asked == ["a", "a"]
    assert len(files(tmp_path)) == 1


def test_an_adopted_file_is_linked_and_outlives_the_one_that_was_uploaded(tmp_path: Path) -> None:
    copies, bucket = Copies(tmp_path / "scratch"), Bucket()
    file = tmp_path / "file"
    file.write_bytes(b"a" * 100)
    copies.adopt("gs://b/a", file)
    assert file.stat().st_nlink == 2
    file.unlink()
    borrow(copies, bucket, "a")
    opened = copies.opened("gs://b/a")
    assert opened is not None
    with opened:
        assert opened.read() == b"a" * 100
    assert bucket.asked == []


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="there is no second file system")
@pytest.mark.parametrize(("size", "asked"), [(100, 0), ((8 << 20) + 1, 1)])
def test_from_another_file_system_a_small_file_is_copied_and_a_large_one_fetched(
    tmp_path: Path, size: int, asked: int
) -> None:
    file = Path(f"/dev/shm/backfill-test-{os.getpid()}")
    if Path("/dev/shm").stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is no second file system")
    copies, bucket = Copies(tmp_path), Bucket()
    try:
        file.write_bytes(b"a" * size)
        copies.adopt("gs://b/a", file)
    finally:
        file.unlink()
    with copies.lend("gs://b/a", bucket.fetch("a", size)) as copy:
        assert copy.read_bytes() == b"a" * size
    assert len(bucket.asked) == asked


def test_an_adopted_file_that_its_writer_changed_is_fetched_and_the_writers_is_left_alone(
    tmp_path: Path,
) -> None:
    copies, bucket = Copies(tmp_path / "scratch"), Bucket()
    file = tmp_path / "file"
    file.write_bytes(b"a" * 100)
    copies.adopt("gs://b/a", file)
    file.write_bytes(b"mine")
    assert copies.opened("gs://b/a") is None
    borrow(copies, bucket, "a")
    assert (bucket.asked, file.read_bytes()) == (["a"], b"mine")


def test_what_was_swept_from_the_temporary_folder_is_fetched_again(tmp_path: Path) -> None:
    copies, bucket = Copies(tmp_path), Bucket()
    borrow(copies, bucket, "a")
    for folder in tmp_path.iterdir():
        shutil.rmtree(folder)
    borrow(copies, bucket, "a")
    borrow(copies, bucket, "b")
    assert bucket.asked == ["a", "a", "b"]


def test_a_full_disk_and_a_folder_that_cannot_be_made_say_what_to_do(tmp_path: Path) -> None:
    def to_a_full_disk(_: Path) -> None:
        os.write(os.open("/dev/full", os.O_WRONLY), b"rows")

    remedy = r"{}.*: cannot keep the download: {}: free the disk, or set lake\.scratch"
    full = remedy.format(tmp_path, os.strerror(errno.ENOSPC))
    with pytest.raises(PermanentFailure, match=full), Copies(tmp_path).lend("gs://b/a", to_a_full_disk):
        pytest.fail("lent what was not fetched")
    (tmp_path / "file").write_bytes(b"")
    refused = remedy.format(tmp_path / "file", ".*")
    with (
        pytest.raises(PermanentFailure, match=refused),
        Copies(tmp_path / "file" / "x").lend("gs://b/a", Bucket().fetch("a")),
    ):
        pytest.fail("lent what was not fetched")


def test_an_error_of_the_borrower_is_not_taken_for_one_of_the_disk(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="mine"), Copies(tmp_path).lend("gs://b/a", Bucket().fetch("a")):
        raise OSError(errno.ENOSPC, "mine")


PROCESS = """
import multiprocessing, os, sys, time
from pathlib import Path
from backfill_assets.lake.copies import copies_in

scratch = Path(sys.argv[1])

def borrow(text=b"rows"):
    with copies_in(scratch).lend("gs://b/a", lambda file: file.write_bytes(text)) as file:
        return file.read_bytes(), len(list(scratch.iterdir()))

def child():
    assert borrow(b"child's") == (b"child's", 2), "a child has its own"
"""


def run(scratch: Path, script: str) -> None:
    subprocess.run([sys.executable, "-c", PROCESS + script, str(scratch)], check=True, timeout=60)


def test_the_copies_go_with_their_process(tmp_path: Path) -> None:
    run(tmp_path, "borrow(); assert len(list(scratch.iterdir())) == 1")
    assert list(tmp_path.iterdir()) == []


def test_the_copies_of_a_killed_process_go_with_the_next_one_and_those_at_work_stay(tmp_path: Path) -> None:
    here = copies_in(tmp_path)
    with here.lend("gs://b/a", lambda file: file.write_bytes(b"mine") and None) as mine:
        command = [sys.executable, "-c", f"{PROCESS}borrow(); print('has', flush=True); time.sleep(600)"]
        with subprocess.Popen([*command, str(tmp_path)], stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"has\n"
            run(tmp_path, "borrow(); assert len(list(scratch.iterdir())) == 3, 'those at work stay'")
            process.send_signal(signal.SIGKILL)
        assert len(list(tmp_path.iterdir())) == 2
        run(tmp_path, "borrow(); assert len(list(scratch.iterdir())) == 2, 'the killed one was removed'")
        assert mine.read_bytes() == b"mine"


def test_a_forked_child_has_copies_of_its_own_and_removes_no_others(tmp_path: Path) -> None:
    run(
        tmp_path,
        """
assert borrow() == (b"rows", 1)
process = multiprocessing.get_context("fork").Process(target=child)
process.start()
process.join()
assert process.exitcode == 0
assert borrow(b"again") == (b"rows", 1), "the child removed its own"
pid = os.fork()
if pid == 0:
    child()
    sys.exit(0)
assert os.waitpid(pid, 0)[1] == 0
assert borrow(b"again") == (b"rows", 1), "the child removed its own"
""",
    )
    assert list(tmp_path.iterdir()) == []


def test_a_child_forked_while_its_parent_borrows_leaves_the_borrowed_file(tmp_path: Path) -> None:
    run(
        tmp_path,
        """
copies = copies_in(scratch)
with copies.lend("gs://b/a", lambda file: file.write_bytes(b"rows")) as file:
    copies.forget("gs://b/a")
    pid = os.fork()
    if pid:
        assert os.waitpid(pid, 0)[1] == 0
        assert file.exists()
""",
    )
