"""Messages to people through Apprise, and the heartbeat to whoever watches from outside.

Secrets are in the addresses, so neither a failure nor a log names one: a service is told by name and place.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from backfill_assets.failures import SettingsError
from backfill_assets.settings import AlertSettings, resolve

if TYPE_CHECKING:
    import apprise

#: Seconds that the address of the heartbeat may take.
_PING_SECONDS: Final = 20


def services(settings: AlertSettings) -> list[tuple[str, apprise.NotifyBase]]:
    """Each service of ``alerts.urls`` with its name, in order.

    Raises
    ------
    SettingsError
        One of them is no address that Apprise knows, by its place; or a variable is not set.
    """
    import apprise

    found = []
    for number, url in enumerate(resolve(settings.urls).split(), start=1):
        with _silent():
            made = apprise.Apprise.instantiate(url)
        if not isinstance(made, apprise.NotifyBase):
            msg = (
                f"alerts.urls: number {number} is no address that Apprise knows: write it as its page of the "
                "service says, and separate addresses by blanks"
            )
            raise SettingsError(msg)
        found.append((f"{made.service_name or 'service'} (number {number})", made))
    return found


def send(settings: AlertSettings, title: str, text: str) -> tuple[bool, str]:
    """Send a message to every service; returns whether one took it, and which did not."""
    import apprise

    refused, named = [], services(settings)
    for name, service in named:
        with _silent():
            # Apprise escapes what its service would read as markup.
            taken = apprise.Apprise([service]).notify(
                title=title, body=text, body_format=apprise.NotifyFormat.TEXT
            )
        if not taken:
            refused.append(name)
    failure = f"{', '.join(refused)} did not take the message" if refused else ""
    return len(refused) < len(named), failure


def ping(settings: AlertSettings) -> str:
    """Ask for ``alerts.heartbeat_url``; returns why that failed, without the address."""
    import requests

    try:
        answer = requests.get(resolve(settings.heartbeat_url), timeout=_PING_SECONDS)
    except requests.RequestException as error:
        return f"alerts.heartbeat_url cannot be reached ({type(error).__name__})"
    return "" if answer.ok else f"alerts.heartbeat_url answers {answer.status_code}"


@contextmanager
def _silent() -> Iterator[None]:
    """Keep Apprise from logging addresses."""
    logger = logging.getLogger("apprise")
    before, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = before
