"""What went wrong, classified by what a rerun can change.

Every failure the package raises on purpose is one of these. The message is one line: what was wrong,
where, and what to do about it. How a failure maps to retries is decided in ``automation``; nothing here
knows about Dagster or HTTP.
"""

from __future__ import annotations

import html
import json
import re
import urllib.parse
from typing import Final

#: Shorter texts are no secrets: taking them out would spoil every message.
SHORTEST_SECRET: Final = 8

_USER_IN_URL: Final = re.compile(r"(?<=://)[^/\s?#]*@")


class BackfillError(Exception):
    """Base of all deliberate failures; its text is a one-line message for a person."""


class TransientFailure(BackfillError):
    """A later rerun can succeed without anybody changing anything (time-outs, 429, 5xx, truncation)."""

    def __init__(self, message: str, *, retry_after_seconds: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class NotExportedYet(TransientFailure):
    """The vendor has not exported the day yet; the schedule asks again later."""


class Superseded(TransientFailure):
    """A newer writer has taken over; the work must be looked at afresh, never forced through."""


class PermanentFailure(BackfillError):
    """A rerun gives the same result until somebody changes a setting, a permission or the code."""


class SettingsError(PermanentFailure):
    """The settings are wrong; the message names file, key and remedy."""


class BadInput(PermanentFailure):
    """A value that a person typed cannot be taken; nothing was started. The command line exits with 2."""


class FeedAbsent(PermanentFailure):
    """The vendor does not have this feed on this day; permanent for the feed, not for the day."""


class CorruptFeed(PermanentFailure):
    """A file cannot be read as what it claims to be; the message names file, line and column."""


class DamagedFile(PermanentFailure):
    """A data file of the lake is gone or is not what its name says.

    ``path`` is its place in the lake, ``problem`` what is wrong with it, without the remedy.
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
    """The text as one line that a terminal only shows: any other character is written as JSON writes it.

    For words of others: a line break could forge a line, an escape sequence could do anything.
    """
    return "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in text)


def redacted(text: str, *secrets: str) -> str:
    """The text with ``***`` for each secret and for user and password in URLs.

    For texts from outside, which may repeat what they were asked with: in any case, and as URLs, JSON and
    HTML write it.
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
