"""Renames that survive a power cut, and locks that die with their holder."""

import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from backfill_assets.failures import PermanentFailure, TransientFailure
from backfill_assets.files import locked, put_in_place, temporary_folder

HOLD = (
    "import pathlib, sys, time\n"
    "from backfill_assets.files import locked\n"
    "with locked(pathlib.Path(sys.argv[1])):\n"
    "    print('held', flush=True)\n"
    "    time.sleep(600)\n"
)


def unfinished(folder: Path, data: bytes = b"new") -> Path:
    file = folder / "unfinished"
    file.write_bytes(data)
    return file


def test_a_file_is_put_in_place_of_another_and_into_folders_that_are_not_there(tmp_path: Path) -> None:
    deep = tmp_path / "a" / "b" / "file"
    for data in (b"one", b"two"):
        put_in_place(unfinished(tmp_path, data), deep)
        assert deep.read_bytes() == data
    assert not (tmp_path / "unfinished").exists()


def test_the_bytes_are_on_disk_before_the_name_and_each_new_name_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "a" / "b" / "file"
    places = [tmp_path / "unfinished", tmp_path, tmp_path / "a", tmp_path / "a" / "b"]
    steps: list[str] = []
    sync = os.fsync

    def noted(handle: int) -> None:
        synced = os.fstat(handle)
        where = next(p for p in places if p.exists() and p.stat().st_ino == synced.st_ino)
        steps.append(f"{where.name} with the file {'there' if file.exists() else 'not there'}")
        sync(handle)

    monkeypatch.setattr(os, "fsync", noted)
    put_in_place(unfinished(tmp_path), file)
    assert steps == [
        "unfinished with the file not there",
        "b with the file there",
        "a with the file there",
        f"{tmp_path.name} with the file there",
    ]


def test_a_rename_that_is_refused_leaves_both_as_they_were(tmp_path: Path) -> None:
    (tmp_path / "file").mkdir()
    with pytest.raises(IsADirectoryError):
        put_in_place(unfinished(tmp_path), tmp_path / "file")
    assert (tmp_path / "file").is_dir()
    assert (tmp_path / "unfinished").read_bytes() == b"new"


def test_one_thread_at_a_time_holds_a_lock(tmp_path: Path) -> None:
    inside, most = [], []
    together = threading.Barrier(8)

    def hold(number: int) -> None:
        together.wait()
        with locked(tmp_path / "deep" / "lock"):
            inside.append(number)
            most.append(len(inside))
            time.sleep(0.005)
            inside.remove(number)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(hold, range(8)))
    assert most == [1] * 8


def test_a_lock_is_waited_for_as_long_as_is_said_and_free_when_its_holder_is_killed(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    with subprocess.Popen([sys.executable, "-c", HOLD, str(lock)], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        try:
            for seconds in (0, 0.2):
                start = time.monotonic()
                with (
                    pytest.raises(TransientFailure, match=rf"lock: another .* {seconds} s: let it end"),
                    locked(lock, timeout_seconds=seconds),
                ):
                    pytest.fail("held by two")
                assert time.monotonic() - start >= seconds
        finally:
            holder.kill()
    with locked(lock, timeout_seconds=10):
        pass
    with locked(lock):
        pass


def test_a_full_disk_of_unfinished_files_is_named_with_its_setting(tmp_path: Path) -> None:
    with (
        pytest.raises(PermanentFailure, match=r"No space left.*point lake\.scratch at another disk") as e,
        temporary_folder(tmp_path, "lake.scratch"),
    ):
        os.write(os.open("/dev/full", os.O_WRONLY), b"rows")
    assert str(e.value).startswith(f"{tmp_path}: ")
    assert list(tmp_path.iterdir()) == []


def test_what_is_not_the_disks_fault_passes_through(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), temporary_folder(tmp_path, "lake.scratch") as folder:
        (folder / "missing").read_bytes()
