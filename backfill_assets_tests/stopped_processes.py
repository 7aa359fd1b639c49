"""Processes of tests: those that stop themselves with SIGSTOP, and children that run a program."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

import psutil

SECONDS = 60


@contextmanager
def stopped_process(command: Sequence[str]) -> Iterator[subprocess.Popen[str]]:
    """The process of the command after it has stopped itself; the end of the block kills it."""
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


def children_that_run(program: str) -> list[psutil.Process]:
    """Children of this process with ``program`` in their command; other tests may have left dead ones."""
    found = []
    for child in psutil.Process().children():
        with suppress(psutil.ZombieProcess, psutil.NoSuchProcess):
            if program in " ".join(child.cmdline()):
                found.append(child)
    return found
