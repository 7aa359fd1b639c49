"""Run Python programs in forks of one process that has imported the libraries, for tests of many commands.

A command is still a process of its own, with its own arguments, environment, folder and streams. It imports
this project's modules itself, in its own order, and runs its exit functions. Only the third-party libraries,
half a second to three of processor time, are already imported. An interpreter reads some variables when it
starts, which a fork cannot do: ``starts_otherwise`` tells when a command needs a new interpreter.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

#: Libraries that the commands import, and modules that these libraries load at their first use.
LIBRARIES = (
    *("click", "rich.console", "rich.table", "yaml", "jinja2", "filelock", "psutil"),
    *("dagster", "dagster._cli", "dagster._core.storage.sql", "dagster._core.instance", "sqlalchemy"),
    *("dagster._core.storage.event_log", "dagster._core.storage.runs", "dagster._core.storage.schedules"),
    *("alembic.command", "fsspec", "upath", "aiohttp", "tardis_dev", "numpy", "pandas", "polars"),
    *(
        "pyarrow.parquet",
        "pyarrow.dataset",
        "duckdb",
        "pandera.polars",
        "pandera.backends.polars.builtin_checks",
    ),
    *(
        "numba",
        "numba.core.registry",
        "numba.cpython.charseq",
        "numba.core.typing.cffi_utils",
        "llvmlite.binding",
    ),
)
#: Prefixes of the variables that the interpreter and the libraries read when they start.
AT_START = ("PYTHON", "LC_", "LANG", "LD_", "TZ", "NUMBA_", "POLARS_", "OMP_", "ARROW_")
SECONDS = 240


def starts_otherwise(environment: Mapping[str, str]) -> bool:
    """Whether a process with this environment starts differently from the one that is forked."""
    names = {name for name in (*environment, *os.environ) if name.startswith(AT_START)}
    return any(environment.get(name) != os.environ.get(name) for name in names)


class CommandForks:
    """The process that is forked, and its answers; it takes one command at a time."""

    def __init__(self) -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, __file__, str(theirs.fileno())], pass_fds=[theirs.fileno()]
            )
        self._answers = self._socket.makefile("r")

    def run(
        self, words: Sequence[str], cwd: Path, environment: Mapping[str, str]
    ) -> subprocess.CompletedProcess[bytes]:
        """Run a Python script with its arguments to its end, as ``subprocess.run`` does."""
        request = json.dumps({"words": list(words), "cwd": str(cwd), "environment": dict(environment)})
        out, err = os.pipe(), os.pipe()
        said: dict[int, bytes] = {}

        def read(end: int) -> None:
            with os.fdopen(end, "rb") as file:
                said[end] = file.read()

        readers = [threading.Thread(target=read, args=(end,), daemon=True) for end in (out[0], err[0])]
        content = request.encode()
        socket.send_fds(self._socket, [len(content).to_bytes(8, "big")], [out[1], err[1]])
        os.close(out[1])
        os.close(err[1])
        self._socket.sendall(content)
        for reader in readers:
            reader.start()
        pid = int(self._answers.readline())
        for reader in readers:
            reader.join(SECONDS)
            if reader.is_alive():
                os.kill(pid, signal.SIGKILL)
                raise subprocess.TimeoutExpired(list(words), SECONDS)
        code = int(self._answers.readline())
        return subprocess.CompletedProcess(list(words), code, said[out[0]], said[err[0]])

    def close(self) -> None:
        self._answers.close()
        self._socket.close()
        self._process.wait(timeout=30)


@contextmanager
def command_forks() -> Iterator[CommandForks]:
    """Start the process, which waits for commands until the block ends."""
    running = CommandForks()
    try:
        yield running
    finally:
        running.close()


def _serve(requests: socket.socket) -> list[str]:
    """Fork for each request until there are no more; in a fork, returns the words of its command."""
    while True:
        head, streams, _, _ = socket.recv_fds(requests, 8, 2)
        if not head:
            return []
        content = b""
        while len(content) < int.from_bytes(head, "big"):
            content += requests.recv(int.from_bytes(head, "big") - len(content))
        request = json.loads(content)
        pid = os.fork()
        if pid == 0:
            requests.close()
            for stream, number in zip(streams, (1, 2), strict=True):
                os.dup2(stream, number)
                os.close(stream)
            os.chdir(request["cwd"])
            os.environ.clear()
            os.environ.update(request["environment"])
            return list(request["words"])
        for stream in streams:
            os.close(stream)
        requests.sendall(b"%d\n" % pid)
        _, status = os.waitpid(pid, 0)
        requests.sendall(b"%d\n" % os.waitstatus_to_exitcode(status))


def _end(words: Sequence[str]) -> int:
    """Run the script as an interpreter does; returns its exit code after threads and exit functions end."""
    code: object = None
    sys.argv[:], sys.path[0] = words, str(Path(words[0]).parent)
    try:
        runpy.run_path(words[0], run_name="__main__")
    except SystemExit as end:
        code = end.code
        if not isinstance(code, int | None):
            print(code, file=sys.stderr)
            code = 1
    except BaseException:  # noqa: BLE001 - an interpreter tells of it and ends
        sys.excepthook(*cast("Any", sys.exc_info()))
        code = 1
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    return int(code or 0)


if __name__ == "__main__":
    for library in LIBRARIES:
        importlib.import_module(library)
    gc.freeze()
    with socket.socket(fileno=int(sys.argv[1])) as asked:
        command = _serve(asked)
    # A normal exit of an interpreter of this size copies all its memory first: two seconds of a processor.
    os._exit(_end(command) if command else 0)
