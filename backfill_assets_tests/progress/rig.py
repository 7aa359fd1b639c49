"""The service, Dagster's daemon and the runs it starts as real processes, for tests and measurements."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

from backfill_assets.feeds import Feed
from backfill_assets.orchestration import DAGSTER_YAML
from backfill_assets.progress.model import JobStatus
from backfill_assets.standins.faults import Fault, not_available
from backfill_assets.standins.tardis import TardisStandin

REPOSITORY = Path(__file__).parents[2]
EXCHANGES = ["binance", "coinbase", "kraken"]
SYMBOLS = ["BTC-USDT", "ETH-USDT", "ADA-USDT"]
PATIENCE = 300
OURS = ("BACKFILL_", "DAGSTER_", "TARDIS_", "GOOGLE_", "STORAGE_EMULATOR_HOST")
#: Words after `python -m`; the quick ones look every few seconds instead of every few minutes.
QUICK_DAEMON = ("backfill_assets.rehearsal.quick", "daemon")
QUICK_SERVICE = ("backfill_assets.rehearsal.quick", "service")
DAEMON = ("dagster._daemon",)


def take_away_feeds(standin: TardisStandin, day: str) -> list[Feed]:
    """Let the vendor lack six of the nine feeds of the day, so that it is held; returns the six."""
    feeds = [Feed("coinbase", "trades", symbol) for symbol in SYMBOLS]
    feeds += [Feed("binance", "trades", symbol.replace("-", "")) for symbol in SYMBOLS]
    for feed in feeds:
        standin.faults.put_dataset(feed, day, Fault(always=not_available()))
    return feeds


@dataclass
class Rig:
    """The folders and the running processes."""

    home: Path
    environment: dict[str, str]
    standin: TardisStandin
    options: tuple[str, ...] = ()
    service: tuple[str, ...] = ("backfill_assets.cli",)
    url: str = ""
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def start(self, name: str, *command: str) -> None:
        with (self.home / f"{name}.log").open("ab") as log:
            self.running[name] = subprocess.Popen(
                [sys.executable, "-m", *command],
                cwd=REPOSITORY,
                env=self.environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def start_daemon(self, module: Sequence[str] = QUICK_DAEMON) -> None:
        self.start("daemon", *module, "run", "-m", "backfill_assets.definitions")

    def start_service(self) -> None:
        port = self.url.rpartition(":")[2] or "0"
        log = self.home / "service.log"
        log.write_text("")
        self.start("service", *self.service, "serve", "--port", port, *self.options)
        self.wait(lambda: "API: " in log.read_text())
        self.url = log.read_text().split("API: ")[1].split("/docs")[0]
        self.wait(self.answers)

    def answers(self) -> bool:
        try:
            return self.ask("/healthz") == "ok\n"
        except OSError:
            return False

    def kill(self, name: str) -> None:
        process = self.running.pop(name)
        for found in [process.pid, *(p.pid for p in psutil.Process(process.pid).children(recursive=True))]:
            try:
                os.kill(found, signal.SIGKILL)
            except ProcessLookupError:
                continue
        process.wait(timeout=30)

    def ask(self, path: str, body: object = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.url}{path}", data, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            text = answer.read().decode()
            return json.loads(text) if answer.headers.get_content_type() == "application/json" else text

    def status(self, job_id: str) -> JobStatus:
        return JobStatus.model_validate(self.ask(f"/api/v1/backfill/status/{job_id}"))

    def wait(self, look: Callable[[], Any], seconds: float = PATIENCE) -> Any:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            for name, process in self.running.items():
                assert process.poll() is None, (self.home / f"{name}.log").read_text()[-3000:]
            if found := look():
                return found
            time.sleep(0.2)
        logs = {file.stem: file.read_text()[-2000:] for file in self.home.glob("*.log")}
        return pytest.fail(f"not within {seconds} s: {json.dumps(logs, indent=1)}")

    def wait_for(self, job_id: str, *states: str) -> JobStatus:
        def look() -> JobStatus | None:
            status = self.status(job_id)
            return status if status.state in states else None

        found: JobStatus = self.wait(look)
        return found


@contextmanager
def running_rig(
    home: Path,
    standin: TardisStandin,
    postgres: str = "",
    options: Sequence[str] = (),
    daemon: Sequence[str] = QUICK_DAEMON,
    service: tuple[str, ...] = Rig.service,
    dagster_yaml: Path = DAGSTER_YAML,
    **extra: str,
) -> Iterator[Rig]:
    """Daemon and service over an empty home, started together; both end with the block.

    ``postgres`` is the address of an empty database (without one SQLite is used), ``options`` are those of
    ``serve``, ``daemon`` and ``service`` are their words (no daemon if there are none), ``dagster_yaml``
    is the file of both, ``extra`` is added to the processes' environment.
    """
    (home / "dagster.yaml").symlink_to(dagster_yaml)
    environment = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
    environment |= {
        "DAGSTER_HOME": str(home),
        "BACKFILL_DATA": str(home / "data"),
        "BACKFILL_STANDIN_URL": standin.url,
        **({"DAGSTER_POSTGRES_URL": postgres} if postgres else {}),
        **extra,
    }
    found = Rig(home, environment, standin, tuple(options), service)
    try:
        if daemon:
            found.start_daemon(daemon)
        found.start_service()
        yield found
    finally:
        for name in list(found.running):
            found.kill(name)
