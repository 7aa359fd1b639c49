"""One request to the vendor through the official client, and what each of its failures means.

Exactly one attempt per call, because how often and how long to try is decided in ``client``. The vendor's
download function repeats an attempt up to 30 times, which takes up to 48 minutes, and has no parameter
for it; but before each of its waits it logs the error, and a handler on its public logger ends the attempt
there, with the vendor's own exception (and so with its ``Retry-After``). Were that log line to disappear, an
attempt would still be bounded by its time limit, only the reason would be lost.

The client does not hand out response headers, so the ``x-md5`` that the vendor sends with free files is not
compared. aiohttp reports a body shorter than announced; a file cut off at the source shows when it is
decoded.
"""

from __future__ import annotations

import asyncio
import errno
import json
import logging
import socket
import urllib.parse
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.error import HTTPError

import aiohttp
import tardis_dev

from backfill_assets.days import shift
from backfill_assets.failures import BackfillError, FeedAbsent, PermanentFailure, TransientFailure
from backfill_assets.feeds import Feed

#: A connection that stays silent for so long is dead; long transfers are bounded by the attempt's limit.
SILENCE_SECONDS: Final = 60.0

#: Refusals that mean "too much, or not now" (RFC 9110, RFC 6585); all of 5xx does too.
_TRANSIENT_STATUS: Final = frozenset({408, 425, 429})

#: The vendor's error codes.
_INVALID_SYMBOL, _NOT_ON_THAT_DAY, _OTHER_ADDRESS = 300, 140, 274

_GZIP_MAGIC: Final = b"\x1f\x8b"
_VENDOR_LOGGER: Final = logging.getLogger("tardis_dev")


class RunRefused(PermanentFailure):
    """Permanent for the whole run: no other feed would fare better (a missing key, a full disk)."""


@dataclass
class _Attempt:
    """The attempt that runs in this context, and the error that ended it."""

    task: asyncio.Task[None] | None = None
    error: Exception | None = None


_ATTEMPT: ContextVar[_Attempt | None] = ContextVar("attempt", default=None)


class _FirstErrorEnds(logging.Handler):
    """Ends an attempt when the vendor's client logs the error after which it would wait and try again."""

    def emit(self, record: logging.LogRecord) -> None:
        attempt = _ATTEMPT.get()
        arguments = record.args if isinstance(record.args, tuple) else ()
        errors = [argument for argument in arguments if isinstance(argument, Exception)]
        if attempt is not None and attempt.task is not None and errors:
            attempt.error = errors[0]
            attempt.task.cancel()
        # The vendor's logger is opened for debug messages here; whoever logs sees only what he asked for.
        root = logging.getLogger()
        if root.isEnabledFor(record.levelno):
            root.handle(record)


_FIRST_ERROR_ENDS: Final = _FirstErrorEnds()


def _listen() -> None:
    """Hear the vendor's client; said before each attempt, because programs configure logging at any time."""
    _VENDOR_LOGGER.addHandler(_FIRST_ERROR_ENDS)
    _VENDOR_LOGGER.setLevel(logging.DEBUG)
    _VENDOR_LOGGER.propagate = False


def dataset_url(endpoint: str, feed: Feed, day: str) -> str:
    """Where the vendor has the file; an empty endpoint is the client's default."""
    base = endpoint or tardis_dev.DEFAULT_DATASETS_ENDPOINT
    symbol = urllib.parse.quote(feed.dataset_symbol, safe="")
    return f"{base}/{feed.exchange}/{feed.data_type}/{day.replace('-', '/')}/{symbol}.csv.gz"


async def download_once(
    endpoint: str, api_key: str, feed: Feed, day: str, directory: Path, *, limit_seconds: float
) -> Path:
    """Fetch one file into the directory.

    Raises
    ------
    TransientFailure
        Another attempt may succeed; with ``retry_after_seconds`` if the vendor says when.
    FeedAbsent
        The vendor has no such file.
    RunRefused
        The key, or the disk, permits no download at all.
    PermanentFailure
        Any other refusal of this request.
    """
    _listen()
    url = dataset_url(endpoint, feed, day)
    name = f"{urllib.parse.quote(feed.dataset_symbol, safe='')}.csv.gz"
    attempt = _Attempt()
    token = _ATTEMPT.set(attempt)
    try:
        async with _classified(url, limit_seconds, day=day, key=api_key, directory=directory):
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
                    timeout=min(limit_seconds, SILENCE_SECONDS),
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
            msg = f"{url}: the answer is no gzip file"
            raise TransientFailure(msg)
    return path


async def _outcome(attempt: _Attempt, task: asyncio.Task[None]) -> None:
    """Wait for the attempt's task; an end that ``_FirstErrorEnds`` made raises the error behind it."""
    try:
        await task
    except asyncio.CancelledError:
        own = asyncio.current_task()
        if attempt.error is None or (own is not None and own.cancelling()):
            raise
        raise attempt.error from None


