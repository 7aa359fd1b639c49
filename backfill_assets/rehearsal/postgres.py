"""A real Postgres server on loopback for the time of a test: a fresh cluster in a temporary folder.

The machine's own Postgres is not touched: the server has its own data folder, its own port, no Unix socket,
and a new password. Postgres refuses to run as root, so root hands it to an unprivileged user.
"""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psycopg2  # type: ignore[import-untyped]

USER: Final = "backfill"
#: A cluster starts in about a second; a loaded machine gets a minute.
START_SECONDS: Final = 60.0


def binaries() -> Path | None:
    """The folder with ``initdb`` and ``postgres``, newest version first; None if there is none."""
    packaged = sorted(
        Path("/usr/lib/postgresql").glob("*/bin"), key=lambda p: float(p.parent.name), reverse=True
    )
    found = shutil.which("postgres")
    for folder in [*packaged, *([Path(found).resolve().parent] if found else [])]:
        if (folder / "initdb").exists() and (folder / "postgres").exists():
            return folder
    return None


@contextmanager
def postgres_server() -> Iterator[str]:
    """Start a server and yield the address of an empty database, in the form that a person would write."""
    with restartable_server() as server:
        yield server.url


@contextmanager
def restartable_server() -> Iterator[Server]:
    """Start a server that may be stopped and started again."""
    folder = binaries()
    if folder is None:
        msg = "Postgres is not installed (initdb and postgres in PATH or /usr/lib/postgresql)"
        raise FileNotFoundError(msg)
    # The folder is not below the caller's own, whose parents may be closed to the other user.
    home = Path(tempfile.mkdtemp(prefix="backfill-postgres-"))
    try:
        runs_as = _unprivileged()
        runs_as.hand_over(home)
        password = secrets.token_hex(8)
        _make_cluster(folder, home, password, runs_as)
        port = _free_port()
        url = f"postgresql://{USER}:{password}@127.0.0.1:{port}/postgres"
        server = Server(url, password, lambda: _start(folder, home, port, runs_as), home)
        try:
            server.start()
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(home)


@dataclass
class Server:
    """A server with one cluster, which keeps its data while it is stopped.

    Attributes
    ----------
    url
        Address of an empty database.
    """

    url: str
    password: str
    launch: Callable[[], subprocess.Popen[bytes]]
    home: Path
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the server and wait until it answers."""
        self.process = self.launch()
        _wait_until_it_answers(self.url, self.process, self.home)

    def stop(self) -> None:
        """Stop the server as ``pg_ctl stop`` does; connections are cut."""
        if self.process is not None:
            self.process.send_signal(signal.SIGINT)
            self.process.wait(timeout=START_SECONDS)
            self.process = None


@dataclass(frozen=True)
class _Identity:
    """The user that runs the server; None means the caller's own identity."""

    user: int | None = None
    group: int | None = None
    extra_groups: tuple[int, ...] | None = None

    def hand_over(self, path: Path) -> None:
        if self.user is not None and self.group is not None:
            os.chown(path, self.user, self.group)


def _unprivileged() -> _Identity:
    if os.geteuid() != 0:
        return _Identity()
    known = {entry.pw_name: entry for entry in pwd.getpwall()}
    account = known.get("postgres") or known["nobody"]
    return _Identity(account.pw_uid, account.pw_gid, ())


def _make_cluster(folder: Path, home: Path, password: str, runs_as: _Identity) -> None:
    secret = home / "password"
    secret.write_text(password, encoding="ascii")
    runs_as.hand_over(secret)
    command = [str(folder / "initdb"), "-D", str(home / "data"), "-U", USER, "--pwfile", str(secret)]
    command += ["-A", "scram-sha-256", "-E", "UTF8", "--locale=C", "--no-sync"]
    made = subprocess.run(
        command,
        cwd=home,
        capture_output=True,
        text=True,
        check=False,
        user=runs_as.user,
        group=runs_as.group,
        extra_groups=runs_as.extra_groups,
    )
    if made.returncode:
        raise RuntimeError(made.stdout + made.stderr)


def _start(folder: Path, home: Path, port: int, runs_as: _Identity) -> subprocess.Popen[bytes]:
    command = [str(folder / "postgres"), "-D", str(home / "data"), "-h", "127.0.0.1", "-p", str(port)]
    command += ["-c", "unix_socket_directories=", "-c", "fsync=off", "-c", "shared_buffers=16MB"]
    with (home / "log").open("ab") as log:
        return subprocess.Popen(
            command,
            cwd=home,
            stdout=log,
            stderr=subprocess.STDOUT,
            user=runs_as.user,
            group=runs_as.group,
            extra_groups=runs_as.extra_groups,
        )


def _wait_until_it_answers(url: str, process: subprocess.Popen[bytes], home: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            psycopg2.connect(url).close()
        except psycopg2.OperationalError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError((home / "log").read_text(errors="replace")) from None
            time.sleep(0.05)
        else:
            return


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port
