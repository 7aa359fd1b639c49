"""A process that delivers one message or requests the heartbeat, and is killed when that takes too long.

A service may answer one byte at a time, or without end; no connection time-out stops that. So ``channel``
starts this file and passes the order as JSON on its input, where no process list shows it. It reads one
line for each service that has answered.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Iterator
from typing import Any, Final, Never

#: Seconds that the heartbeat's address may take to connect, and between two bytes.
_PING_SECONDS: Final = 20


def deliver(order: dict[str, Any]) -> None:
    """Print each service's number and whether it accepted the message, in the order of the answers."""
    import apprise
    import requests

    # A redirected POST becomes a GET of another page, which answers 200 while the message is lost.
    requests.sessions.Session.resolve_redirects = _no_redirects  # type: ignore[method-assign,assignment]

    def one(number: int, url: str) -> None:
        service = apprise.Apprise.instantiate(url)
        if not isinstance(service, apprise.NotifyBase):
            return
        # Truncate a message that the service would refuse as too long.
        service.overflow_mode = apprise.OverflowMode.TRUNCATE
        taken = apprise.Apprise([service]).notify(
            title=order["title"],
            body=order["text"],
            body_format=apprise.NotifyFormat.TEXT,
            # Some services do not forward messages of type "information".
            notify_type=apprise.NotifyType.SUCCESS if order["ended"] else apprise.NotifyType.FAILURE,
        )
        _say([number, bool(taken)])

    threads = [
        threading.Thread(target=one, args=(number, url), daemon=True)
        for number, url in enumerate(order["urls"])
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _no_redirects(*_: object, **__: object) -> Iterator[Never]:
    return iter(())


def ping(order: dict[str, Any]) -> None:
    """Print the status of the answer without reading its content or following a redirect."""
    import requests

    with requests.get(order["ping"], timeout=_PING_SECONDS, stream=True, allow_redirects=False) as answer:
        _say(answer.status_code)


def _say(found: Any) -> None:
    sys.stdout.write(f"{json.dumps(found)}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    wanted = json.load(sys.stdin)
    # Libraries may print or log an address.
    sys.stderr = open(os.devnull, "w")  # noqa: PTH123, SIM115
    ping(wanted) if "ping" in wanted else deliver(wanted)
    # Do not wait for threads that still read.
    os._exit(0)