async def details_once(endpoint: str, exchange: str, *, limit_seconds: float) -> Any:
    """Ask for the exchange's details; needs no key.

    Raises
    ------
    PermanentFailure
        The vendor knows no such exchange.
    TransientFailure
        Another attempt may succeed. The client hides ``Retry-After`` here.
    """
    base = endpoint or tardis_dev.DEFAULT_ENDPOINT
    url = f"{base}/exchanges/{exchange}"
    try:
        async with _classified(url, limit_seconds):
            return await tardis_dev.get_exchange_details_async(
                exchange, endpoint=base, timeout=min(limit_seconds, SILENCE_SECONDS)
            )
    except FeedAbsent as absent:
        msg = f"Tardis knows no exchange '{exchange}': correct universe.exchanges in the settings ({absent})"
        raise PermanentFailure(msg) from absent


async def instruments_once(endpoint: str, api_key: str, exchange: str, *, limit_seconds: float) -> Any:
    """Ask for the exchange's instruments; ``RunRefused`` where the key does not cover them."""
    base = endpoint or tardis_dev.DEFAULT_ENDPOINT
    url = f"{base}/instruments/{exchange}"
    async with _classified(url, limit_seconds, key=api_key):
        return await tardis_dev.get_instrument_info_async(
            exchange, api_key=api_key, endpoint=base, timeout=min(limit_seconds, SILENCE_SECONDS)
        )


@asynccontextmanager
async def _classified(
    url: str, limit_seconds: float, *, day: str = "", key: str = "", directory: Path | None = None
) -> AsyncIterator[None]:
    """Bound the block in time and turn what the vendor's client raises into the failures of this package."""
    try:
        async with asyncio.timeout(limit_seconds):
            yield
    except HTTPError as error:
        raise _refusal(url, error, day, key) from error
    except TimeoutError as error:
        msg = f"{url}: no complete answer within {limit_seconds:.0f} s"
        raise TransientFailure(msg) from error
    except aiohttp.InvalidURL as error:
        msg = f"{url} is no URL: correct the endpoints under tardis in the settings"
        raise RunRefused(msg) from error
    except aiohttp.ClientConnectorError as error:
        msg = f"cannot reach {url}: {_one_line(error)}"
        raise TransientFailure(msg) from error
    except (aiohttp.ClientError, ConnectionError, socket.gaierror) as error:
        msg = f"{url}: the connection broke: {_one_line(error)}"
        raise TransientFailure(msg) from error
    except (ValueError, EOFError) as error:
        msg = f"{url}: the answer cannot be read: {_one_line(error)}"
        raise TransientFailure(msg) from error
    except OSError as error:
        if directory is None:
            msg = f"{url}: the answer cannot be read: {_one_line(error)}"
            raise TransientFailure(msg) from error
        remedy = "free some space" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "make it writable"
        msg = f"{directory}: cannot keep the download: {error.strerror}: {remedy}, or set lake.scratch"
        raise RunRefused(msg) from error


def _refusal(url: str, error: HTTPError, day: str, key: str) -> BackfillError:
    """Say what an answer other than 200 means; the table of the vendor's errors."""
    body = _json_body(error)
    code, text = body.get("code"), _one_line(body.get("message") or error.msg or error.code)
    said = f"{url}: HTTP {error.code}{f' (code {code})' if code else ''}: {text}"
    wait = _wait_asked(error, body)
    if error.code == 401 and day and not key:
        msg = (
            f"Tardis refuses {day} without an API key: set TARDIS_API_KEY "
            f"(only the first day of each month is free)"
        )
        return RunRefused(msg)
    if error.code == 401:
        return RunRefused(f"Tardis refuses the API key: check TARDIS_API_KEY ({said})")
    if error.code == 403 and (code == _OTHER_ADDRESS or wait is not None):
        return TransientFailure(f"{said} (a key serves one IP address at a time)", retry_after_seconds=wait)
    if error.code == 403:
        return RunRefused(f"Tardis refuses access: check what the plan of TARDIS_API_KEY covers ({said})")
    if error.code in _TRANSIENT_STATUS or error.code >= 500 or "ISO 8601 format" in text:
        # The official client too repeats a 400 that complains about the date's format.
        return TransientFailure(said, retry_after_seconds=wait)
    if error.code == 404 or (error.code == 400 and code in (_INVALID_SYMBOL, _NOT_ON_THAT_DAY)):
        return FeedAbsent(said)
    return PermanentFailure(said)


def _json_body(error: HTTPError) -> dict[str, Any]:
    try:
        body = json.loads(error.msg)
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}


def _wait_asked(error: HTTPError, body: dict[str, Any]) -> float | None:
    """``retryAfterSeconds`` of the body or ``Retry-After``, which the vendor sends in whole seconds."""
    asked = body.get("retryAfterSeconds")
    if isinstance(asked, int | float):
        return float(asked)
    header = error.headers.get("Retry-After", "") if error.headers else ""
    return float(header) if header.isdigit() else None


def _one_line(text: object) -> str:
    return (" ".join(str(text).split()) or type(text).__name__)[:300]
