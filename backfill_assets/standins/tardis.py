"""A server on loopback that keeps the vendor's contract: the correct answers, and who may see them.

A source (``market`` or ``directory``) gives the data, ``faults`` the faults, and ``serving`` the HTTP. The
server is as strict as the vendor where a client could rely on more: no ``HEAD``, no ``Range``, no resuming.
"""

from __future__ import annotations

import errno
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from backfill_assets.days import parse_day, utc_now
from backfill_assets.failures import PermanentFailure
from backfill_assets.feeds import Feed
from backfill_assets.standins.directory import DatasetsDirectory
from backfill_assets.standins.faults import Faults, Refusal
from backfill_assets.standins.market import Market
from backfill_assets.standins.metadata import exchange_details, first_day_not_exported, matches, midnight
from backfill_assets.standins.serving import HOST, Counting, LoggedRequest, RefusedError, Server
from backfill_assets.standins.sources import NOT_ON_THAT_DAY, NoDatasetError, Source
from backfill_assets.tardis.generated import FILES_SERVER, GENERATED_SERVER

#: Covers data sets but no instruments, like the vendor's cheaper plans.
CSV_ONLY_KEY: Final = "standin-csv-key"


class TardisStandin:
    """The server; a context manager that listens while it is entered.

    Parameters
    ----------
    market
        The market to serve, or another source; by default a new ``Market``.
    datasets_dir
        Serve the files of this directory instead.
    api_key
        The key that covers everything. ``CSV_ONLY_KEY`` covers data sets only; any other key is invalid.
    port
        0 takes a free port.
    clock
        The clock that decides which days are exported.
    require_keys
        Whether keys are checked; by default for a market, but not for a directory.

    Raises
    ------
    PermanentFailure
        On entering: the port is unavailable. On creation: the directory holds no data sets.
    """

    def __init__(
        self,
        market: Source | None = None,
        datasets_dir: Path | None = None,
        api_key: str = "standin-key",
        port: int = 0,
        clock: Callable[[], datetime] = utc_now,
        require_keys: bool | None = None,
    ) -> None:
        self.source: Source = DatasetsDirectory(datasets_dir) if datasets_dir else market or Market()
        self.name = FILES_SERVER if datasets_dir else GENERATED_SERVER
        self.api_key = api_key
        self.faults = Faults()
        self.clock = clock
        self.stopping = threading.Event()
        self._require_keys = datasets_dir is None if require_keys is None else require_keys
        self._port = port
        self._server: Server | None = None
        self._requests: list[LoggedRequest] = []
        self._lock = threading.Lock()
        self.counting = Counting()

    def __enter__(self) -> Self:
        try:
            self._server = Server(self._port, self)
        except (OSError, OverflowError) as error:
            reason = (
                "is in use"
                if isinstance(error, OSError) and error.errno == errno.EADDRINUSE
                else "cannot be used"
            )
            msg = f"port {self._port} {reason} on {HOST}: choose another with --port, or 0 for a free one"
            raise PermanentFailure(msg) from error
        self.stopping.clear()
        self._thread = threading.Thread(
            target=self._server.serve_forever,
            kwargs={"poll_interval": 0.02},
            name="tardis-standin",
            daemon=True,
        )
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._server is not None:
            self.stopping.set()
            self._server.shutdown()
            self._server.cut_connections()
            self._server.server_close()
            self._thread.join()
            self._server = None

    @property
    def port(self) -> int:
        """The port that the server listens on."""
        if self._server is None:
            msg = "the stand-in is not running: enter it first"
            raise RuntimeError(msg)
        return self._server.server_port

    @property
    def url(self) -> str:
        """Base URL; data sets are at ``/v1/datasets`` below it, metadata at ``/v1``."""
        return f"http://{HOST}:{self.port}"

    @property
    def requests(self) -> list[LoggedRequest]:
        """All requests so far, in the order of their answers."""
        with self._lock:
            return list(self._requests)

    @property
    def most_at_once(self) -> int:
        """The largest number of requests answered at the same time."""
        return self.counting.most

    def forget_requests(self) -> None:
        """Empty the log and the count."""
        with self._lock:
            self._requests.clear()
            self.counting.most = self.counting.now

    def log(self, request: LoggedRequest) -> None:
        """Append to the log."""
        with self._lock:
            self._requests.append(request)

    def exported_until(self, exchange: str) -> str:
        """First day of the exchange that is not exported."""
        stated = self.faults.exported_until.get(exchange)
        return stated or first_day_not_exported(self.clock(), self.source.last_day(exchange))

    def check_key(self, authorization: str | None, day: str) -> None:
        """Refuse a data set that the key does not cover; the first day of each month is free."""
        if self._require_keys and not day.endswith("-01") and not self._known(authorization):
            message = "Unauthorized: without an API key only the first day of each month is available"
            raise RefusedError(Refusal(401, 401, message))

    def check_instruments_key(self, authorization: str | None) -> None:
        """Refuse instruments metadata to keys that do not cover it."""
        if not self._require_keys or authorization == f"Bearer {self.api_key}":
            return
        status = 403 if self._known(authorization) else 401
        message = "Instruments metadata requires an active pro or business subscription"
        raise RefusedError(Refusal(status, status, message))

    def dataset(self, feed: Feed, day: str) -> bytes | Path:
        """Return the file, or refuse."""
        try:
            parse_day(day)
        except PermanentFailure as error:
            raise RefusedError(Refusal(400, 100, str(error))) from error
        try:
            if feed.exchange in self.source.exchanges and day >= self.exported_until(feed.exchange):
                raise NoDatasetError(NOT_ON_THAT_DAY, f"data set {feed} is not available for {day}")
            with _refusing_files():
                return self.source.dataset(feed, day)
        except NoDatasetError as error:
            raise RefusedError(Refusal(400, error.code, str(error))) from error

    def exchange_details(self, exchange: str) -> dict[str, Any]:
        """Answer ``/v1/exchanges/{exchange}``."""
        self._check_exchange(exchange)
        with _refusing_files():
            own = self.source.exchange_details(exchange)
        if own is not None:
            stated = self.faults.exported_until.get(exchange)
            until = {"exportedUntil": midnight(stated)} if stated else {}
            return own | {"datasets": own["datasets"] | until}
        incidents = self.faults.incidents.get(exchange, [])
        return exchange_details(self.source, exchange, self.exported_until(exchange), incidents)

    def instruments(self, exchange: str, wanted: str, symbol: str | None) -> Any:
        """Answer ``/v1/instruments/{exchange}``, or one instrument by its id."""
        self._check_exchange(exchange)
        try:
            conditions = json.loads(wanted)
        except ValueError as error:
            raise RefusedError(Refusal(400, 100, "filter is not valid JSON")) from error
        with _refusing_files():
            answers = self.source.instruments(exchange)
        if answers is None:
            message = f"instruments/{exchange}.json is missing: save the vendor's answer beside the files"
            raise RefusedError(Refusal(403, 403, message))
        if symbol is None:
            return [answer for answer in answers if matches(answer, conditions)]
        found = [answer for answer in answers if answer.get("id") == symbol]
        if not found:
            raise RefusedError(Refusal(404, 404, f"there is no instrument {symbol} at {exchange}"))
        return found[0]

    def _known(self, authorization: str | None) -> bool:
        return authorization in (f"Bearer {self.api_key}", f"Bearer {CSV_ONLY_KEY}")

    def _check_exchange(self, exchange: str) -> None:
        if exchange not in self.source.exchanges:
            raise RefusedError(Refusal(404, 404, f"there is no exchange '{exchange}'"))


@contextmanager
def _refusing_files() -> Iterator[None]:
    """Answer about an unusable own file with a status that clients do not retry."""
    try:
        yield
    except PermanentFailure as failure:
        raise RefusedError(Refusal(422, 422, str(failure))) from failure
