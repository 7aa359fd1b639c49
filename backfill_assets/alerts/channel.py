"""Sends messages to people through Apprise, and the heartbeat to an outside service.

Addresses contain secrets, so failures and logs give a service's name and place, never its address.
"""

from __future__ import annotations

import json
import logging
import re
import subprocess
import sys
from typing import Any, Final

from backfill_assets.failures import SettingsError
from backfill_assets.settings import AlertSettings, resolve

#: Seconds that all services together have to accept a message.
SECONDS: Final = 40


def services(settings: AlertSettings) -> list[tuple[str, str]]:
    """Name and address of each service of ``alerts.urls``, in order.

    Raises
    ------
    SettingsError
        Apprise does not know an address, which is named by its place, or a variable is not set.
    """
    import apprise

    logger = logging.getLogger("apprise")
    # Apprise logs addresses that it does not know.
    logger.setLevel(logging.CRITICAL + 1)
    found = []
    for number, url in enumerate(_split(resolve(settings.urls)), start=1):
        made = apprise.Apprise.instantiate(url)
        if not isinstance(made, apprise.NotifyBase):
            msg = (
                f"alerts.urls: Apprise does not know address number {number}: write it as its page on the "
                "service says, and separate addresses with blanks"
            )
            raise SettingsError(msg)
        found.append((f"{made.service_name or 'service'} (number {number})", url))
    return found


def _split(urls: str) -> list[str]:
    """Split addresses at blanks, and at commas that another address follows."""
    return [url for part in urls.split() for url in re.split(r",(?=[A-Za-z][\w+.-]*://)", part) if url]


def send(settings: AlertSettings, title: str, text: str, *, ended: bool = False) -> tuple[bool, str]:
    """Send a message to every service; return whether one accepted it, and the failures.

    Parameters
    ----------
    ended
        Whether the message is good news.
    """
    named = services(settings)
    order = {"urls": [url for _, url in named], "title": title, "text": text, "ended": ended}
    taken = {number for number, was_taken in _apart(order) if was_taken}
    refused = [name for number, (name, _) in enumerate(named) if number not in taken]
    failure = f"{', '.join(refused)} did not take the message" if refused else ""
    return len(refused) < len(named), failure


def ping(settings: AlertSettings) -> str:
    """Request ``alerts.heartbeat_url``; return the reason for a failure, without the address."""
    answered = _apart({"ping": resolve(settings.heartbeat_url)})
    if not answered:
        return "alerts.heartbeat_url does not answer"
    return "" if 200 <= answered[0] < 300 else f"alerts.heartbeat_url answers {answered[0]}"


def _apart(order: dict[str, Any]) -> list[Any]:
    """Run the order in its own process for at most ``SECONDS``, and return the lines it printed."""
    command = [sys.executable, "-m", "backfill_assets.alerts.deliver"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        try:
            printed, _ = process.communicate(json.dumps(order), timeout=SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            printed, _ = process.communicate()
    return [json.loads(line) for line in printed.splitlines()]
