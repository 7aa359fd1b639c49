"""A vendor at a raw socket: it answers each path with the exact bytes of a test, right or wrong."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Self

#: The answer to one request: bytes to send, or a function that uses the connection freely.
Script = bytes | Callable[[socket.socket], None]


def http(status: int, body: bytes = b"", *headers: str, length: int | str | None = None) -> bytes:
    """An answer in a server's form; ``length`` announces another length than the body has."""
    announced = len(body) if length is None else length
    head = [f"HTTP/1.1 {status} Whatever", f"Content-Length: {announced}", "Connection: close", *headers]
    return "\r\n".join([*head, "", ""]).encode("latin-1") + body


class RawVendor:
    """Listens on loopback while it is entered; a path without script is refused with 404."""

    def __init__(self) -> None:
        self.scripts: dict[str, Script] = {}
        #: Path and head of each request.
        self.requests: list[tuple[str, str]] = []
        self.stopping = threading.Event()
        self._listening = socket.create_server(("127.0.0.1", 0), backlog=64)
        self._threads: list[threading.Thread] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._listening.getsockname()[1]}"

    def __enter__(self) -> Self:
        self._acceptor = threading.Thread(target=self._accept)
        self._acceptor.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopping.set()
        with suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self._acceptor.join()
        for thread in self._threads:
            thread.join()

    def _accept(self) -> None:
        while not self.stopping.is_set():
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._answer, args=(connection,))
            thread.start()
            self._threads.append(thread)

    def _answer(self, connection: socket.socket) -> None:
        with connection, suppress(OSError):
            head = b""
            while b"\r\n\r\n" not in head:
                received = connection.recv(65536)
                if not received:
                    return
                head += received
            text = head.decode("latin-1")
            path = text.split(" ", 2)[1]
            self.requests.append((path, text))
            script = self.scripts.get(path, http(404, b'{"code": 404, "message": "not found"}'))
            if callable(script):
                script(connection)
            else:
                connection.sendall(script)
