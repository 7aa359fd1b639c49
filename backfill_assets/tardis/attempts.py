"""One request to the vendor through the official client, and the meaning of each failure.

Each call makes exactly one attempt, because ``client`` decides how often and how long to try. The vendor's
download function repeats an attempt up to 30 times, which takes up to 48 minutes, and has no parameter for
it. But it logs the error before each wait, and a handler on its public logger ends the attempt there, with
the vendor's own exception (and so with its ``Retry-After``). If that log line disappeared, the time limit
would still bound an attempt; only the reason would be lost.

Answers take bounded memory, and no text of the vendor leaves this module with the key in it. The vendor's
functions use sessions whose ``_Answer`` reads an error or metadata only up to a limit.

The client does not give access to response headers, so the ``x-md5`` that the vendor sends with free files is
not compared. aiohttp reports a body shorter than announced; a file cut off at the source shows when it is
decoded.
"""

from __future__ import annotations

import asyncio
import email.utils
import errno
import hashlib
import json
import logging
import socket
import sys
import urllib.parse
import zlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC
from functools import partial
from pathlib import Path
from typing import Any, Final
from urllib.error import HTTPError

import aiohttp
import tardis_dev
from multidict import CIMultiDict, CIMultiDictProxy

from backfill_assets.days import shift, utc_now
from backfill_assets.failures import (
    BackfillError,
    FeedAbsent,
    PermanentFailure,
    TransientFailure,
    printable,
    redacted,
)
from backfill_assets.feeds import Feed
from backfill_assets.tardis.generated import FILES_SERVER
from backfill_assets.venues import EXCHANGES
from backfill_assets.yaml_files import did_you_mean

#: Refusals that mean "too much, or not now" (RFC 9110, RFC 6585); all of 5xx mean the same.
_TRANSIENT_STATUS: Final = frozenset({408, 425, 429})

#: The vendor's error codes.
_INVALID_SYMBOL, _NOT_ON_THAT_DAY, _OTHER_ADDRESS = 300, 140, 274
_CODES: Final = range(1, 10_000)

#: Bytes read from the body of an error, whose message is one line.
ERROR_BYTES: Final = 1 << 16
#: Largest size of metadata, inflated; a venue with 500,000 options has about 220 MB.
METADATA_BYTES: Final = 1 << 28
#: Most values in metadata, which take up to 30 times their text as objects; 500,000 options have 20 million.
METADATA_VALUES: Final = 25_000_000
#: Longer waits are ignored: after a day the schedule requests the day again anyway.
LONGEST_WAIT_ASKED: Final = 86_400.0

_GZIP_MAGIC: Final = b"\x1f\x8b"
_VENDOR_LOGGER: Final = logging.getLogger("tardis_dev")
_CHUNK: Final = 1 << 16

#: Errors that reading an answer may raise besides those of aiohttp.
_UNREADABLE: Final = (ValueError, EOFError, ArithmeticError, LookupError, RecursionError, zlib.error)


@dataclass(frozen=True, slots=True)
class Limits:
    """Time limits of one attempt: to connect, in silence, and as a whole."""

    connect_seconds: float
    read_seconds: float
    whole_seconds: float


class RunRefused(PermanentFailure):
    """Permanent for the whole run: no other feed would fare better (a missing key, a full disk)."""


class NoAnswerInTime(TransientFailure):
    """The time limit of the attempt is over."""


class NoGzip(TransientFailure):
    """An answer with status 200 that is not a gzip file; ``content`` is its sha256 (hex)."""

    def __init__(self, message: str, content: str) -> None:
        super().__init__(message)
        self.content = content


class AccessRefused(PermanentFailure):
    """The key does not cover this request, but may cover others."""


