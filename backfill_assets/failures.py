"""Failures, classified by what a rerun can change.

Every failure that the package raises on purpose is one of these. The message is one line: the fault, the
place, and the remedy. ``automation`` decides how a failure maps to retries; this module does not know Dagster
or HTTP.
"""

from __future__ import annotations

import html
import json
import re
import urllib.parse
from typing import Final

#: Shorter texts are not secrets: removing them would spoil every message.
SHORTEST_SECRET: Final = 8

_USER_IN_URL: Final = re.compile(r"(?<=://)[^/\s?#]*@")


class BackfillError(Exception):
    """Base of all deliberate failures; its text is a one-line message for a person."""


class TransientFailure(BackfillError):
    """A later rerun can succeed without any change (time-outs, 429, 5xx, truncation)."""

    def __init__(self, message: str, *, retry_after_seconds: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class NotExportedYet(TransientFailure):
    """The vendor has not exported the day yet; the schedule asks again later."""


class Superseded(TransientFailure):
    """A newer writer has taken over; read the state again, and never force the work through."""


class PermanentFailure(BackfillError):
    """A rerun gives the same result until a setting, a permission or the code changes."""


class SettingsError(PermanentFailure):
    """The settings are wrong; the message names file, key and remedy."""


class BadInput(PermanentFailure):
    """A value that a person typed is invalid; no work was started. The command line exits with 2."""


class FeedAbsent(PermanentFailure):
    """The vendor does not have this feed on this day; permanent for the feed, not for the day."""


class CorruptFeed(PermanentFailure):
    """A file cannot be read in its claimed format; the message names file, line and column."""


class DamagedFile(PermanentFailure):
    """A data file of the lake is missing or does not match its name.

    ``path`` is its place in the lake, ``problem`` the fault without the remedy.
    """

    def __init__(self, message: str, path: str, problem: str) -> None:
        super().__init__(message)
        self.path = path
        self.problem = problem


class Unreadable(PermanentFailure):
    """A document of the lake is damaged; its feed or day waits for a person, and all others go on."""


class DayHeld(PermanentFailure):
    """The day's verdict forbids publishing; nothing was written to the warehouse."""


def printable(text: str) -> str:
    """Return the text as one line that is safe to show: other characters are written as in JSON.

    For foreign text: a line break could forge a line, and an escape sequence could control the terminal.
    """
    return "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in text)


def redacted(text: str, *secrets: str) -> str:
    """Return the text with ``***`` for each secret and for user and password in URLs.

    For texts from outside, which may repeat the request's secrets in upper or lower case, or as URLs, JSON
    and HTML write them.
    """
    for secret in secrets:
        if len(secret) < SHORTEST_SECRET:
            continue
        spellings = {
            secret,
            urllib.parse.quote(secret, safe=""),
            urllib.parse.quote(secret),
            urllib.parse.quote_plus(secret),
            json.dumps(secret)[1:-1],
            html.escape(secret),
        }
        pattern = "|".join(re.escape(spelling) for spelling in sorted(spellings, key=len, reverse=True))
        text = re.sub(pattern, "***", text, flags=re.IGNORECASE)
    return _USER_IN_URL.sub("***@", text)
