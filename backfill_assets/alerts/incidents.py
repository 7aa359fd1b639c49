"""Incidents: problems from first look to last, told when they begin, once a day, and when they end.

One document in the lake holds all incidents, so any number of processes may look (the daemon's sensor, the
service). A problem that several processes see is one incident, and a process claims messages before it sends
them. A message that no service has accepted stays due. A message may be sent twice if the process that sent
it was killed.
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
#: A process that holds a claim on messages for longer than this was killed.
_CLAIM: Final = timedelta(minutes=10)
#: Unrepaired failures are followed for this long, which is how far back Dagster's records are read.
FOLLOWED: Final = timedelta(days=7)
_FOLLOWED_RULES: Final = ("run_failed", "load_failed", "check_not_run", "backfill_failed")
#: Rules that need no action: no reminder, and no message at the end.
_TOLD_ONCE: Final = ("feed_restated",)
#: A message about an end is dropped when it is undelivered for this long.
_STALE: Final = timedelta(days=1)
#: How long ended incidents are kept, and how many of them.
_KEPT: Final = timedelta(days=90)
_MOST_KEPT: Final = 1_000
#: Incidents that one message lists one by one.
_MOST_TOLD: Final = 12
_MOST_TEXT: Final = 400
#: Longest stored text or command, and longest command shown in a message, in characters.
_MOST_KEPT_TEXT: Final = 1_000
_MOST_COMMAND: Final = 500
#: A message tells the age of an incident that has been open for longer than this.
_SAID: Final = timedelta(minutes=30)
#: The position after a character that begins a mention or a link in a service's markup.
_MARKUP: Final = re.compile(r"(?<=[@<\]])")


@dataclass(frozen=True, slots=True)
class Problem:
    """A problem found by a look, identified by rule, day and subject."""

    rule: Rule
    text: str
    #: UTC day; empty where the problem belongs to no day.
    day: str = ""
    #: A feed, a job or a folder; empty where the day is the subject.
    subject: str = ""
    #: The command that repairs the problem or shows more about it.
    command: str = ""

    @property
    def key(self) -> tuple[str, str, str]:
        """The identity of the problem across looks."""
        return (self.rule, self.day, self.subject)


class Incident(Document):
    """A problem over time.

    Attributes
    ----------
    text, command
        As the latest look saw them.
    opened, closed
        The first look that saw the problem, and the first that did not; ``closed`` is null until then.
    told
        When a message about the incident last became due.
    due
        The message that is not delivered yet.
    """

    #: One of ``Rule``, or a rule of a later version of this package.
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
        """The identity of the problem across looks."""
        return (self.rule, self.day, self.subject)

    @property
    def name(self) -> str:
        """Title, day and subject in a few words."""
        about = " ".join(part for part in (self.day, self.subject) if part)
        title = TITLES.get(self.rule, self.rule)
        return printable(f"{title}: {about}" if about else title)

    def age(self, now: datetime) -> str:
        """How long the incident has lasted, or lasted until it ended."""
        return age_words((self.closed or now) - self.opened)


def _readable(found: Any) -> Any:
    """Return the readable incidents, so that a damaged one does not take others with it."""
    return [one for one in found if _is_incident(one)] if isinstance(found, list) else found


def _is_incident(found: Any) -> bool:
    try:
        incident = found if isinstance(found, Incident) else Incident.model_validate_json(json.dumps(found))
    except ValidationError:
        return False
    return not incident.day or is_day(incident.day)


class Incidents(Derived):
    """All incidents, and the state of deliveries; begun anew where the document cannot be read.

    Attributes
    ----------
    claimed
        When a process began to send the due messages; null while no process does.
    failing, failure, addresses
        When deliveries began to fail, the last failure, and a hash of the addresses it concerns.
    pinged, heartbeat_failure
        The last day whose publication the heartbeat reported, and why requests have failed since.
    in_service
        The first publication that a look has seen; a day that was due before it is not late.
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
        """Open incidents, the oldest first."""
        return tuple(sorted((i for i in self.incidents if i.closed is None), key=lambda i: i.opened))

    @property
    def due(self) -> tuple[Incident, ...]:
        """Incidents with an undelivered message."""
        return tuple(i for i in self.incidents if i.due)

    @property
    def trouble(self) -> str:
        """Why messages or the heartbeat fail; empty while both succeed."""
        return "; ".join(part for part in (self.failure, self.heartbeat_failure) if part)


def load_incidents(store: Store) -> Incidents:
    """Return the stored document; an empty one before the first look, or where it is damaged."""
    return documents.load(store, paths.incidents(), Incidents) or Incidents()


def looked(
    current: Incidents,
    problems: Iterable[Problem],
    is_seen: Callable[[Incident], bool],
    now: datetime,
    remind: timedelta,
) -> Incidents:
    """Return the incidents after a look.

    Parameters
    ----------
    problems
        All problems that the look has found.
    is_seen
        Whether the look would have found the incident's problem; if not, the incident stays as it is.
    remind
        An open incident is told again after this long without a message.
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
    """Return the message due at the end: none if the start was never told or the failure is not followed."""
    if incident.rule in _TOLD_ONCE:
        return ""
    is_followed = incident.rule not in _FOLLOWED_RULES or now - incident.opened < FOLLOWED
    return "closed" if incident.due != "opened" and is_followed else ""


def _seen_again(incident: Incident, problem: Problem, now: datetime, remind: timedelta) -> Incident:
    update: dict[str, object] = {
        "text": problem.text[:_MOST_KEPT_TEXT],
        "command": problem.command[:_MOST_KEPT_TEXT],
        # A clock that was wrong for a time must not silence reminders.
        "told": min(incident.told, now),
    }
    is_reminded = incident.rule not in _TOLD_ONCE
    if is_reminded and not incident.due and now - incident.told >= remind:
        # Keep the reminder at the same time of day.
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
    """Store the problems of a look, and send the due messages that no other process is sending.

    Parameters
    ----------
    is_seen
        As for ``looked``.
    send
        Sends one message about incidents that have all ended, or that are all open. Returns whether a service
        accepted it, and the failures. None where this process has no addresses; due messages then wait for
        a process that has them.
    addresses
        A value that changes when the addresses used by ``send`` change.

    Returns
    -------
    Incidents
        The document as stored at the end.
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
            # Failures at other addresses say nothing about these.
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
    """Return the incident after delivery of its message; if it has ended meanwhile, its end becomes due."""
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
    """Return title and text of one message about all incidents: plain text, each with its repair command.

    Parameters
    ----------
    link
        Returns the address of a day's report.
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
    """Put the text on one line of limited length, so that it cannot pose as other lines of the message."""
    text = _defused(printable(" ".join(text.split())))
    return text if len(text) <= _MOST_TEXT else f"{text[: _MOST_TEXT - 1]}…"


def _defused(text: str) -> str:
    """Add a zero-width space after characters that begin mentions or links: not all services escape them."""
    return _MARKUP.sub("\u200b", text)


def age_words(age: timedelta) -> str:
    """Return a length of time in its largest whole unit."""
    seconds = max(0, int(age.total_seconds()))
    for unit, length in (("day", 86_400), ("hour", 3_600), ("minute", 60)):
        if seconds >= length:
            return plural(seconds // length, unit)
    return "less than a minute"