class _Answer(aiohttp.ClientResponse):
    """An answer whose body is read up to a limit; reading an unsuccessful one raises ``HTTPError``.

    The vendor's client streams data sets to disk, so only errors and metadata pass through ``read``.
    """

    #: The key of the session and the configured address, whose secrets are removed from every text.
    key, base = "", ""

    @property
    def headers(self) -> CIMultiDictProxy[str]:
        """Headers without the encoding, which ``read`` has undone."""
        kept = [(name, value) for name, value in self._headers.items() if name.lower() != "content-encoding"]
        return CIMultiDictProxy(CIMultiDict(kept))

    async def read(self) -> bytes:
        """The inflated body of metadata; raises the errors of the vendor's client."""
        if self._body is None:
            is_error = self.status != 200
            body = await self._bounded(ERROR_BYTES if is_error else METADATA_BYTES, is_error=is_error)
            if is_error or (self.key and self.key.encode() in body):
                body = redacted(body.decode(errors="replace"), self.key, base=self.base).encode()
            if is_error:
                raise HTTPError(self.url.path, self.status, body.decode(), self.headers, None)  # type: ignore[arg-type]
            self._body = body
        return self._body

    async def text(self, encoding: str | None = None, errors: str = "strict") -> str:
        """The body as UTF-8, regardless of the charset that the vendor claims."""
        del encoding, errors
        return (await self.read()).decode(errors="replace")

    async def _bounded(self, limit: int, *, is_error: bool) -> bytes:
        inflated = zlib.decompressobj(47) if self._headers.get("Content-Encoding") == "gzip" else None
        body, values = bytearray(), 0
        try:
            async for chunk in self.content.iter_chunked(_CHUNK):
                more = inflated.decompress(chunk, limit + 1 - len(body)) if inflated else chunk
                body += more
                values += sum(map(more.count, b",:[{"))
                if len(body) > limit or values > METADATA_VALUES:
                    break
        except (aiohttp.ClientError, zlib.error):
            # The status of an error says more than the end of its body.
            if not is_error:
                raise
        finally:
            self.close()
        if not is_error and (len(body) > limit or values > METADATA_VALUES):
            is_long = len(body) > limit
            # The traceback holds this frame, and with it the bytes, until the garbage is collected.
            body.clear()
            msg = f"longer than {limit >> 20} MiB" if is_long else f"more than {METADATA_VALUES:,} values"
            raise ValueError(msg)
        if inflated is not None and not inflated.eof and not is_error:
            msg = "the gzip body is cut off"
            raise EOFError(msg)
        del body[limit:]
        return bytes(body)


async def _session(api_key: str, timeout: int, accept_encoding: str = "gzip") -> aiohttp.ClientSession:
    """A session of the vendor's client that reads answers as ``_Answer``, over the pooled connections."""
    limits, shared = _LIMITS.get(), _CONNECTIONS.get()
    return aiohttp.ClientSession(
        auto_decompress=False,
        timeout=aiohttp.ClientTimeout(
            total=None,
            sock_connect=limits.connect_seconds if limits else timeout,
            sock_read=limits.read_seconds if limits else timeout,
        ),
        headers={
            "Accept-Encoding": accept_encoding,
            "User-Agent": f"tardis-dev/{tardis_dev.__version__} (+https://github.com/tardis-dev/tardis-python)",
            **({"Authorization": f"Bearer {api_key}"} if api_key else {}),
        },
        trust_env=True,
        response_class=type("_Answer", (_Answer,), {"key": api_key, "base": _BASE.get()}),
        connector=shared,
        connector_owner=shared is None,
    )


@asynccontextmanager
async def connections(most: int) -> AsyncIterator[None]:
    """Keep up to ``most`` connections for the attempts of the block; without it each makes its own."""
    async with aiohttp.TCPConnector(limit=most) as connector:
        token = _CONNECTIONS.set(connector)
        try:
            yield
        finally:
            _CONNECTIONS.reset(token)


