"""Processes of the rehearsal: a run of a day that can be signaled, and the memory of process trees."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import psutil

_LOOK_SECONDS: Final = 0.005
_SAMPLE_SECONDS: Final = 0.1
_MB: Final = 2**20


class DayProcess:
    """A command in its own session, with its output in a file.

    Parameters
    ----------
    processors
        The processors on which it and its children stay; None for all.
    """

    def __init__(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        folder: Path,
        log: Path,
        processors: frozenset[int] | None = None,
    ) -> None:
        self.log = log
        with log.open("ab") as file, _kept_on(processors):
            self._process = subprocess.Popen(
                list(command),
                cwd=folder,
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """Id of the command, which leads its process group."""
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether the command is still running."""
        return self._process.poll() is None

    def when(self, condition: Callable[[], bool]) -> bool:
        """Wait for the condition; False if the command ends first."""
        while self.is_running:
            if condition():
                return True
            time.sleep(_LOOK_SECONDS)
        return False

    def send(self, number: signal.Signals) -> None:
        """Signal the command alone."""
        self._process.send_signal(number)

    def kill(self) -> None:
        """End every process of the group with SIGKILL."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)

    def wait(self, seconds: float) -> int | None:
        """Exit code, minus the signal that ended it; None if it is killed now because the time is over."""
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            self._process.wait()
            return None

    def left_behind(self) -> list[int]:
        """Processes of its session that outlived it."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error, ProcessLookupError):
                if process.status() != psutil.STATUS_ZOMBIE and os.getsid(process.pid) == self.pid:
                    found.append(process.pid)
        return [pid for pid in found if pid != self.pid or self.is_running]


@contextmanager
def _kept_on(processors: frozenset[int] | None) -> Iterator[None]:
    """Keep this thread, and processes that it starts, on these processors."""
    if processors is None:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, processors)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


class MemorySampler:
    """Samples the memory of process trees in a thread while it is entered."""

    def __init__(self) -> None:
        self.peak_mb = 0.0
        self._roots: set[int] = set()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="rehearsal-memory", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def add(self, pid: int) -> None:
        """Also sample the tree of this process."""
        self._roots.add(pid)

    def _run(self) -> None:
        while not self._stop.wait(_SAMPLE_SECONDS):
            self.peak_mb = max(self.peak_mb, sum(_tree_bytes(pid) for pid in tuple(self._roots)) / _MB)


def _tree_bytes(pid: int) -> int:
    """PSS of a process and its descendants; 0 after their end."""
    try:
        root = psutil.Process(pid)
        tree = [root, *root.children(recursive=True)]
    except psutil.Error:
        return 0
    return sum(pss_bytes(process) for process in tree)


def pss_bytes(process: psutil.Process) -> int:
    """Proportional set size of the process (USS if the system has no PSS); 0 after its end."""
    try:
        memory = process.memory_full_info()
    except psutil.Error:
        return 0
    return int(getattr(memory, "pss", memory.uss))
