"""A lake in a Google Cloud Storage bucket, reached through the official client.

Compare-and-swap is the service's own ``if_generation_match``. If the answer to an upload was lost, the client
sends it again and then meets its own object, which looks like a conflict. So each write carries a token, by
which a writer recognizes its own write. Like the client, this honors ``STORAGE_EMULATOR_HOST``.
"""

from __future__ import annotations

import base64
import hashlib
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO, Final, TypeVar, cast

import requests
from google.api_core.exceptions import GoogleAPICallError, NotFound, PreconditionFailed, RetryError
from google.auth.exceptions import DefaultCredentialsError, GoogleAuthError, TransportError
from google.cloud import storage
from google.cloud.storage.exceptions import DataCorruption
from google.cloud.storage.retry import DEFAULT_RETRY
from requests.adapters import HTTPAdapter

from backfill_assets.days import utc_now
from backfill_assets.failures import BackfillError, PermanentFailure, Superseded, TransientFailure
from backfill_assets.files import temporary_folder
from backfill_assets.lake import paths
from backfill_assets.lake.copies import copies_in
from backfill_assets.lake.intact import insist_on_content
from backfill_assets.lake.ranges import TAIL_BYTES, RangedFile
from backfill_assets.lake.store import GCS_SCHEME, YOUNG, Listed, Stored, checked, gone

Downloaded = TypeVar("Downloaded")

#: Longest time without a byte from the server.
TIMEOUT_SECONDS: Final = 60.0
#: Longest time for all attempts at one request; after it the step asks Dagster for a later retry.
RETRY_SECONDS: Final = 120.0
_TOKEN: Final = "backfill-write"
#: The client's default of ten is less than the threads of a run; further connections would not be kept.
_CONNECTIONS: Final = 64
_PARALLEL_READS: Final = 16

#: One damaged download is chance; this many in a row are not.
_DOWNLOADS: Final = 5
#: Characters of Google's own text in a message; the account and the permission are within them.
_LONGEST_REASON: Final = 400
_HTTP_UNAUTHORIZED: Final = 401
_HTTP_FORBIDDEN: Final = 403
_HTTP_SERVER_ERROR: Final = 500

_LOG_IN: Final = (
    "run 'gcloud auth application-default login', set GOOGLE_APPLICATION_CREDENTIALS to a key file, "
    "or give the machine a service account"
)


@contextmanager
def credentials_explained(uri: str) -> Iterator[None]:
    """Add the remedy if a Google client cannot be made because credentials are missing."""
    try:
        yield
    except DefaultCredentialsError as error:
        msg = f"{uri}: no Google credentials: {_LOG_IN}"
        raise PermanentFailure(msg) from error