#: Limits of the attempt that runs in this context; None when other code uses the vendor's client.
_LIMITS: ContextVar[Limits | None] = ContextVar("limits", default=None)
_CONNECTIONS: ContextVar[aiohttp.BaseConnector | None] = ContextVar("connections", default=None)
#: The configured address that the attempt asks.
_BASE: ContextVar[str] = ContextVar("base", default="")
for _module in ("download_datasets", "get_exchange_details", "instrument_info"):
    sys.modules[f"tardis_dev.{_module}"].create_session = _session  # type: ignore[attr-defined]


@dataclass
class _Attempt:
    """The attempt that runs in this context, and the error that ended it."""

    task: asyncio.Task[None] | None = None
    error: Exception | None = None


_ATTEMPT: ContextVar[_Attempt | None] = ContextVar("attempt", default=None)


class _FirstErrorEnds(logging.Handler):
    """Ends an attempt when the vendor's client logs the error after which it would wait and retry."""

    def emit(self, record: logging.LogRecord) -> None:
        attempt = _ATTEMPT.get()
        arguments = record.args if isinstance(record.args, tuple) else ()
        errors = [argument for argument in arguments if isinstance(argument, Exception)]
        if attempt is not None and attempt.task is not None and errors:
            attempt.error = errors[0]
            attempt.task.cancel()
        # The vendor's logger is set to debug here; the root logger's own level decides which records are
        # shown.
        root = logging.getLogger()
        if root.isEnabledFor(record.levelno):
            root.handle(record)


_FIRST_ERROR_ENDS: Final = _FirstErrorEnds()


def _listen() -> None:
    """Listen to the vendor's client; called before each attempt, because programs may reconfigure logging."""
    _VENDOR_LOGGER.addHandler(_FIRST_ERROR_ENDS)
    _VENDOR_LOGGER.setLevel(logging.DEBUG)
    _VENDOR_LOGGER.propagate = False


def dataset_url(endpoint: str, feed: Feed, day: str) -> str:
    """The URL of the file; an empty endpoint means the client's default."""
    base = endpoint or tardis_dev.DEFAULT_DATASETS_ENDPOINT
    symbol = urllib.parse.quote(feed.dataset_symbol, safe="")
    return f"{base}/{feed.exchange}/{feed.data_type}/{day.replace('-', '/')}/{symbol}.csv.gz"


async def download_once(
    endpoint: str, api_key: str, feed: Feed, day: str, directory: Path, *, limits: Limits
) -> Path:
    """Fetch one file into the directory.

    Raises
    ------
    TransientFailure
        Another attempt may succeed; has ``retry_after_seconds`` if the vendor names a time.
    FeedAbsent
        The vendor does not have the file.
    AccessRefused
        The key does not cover this file.
    RunRefused
        There is no key, or the download cannot be written to disk.
    PermanentFailure
        Any other refusal of this request.
    """
    _listen()
    url = dataset_url(endpoint, feed, day)
    name = f"{urllib.parse.quote(feed.dataset_symbol, safe='')}.csv.gz"
    attempt = _Attempt()
    token = _ATTEMPT.set(attempt)
    try:
        async with _classified(endpoint, url, limits, day=day, key=api_key, directory=directory):
            attempt.task = asyncio.create_task(
                tardis_dev.download_datasets_async(
                    exchange=feed.exchange,
                    data_types=[feed.data_type],
                    symbols=[feed.dataset_symbol],
                    from_date=day,
                    to_date=shift(day, 1),
                    api_key=api_key,
                    download_dir=str(directory),
                    endpoint=endpoint or tardis_dev.DEFAULT_DATASETS_ENDPOINT,
                    get_filename=lambda *_: name,
                    skip_if_exists=False,
                )
            )
            await _outcome(attempt, attempt.task)
    finally:
        _ATTEMPT.reset(token)
    path = directory / name
    with path.open("rb") as file:
        if file.read(2) != _GZIP_MAGIC:
            file.seek(0)
            msg = f"{redacted(url, api_key, base=endpoint)}: the answer is not a gzip file"
            raise NoGzip(msg, hashlib.file_digest(file, "sha256").hexdigest())
    return path


