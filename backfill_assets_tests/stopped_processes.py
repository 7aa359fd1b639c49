"""Processes that stop themselves with SIGSTOP in the middle of their work."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import psutil

SECONDS = 60


@contextmanager
def stopped_process(command: Sequence[str]) -> Iterator[subprocess.Popen[str]]:
    """The process of the command, once it has stopped itself; it is killed at the end of the block."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            deadline = time.monotonic() + SECONDS
            while psutil.Process(process.pid).status() != psutil.STATUS_STOPPED:
                assert process.poll() is None, "it did not come to that step"
                assert time.monotonic() < deadline
                time.sleep(0.05)
            yield process
        finally:
            process.kill()
