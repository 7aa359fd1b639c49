"""A Ray cluster whose nodes are processes of this machine: a head, and workers that come and go."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

START_NODE = Path(__file__).with_name("start_node.py")
#: The environment variable that tells the processes of this cluster from all others.
MARK = "BACKFILL_TEST_CLUSTER"
_SMALL = ("--num-cpus", "1", "--memory", str(2 * 2**30), "--object-store-memory", "100000000")
_ALONE = ("--node-ip-address", "127.0.0.1", "--include-log-monitor", "false", "--disable-usage-stats")
_START_SECONDS = 120


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


@dataclass
class Cluster:
    """The nodes, by the process of their raylet."""

    folder: Path
    environment: Mapping[str, str]
    port: int = field(default_factory=free_port)
    jobs_port: int = field(default_factory=free_port)
    raylets: list[psutil.Process] = field(default_factory=list)

    @property
    def jobs_url(self) -> str:
        return f"http://127.0.0.1:{self.jobs_port}"

    def start_head(self) -> None:
        words = ("--head", "--port", str(self.port), "--temp-dir", str(self.folder))
        clients = ("--ray-client-server-port", str(free_port()))
        board = ("--dashboard-host", "127.0.0.1", "--dashboard-port", str(self.jobs_port))
        self._start(*words, *clients, *board)

    def start_worker(self) -> None:
        self._start("--address", f"127.0.0.1:{self.port}")

    def _start(self, *words: str) -> None:
        done = subprocess.run(
            [sys.executable, str(START_NODE), "start", *words, *_SMALL, *_ALONE],
            env=dict(self.environment),
            capture_output=True,
            text=True,
            timeout=_START_SECONDS,
            check=False,
        )
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
        known = {raylet.pid for raylet in self.raylets}
        [made] = [p for p in self.processes() if p.name() == "raylet" and p.pid not in known]
        self.raylets.append(made)

    def processes(self) -> list[psutil.Process]:
        """Every process that was started with this cluster's environment.

        Ray writes the titles of its processes over their environment; their parents identify them.
        """
        found: dict[int, psutil.Process] = {}
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.environ().get(MARK) == self.environment[MARK]:
                    found |= {p.pid: p for p in (process, *process.children(recursive=True))}
        return list(found.values())

    def node_of(self, process: psutil.Process) -> psutil.Process | None:
        """The raylet of the process's node."""
        return next((raylet for raylet in self.raylets if raylet in process.parents()), None)

    def lose(self, raylet: psutil.Process, spared: psutil.Process) -> None:
        """Kill all processes of the node but one, as when a node is cut off from the others."""
        self.raylets.remove(raylet)
        for process in [raylet, *raylet.children(recursive=True)]:
            if process != spared:
                with suppress(psutil.Error):
                    process.kill()

    def stop(self) -> None:
        while left := [p for p in self.processes() if p.pid != os.getpid()]:
            for process in left:
                with suppress(psutil.Error):
                    process.kill()
            psutil.wait_procs(left, timeout=10)


@contextmanager
def cluster(environment: Mapping[str, str]) -> Iterator[Cluster]:
    """An empty cluster; the end of the block kills all of its processes."""
    # Ray's sockets need short paths.
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        found = Cluster(Path(folder), {**environment, MARK: folder})
        try:
            yield found
        finally:
            found.stop()


class ProcessorTime:
    """Processor time of the cluster's runs and of all other processes on its nodes, by repeated samples."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._seen: dict[tuple[int, float], tuple[bool, float]] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def _look(self) -> None:
        while not self._stop.wait(0.2):
            for process in self._cluster.processes():
                with suppress(psutil.Error):
                    times = process.cpu_times()
                    is_run = "execute_run" in process.cmdline()
                    self._seen[process.pid, process.create_time()] = (is_run, times.user + times.system)

    def seconds(self) -> tuple[float, float]:
        """Seconds of runs, and seconds of Ray."""
        seen = list(self._seen.values())
        return sum(s for is_run, s in seen if is_run), sum(s for is_run, s in seen if not is_run)

    def close(self) -> None:
        self._stop.set()
        self._thread.join()