async def _outcome(attempt: _Attempt, task: asyncio.Task[None]) -> None:
    """Wait for the attempt's task; if ``_FirstErrorEnds`` ended it, raise the error behind the end."""
    try:
        await task
    except asyncio.CancelledError:
        own = asyncio.current_task()
        if attempt.error is None or (own is not None and own.cancelling()):
            raise
        raise attempt.error from None


async def details_once(endpoint: str, exchange: str, *, limits: Limits) -> Any:
    """Request the exchange's details; no key is needed.

    Raises
    ------
    PermanentFailure
        The vendor does not know the exchange.
    TransientFailure
        Another attempt may succeed; has ``retry_after_seconds`` if the vendor names a time.
    """
    base = endpoint or tardis_dev.DEFAULT_ENDPOINT
    url = f"{base}/exchanges/{exchange}"
    try:
        async with _classified(endpoint, url, limits):
            return await tardis_dev.get_exchange_details_async(exchange, endpoint=base)
    except FeedAbsent as absent:
        hint = did_you_mean(exchange, EXCHANGES)
        msg = (
            f"Tardis knows no exchange '{exchange}'{f', {hint}' if hint else ':'} correct universe.exchanges "
            f"in the settings ({absent})"
        )
        raise PermanentFailure(msg) from absent


async def instruments_once(endpoint: str, api_key: str, exchange: str, *, limits: Limits) -> Any:
    """Request the exchange's instruments; raise ``AccessRefused`` if the key does not cover them."""
    base = endpoint or tardis_dev.DEFAULT_ENDPOINT
    url = f"{base}/instruments/{exchange}"
    async with _classified(endpoint, url, limits, key=api_key):
        return await tardis_dev.get_instrument_info_async(exchange, api_key=api_key, endpoint=base)


@asynccontextmanager
async def _classified(
    base: str, url: str, limits: Limits, *, day: str = "", key: str = "", directory: Path | None = None
) -> AsyncIterator[None]:
    """Bound the block in time and turn the errors of the vendor's client into failures of this package.

    The failure is raised outside the handler and its text is redacted, because Dagster keeps the texts of a
    whole chain of exceptions.
    """
    failure: BackfillError | None = None
    token, token_of_base = _LIMITS.set(limits), _BASE.set(base)
    hide = partial(_one_line, key=key, base=base)
    try:
        async with asyncio.timeout(limits.whole_seconds):
            yield
    except HTTPError as error:
        failure = _refusal(url, error, day, key, hide)
    except aiohttp.ConnectionTimeoutError:
        failure = TransientFailure(
            f"cannot reach {url}: no connection within {limits.connect_seconds:g} s "
            "(tardis.connect_timeout_seconds)"
        )
    except aiohttp.SocketTimeoutError:
        failure = TransientFailure(
            f"{url}: the connection was silent for {limits.read_seconds:g} s (tardis.read_timeout_seconds)"
        )
    except TimeoutError:
        failure = NoAnswerInTime(f"{url}: no complete answer within {round(limits.whole_seconds, 1):g} s")
    except (aiohttp.ClientError, ConnectionError, socket.gaierror, *_UNREADABLE) as error:
        failure = _broken(url, error, hide)
    except OSError as error:
        if directory is None:
            failure = _broken(url, error, hide)
        else:
            remedy = "free some space" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "make it writable"
            failure = RunRefused(
                f"{directory}: cannot keep the download: {error.strerror}: {remedy}, or set lake.scratch"
            )
    finally:
        _LIMITS.reset(token)
        _BASE.reset(token_of_base)
    if failure is not None:
        failure.args = (redacted(str(failure), key, base=base),)
        raise failure