class GcsStore:
    """Objects below ``gs://bucket/prefix``; a generation is the object's."""

    def __init__(
        self,
        uri: str,
        *,
        client: storage.Client | None = None,
        scratch: Path | None = None,
        timeout_seconds: float = TIMEOUT_SECONDS,
        retry_seconds: float = RETRY_SECONDS,
    ) -> None:
        bucket, _, prefix = uri.removeprefix(GCS_SCHEME).strip("/").partition("/")
        if not bucket:
            msg = f"lake.uri is '{uri}': it names no bucket; write gs://bucket/prefix"
            raise PermanentFailure(msg)
        self._prefix = f"{prefix}/" if prefix else ""
        self._scratch = scratch
        self._bucket_found = False
        self._call: dict[str, Any] = {
            "timeout": timeout_seconds,
            "retry": DEFAULT_RETRY.with_timeout(retry_seconds),
        }
        if client is None:
            with credentials_explained(uri):
                # Objects need no project; without the None the client fails if the credentials name none.
                client = storage.Client(project=None)
        self._client = client
        # The client has no public setting for this; its documentation gives this way.
        for scheme in ("http://", "https://"):
            self._client._http.mount(scheme, HTTPAdapter(pool_maxsize=_CONNECTIONS))
        self._bucket = self._client.bucket(bucket)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, GcsStore) and other.uri == self.uri

    def __hash__(self) -> int:
        return hash(self.uri)

    @property
    def parallel_reads(self) -> int:
        """A read waits tens of milliseconds for the network."""
        return _PARALLEL_READS

    @property
    def uri(self) -> str:
        """``gs://bucket/prefix``."""
        return f"{GCS_SCHEME}{self._bucket.name}/{self._prefix}".rstrip("/")

    def uri_of(self, path: str) -> str:
        """``gs://bucket/prefix/path``."""
        return f"{GCS_SCHEME}{self._bucket.name}/{self._name(path)}"

    def read(self, path: str) -> Stored | None:
        """See ``Store.read``."""

        def download(blob: Any) -> Stored:
            data = blob.download_as_bytes(**self._call)
            # Generation and checksum come from the response that brought the bytes, so the pair is
            # consistent.
            return Stored(data, str(blob.generation))

        with self._explained(path):
            try:
                return self._undamaged(path, download)
            except NotFound:
                self._require_bucket()
                return None

    def replace(self, path: str, data: bytes, expected: str | None) -> str:
        """See ``Store.replace``."""
        blob = self._blob(path)
        token = uuid.uuid4().hex
        blob.metadata = {_TOKEN: token}
        with self._explained(path):
            try:
                blob.upload_from_string(
                    data,
                    # A browser shows content that is declared as HTML, and downloads the rest.
                    content_type="text/html" if path.endswith(".html") else "application/json",
                    if_generation_match=int(expected or 0),
                    **self._call,
                )
            except PreconditionFailed as error:
                present = self._found(path)
                if present is not None and (present.metadata or {}).get(_TOKEN) == token:
                    return str(present.generation)
                msg = f"{self.uri_of(path)}: another writer was faster; read it again"
                raise Superseded(msg) from error
        return str(blob.generation)

    def put_file(self, local: Path, path: str) -> None:
        """See ``Store.put_file``; the service's checksum tells whether the object has other bytes."""
        size = local.stat().st_size
        with self._explained(path):
            present = self._found(path)
            same = present is not None and present.size == size and present.md5_hash == _md5(local)
            if same and utc_now() - present.updated < YOUNG / 2:
                return
            try:
                self._blob(path).upload_from_filename(
                    str(local),
                    # Otherwise the client guesses from the name, and a .gz might be served decompressed.
                    content_type="application/octet-stream",
                    if_generation_match=0 if present is None else present.generation,
                    **self._call,
                )
            except PreconditionFailed as error:
                if present is not None and not self.exists(path):
                    # Discarded since it was found.
                    self.put_file(local, path)
                elif self.size(path) != size:
                    msg = f"{self.uri_of(path)}: another writer changed it meanwhile; read it again"
                    raise Superseded(msg) from error
            else:
                copies_in(self._scratch).adopt(self.uri_of(path), local)

    def put_bytes(self, data: bytes, path: str) -> None:
        """See ``Store.put_bytes``."""
        with temporary_folder(None, "TMPDIR") as folder:
            file = folder / "data"
            file.write_bytes(data)
            self.put_file(file, path)

    def local_copy(self, path: str) -> AbstractContextManager[Path]:
        """See ``Store.local_copy``; the copy stays in the scratch folder as long as the process runs."""

        def fetch(file: Path) -> None:
            self._data(path, lambda blob: blob.download_to_filename(str(file), **self._call))
            insist_on_content(self, path, file)

        return copies_in(self._scratch).lend(self.uri_of(path), fetch)

    def open_ranges(self, path: str) -> BinaryIO:
        """See ``Store.open_ranges``; a file that this process has fetched is read from its copy.

        The service has no checksum of a part, so parts are only as reliable as the connection.
        """
        copy = copies_in(self._scratch).opened(self.uri_of(path))
        if copy is not None:
            return copy
        # A request for "the last 64 KiB" would need no size, but after a broken answer the client resumes it
        # wrongly if the object is shorter.
        size = self.size(path)
        if size is None:
            raise gone(self, path)
        if size <= TAIL_BYTES:
            with self.local_copy(path) as file:
                return file.open("rb")

        def fetch(start: int, stop: int) -> bytes:
            data: bytes = self._data(
                path, lambda blob: blob.download_as_bytes(start=start, end=stop - 1, **self._call)
            )
            if len(data) != stop - start:
                msg = f"{self.uri_of(path)}: {len(data)} of {stop - start} bytes arrived; check the network"
                raise TransientFailure(msg)
            return data

        # All methods of BinaryIO that a file opened for reading has.
        return cast("BinaryIO", RangedFile(size, fetch(size - TAIL_BYTES, size), fetch))

    def set_aside(self, path: str) -> None:
        """See ``Store.set_aside``."""
        with self._explained(path):
            present = self._found(path)
            if present is not None:
                self._bucket.copy_blob(present, self._bucket, self._name(paths.damaged(path)), **self._call)
        self.delete(path)

    def exists(self, path: str) -> bool:
        """See ``Store.exists``."""
        return self.size(path) is not None

    def size(self, path: str) -> int | None:
        """See ``Store.size``."""
        with self._explained(path):
            present = self._found(path)
        return None if present is None else int(present.size)

    def list(self, prefix: str) -> Iterator[str]:
        """See ``Store.list``."""
        yield from (path for path, _ in self._listed(prefix, "name"))

    def sizes(self, prefix: str) -> dict[str, int]:
        """See ``Store.sizes``."""
        return {path: int(blob.size) for path, blob in self._listed(prefix, "name,size")}

    def objects(self, prefix: str) -> dict[str, Listed]:
        """See ``Store.objects``."""
        listed = self._listed(prefix, "name,size,updated")
        return {path: Listed(int(blob.size), blob.updated) for path, blob in listed}

    def discard(self, path: str, before: datetime) -> bool:
        """See ``Store.discard``; the generation is the one whose age was checked."""
        with self._explained(path):
            present = self._found(path)
            if present is None or present.updated >= before:
                return False
            try:
                self._blob(path).delete(if_generation_match=present.generation, **self._call)
            except (NotFound, PreconditionFailed):
                return False
        copies_in(self._scratch).forget(self.uri_of(path))
        return True

    def _listed(self, prefix: str, fields: str) -> Sequence[tuple[str, Any]]:
        with self._explained(prefix):
            pages = self._client.list_blobs(
                self._bucket,
                prefix=f"{self._prefix}{prefix}",
                fields=f"items({fields}),nextPageToken",
                **self._call,
            )
            return [(str(blob.name).removeprefix(self._prefix), blob) for blob in pages]

    def delete(self, path: str) -> None:
        """See ``Store.delete``."""
        with self._explained(path):
            try:
                self._blob(path).delete(**self._call)
            except NotFound:
                self._require_bucket()
        copies_in(self._scratch).forget(self.uri_of(path))

    def _name(self, path: str) -> str:
        return f"{self._prefix}{checked(path)}"

    def _blob(self, path: str) -> Any:
        return self._bucket.blob(self._name(path))

    def _undamaged(self, path: str, download: Callable[[Any], Downloaded]) -> Downloaded:
        """Download again if the bytes do not match the checksum; the client does not retry this."""
        for _ in range(_DOWNLOADS):
            # A new blob each time: a blob that was downloaded requests that generation only.
            with suppress(DataCorruption):
                return download(self._blob(path))
        msg = f"{self.uri}/{path}: was damaged on its way {_DOWNLOADS} times; check the network in between"
        raise TransientFailure(msg)

    def _data(self, path: str, download: Callable[[Any], Downloaded]) -> Downloaded:
        """Download a data file or a part of it."""
        with self._explained(path):
            try:
                return self._undamaged(path, download)
            except NotFound as error:
                self._require_bucket()
                raise gone(self, path) from error

    def _found(self, path: str) -> Any:
        """Return the object's metadata, or None."""
        blob = self._bucket.get_blob(self._name(path), **self._call)
        if blob is None:
            self._require_bucket()
        return blob

    def _require_bucket(self) -> None:
        """Tell a missing object from a missing bucket, once.

        The check lists objects, which the role for objects permits; it does not permit a request for the
        bucket itself.
        """
        if not self._bucket_found:
            for _ in self._client.list_blobs(self._bucket, max_results=1, **self._call):
                pass
            self._bucket_found = True

    @contextmanager
    def _explained(self, path: str) -> Iterator[None]:
        """Convert the client's errors to this package's: those that a rerun may end, and the lasting ones."""
        try:
            yield
        except GoogleAuthError as error:
            if error.retryable or isinstance(error, TransportError):
                raise self._transient(path, error) from error
            msg = f"{self.uri}: the Google credentials are refused ({_line(error)}): {_LOG_IN}"
            raise PermanentFailure(msg) from error
        except GoogleAPICallError as error:
            raise self._of_answer(path, error) from error
        except (RetryError, DataCorruption, requests.RequestException) as error:
            # RetryError is also how the client reports 408 and 429, which it retries itself.
            raise self._transient(path, error) from error

    def _of_answer(self, path: str, error: GoogleAPICallError) -> BackfillError:
        code = int(error.code or 0)
        if code >= _HTTP_SERVER_ERROR:
            return self._transient(path, error)
        bucket = f"{GCS_SCHEME}{self._bucket.name}"
        if isinstance(error, NotFound):
            return PermanentFailure(f"{bucket}: there is no such bucket: create it or correct lake.uri")
        if code in (_HTTP_UNAUTHORIZED, _HTTP_FORBIDDEN):
            return PermanentFailure(
                f"{bucket}: access is refused ({code}, {_line(error)}): "
                "grant this account roles/storage.objectUser on the bucket"
            )
        return PermanentFailure(
            f"{self.uri}/{path}: the request is refused ({code}, {_line(error)}): correct lake.uri"
        )

    def _transient(self, path: str, error: Exception) -> TransientFailure:
        return TransientFailure(f"{self.uri}/{path}: Google Cloud Storage does not answer: {_line(error)}")


def _md5(file: Path) -> str:
    """Return the checksum as the service writes it."""
    with file.open("rb") as handle:
        digest = hashlib.file_digest(handle, lambda: hashlib.md5(usedforsecurity=False)).digest()
    return base64.b64encode(digest).decode()


def _line(error: Exception) -> str:
    """Return the error's own text as one line of limited length."""
    text = error.message if isinstance(error, GoogleAPICallError) else str(error)
    return " ".join(str(text).split())[:_LONGEST_REASON]
