"""A process that delivers one message, or asks for the heartbeat, and is killed when that takes too long.

A service may answer a byte at a time for ever, or without end: no time-out of a connection ends that. So
``channel`` starts this file, gives it the order as JSON on its input, where no list of processes shows it,
and reads a line for each service that has answered.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Iterator
from typing import Any, Final, Never

#: Seconds that the address of the heartbeat may take to connect and between two bytes.
_PING_SECONDS: Final = 20


def deliver(order: dict[str, Any]) -> None:
    """Print the number of each service and whether it took the message, as they answer."""
    import apprise
    import requests

    # A redirected POST becomes a GET of another page, which says 200 and has lost the message.
    requests.sessions.Session.resolve_redirects = _no_redirects  # type: ignore[method-assign,assignment]

    def one(number: int, url: str) -> None:
        service = apprise.Apprise.instantiate(url)
        if not isinstance(service, apprise.NotifyBase):
            return
        # Cut a message that is too long for the service, which would refuse it.
        service.overflow_mode = apprise.OverflowMode.TRUNCATE
        taken = apprise.Apprise([service]).notify(
            title=order["title"],
            body=order["text"],
            body_format=apprise.NotifyFormat.TEXT,
            # Some services do not forward messages of the type information.
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
    """Print the status of the answer; its content is not read, and a redirect is not followed."""
    import requests

    with requests.get(order["ping"], timeout=_PING_SECONDS, stream=True, allow_redirects=False) as answer:
        _say(answer.status_code)


def _say(found: Any) -> None:
    sys.stdout.write(f"{json.dumps(found)}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    wanted = json.load(sys.stdin)
    # What libraries print or log may name an address.
    sys.stderr = open(os.devnull, "w")  # noqa: PTH123, SIM115
    ping(wanted) if "ping" in wanted else deliver(wanted)
    # Without waiting for what still reads.
    os._exit(0)
