"""Incidents: each problem from its first to its last look, told when it begins, once a day, and when it ends.

One document of the lake holds them, so any number of processes may look (the daemon's sensor, the service):
a problem that several see is one incident, and messages are claimed before they are sent. A message that no
service has taken stays due; one that was being sent when its process was killed may be sent twice.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Literal

from pydantic import AwareDatetime

from backfill_assets.failures import printable
from backfill_assets.lake import documents, paths
from backfill_assets.lake.documents import Document
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
    "daemon_lost",
    "disk_low",
]
Due = Literal["", "opened", "reminder", "closed"]
#: What a rule means, as messages, page and command line say it.
TITLES: Final[dict[Rule, str]] = {
    "run_failed": "run failed",
    "load_failed": "load failed",
    "check_not_run": "check could not run",
    "backfill_failed": "backfill failed",
    "day_late": "day is late",
    "day_held": "day is held",
    "day_unreadable": "document is damaged",
    "feed_left_out": "feed is left out",
    "version_pending": "version waits for approval",
    "daemon_lost": "daemon gives no sign of life",
    "disk_low": "disk is nearly full",
}
#: Who has claimed messages and did not say what became of them was killed.
_CLAIM: Final = timedelta(minutes=10)
#: How long an incident that has ended is kept, and how many of them.
_KEPT: Final = timedelta(days=90)
_MOST_KEPT: Final = 1_000
#: Incidents of one message that are told one by one.
_MOST_TOLD: Final = 12
_MOST_TEXT: Final = 400


@dataclass(frozen=True, slots=True)
class Problem:
    """What a look has found; rule, day and subject are its name."""

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

    rule: Rule
    day: str = ""
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
        return printable(f"{TITLES[self.rule]}: {about}" if about else TITLES[self.rule])

    def age(self, now: datetime) -> str:
        """How long it lasts, or has lasted."""
        return age_words((self.closed or now) - self.opened)


class Incidents(Document):
    """All incidents, and what became of messages.

    Attributes
    ----------
    claimed
        Since when a process is sending what is due; null where none is.
    failing, failure
        Since when messages are not delivered, and what was said last.
    pinged
        The last day whose publication the heartbeat has told.
    """

    incidents: tuple[Incident, ...] = ()
    claimed: AwareDatetime | None = None
    failing: AwareDatetime | None = None
    failure: str = ""
    pinged: str = ""

    @property
    def open(self) -> tuple[Incident, ...]:
        """Those that last, the oldest first."""
        return tuple(sorted((i for i in self.incidents if i.closed is None), key=lambda i: i.opened))

    @property
    def due(self) -> tuple[Incident, ...]:
        """Those with a message that was not delivered."""
        return tuple(i for i in self.incidents if i.due)


def load_incidents(store: Store) -> Incidents:
    """The document as it is stored; an empty one where nobody has looked yet."""
    return documents.load(store, paths.incidents(), Incidents) or Incidents()


def looked(
    current: Incidents, problems: Iterable[Problem], rules: Collection[Rule], now: datetime, remind: timedelta
) -> Incidents:
    """The incidents after a look.

    Parameters
    ----------
    problems
        Everything that the look has found.
    rules
        The rules that were looked at: incidents of others stay as they are.
    remind
        After so long without a message an open incident is told again.
    """
    found = {problem.key: problem for problem in problems}
    kept: list[Incident] = []
    ended = [i for i in current.incidents if i.closed is not None and (i.due or now - i.closed < _KEPT)]
    for incident in (*ended[-_MOST_KEPT:], *current.open):
        if incident.closed is not None or incident.rule not in rules:
            kept.append(incident)
        elif (problem := found.pop(incident.key, None)) is not None:
            kept.append(_seen_again(incident, problem, now, remind))
        else:
            # Of one that nobody was told of there is no end to tell.
            due: Due = "" if incident.due == "opened" else "closed"
            kept.append(incident.model_copy(update={"closed": now, "told": now, "due": due}))
    new = [
        Incident(
            rule=p.rule,
            day=p.day,
            subject=p.subject,
            text=p.text,
            command=p.command,
            opened=now,
            told=now,
            due="opened",
        )
        for p in found.values()
    ]
    return current.model_copy(update={"incidents": (*kept, *new)})


def _seen_again(incident: Incident, problem: Problem, now: datetime, remind: timedelta) -> Incident:
    update: dict[str, object] = {"text": problem.text, "command": problem.command}
    if not incident.due and now - incident.told >= remind:
        update |= {"due": "reminder", "told": now}
    return incident.model_copy(update=update)


def record(
    store: Store,
    problems: Sequence[Problem],
    rules: Collection[Rule],
    now: datetime,
    *,
    remind: timedelta,
    send: Callable[[Sequence[Incident]], tuple[bool, str]] | None,
) -> Incidents:
    """Store what a look has found, and send the messages that are due and that nobody else is sending.

    Parameters
    ----------
    send
        Sends a message of these incidents: whether one service took it, and which did not. None where nobody
        is to be told.

    Returns
    -------
    Incidents
        The document as it is stored at the end.
    """
    mine: tuple[Incident, ...] = ()

    def change(current: Incidents | None) -> Incidents:
        nonlocal mine
        after = looked(current or Incidents(), problems, rules, now, remind)
        if send is None:
            mine = ()
            return after.model_copy(
                update={
                    "incidents": tuple(i.model_copy(update={"due": ""}) for i in after.incidents),
                    "claimed": None,
                    "failing": None,
                    "failure": "",
                }
            )
        is_claimed = after.claimed is not None and now - after.claimed < _CLAIM
        mine = () if is_claimed else after.due
        return after.model_copy(update={"claimed": now}) if mine else after

    stored = documents.update(store, paths.incidents(), Incidents, change, anew=True)
    if not mine or send is None:
        return stored
    delivered, failure = send(mine)
    if failure:
        LOGGER.warning("%s: %s", plural(len(mine), "incident"), failure)
    sent = {(i.key, i.opened): i.due for i in mine} if delivered else {}

    def settle(current: Incidents | None) -> Incidents:
        after = current or Incidents()
        told = tuple(
            i.model_copy(update={"due": ""}) if sent.get((i.key, i.opened)) == i.due else i
            for i in after.incidents
        )
        failing = (after.failing or now) if failure else None
        return after.model_copy(
            update={"incidents": told, "claimed": None, "failing": failing, "failure": failure}
        )

    return documents.update(store, paths.incidents(), Incidents, settle, anew=True)


def message(
    environment: str, incidents: Sequence[Incident], now: datetime, link: Callable[[str], str]
) -> tuple[str, str]:
    """Title and text of one message about all of them: plain text, each incident with what mends it.

    Parameters
    ----------
    link
        Where the report of a day is.
    """
    opened = [i for i in incidents if i.due == "opened"]
    reminded = [i for i in incidents if i.due == "reminder"]
    closed = [i for i in incidents if i.due == "closed"]
    words = ((opened, "new"), (reminded, "still open"), (closed, "ended"))
    counts = ", ".join(f"{len(of)} {word}" for of, word in words if of)
    title = f"{incidents[0].name}" if len(incidents) == 1 else counts
    lines = []
    for incident in (*opened, *reminded, *closed)[:_MOST_TOLD]:
        if incident.due == "closed":
            lines.append(f"Ended after {incident.age(now)}: {incident.name}")
            continue
        since = f"Open for {incident.age(now)}: " if incident.due == "reminder" else ""
        lines.append(f"{since}{incident.name}\n{_line(incident.text)}")
        if incident.command:
            lines.append(f"To mend it: {printable(incident.command)}")
        if incident.day:
            lines.append(f"Report: {link(incident.day)}")
    if len(incidents) > _MOST_TOLD:
        left = plural(len(incidents) - _MOST_TOLD, "more incident")
        lines.append(f"{left}: backfill-assets incidents --open")
    if len(incidents) == 1 and closed:
        title = f"ended: {title}"
    return f"[{environment}] {title}", "\n".join(lines)


def _line(text: str) -> str:
    """The text as one line of limited length, so that none reads as another line of the message."""
    text = printable(" ".join(text.split()))
    return text if len(text) <= _MOST_TEXT else f"{text[: _MOST_TEXT - 1]}…"


def age_words(age: timedelta) -> str:
    """A length of time in its largest whole unit."""
    seconds = max(0, int(age.total_seconds()))
    for unit, length in (("day", 86_400), ("hour", 3_600), ("minute", 60)):
        if seconds >= length:
            return plural(seconds // length, unit)
    return "less than a minute"
