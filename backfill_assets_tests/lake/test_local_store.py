"""Promises of a directory alone: durable renames, locks that die with their holder, tidying up."""

import errno
import hashlib
import os
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path

import pytest

from backfill_assets.failures import DamagedFile, PermanentFailure, SettingsError, Unreadable
from backfill_assets.lake import local
from backfill_assets.lake.local import ABANDONED_SECONDS, UNFINISHED, LocalStore, _explained
from backfill_assets.lake.store import open_store
from backfill_assets.settings import LakeSettings
from backfill_assets_tests.obstacles import OBSTACLES, folder_of_nobody, put_in_the_way
from backfill_assets_tests.stopped_processes import stopped_process


def test_the_lake_is_the_directory_that_the_settings_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOME_FOLDER", str(tmp_path))
    store = open_store(LakeSettings(uri="${SOME_FOLDER}/./lake/"))
    store.replace("days/a.json", b"{}", None)
    assert store.uri == str(tmp_path / "lake")
    assert Path(store.uri_of("days/a.json")).read_bytes() == b"{}"


def test_a_relative_directory_is_that_of_where_the_lake_was_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    store = open_store(LakeSettings(uri="./data/lake"))
    monkeypatch.chdir("/")
    assert store.uri == str(tmp_path / "data" / "lake")


def test_a_missing_variable_in_the_uri_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_SUCH_FOLDER", raising=False)
    with pytest.raises(SettingsError, match="NO_SUCH_FOLDER"):
        open_store(LakeSettings(uri="${NO_SUCH_FOLDER}/lake"))


def test_another_scheme_is_refused_with_the_right_forms() -> None:
    with pytest.raises(PermanentFailure, match=r"s3://b/lake.*gs://bucket/prefix"):
        open_store(LakeSettings(uri="s3://b/lake"))


