"""Incidents: each problem from its first to its last look, told when it begins, once a day, and when it ends.

One document of the lake holds them, so any number of processes may look (the daemon's sensor, the service):
a problem that several see is one incident, and messages are claimed before they are sent. A message that no
service has taken stays due; one that was being sent when its process was killed may be sent twice.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import AwareDatetime, BeforeValidator, Field, ValidationError

from backfill_assets.days import is_day
from backfill_assets.failures import printable
from backfill_assets.lake import documents, paths
from backfill_assets.lake.documents import Derived, Document
from backfill_assets.lake.store import Store
from backfill_assets.readable_numbers import plural

LOGGER: Final = logging.getLogger(__name__)
Rule = Literal[
    "run_failed",
    "load_failed",
    "check_not_run",
    "backfill_failed",
    "day_late",
    "day_held",
    "day_unreadable",
    "feed_left_out",
    "version_pending",
    "feed_restated",
    "daemon_lost",
    "disk_low",
]
Due = Literal["", "opened", "reminder", "closed"]
#: The name of each rule in messages, on the page and on the command line.
TITLES: Final[dict[str, str]] = {
    "run_failed": "run failed",
    "load_failed": "load failed",
    "check_not_run": "check could not run",
    "backfill_failed": "backfill failed",
    "day_late": "day is late",
    "day_held": "day is held",
    "day_unreadable": "document is damaged",
    "feed_left_out": "feed is left out",
    "version_pending": "version waits for approval",
    "feed_restated": "vendor replaced a file",
    "daemon_lost": "daemon gives no sign of life",
    "disk_low": "disk is nearly full",
}
#: A process that has claimed messages for longer than this was killed.
_CLAIM: Final = timedelta(minutes=10)
#: Failures that nobody mends are followed for so long, as far as Dagster's records are looked at.
FOLLOWED: Final = timedelta(days=7)
_FOLLOWED_RULES: Final = ("run_failed", "load_failed", "check_not_run", "backfill_failed")
#: Nobody has to do anything: no reminder, and no message when it ends.
_TOLD_ONCE: Final = ("feed_restated",)
#: An end that was not delivered for so long is not sent any more.
_STALE: Final = timedelta(days=1)
#: How long an incident that has ended is kept, and how many of them.
_KEPT: Final = timedelta(days=90)
_MOST_KEPT: Final = 1_000
#: Incidents of one message that are told one by one.
_MOST_TOLD: Final = 12
_MOST_TEXT: Final = 400
#: Characters of text and command that are kept, and of a command that a message shows.
_MOST_KEPT_TEXT: Final = 1_000
_MOST_COMMAND: Final = 500
#: A message says how long an incident is open, if it is longer than this.
_SAID: Final = timedelta(minutes=30)
#: The place behind a character that begins a mention or a link in some service.
_MARKUP: Final = re.compile(r"(?<=[@<\]])")


@dataclass(frozen=True, slots=True)
class Problem:
    """A problem that a look has found; rule, day and subject identify it."""

    rule: Rule
    text: str
    #: UTC day, empty where it is of none.
    day: str = ""
    #: A feed, a job or a folder; empty where the day is the subject.
    subject: str = ""
    #: The command that mends it, or shows more.
    command: str = ""

    @property
    def key(self) -> tuple[str, str, str]:
        """What makes two looks see the same problem."""
        return (self.rule, self.day, self.subject)


class Incident(Document):
    """A problem over time.

    Attributes
    ----------
    text, command
        Of the newest look that has seen it.
    opened, closed
        First look that saw it, and the first that did not; null while it lasts.
    told
        When a message of it became due last.
    due
        The message that was not delivered yet.
    """

    #: One of ``Rule``, or of a later version of this package.
    rule: str
    day: str = Field("", pattern=r"^(\d{4}-\d{2}-\d{2})?$")
    subject: str = ""
    text: str
    command: str = ""
    opened: AwareDatetime
    closed: AwareDatetime | None = None
    told: AwareDatetime
    due: Due = ""

    @property
    def key(self) -> tuple[str, str, str]:
        """What makes two looks see the same problem."""
        return (self.rule, self.day, self.subject)

    @property
    def name(self) -> str:
        """What it is about, in a few words."""
        about = " ".join(part for part in (self.day, self.subject) if part)
        title = TITLES.get(self.rule, self.rule)
        return printable(f"{title}: {about}" if about else title)

    def age(self, now: datetime) -> str:
        """How long it lasts, or has lasted."""
        return age_words((self.closed or now) - self.opened)


def _readable(found: Any) -> Any:
    """The incidents that can be read: one that was damaged takes no other with it."""
    return [one for one in found if _is_incident(one)] if isinstance(found, list) else found


def _is_incident(found: Any) -> bool:
    try:
        incident = found if isinstance(found, Incident) else Incident.model_validate_json(json.dumps(found))
    except ValidationError:
        return False
    return not incident.day or is_day(incident.day)


class Incidents(Derived):
    """All incidents, and what became of messages; begun anew where it cannot be read.

    Attributes
    ----------
    claimed
        When a process began to send the due messages; null while none does.
    failing, failure, addresses
        When deliveries began to fail, the last failure, and a hash of the addresses that it concerns.
    pinged, heartbeat_failure
        The last day whose publication the heartbeat has told, and why it could not be asked for since.
    in_service
        The first publication that a look has seen: a day that was to be published before it is not late.
    """

    remedy: ClassVar[str] = "the next look begins it anew"

    incidents: Annotated[tuple[Incident, ...], BeforeValidator(_readable)] = ()
    claimed: AwareDatetime | None = None
    failing: AwareDatetime | None = None
    failure: str = ""
    addresses: str = ""
    pinged: str = ""
    heartbeat_failure: str = ""
    in_service: AwareDatetime | None = None

    @property
    def open(self) -> tuple[Incident, ...]:
        """Those that last, the oldest first."""
        return tuple(sorted((i for i in self.incidents if i.closed is None), key=lambda i: i.opened))

    @property
    def due(self) -> tuple[Incident, ...]:
        """Those with a message that was not delivered."""
        return tuple(i for i in self.incidents if i.due)

    @property
    def trouble(self) -> str:
        """Why people or the heartbeat are not told; empty where they are."""
        return "; ".join(part for part in (self.failure, self.heartbeat_failure) if part)


def load_incidents(store: Store) -> Incidents:
    """The document as it is stored; an empty one where nobody has looked yet, or it is damaged."""
    return documents.load(store, paths.incidents(), Incidents) or Incidents()


def looked(
    current: Incidents,
    problems: Iterable[Problem],
    is_seen: Callable[[Incident], bool],
    now: datetime,
    remind: timedelta,
) -> Incidents:
    """The incidents after a look.

    Parameters
    ----------
    problems
        Everything that the look has found.
    is_seen
        Whether the look would have found the incident; any other stays as it is.
    remind
        After so long without a message an open incident is told again.
    """
    found = {problem.key: problem for problem in problems}
    ended = [i for i in current.incidents if i.closed is not None and (i.due or now - i.closed < _KEPT)]
    kept: list[Incident] = ended[-_MOST_KEPT:]
    for incident in current.open:
        if (problem := found.pop(incident.key, None)) is not None:
            kept.append(_seen_again(incident, problem, now, remind))
        elif is_seen(incident):
            kept.append(incident.model_copy(update={"closed": now, "told": now, "due": _end(incident, now)}))
        else:
            kept.append(incident)
    new = [
        Incident(
            rule=p.rule,
            day=p.day,
            subject=p.subject,
            text=p.text[:_MOST_KEPT_TEXT],
            command=p.command[:_MOST_KEPT_TEXT],
            opened=now,
            told=now,
            due="opened",
        )
        for p in found.values()
    ]
    return current.model_copy(update={"incidents": (*kept, *new)})


def _end(incident: Incident, now: datetime) -> Due:
    """The message of an end: none where nobody was told of the beginning, or nobody follows it any more."""
    if incident.rule in _TOLD_ONCE:
        return ""
    is_followed = incident.rule not in _FOLLOWED_RULES or now - incident.opened < FOLLOWED
    return "closed" if incident.due != "opened" and is_followed else ""


def _seen_again(incident: Incident, problem: Problem, now: datetime, remind: timedelta) -> Incident:
    update: dict[str, object] = {
        "text": problem.text[:_MOST_KEPT_TEXT],
        "command": problem.command[:_MOST_KEPT_TEXT],
        # A clock that went wrong, and is right again, must not silence it.
        "told": min(incident.told, now),
    }
    is_reminded = incident.rule not in _TOLD_ONCE
    if is_reminded and not incident.due and now - incident.told >= remind:
        # At the same time of each day.
        update |= {"due": "reminder", "told": incident.told + remind * ((now - incident.told) // remind)}
    return incident.model_copy(update=update)


def record(
    store: Store,
    problems: Sequence[Problem],
    is_seen: Callable[[Incident], bool],
    clock: Callable[[], datetime],
    *,
    remind: timedelta,
    send: Callable[[Sequence[Incident]], tuple[bool, str]] | None,
    addresses: str = "",
) -> Incidents:
    """Store what a look has found, and send the messages that are due and that nobody else is sending.

    Parameters
    ----------
    is_seen
        As for ``looked``.
    send
        Sends a message of these incidents, all of which have ended or none: whether one service took it, and
        which did not. None where this process has no addresses; what is due then waits for one that has.
    addresses
        Changes with those that ``send`` sends to.

    Returns
    -------
    Incidents
        The document as it is stored at the end.
    """
    mine: tuple[Incident, ...] = ()

    def change(current: Incidents | None) -> Incidents:
        nonlocal mine
        now, mine = clock(), ()
        after = looked(current or Incidents(), problems, is_seen, now, remind)
        if send is None:
            return after
        after = after.model_copy(
            update={"incidents": tuple(_without_stale_news(i, now) for i in after.incidents)}
        )
        if after.addresses != addresses:
            # What was said of other addresses says nothing of these.
            after = after.model_copy(update={"addresses": addresses, "failing": None, "failure": ""})
        if after.claimed is None or not timedelta() <= now - after.claimed < _CLAIM:
            mine = after.due
        return after.model_copy(update={"claimed": now}) if mine else after

    stored = documents.update(store, paths.incidents(), Incidents, change)
    if not mine or send is None:
        return stored
    sent: dict[tuple[object, datetime], Due] = {}
    failures: dict[str, None] = {}
    for part in ([i for i in mine if i.due != "closed"], [i for i in mine if i.due == "closed"]):
        if part:
            delivered, refusal = send(part)
            sent |= {(i.key, i.opened): i.due for i in part} if delivered else {}
            failures |= {refusal: None} if refusal else {}
    failure = "; ".join(failures)
    if failure:
        LOGGER.warning("%s: %s", plural(len(mine), "incident"), failure)

    def settle(current: Incidents | None) -> Incidents:
        after = current or Incidents()
        failing = (after.failing or clock()) if failure else None
        told = tuple(_told(i, sent.get((i.key, i.opened), "")) for i in after.incidents)
        return after.model_copy(
            update={"incidents": told, "claimed": None, "failing": failing, "failure": failure}
        )

    return documents.update(store, paths.incidents(), Incidents, settle)


def _told(incident: Incident, sent: Due) -> Incident:
    """The incident when its message was delivered; one that has ended meanwhile has an end to tell."""
    if sent and incident.due == sent:
        return incident.model_copy(update={"due": ""})
    if sent == "opened" and incident.closed is not None and not incident.due:
        return incident.model_copy(update={"due": "" if incident.rule in _TOLD_ONCE else "closed"})
    return incident


def _without_stale_news(incident: Incident, now: datetime) -> Incident:
    is_stale = incident.due == "closed" and now - incident.told > _STALE
    return incident.model_copy(update={"due": ""}) if is_stale else incident


def message(
    environment: str, incidents: Sequence[Incident], now: datetime, link: Callable[[str], str]
) -> tuple[str, str]:
    """Title and text of one message about all of them: plain text, each incident with what mends it.

    Parameters
    ----------
    link
        Where the report of a day is.
    """
    words: dict[Due, str] = {"opened": "new", "reminder": "still open", "closed": "ended"}
    ordered = [i for due in words for i in incidents if i.due == due]
    counts = [(len([i for i in ordered if i.due == due]), word) for due, word in words.items()]
    title = ", ".join(f"{count} {word}" for count, word in counts if count)
    if len(ordered) == 1:
        title = f"ended: {ordered[0].name}" if ordered[0].due == "closed" else ordered[0].name
    lines = []
    for incident in ordered[:_MOST_TOLD]:
        age, name = incident.age(now), _defused(incident.name)
        if incident.due == "closed":
            lines.append(f"Ended after {age}: {name}")
            continue
        since = f"Open for {age}: " if now - incident.opened > _SAID else ""
        lines.append(f"{since}{name}\n{_line(incident.text)}")
        if incident.command and len(incident.command) <= _MOST_COMMAND:
            lines.append(f"To mend it: {printable(incident.command)}")
        if incident.day:
            lines.append(f"Report: {link(incident.day)}")
    if len(ordered) > _MOST_TOLD:
        left = plural(len(ordered) - _MOST_TOLD, "more incident")
        lines.append(f"{left}: backfill-assets incidents --open")
    return f"[{environment}] {_defused(title)}", "\n".join(lines)


def _line(text: str) -> str:
    """The text as one line of limited length, so that none reads as another line of the message."""
    text = _defused(printable(" ".join(text.split())))
    return text if len(text) <= _MOST_TEXT else f"{text[: _MOST_TEXT - 1]}…"


def _defused(text: str) -> str:
    """The text with a sign of no width behind what begins a mention or a link: not all services escape it."""
    return _MARKUP.sub("\u200b", text)


def age_words(age: timedelta) -> str:
    """A length of time in its largest whole unit."""
    seconds = max(0, int(age.total_seconds()))
    for unit, length in (("day", 86_400), ("hour", 3_600), ("minute", 60)):
        if seconds >= length:
            return plural(seconds // length, unit)
    return "less than a minute"