def _broken(url: str, error: Exception, hide: Callable[[object], str]) -> BackfillError:
    """Describe an incomplete answer, or a request without an answer."""
    if isinstance(error, aiohttp.TooManyRedirects):
        return TransientFailure(f"{url}: redirected {len(error.history)} times without an answer")
    reason = hide(error)
    if isinstance(error, aiohttp.RedirectClientError):
        return TransientFailure(f"{url}: the redirect cannot be followed: {reason}")
    if isinstance(error, aiohttp.ClientConnectorError):
        return TransientFailure(f"cannot reach {url}: {reason}")
    if isinstance(error, aiohttp.ClientError | ConnectionError | socket.gaierror):
        return TransientFailure(f"{url}: the connection broke: {reason}")
    return TransientFailure(f"{url}: the answer cannot be read: {reason}")


def _refusal(url: str, error: HTTPError, day: str, key: str, hide: Callable[[object], str]) -> BackfillError:
    """Classify an answer other than 200; the table of the vendor's errors."""
    body = _json_body(error)
    code, message = body.get("code"), body.get("message")
    text = hide((message if isinstance(message, str) else error.msg) or error.code)
    said = f"{url}: HTTP {error.code}{f' (code {code})' if code in _CODES else ''}: {text}"
    if error.headers and error.headers.get("Server") == FILES_SERVER:
        # The answer names the file; its address changes from run to run.
        said = text
    wait = _wait_asked(error, body)
    if error.code == 401 and day and not key and not day.endswith("-01"):
        msg = (
            f"Tardis refuses {day} without an API key: set TARDIS_API_KEY "
            f"(only the first day of each month is free)"
        )
        return RunRefused(msg)
    if error.code == 401:
        return AccessRefused(f"Tardis refuses the API key: check TARDIS_API_KEY ({said})")
    if error.code == 403 and (code == _OTHER_ADDRESS or wait is not None):
        return TransientFailure(f"{said} (a key serves one IP address at a time)", retry_after_seconds=wait)
    if error.code == 403:
        return AccessRefused(f"Tardis refuses access: check the plan of TARDIS_API_KEY ({said})")
    if error.code in _TRANSIENT_STATUS or not 400 <= error.code < 500 or "ISO 8601 format" in text:
        # The official client also repeats a 400 that complains about the date's format.
        return TransientFailure(said, retry_after_seconds=wait)
    if error.code == 404 or (error.code == 400 and code in (_INVALID_SYMBOL, _NOT_ON_THAT_DAY)):
        return FeedAbsent(said)
    return PermanentFailure(said)


def _json_body(error: HTTPError) -> dict[str, Any]:
    try:
        body = json.loads(error.msg)
    except (ValueError, RecursionError):
        return {}
    return body if isinstance(body, dict) else {}


def _wait_asked(error: HTTPError, body: dict[str, Any]) -> float | None:
    """Seconds from ``retryAfterSeconds`` of the body or ``Retry-After``; None if the value is not a time.

    The vendor sends whole seconds; RFC 9110 also allows a date.
    """
    asked = body.get("retryAfterSeconds")
    if not isinstance(asked, int | float) or isinstance(asked, bool):
        asked = _seconds_of(error.headers.get("Retry-After", "") if error.headers else "")
    if asked is None or not asked >= 0:
        return None
    # Compared before it becomes a float, because an integer may be larger than any float.
    return float(asked) if asked < LONGEST_WAIT_ASKED else LONGEST_WAIT_ASKED


def _seconds_of(header: str) -> float | None:
    if header.isascii() and header.isdigit():
        return float(header)
    try:
        moment = email.utils.parsedate_to_datetime(header)
    except ValueError:
        return None
    return (moment.astimezone(UTC) - utc_now()).total_seconds()


def _one_line(text: object, key: str, base: str) -> str:
    """The start of a text; redacted before it is cut, so that no part of a secret is left at the end."""
    line = printable(" ".join(redacted(str(text), key, base=base).split()))
    return (line or type(text).__name__)[:300]
