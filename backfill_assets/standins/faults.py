"""Faults that tests set in the stand-in server: wrong answers for a request path.

A fault belongs to a path; ``dataset_path`` gives the path of a data set. Faults can be set and lifted while
the server runs, from any thread.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final
from urllib.parse import quote

from backfill_assets.feeds import Feed


@dataclass(frozen=True, slots=True)
class Refusal:
    """An answer other than 200, with the vendor's JSON body.

    ``retry_after_seconds`` goes into the body, and for 429 and 503 into ``Retry-After``. With ``as_date`` it
    goes into the header alone, as the HTTP date at which the seconds are over.
    """

    status: int
    code: int
    message: str
    retry_after_seconds: int | None = None
    as_date: bool = False


def too_many_requests(retry_after_seconds: int = 1, *, as_date: bool = False) -> Refusal:
    """429 with ``Retry-After``."""
    return Refusal(429, 429, "Too many requests", retry_after_seconds, as_date)


def server_error() -> Refusal:
    """500, like a bug at the vendor."""
    return Refusal(500, 500, "Internal server error")


def unavailable() -> Refusal:
    """503, as during a deployment."""
    return Refusal(503, 503, "Service unavailable")


def key_used_elsewhere(retry_after_seconds: int = 900) -> Refusal:
    """403 with code 274: the key is active from another IP address."""
    return Refusal(403, 274, "API key is being used from another IP address", retry_after_seconds)


def not_available() -> Refusal:
    """400 with code 140: no such data set on that day."""
    return Refusal(400, 140, "Data set is not available for that day")


def not_found() -> Refusal:
    """404, without further explanation."""
    return Refusal(404, 404, "Not found")


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault of the requests for one path; the default changes nothing.

    Attributes
    ----------
    refusals
        Answers of the first requests, one each; later requests are answered correctly.
    always
        The answer of every request (after ``refusals``).
    body
        Bytes that are served in place of the real file, or of the real metadata answer (also as gzip).
    cut_body_at
        Only this many bytes are served, as if that were all: a truncated file that looks complete.
    cut_connection_at
        The connection breaks after this many bytes of the announced length.
    cuts
        The number of requests that the two cuts affect; ``None`` means all.
    delay_seconds
        The delay before the server answers.
    drip_seconds
        The time that the body takes; it is sent in small pieces.
    times
        The number of requests that ``body``, the delay, the drip and the redirect affect; ``None`` means all.
    redirect_to
        302 to this path or address; the path ``/storage`` + the request's path serves the file without a key.
    """

    refusals: tuple[Refusal, ...] = ()
    always: Refusal | None = None
    body: bytes | None = None
    cut_body_at: int | None = None
    cut_connection_at: int | None = None
    cuts: int | None = None
    delay_seconds: float = 0.0
    drip_seconds: float = 0.0
    times: int | None = None
    redirect_to: str | None = None


#: The fields that ``times`` affects, with the values that they have afterwards.
_PASSED: Final[dict[str, Any]] = {
    "body": None,
    "delay_seconds": 0.0,
    "drip_seconds": 0.0,
    "redirect_to": None,
}


def dataset_path(feed: Feed, day: str) -> str:
    """Path of the data set's URL."""
    symbol = quote(feed.dataset_symbol, safe="")
    return f"/v1/datasets/{feed.exchange}/{feed.data_type}/{day.replace('-', '/')}/{symbol}.csv.gz"


@dataclass
class Faults:
    """All faults of one server, and the facts that its metadata states.

    Attributes
    ----------
    exported_until
        The first day that is not exported, per exchange, instead of the day that the clock gives.
    incidents
        Incident reports per exchange: ``{"from", "to", "status", "details"}``.
    """

    exported_until: dict[str, str] = field(default_factory=dict)
    incidents: dict[str, list[Mapping[str, Any]]] = field(default_factory=dict)
    _by_path: dict[str, Fault] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def put(self, path: str, fault: Fault) -> None:
        """Set the fault of a path, replacing the previous one."""
        with self._lock:
            self._by_path[path] = fault

    def put_dataset(self, feed: Feed, day: str, fault: Fault) -> None:
        """Set the fault of a data set."""
        self.put(dataset_path(feed, day), fault)

    def clear(self, path: str | None = None) -> None:
        """Lift the fault of a path, or all faults and stated facts."""
        with self._lock:
            if path is not None:
                self._by_path.pop(path, None)
                return
            self._by_path.clear()
            self.exported_until.clear()
            self.incidents.clear()

    def take(self, path: str) -> tuple[Fault, Refusal | None]:
        """Use up one request's share of the path's fault; return its fault and refusal."""
        with self._lock:
            fault = self._by_path.get(path, Fault())
            if fault.times is not None:
                self._by_path[path] = replace(fault, times=max(0, fault.times - 1))
                fault = self._by_path[path] if fault.times else replace(fault, **_PASSED)
            if fault.refusals:
                self._by_path[path] = replace(fault, refusals=fault.refusals[1:])
                return fault, fault.refusals[0]
            if fault.always is not None:
                return fault, fault.always
            if fault.cuts is not None:
                if fault.cuts <= 0:
                    return replace(fault, cut_body_at=None, cut_connection_at=None), None
                self._by_path[path] = replace(fault, cuts=fault.cuts - 1)
            return fault, None
