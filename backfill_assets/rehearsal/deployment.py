"""A house in service: Dagster's daemon and ``backfill-assets serve`` as processes, with their own records.

Both run as shipped, with the ``dagster.yaml`` of the repository; in a quick rehearsal their intervals are
shorter (``quick``). The rehearsal orders days and reads the results through the HTTP API.
"""

from __future__ import annotations

import json
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from types import TracebackType
from typing import Any, Final, Self, TypeVar

from backfill_assets.failures import BackfillError
from backfill_assets.orchestration import DAGSTER_YAML
from backfill_assets.progress.model import FINAL_JOB_STATES
from backfill_assets.rehearsal.house import House
from backfill_assets.rehearsal.processes import DayProcess

#: A daemon or service that has not started by then, or a job that has not ended, is a result.
START_SECONDS: Final = 90.0
JOB_SECONDS: Final = 300.0
_ANSWER_SECONDS: Final = 60.0
_LOOK_SECONDS: Final = 0.2
_POLL_SECONDS: Final = 0.4
_END_SECONDS: Final = 30.0

Found = TypeVar("Found")


class Deployment:
    """Daemon and service; a context manager that starts both and ends every process that they have started.

    Parameters
    ----------
    is_quick
        Run every few seconds the checks that otherwise run every few minutes.
    variables
        Environment variables of both, for example another database.
    has_service
        False to run the daemon alone.
    """

    #: Words after the interpreter that start daemon and service.
    daemon: tuple[str, ...] = ("-m", "dagster._daemon")
    service: tuple[str, ...] = ("-m", "backfill_assets.cli")
    quick_daemon: tuple[str, ...] = ("-m", "backfill_assets.rehearsal.quick", "daemon")
    quick_service: tuple[str, ...] = ("-m", "backfill_assets.rehearsal.quick", "service")
    #: The code location of the daemon.
    definitions: tuple[str, ...] = ("-m", "backfill_assets.definitions")

    def __init__(
        self,
        house: House,
        *,
        is_quick: bool,
        variables: Mapping[str, str] | None = None,
        has_service: bool = True,
    ) -> None:
        self.house = house
        self.home = house.folder / "home"
        self.url = ""
        self._is_quick = is_quick
        self._has_service = has_service
        self._variables = {"DAGSTER_HOME": str(self.home), **(variables or {})}
        self._running: dict[str, DayProcess] = {}

    def __enter__(self) -> Self:
        self.home.mkdir()
        shipped = DAGSTER_YAML.read_text(encoding="utf-8")
        (self.home / "dagster.yaml").write_text(shipped, encoding="utf-8")
        try:
            self.start_daemon()
            if self._has_service:
                self.start_service()
                self.insist(lambda: self.ask("/readyz") == "ready\n", "daemon and service are ready")
        except BaseException:  # Ctrl-C must not leave a daemon behind either.
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def _end(self) -> None:
        for name in list(self._running):
            self.kill(name)

    def process(self, name: str) -> DayProcess:
        """The ``daemon`` or the ``service``."""
        return self._running[name]

    def start_daemon(self) -> None:
        """Start the daemon, and wait until it works."""
        words = self.quick_daemon if self._is_quick else self.daemon
        log = self._start("daemon", [*words, "run", *self.definitions])
        self.insist(lambda: "following daemons" in log(), "the daemon works")

    def start_service(self) -> None:
        """Start the service at its previous address, and wait until it answers."""
        words = self.quick_service if self._is_quick else self.service
        port = self.url.rpartition(":")[2] or "0"
        log = self._start("service", [*words, "serve", "--port", port])
        self.insist(lambda: "API: " in log(), "the service listens")
        self.url = log().split("API: ")[1].split("/docs")[0]
        self.insist(lambda: self.ask("/healthz") == "ok\n", "the service answers")

    def _start(self, name: str, words: list[str]) -> Callable[[], str]:
        """Start it; return a function that returns its output from then on."""
        log = self.house.folder / "logs" / f"{name}.log"
        before = log.stat().st_size if log.exists() else 0
        self._running[name] = self.house.launch(name, [sys.executable, *words], self._variables)
        return lambda: log.read_bytes()[before:].decode("utf-8", "replace")

    def kill(self, name: str) -> list[int]:
        """End it and its child processes with SIGKILL; return the processes that are left."""
        process = self._running.pop(name)
        process.kill()
        process.wait(_END_SECONDS)
        _until(lambda: not process.left_behind(), _END_SECONDS)
        return process.left_behind()

    def ask(self, path: str, body: object = None) -> Any:
        """Ask the service; the answer is an object from JSON, or a text; with a body the request is a POST.

        Raises
        ------
        OSError
            The service does not answer, or answers with an error (``HTTPError``).
        """
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.url}{path}", data, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=_ANSWER_SECONDS) as answer:
            text = answer.read().decode()
            return json.loads(text) if answer.headers.get_content_type() == "application/json" else text

    def refusal(self, path: str) -> tuple[int, str, str]:
        """Status, ``Retry-After`` and text of any answer; status 0 without an answer."""
        try:
            with urllib.request.urlopen(f"{self.url}{path}", timeout=_ANSWER_SECONDS) as answer:
                return answer.status, answer.headers.get("Retry-After", ""), answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.headers.get("Retry-After", ""), error.read().decode("utf-8", "replace")
        except OSError as error:
            return 0, "", str(error)

    def is_ready(self) -> tuple[bool, str]:
        """Whether the service reports that it is ready, and its answer."""
        status, _, text = self.refusal("/readyz")
        return status == HTTPStatus.OK, " ".join(text.split()) or "no answer"

    def order(self, start: str, end: str, **more: object) -> str:
        """Order a backfill; returns the id of the job."""
        job: str = self.ask("/api/v1/backfill", {"start": start, "end": end, **more})["job_id"]
        return job

    def status(self, job: str) -> dict[str, Any]:
        """The job with its days; empty while the service does not answer."""
        with suppress(OSError):
            found: dict[str, Any] = self.ask(f"/api/v1/backfill/status/{job}")
            return found
        return {}

    def ended(self, job: str, seconds: float = JOB_SECONDS) -> dict[str, Any]:
        """The job once it has ended, or its state after that number of seconds."""
        self.wait(lambda: self.status(job).get("state") in FINAL_JOB_STATES, seconds)
        return self.status(job)

    def incidents(self, rule: str) -> list[dict[str, Any]]:
        """Open incidents of the rule."""
        with suppress(OSError):
            return [each for each in self.ask("/api/v1/incidents")["incidents"] if each["rule"] == rule]
        return []

    def wait(self, look: Callable[[], Found], seconds: float) -> Found | None:
        """Poll until there is a result; None after that time.

        Raises
        ------
        BackfillError
            The daemon or the service has ended.
        """
        return _until(self._watched(look), seconds)

    def insist(self, look: Callable[[], object], about: str) -> None:
        """Wait for a condition that the later steps need.

        Raises
        ------
        BackfillError
            The condition does not hold in time, or the daemon or the service has ended.
        """
        if not self.wait(look, START_SECONDS):
            msg = f"not within {START_SECONDS:g} s: {about}"
            raise BackfillError(msg)

    def _watched(self, look: Callable[[], Found]) -> Callable[[], Found | None]:
        def watched() -> Found | None:
            for name, process in self._running.items():
                if not process.is_running:
                    tail = process.log.read_text(encoding="utf-8", errors="replace")[-500:]
                    msg = f"the {name} has ended by itself: {' '.join(tail.split())}"
                    raise BackfillError(msg)
            try:
                return look()
            except OSError:
                return None

        return watched


def _until(look: Callable[[], Found], seconds: float) -> Found | None:
    deadline = time.monotonic() + seconds
    while not (found := look()):
        if time.monotonic() > deadline:
            return None
        time.sleep(_LOOK_SECONDS)
    return found


@dataclass
class Watched:
    """The progress of a job, in the order of the answers."""

    percents: list[float] = field(default_factory=list)

    @property
    def steps_back(self) -> list[str]:
        """Answers that were behind the answer before."""
        pairs = zip(self.percents, self.percents[1:], strict=False)
        return [f"{before:g} % then {after:g} %" for before, after in pairs if after < before]


@contextmanager
def watched(deployment: Deployment, job: str) -> Iterator[Watched]:
    """Poll the job for the time of a ``with`` block."""
    found, over = Watched(), threading.Event()

    def poll() -> None:
        is_last = False
        while not is_last:
            is_last = over.wait(_POLL_SECONDS)
            if status := deployment.status(job):
                found.percents.append(status["percent"])

    thread = threading.Thread(target=poll, name="watched job", daemon=True)
    thread.start()
    try:
        yield found
    finally:
        over.set()
        thread.join(_ANSWER_SECONDS)
