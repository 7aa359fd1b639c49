"""Behavior that only a bucket has: it loses answers, is missing, refuses, is busy, hangs."""

import http.client
import http.server
import json
import logging
import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from google.cloud import storage

from backfill_assets.failures import BackfillError, PermanentFailure, Superseded, TransientFailure
from backfill_assets.lake.gcs import GcsStore
from backfill_assets.lake.ranges import TAIL_BYTES, read_footer
from backfill_assets.lake.store import open_store
from backfill_assets.settings import LakeSettings

Handle = Callable[[http.server.BaseHTTPRequestHandler], None]
CALLS: dict[str, Callable[[GcsStore], object]] = {
    "read": lambda s: s.read("a.json"),
    "replace": lambda s: s.replace("a.json", b"{}", None),
    "put_file": lambda s: s.put_file(Path(__file__), "a.parquet"),
    "local_copy": lambda s: s.local_copy("a.parquet").__enter__(),
    "open_ranges": lambda s: s.open_ranges("a.parquet"),
    "size": lambda s: s.size("a.json"),
    "list": lambda s: list(s.list("")),
    "delete": lambda s: s.delete("a.json"),
}


@contextmanager
def a_server(handle: Handle) -> Iterator[str]:
    """Serve every request with ``handle``."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            handle(self)

        do_POST = do_PUT = do_DELETE = do_GET  # noqa: N815 - names of the base class

        def log_message(self, format: str, *args: object) -> None:
            pass

    class Server(http.server.ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 64  # the default of 5 drops simultaneous connections

    server = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def always(status: int) -> AbstractContextManager[str]:
    """A server that answers everything with this status."""

    def handle(request: http.server.BaseHTTPRequestHandler) -> None:
        request.rfile.read(int(request.headers.get("Content-Length") or 0))
        content = {"error": {"code": status, "message": f"the reason of {status}"}}
        body = json.dumps(content, indent=1).encode()
        request.send_response(status)
        request.send_header("Content-Type", "application/json")
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body)

    return a_server(handle)


def forwarding(
    url: str,
    *,
    lose: Callable[[str, str], bool] = lambda _method, _path: False,
    damage: Callable[[str, bytes], bytes] = lambda _path, content: content,
) -> AbstractContextManager[str]:
    """A proxy before ``url`` that hangs up instead of answering, or changes the content that it passes on."""
    target = urlsplit(url).netloc

    def handle(request: http.server.BaseHTTPRequestHandler) -> None:
        body = request.rfile.read(int(request.headers.get("Content-Length") or 0))
        there = http.client.HTTPConnection(target, timeout=30)
        headers = {k: v for k, v in request.headers.items() if k.lower() != "accept-encoding"}
        there.request(request.command, request.path, body, headers)
        answer = there.getresponse()
        content = damage(request.path, answer.read())
        there.close()
        request.close_connection = True
        if lose(request.command, request.path):
            return
        request.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("content-length", "transfer-encoding", "connection"):
                request.send_header(name, value)
        request.send_header("Content-Length", str(len(content)))
        request.end_headers()
        request.wfile.write(content)

    return a_server(handle)


def first_upload() -> Callable[[str, str], bool]:
    uploads: list[str] = []

    def lose(method: str, path: str) -> bool:
        if method == "POST" and path.startswith("/upload/"):
            uploads.append(path)
        return len(uploads) == 1 and method == "POST"

    return lose


def first_downloads(times: int) -> Callable[[str, bytes], bytes]:
    downloads: list[str] = []

    def damage(path: str, content: bytes) -> bytes:
        if not path.startswith("/download/"):
            return content
        downloads.append(path)
        return b"?" * len(content) if len(downloads) <= times else content

    return damage


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> Callable[..., GcsStore]:
    """Opens a store at another server that retries for half a second; one answer may take its time."""

    def store(url: str, timeout_seconds: float = 20) -> GcsStore:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", url)
        return GcsStore("gs://some-bucket/lake", timeout_seconds=timeout_seconds, retry_seconds=0.5)

    return store


def test_a_write_whose_answer_was_lost_is_recognized_as_its_own(
    gcs_lake: LakeSettings, gcs_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with forwarding(gcs_url, lose=first_upload()) as proxy:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", proxy)
        store = open_store(gcs_lake)
        generation = store.replace("a.json", b"1", None)
        assert store.replace("a.json", b"2", generation) != generation


def test_the_same_bytes_by_another_writer_are_not_mistaken_for_ones_own(
    gcs_lake: LakeSettings, gcs_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_store(gcs_lake).replace("a.json", b"1", None)
    with forwarding(gcs_url, lose=first_upload()) as proxy:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", proxy)
        store = open_store(gcs_lake)
        with pytest.raises(Superseded):
            store.replace("a.json", b"1", None)


def test_a_data_file_whose_answer_was_lost_is_stored(
    gcs_lake: LakeSettings, gcs_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with forwarding(gcs_url, lose=first_upload()) as proxy:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", proxy)
        store = open_store(gcs_lake)
        store.put_file(Path(__file__), "a.parquet")
        assert store.size("a.parquet") == Path(__file__).stat().st_size


@pytest.mark.parametrize("times", [1, 4])
def test_a_download_damaged_on_its_way_is_asked_for_again(
    gcs_lake: LakeSettings, gcs_url: str, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    open_store(gcs_lake).replace("a.parquet", b"rows", None)
    with forwarding(gcs_url, damage=first_downloads(times)) as proxy:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", proxy)
        stored = open_store(gcs_lake).read("a.parquet")
    assert stored is not None
    assert stored.data == b"rows"
    with forwarding(gcs_url, damage=first_downloads(times)) as proxy:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", proxy)
        with open_store(gcs_lake).local_copy("a.parquet") as file:
            assert file.read_bytes() == b"rows"


def test_a_download_that_is_damaged_every_time_is_a_transient_failure_and_never_lent(
    gcs_lake: LakeSettings, gcs_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_store(gcs_lake).replace("a.parquet", b"rows", None)
    with forwarding(gcs_url, damage=first_downloads(1000)) as proxy:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", proxy)
        store = open_store(gcs_lake)
        with pytest.raises(TransientFailure, match=r"a\.parquet: was damaged on its way 5 times"):
            store.read("a.parquet")
        with pytest.raises(TransientFailure, match="was damaged"), store.local_copy("a.parquet"):
            pytest.fail("lent a damaged file")


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("status", [408, 429, 500, 503, 507])
def test_a_busy_service_is_a_transient_failure(fast: Callable[..., GcsStore], call: str, status: int) -> None:
    with always(status) as url, pytest.raises(TransientFailure, match="does not answer") as e:
        CALLS[call](fast(url))
    assert "\n" not in str(e.value)


@pytest.mark.parametrize("call", CALLS)
def test_a_refused_permission_is_permanent_and_names_the_role(
    fast: Callable[..., GcsStore], call: str
) -> None:
    with always(403) as url, pytest.raises(PermanentFailure, match=r"gs://some-bucket.*objectUser") as e:
        CALLS[call](fast(url))
    assert "the reason of 403" in str(e.value)
    assert "\n" not in str(e.value)


@pytest.mark.parametrize("call", CALLS)
def test_an_account_that_is_not_known_is_permanent_and_says_how_to_log_in(
    fast: Callable[..., GcsStore], call: str
) -> None:
    with always(401) as url, pytest.raises(PermanentFailure, match=r"gs://some-bucket.*gcloud auth"):
        CALLS[call](fast(url))


def test_another_refusal_is_permanent(fast: Callable[..., GcsStore]) -> None:
    with always(400) as url, pytest.raises(PermanentFailure, match=r"refused \(400.*correct lake.uri"):
        fast(url).size("a.json")


@pytest.mark.parametrize("call", CALLS)
def test_a_missing_bucket_is_permanent_and_says_what_to_do(gcs_lake: LakeSettings, call: str) -> None:
    store = GcsStore("gs://no-such-bucket/lake")
    with pytest.raises(PermanentFailure, match="gs://no-such-bucket: there is no such bucket: create it"):
        CALLS[call](store)


def test_a_server_that_never_answers_is_given_up(fast: Callable[..., GcsStore]) -> None:
    end = threading.Event()

    def hang(_: http.server.BaseHTTPRequestHandler) -> None:
        end.wait(60)

    with a_server(hang) as url:
        store = fast(url, timeout_seconds=0.5)
        start = time.monotonic()
        with pytest.raises(TransientFailure, match="does not answer"):
            store.read("a.json")
        assert time.monotonic() - start < 20
        end.set()


def test_a_server_that_is_not_there_is_a_transient_failure(fast: Callable[..., GcsStore]) -> None:
    with always(200) as url:
        pass
    with pytest.raises(TransientFailure, match="does not answer"):
        fast(url).read("a.json")


def test_a_uri_without_a_bucket_is_refused(gcs_lake: LakeSettings) -> None:
    with pytest.raises(PermanentFailure, match="names no bucket"):
        open_store(LakeSettings(uri="gs://"))


@pytest.mark.parametrize("uri", ["gs://lake-bucket", "gs://lake-bucket/"])
def test_a_lake_may_be_a_whole_bucket(gcs_lake: LakeSettings, uri: str) -> None:
    store = open_store(LakeSettings(uri=uri))
    store.replace("whole/a.json", b"{}", None)
    assert store.uri == "gs://lake-bucket"
    assert store.uri_of("whole/a.json") == "gs://lake-bucket/whole/a.json"
    assert list(store.list("whole/")) == ["whole/a.json"]
    store.delete("whole/a.json")


def test_two_lakes_in_one_bucket_do_not_see_each_other(gcs_lake: LakeSettings) -> None:
    open_store(gcs_lake).replace("a.json", b"{}", None)
    longer = LakeSettings(uri=f"{gcs_lake.uri}-2")
    open_store(longer).replace("b.json", b"{}", None)
    assert list(open_store(gcs_lake).list("")) == ["a.json"]
    assert list(open_store(longer).list("")) == ["b.json"]


@contextmanager
def counting(url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Stores opened in the block reach the bucket through a proxy; yields the bytes of each download."""
    downloads: list[int] = []

    def count(path: str, content: bytes) -> bytes:
        if path.startswith("/download/"):
            downloads.append(len(content))
        return content

    with forwarding(url, damage=count) as proxy, monkeypatch.context() as patch:
        patch.setenv("STORAGE_EMULATOR_HOST", proxy)
        yield downloads


