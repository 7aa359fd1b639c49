"""The client side of BigQuery on loopback: start it, set its faults, look at its tables.

The server is ``bigquery_server``. It is a separate process because it patches the libraries that it uses.
"""

from __future__ import annotations

import importlib.util
import json
import queue
import subprocess
import sys
import tempfile
import threading
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from backfill_assets.failures import PermanentFailure

PROJECT: Final = "test-project"
_START_SECONDS: Final = 60
_REQUEST_SECONDS: Final = 10


@dataclass(frozen=True, slots=True)
class LoadFaults:
    """The faults of the service; by default there are none.

    Attributes
    ----------
    load_delay_seconds
        How long a load runs before it reads anything.
    slow_tables
        The tables whose next load takes that long, one entry per load; ``None`` means every load.
    load_errors
        ``{"reason", "message"}`` of the next loads, which fail after their rows were read; an entry with
        ``"table"`` applies to the next load of that table.
    used_ids
        The tables whose next load finds its job id taken, one entry per load.
    lost_answers
        The number of submissions that are accepted and run, but answered with 503.
    unavailable
        The number of requests that are answered with 503 and have no effect.
    """

    load_delay_seconds: float = 0.0
    slow_tables: Sequence[str] | None = None
    load_errors: Sequence[Mapping[str, str]] = ()
    used_ids: Sequence[str] = ()
    lost_answers: int = 0
    unavailable: int = 0


@dataclass(frozen=True, slots=True)
class BigQueryStandin:
    """A running stand-in: its URL, and the directory that ``gs://`` stands for."""

    url: str
    gcs_root: Path
    pid: int

    def arm(self, **faults: Any) -> None:
        """Set the faults from now on, named as in ``LoadFaults``; without arguments there are none."""
        self._faults(json.dumps(asdict(LoadFaults(**faults))).encode())

    def armed(self) -> LoadFaults:
        """The faults that have not happened yet."""
        return LoadFaults(**self._faults(None))

    def _faults(self, body: bytes | None) -> dict[str, Any]:
        request = urllib.request.Request(f"{self.url}/faults", data=body)
        with urllib.request.urlopen(request, timeout=_REQUEST_SECONDS) as answer:
            found: dict[str, Any] = json.load(answer)
        return found


@contextmanager
def serve(gcs_root: Path) -> Iterator[BigQueryStandin]:
    """Run a stand-in in its own process on a free port; its tables are gone when it ends.

    Raises
    ------
    PermanentFailure
        bqemulator is not installed, or the process does not start.
    """
    if importlib.util.find_spec("bqemulator") is None:
        msg = "the stand-in for BigQuery needs bqemulator: pip install 'backfill-assets[test]'"
        raise PermanentFailure(msg)
    with tempfile.TemporaryDirectory(prefix="bigquery-standin-") as scratch:
        log = Path(scratch) / "log"
        module = "backfill_assets.standins.bigquery_server"
        command = [sys.executable, "-m", module, "--gcs-root", str(gcs_root), "--scratch", scratch]
        with log.open("wb") as errors:
            process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, stderr=errors, text=True
            )
        try:
            url = _first_line(process)
            if not url.startswith("http"):
                tail = " ".join(log.read_text(encoding="utf-8").split())[-500:]
                msg = f"the stand-in for BigQuery did not start within {_START_SECONDS} s: {url or tail}"
                raise PermanentFailure(msg)
            yield BigQueryStandin(url, gcs_root, process.pid)
        finally:
            process.terminate()
            try:
                process.wait(timeout=_REQUEST_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(timeout=_REQUEST_SECONDS)


def _first_line(process: subprocess.Popen[str]) -> str:
    """The line in which the process prints its URL; empty if it ends or takes too long."""
    lines: queue.Queue[str] = queue.Queue()

    def read() -> None:
        assert process.stdout is not None
        with closing(process.stdout) as output:
            for line in output:
                lines.put(line.strip())
        lines.put("")

    threading.Thread(target=read, daemon=True).start()
    try:
        return lines.get(timeout=_START_SECONDS)
    except queue.Empty:
        return ""
