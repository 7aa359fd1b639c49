"""Failures, classified by whether a rerun can change the result.

Every failure that the package raises on purpose is one of these. The message is one line: the fault, its
place, and the remedy. ``automation`` decides how a failure maps to retries; nothing here knows about Dagster
or HTTP.
"""

from __future__ import annotations

import errno
import html
import json
import re
import urllib.parse
from typing import Final

#: Shorter texts are not treated as secrets: removing them would spoil every message.
SHORTEST_SECRET: Final = 8

#: Errors of the system that a person mends outside the program.
_FULL: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_CLOSED: Final = (
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.ENOTDIR, errno.EISDIR),
    *(errno.ELOOP, errno.ENAMETOOLONG),
)

_USER_IN_URL: Final = re.compile(r"(?<=://)[^/\s?#]*@")
#: Parts of the path of the vendor's own addresses.
_OF_VENDOR: Final = re.compile(r"v\d{1,2}|datasets")


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
    """A newer writer has taken over; the work must be checked afresh, never forced through."""


class PermanentFailure(BackfillError):
    """A rerun gives the same result until a setting, a permission or the code changes."""


class SettingsError(PermanentFailure):
    """The settings are wrong; the message names file, key and remedy."""


class BadInput(PermanentFailure):
    """A typed value is invalid, and nothing was started. The command line exits with 2."""


class FeedAbsent(PermanentFailure):
    """The vendor does not have this feed on this day; permanent for the feed, not for the day."""


class CorruptFeed(PermanentFailure):
    """A file does not have its declared form; the message names file, line and column."""


class DamagedFile(PermanentFailure):
    """A data file of the lake is gone or does not match its name.

    ``path`` is its place in the lake, and ``problem`` the damage, without the remedy.
    """

    def __init__(self, message: str, path: str, problem: str) -> None:
        super().__init__(message)
        self.path = path
        self.problem = problem


class Unreadable(PermanentFailure):
    """A document of the lake is damaged; its feed or day waits for a person, and all others continue."""


class DayHeld(PermanentFailure):
    """The day's verdict forbids publishing; nothing was written to the warehouse."""


def system_message(error: OSError) -> str | None:
    """Return one line with the remedy for a full disk or a path without access, None for other errors."""
    # A write that fails has no file name: it is of the output, or of a file that is open already.
    if error.errno in _FULL:
        return f"{error.strerror}: free some for the output and the data, then run the command again"
    if error.errno in _CLOSED and error.filename is not None:
        return f"{error.filename}: {error.strerror}: choose another place, or give this user access to it"
    return None


def printable(text: str) -> str:
    """Return the text as one line that a terminal only displays; other characters are escaped as in JSON.

    It is for foreign text: a line break could forge a line, and an escape sequence could do anything.
    """
    return "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in text)


def path_secrets(base: str) -> tuple[str, ...]:
    """The parts of a configured address's path that may be tokens: those that the vendor's own path lacks."""
    parts = _path_of(base).split("/")
    return tuple(part for part in parts if part and not _OF_VENDOR.fullmatch(part))


def redacted(text: str, *secrets: str, base: str = "") -> str:
    """Return the text with ``***`` for each secret and for user and password in URLs.

    It is for texts from outside, which may repeat the request: in any case, and in the notation of URLs, JSON
    and HTML.

    Parameters
    ----------
    base
        The configured address of the service, such as a gateway's: its ``path_secrets`` are secrets, too.
    """
    hidden = path_secrets(base)
    if hidden:
        path = _path_of(base)
        shown = "/".join("***" if part in hidden else part for part in path.split("/"))
        # As the path of an address short parts are hidden, too.
        text = re.sub(rf"(?<=/){re.escape(path)}(?![\w.~%-])", shown, text)
    for secret in (*secrets, *hidden):
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


def _path_of(address: str) -> str:
    return address.partition("://")[2].partition("/")[2].strip("/")