def test_opening_a_lake_writes_nothing(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "lake")
    store.read("a.json")
    list(store.list(""))
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_copied_for_a_reader(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    store.replace("a.parquet", b"rows", None)
    with store.local_copy("a.parquet") as file:
        assert file == tmp_path / "a.parquet"
    assert file.exists()


def test_files_are_readable_by_whoever_the_umask_lets(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        source = tmp_path / "source"
        source.write_bytes(b"rows")
        source.chmod(0o600)
        store = LocalStore(tmp_path / "lake")
        store.replace("a.json", b"{}", None)
        store.put_file(source, "a.parquet")
    finally:
        os.umask(before)
    assert (tmp_path / "lake/a.json").stat().st_mode & 0o777 == 0o644
    assert (tmp_path / "lake/a.parquet").stat().st_mode & 0o777 == 0o644


def test_what_a_dead_writer_left_is_not_listed_and_goes_when_it_is_old(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    store.replace("a.json", b"{}", None)
    old, young = tmp_path / UNFINISHED / "old", tmp_path / UNFINISHED / "young"
    for file, age in ((old, ABANDONED_SECONDS + 60), (young, ABANDONED_SECONDS - 60)):
        file.write_bytes(b"half")
        os.utime(file, (time.time() - age,) * 2)
    assert list(store.list("")) == ["a.json"]
    LocalStore(tmp_path).replace("b.json", b"{}", None)
    assert (old.exists(), young.exists()) == (False, True)


def test_a_finished_write_leaves_no_temporary_file(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    store.replace("a.json", b"{}", None)
    store.put_file(tmp_path / "a.json", "a.parquet")
    assert list((tmp_path / UNFINISHED).iterdir()) == []


def test_a_write_that_fails_leaves_the_old_file_and_no_temporary_one(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    (tmp_path / "a").write_bytes(b"a file")
    (tmp_path / "source").write_bytes(b"rows")
    with pytest.raises(PermanentFailure, match="a file is where a folder should be"):
        store.put_file(tmp_path / "source", "a/b.parquet")
    assert list((tmp_path / UNFINISHED).glob("*")) == []
    assert (tmp_path / "a").read_bytes() == b"a file"


@pytest.mark.timeout(30)
@pytest.mark.parametrize("what", OBSTACLES)
def test_what_is_in_the_place_of_a_file_is_never_opened_and_moved_away_by_the_next_writer(
    tmp_path: Path, what: str
) -> None:
    store, rows = LocalStore(tmp_path), tmp_path / "source"
    rows.write_bytes(b"rows")
    data = f"{hashlib.sha256(b'rows').hexdigest()}.parquet"
    for path in ("a.json", data):
        put_in_the_way(tmp_path / path, what)
        assert (store.exists(path), store.sizes(path)) == (False, {})
    with pytest.raises(Unreadable, match=r"a\.json: (a|a FIFO, ).* is where a document should be: remove it"):
        store.read("a.json")
    with pytest.raises(DamagedFile, match="is gone"), store.local_copy(data):
        pytest.fail("it is lent")
    with pytest.raises(DamagedFile, match="is gone"):
        store.open_ranges(data)
    store.replace("a.json", b"1", None)
    store.put_file(rows, data)
    assert (tmp_path / "a.json").read_bytes() == b"1"
    assert (tmp_path / data).read_bytes() == b"rows"
    kept = sorted(p.name.rpartition(".")[0] for p in (tmp_path / "damaged").iterdir())
    assert kept == sorted(["a.json", data])


def test_a_document_that_the_disk_does_not_read_is_damaged_alone(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    (tmp_path / "a.json").symlink_to("/proc/self/mem")  # no process can read its first byte
    with pytest.raises(Unreadable, match="the disk cannot read it: remove it, or restore it from a copy"):
        store.read("a.json")
    store.replace("a.json", b"1", None)
    assert (tmp_path / "a.json").read_bytes() == b"1"


def test_what_may_not_be_read_is_damaged_alone_and_written_again() -> None:
    with folder_of_nobody() as folder:
        store, rows = LocalStore(folder), folder / "source"
        rows.write_bytes(b"rows")
        data = f"{hashlib.sha256(b'rows').hexdigest()}.parquet"
        store.replace("a.json", b"secret", None)
        store.put_file(rows, data)
        for path in ("a.json", data):
            (folder / path).chmod(0)
        with pytest.raises(Unreadable, match=r"a\.json: Permission denied: give this user permission"):
            store.read("a.json")
        with (
            pytest.raises(DamagedFile, match=r"cannot be read \(Permission denied\)"),
            store.local_copy(data),
        ):
            pytest.fail("it is lent")
        store.replace("a.json", b"1", None)
        store.put_file(rows, data)
        assert (folder / "a.json").read_bytes() == b"1"
        with store.local_copy(data) as lent:
            assert lent.read_bytes() == b"rows"
        [kept] = (folder / "damaged").iterdir()
        kept.chmod(0o600)
        assert kept.read_bytes() == b"secret"
        (folder / data).chmod(0)
        store.set_aside(data)
        assert not store.exists(data)


def test_of_a_folder_that_may_not_be_entered_only_its_own_files_are_lost() -> None:
    with folder_of_nobody() as folder:
        store = LocalStore(folder)
        for path in ("locked/a.json", "open/a.json"):
            store.replace(path, b"1", None)
        (folder / "locked").chmod(0)
        assert (store.size("locked/a.json"), store.size("open/a.json")) == (None, 1)
        with pytest.raises(Unreadable, match="Permission denied"):
            store.read("locked/a.json")
        with pytest.raises(PermanentFailure, match="locked: Permission denied: give this user permission"):
            list(store.list("locked/"))
        (folder / "locked").chmod(0o700)


def test_a_lake_that_may_not_be_read_is_no_damage_of_its_documents() -> None:
    with folder_of_nobody() as folder:
        store = LocalStore(folder)
        store.replace("a.json", b"1", None)
        folder.chmod(0)
        for look in (store.read, store.size):
            with pytest.raises(PermanentFailure, match="Permission denied: give this user") as refused:
                look("a.json")
            assert not isinstance(refused.value, Unreadable)
        folder.chmod(0o700)


def test_the_lock_of_a_killed_writer_is_free(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    store.replace("a.json", b"1", None)
    hold_every_lock = (
        "import fcntl, pathlib, sys, time\n"
        "folder = pathlib.Path(sys.argv[1])\n"
        "held = [(folder / f'{n:02x}').open('ab') for n in range(256)]\n"
        "[fcntl.flock(h, fcntl.LOCK_EX) for h in held]\n"
        "print('held', flush=True)\n"
        "time.sleep(600)\n"
    )
    command = [sys.executable, "-c", hold_every_lock, str(tmp_path / ".locks")]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        waiting = [sys.executable, "-c", _REPLACE, str(tmp_path)]
        with subprocess.Popen(waiting) as writer:
            with pytest.raises(subprocess.TimeoutExpired):
                writer.wait(1.5)
            assert (tmp_path / "a.json").read_bytes() == b"1"
            holder.kill()
            assert writer.wait(20) == 0
    assert (tmp_path / "a.json").read_bytes() == b"2"


_REPLACE = (
    "import sys, pathlib\n"
    "from backfill_assets.lake.local import LocalStore\n"
    "store = LocalStore(pathlib.Path(sys.argv[1]))\n"
    "store.replace('a.json', b'2', store.read('a.json').generation)\n"
)


#: Replaces a document, stops itself right before a step of the replacement, and prints how it ended.
_STOPPING = (
    "import os, pathlib, signal, sys\n"
    "from backfill_assets.failures import Superseded\n"
    "from backfill_assets.lake import local\n"
    "store, step = local.LocalStore(pathlib.Path(sys.argv[1])), sys.argv[2]\n"
    "generation = store.read('a.json').generation\n"
    "where = next(w for w in (local.Lease, local.LocalStore, local) if hasattr(w, step))\n"
    "original = getattr(where, step)\n"
    "def stopping(*arguments):\n"
    "    os.kill(os.getpid(), signal.SIGSTOP)\n"
    "    return original(*arguments)\n"
    "setattr(where, step, stopping)\n"
    "try:\n"
    "    store.replace('a.json', b'late', generation)\n"
    "except Superseded:\n"
    "    print('superseded')\n"
    "else:\n"
    "    print('written')\n"
)


@pytest.mark.parametrize("step", ["_bytes_of", "insist", "put_in_place"])
def test_a_stopped_writer_stops_nobody_and_writes_nothing_when_it_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    store = LocalStore(tmp_path)
    known = store.replace("a.json", b"first", None)
    monkeypatch.setattr(local, "LEASE_SECONDS", 0.2)
    with stopped_process([sys.executable, "-c", _STOPPING, str(tmp_path), step]) as process:
        newer = store.replace("a.json", b"newer", known)
        # The stopped process has read these very bytes, so only the lease can tell that it is late.
        store.replace("a.json", b"first", newer)
        process.send_signal(signal.SIGCONT)
        assert process.communicate(timeout=60)[0] == "superseded\n"
    assert (tmp_path / "a.json").read_bytes() == b"first"
    assert list((tmp_path / UNFINISHED).iterdir()) == []
    assert list((tmp_path / ".locks").glob("*.*")) == []


def test_a_stopped_writer_goes_on_where_nobody_came_in_between(tmp_path: Path) -> None:
    LocalStore(tmp_path).replace("a.json", b"first", None)
    with stopped_process([sys.executable, "-c", _STOPPING, str(tmp_path), "put_in_place"]) as process:
        process.send_signal(signal.SIGCONT)
        assert process.communicate(timeout=60)[0] == "written\n"
    assert (tmp_path / "a.json").read_bytes() == b"late"


def test_a_folder_that_links_to_another_disk_is_a_part_of_the_lake(tmp_path: Path) -> None:
    shared = Path("/dev/shm")
    if not shared.is_dir() or shared.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is no second file system")
    with tempfile.TemporaryDirectory(prefix="backfill-test-", dir=shared) as elsewhere:
        (tmp_path / "lake" / "ticks").mkdir(parents=True)
        (tmp_path / "lake" / "ticks" / "kraken").symlink_to(elsewhere)
        store = LocalStore(tmp_path / "lake")
        (tmp_path / "source").write_bytes(b"rows")
        document, data = "ticks/kraken/trades/a.json", "ticks/kraken/trades/a.parquet"
        store.put_file(tmp_path / "source", data)
        generation = store.replace(document, b"1", None)
        store.replace(document, b"2", generation)
        assert (Path(elsewhere) / "trades" / "a.json").read_bytes() == b"2"
        assert list(store.list("ticks/")) == [document, data]
        store.set_aside(data)
        assert list(store.list("")) == [f"damaged/{data}", document]
        assert list((Path(elsewhere) / UNFINISHED).iterdir()) == []


def test_a_folder_that_links_to_itself_is_listed_once(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    store.replace("days/a.json", b"1", None)
    (tmp_path / "days" / "again").symlink_to(tmp_path / "days")
    assert list(store.list("")) == ["days/a.json"]


def test_the_disk_that_is_full_is_named_and_not_the_one_that_is_copied_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = LocalStore(tmp_path / "lake")
    store.replace("a.json", b"1", None)
    (tmp_path / "source").write_bytes(b"rows")
    monkeypatch.setattr(local.uuid, "uuid4", lambda: uuid.UUID(int=0))
    full = tmp_path / "lake" / UNFINISHED / uuid.UUID(int=0).hex
    full.symlink_to("/dev/full")
    with pytest.raises(PermanentFailure, match="No space left") as e:
        store.put_file(tmp_path / "source", "a.parquet")
    assert str(e.value).startswith(f"{tmp_path / 'lake'}/")
    assert "larger disk" in str(e.value)


def test_a_file_where_a_folder_should_be_is_named_with_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "days").write_bytes(b"")
    store = LocalStore(tmp_path)
    with pytest.raises(PermanentFailure, match=r"days.*a file is where a folder should be; remove it"):
        store.replace("days/a.json", b"{}", None)


def test_a_full_disk_is_named_with_the_remedy() -> None:
    with pytest.raises(PermanentFailure, match="free space"), _explained(Path("lake/a.json")):
        os.write(os.open("/dev/full", os.O_WRONLY), b"rows")


def test_an_error_that_has_no_known_remedy_is_left_as_it_is() -> None:
    with pytest.raises(OSError, match="Input/output") as e, _explained(Path("lake/a.json")):
        raise OSError(errno.EIO, os.strerror(errno.EIO))
    assert not isinstance(e.value, PermanentFailure)