def a_table(folder: Path) -> Path:
    """A Parquet file of 8 MB: 200,000 rows of 5 columns in 20 groups."""
    numbers = random.Random(6)
    columns = {f"c{n}": [numbers.random() for _ in range(200_000)] for n in range(5)}
    pq.write_table(pa.table(columns), folder / "table", row_group_size=10_000, use_dictionary=False)
    return folder / "table"


def test_a_data_file_is_downloaded_once_per_process_by_however_many_threads_and_stores(
    gcs_lake: LakeSettings, gcs_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = ["day/a.parquet", "day/b.parquet"]
    for path in paths:
        open_store(gcs_lake).replace(path, path.encode() * 100_000, None)
    with counting(gcs_url, monkeypatch) as downloads:
        stores = [open_store(gcs_lake), open_store(gcs_lake)]
        together = threading.Barrier(8)

        def borrow(number: int) -> None:
            together.wait()
            for path in paths * 3:
                with stores[number % 2].local_copy(path) as copy:
                    assert copy.read_bytes() == path.encode() * 100_000

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(borrow, range(8)))
    assert sorted(downloads) == [1_300_000, 1_300_000]


def test_a_data_file_that_this_process_stored_is_not_downloaded(
    gcs_lake: LakeSettings, gcs_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = a_table(tmp_path)
    with counting(gcs_url, monkeypatch) as downloads:
        store = open_store(gcs_lake)
        store.put_file(file, "a.parquet")
        content = file.read_bytes()
        file.unlink()
        with store.local_copy("a.parquet") as copy, store.open_ranges("a.parquet") as ranges:
            assert copy.read_bytes() == ranges.read() == content
    assert downloads == []


def test_a_footer_and_a_column_of_a_group_cost_a_small_part_of_a_large_file(
    gcs_lake: LakeSettings, gcs_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = a_table(tmp_path)
    open_store(LakeSettings(uri=gcs_lake.uri, scratch=str(tmp_path / "there"))).put_file(file, "a.parquet")
    with counting(gcs_url, monkeypatch) as downloads:
        store = open_store(gcs_lake)
        assert read_footer(store, "a.parquet").num_rows == 200_000
        assert downloads == [TAIL_BYTES]
        assert downloads[0] < file.stat().st_size / 100
        with store.open_ranges("a.parquet") as ranges, pq.ParquetFile(ranges, pre_buffer=True) as parquet:
            found = parquet.read_row_group(7, columns=["c1", "c2"])
        assert found.equals(pq.ParquetFile(file).read_row_group(7, columns=["c1", "c2"]))
        assert len(downloads) == 3, "two columns that lie side by side are one request"
        assert sum(downloads) < file.stat().st_size / 20


def test_a_small_file_is_fetched_whole_and_kept_when_a_part_is_asked_for(
    gcs_lake: LakeSettings, gcs_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_store(gcs_lake).replace("a.parquet", b"r" * TAIL_BYTES, None)
    with counting(gcs_url, monkeypatch) as downloads:
        store = open_store(gcs_lake)
        for _ in range(3):
            with store.open_ranges("a.parquet") as ranges, store.local_copy("a.parquet") as copy:
                assert ranges.read() == copy.read_bytes() == b"r" * TAIL_BYTES
    assert downloads == [TAIL_BYTES]


def test_a_part_whose_answer_was_lost_is_asked_for_again(
    gcs_lake: LakeSettings, gcs_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = random.Random(7).randbytes(200_000)
    open_store(gcs_lake).replace("a.parquet", data, None)
    answers: list[str] = []

    def every_other(_method: str, path: str) -> bool:
        if path.startswith("/download/"):
            answers.append(path)
        return len(answers) % 2 == 1 and path.startswith("/download/")

    with forwarding(gcs_url, lose=every_other) as proxy:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", proxy)
        with open_store(gcs_lake).open_ranges("a.parquet") as ranges:
            assert ranges.read() == data
    assert len(answers) == 4


def test_a_service_that_fails_while_parts_are_read_is_a_transient_failure_through_the_reader_too(
    gcs_lake: LakeSettings, gcs_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    open_store(LakeSettings(uri=gcs_lake.uri, scratch=str(tmp_path))).put_file(a_table(tmp_path), "a.parquet")
    down = threading.Event()
    with forwarding(gcs_url, lose=lambda _method, _path: down.is_set()) as proxy:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", proxy)
        store = GcsStore(gcs_lake.uri, timeout_seconds=20, retry_seconds=5)
        with store.open_ranges("a.parquet") as ranges, pq.ParquetFile(ranges) as parquet:
            down.set()
            with pytest.raises(TransientFailure, match=r"a\.parquet: Google Cloud Storage does not answer"):
                parquet.read_row_group(0)


def test_a_part_that_comes_short_is_a_transient_failure(
    gcs_lake: LakeSettings, gcs_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_store(gcs_lake).replace("a.parquet", b"r" * 200_000, None)
    with forwarding(
        gcs_url, damage=lambda path, content: content[:-1] if "/download" in path else content
    ) as p:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", p)
        with pytest.raises(TransientFailure, match=r"a\.parquet: 65535 of 65536 bytes arrived"):
            open_store(gcs_lake).open_ranges("a.parquet")


def test_an_object_deleted_while_parts_of_it_are_read_is_gone(gcs_lake: LakeSettings) -> None:
    store = open_store(gcs_lake)
    store.replace("day/a.parquet", b"r" * 200_000, None)
    with store.open_ranges("day/a.parquet") as ranges:
        store.delete("day/a.parquet")
        with pytest.raises(PermanentFailure, match=r"day/a\.parquet is gone"):
            ranges.read()


def test_a_download_lies_in_the_scratch_folder(gcs_lake: LakeSettings, tmp_path: Path) -> None:
    store = open_store(LakeSettings(uri=gcs_lake.uri, scratch=str(tmp_path / "scratch")))
    store.replace("a.parquet", b"rows", None)
    with store.local_copy("a.parquet") as file:
        assert file.is_relative_to(tmp_path / "scratch")


def test_the_connections_of_many_threads_are_kept(
    fast: Callable[..., GcsStore], caplog: pytest.LogCaptureFixture
) -> None:
    together = threading.Barrier(24)

    def answer_when_all_have_asked(request: http.server.BaseHTTPRequestHandler) -> None:
        if request.path.startswith("/download/"):  # the client also asks for the bucket, for its own purposes
            together.wait(20)
        request.send_response(200)
        request.send_header("Content-Length", "2")
        request.end_headers()
        request.wfile.write(b"{}")

    with a_server(answer_when_all_have_asked) as url, caplog.at_level(logging.WARNING):
        store = fast(url)
        with ThreadPoolExecutor(24) as pool:
            list(pool.map(store.read, ["a.json"] * 24))
    assert "pool is full" not in caplog.text


def test_a_client_made_elsewhere_is_used(gcs_lake: LakeSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    client = storage.Client(project=None)
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "http://127.0.0.1:1")
    open_store(gcs_lake, client=client).replace("a.json", b"{}", None)


def test_missing_credentials_are_named_with_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("STORAGE_EMULATOR_HOST", raising=False)
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "none.json"))
    with pytest.raises(PermanentFailure, match="no Google credentials: run 'gcloud auth"):
        open_store(LakeSettings(uri="gs://some-bucket/lake"))


@pytest.mark.parametrize(("status", "failure"), [(400, PermanentFailure), (503, TransientFailure)])
def test_refused_credentials_are_permanent_and_a_busy_login_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int, failure: type[BackfillError]
) -> None:
    with always(status) as url:
        monkeypatch.delenv("STORAGE_EMULATOR_HOST", raising=False)
        key_file = tmp_path / "key.json"
        key_file.write_text(json.dumps(_service_account(f"{url}/token")))
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(key_file))
        store = GcsStore("gs://some-bucket/lake", timeout_seconds=1, retry_seconds=1)
        with pytest.raises(failure):
            store.read("a.json")


def _service_account(token_uri: str) -> dict[str, str]:
    """A key that was never a real account's, for a login server on loopback."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return {
        "type": "service_account",
        "project_id": "some-project",
        "private_key_id": "1",
        "private_key": key.decode(),
        "client_email": "nobody@some-project.iam.gserviceaccount.com",
        "client_id": "1",
        "token_uri": token_uri,
    }
