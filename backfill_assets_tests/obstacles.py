"""Obstacles in the place of a file, and a folder owned by a user who is not root.

Root can read files that others cannot, so a test that runs as root becomes ``nobody`` for a while.
"""

from __future__ import annotations

import os
import pwd
import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final


def _socket(place: Path) -> None:
    # The name of a socket has at most 108 bytes.
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as made:
        made.bind(f"{folder}/s")
        Path(folder, "s").rename(place)


#: Functions that put something other than a file in a place.
OBSTACLES: Final[dict[str, Callable[[Path], None]]] = {
    "a folder": Path.mkdir,
    "a FIFO": os.mkfifo,
    "a socket": _socket,
    "an endless device": lambda place: place.symlink_to("/dev/zero"),
    "a loop of links": lambda place: place.symlink_to(place.name),
}


def put_in_the_way(place: Path, what: str) -> None:
    """Put an obstacle where the file is, or should be."""
    place.unlink(missing_ok=True)
    OBSTACLES[what](place)


@contextmanager
def folder_of_nobody() -> Iterator[Path]:
    """A folder whose owner is not root; this process runs as the owner until the block ends."""
    with tempfile.TemporaryDirectory() as folder:
        is_root = os.geteuid() == 0
        if is_root:
            user = pwd.getpwnam("nobody").pw_uid
            os.chown(folder, user, -1)
            os.seteuid(user)
        try:
            yield Path(folder)
        finally:
            if is_root:
                os.seteuid(0)
