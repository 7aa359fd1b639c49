"""An incident is told when it begins, once a day while it lasts, and when it ends; whoever looks."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from backfill_assets.alerts.incidents import (
    Incident,
    Problem,
    Rule,
    age_words,
    load_incidents,
    message,
    record,
)
from backfill_assets.lake import paths
from backfill_assets.lake.local import LocalStore

NOW = datetime(2024, 1, 2, 10, tzinfo=UTC)
DAY = timedelta(days=1)
HELD = Problem("day_held", "3 of 4 feeds left out", "2024-01-01", command="mend")
LATE = Problem("day_late", "no run", "2024-01-01")


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path)


class Told:
    """Takes messages, or does not."""

    def __init__(self) -> None:
        self.said: list[tuple[str, str]] = []
        self.answer = (True, "")

    def __call__(self, due: Sequence[Incident]) -> tuple[bool, str]:
        if self.answer[0]:
            self.said += [(incident.due, incident.name) for incident in due]
        return self.answer


def look(
    store: LocalStore,
    told: Told | None,
    now: datetime,
    *problems: Problem,
    rules: Sequence[Rule] = ("day_held", "day_late"),
) -> None:
    record(store, problems, rules, now, remind=DAY, send=told)


def test_an_incident_of_three_days_is_opened_once_reminded_twice_and_ended_once(store: LocalStore) -> None:
    told = Told()
    for minutes in range(0, 3 * 1_440, 30):
        look(store, told, NOW + timedelta(minutes=minutes), HELD)
    for minutes in (0, 1, 1_440):
        look(store, told, NOW + 3 * DAY - timedelta(minutes=10) + timedelta(minutes=minutes))
    name = "day is held: 2024-01-01"
    assert told.said == [("opened", name), ("reminder", name), ("reminder", name), ("closed", name)]
    (incident,) = load_incidents(store).incidents
    assert incident.closed is not None
    assert incident.age(NOW + 9 * DAY) == "2 days"
    assert load_incidents(store).open == ()


def test_rules_and_subjects_are_incidents_of_their_own(store: LocalStore) -> None:
    told = Told()
    feeds = [
        Problem("feed_left_out", "quarantine", "2024-01-01", feed)
        for feed in ("a/trades/B", "a/trades/C", "a/trades/B")
    ]
    look(store, told, NOW, HELD, LATE, *feeds, rules=("day_held", "day_late", "feed_left_out"))
    assert len(told.said) == len(load_incidents(store).open) == 4


def test_a_look_that_could_not_look_at_a_rule_ends_no_incident_of_it(store: LocalStore) -> None:
    told = Told()
    look(store, told, NOW, HELD)
    look(store, told, NOW + DAY / 2, rules=("day_late",))
    assert [i.name for i in load_incidents(store).open] == ["day is held: 2024-01-01"]
    look(store, told, NOW + DAY / 2, rules=("day_held",))
    assert told.said[-1][0] == "closed"


def test_what_no_service_took_is_told_by_the_next_look(store: LocalStore) -> None:
    told = Told()
    told.answer = (False, "Slack (number 1) did not take the message")
    look(store, told, NOW, HELD)
    look(store, told, NOW + timedelta(minutes=1), HELD)
    found = load_incidents(store)
    assert (found.failing, found.failure) == (NOW, "Slack (number 1) did not take the message")
    told.answer = (True, "")
    look(store, told, NOW + timedelta(minutes=2), HELD)
    look(store, told, NOW + timedelta(minutes=3), HELD)
    assert told.said == [("opened", "day is held: 2024-01-01")]
    assert load_incidents(store).failure == ""


def test_an_incident_that_ended_before_anybody_was_told_is_not_told(store: LocalStore) -> None:
    told = Told()
    told.answer = (False, "down")
    look(store, told, NOW, HELD)
    told.answer = (True, "")
    look(store, told, NOW + timedelta(minutes=1))
    assert told.said == []
    assert load_incidents(store).open == ()


def test_one_service_of_two_is_enough_and_the_other_is_said(store: LocalStore) -> None:
    told = Told()
    told.answer = (True, "Slack (number 2) did not take the message")
    look(store, told, NOW, HELD)
    look(store, told, NOW + timedelta(minutes=1), HELD)
    assert len(told.said) == 1
    assert load_incidents(store).failure == "Slack (number 2) did not take the message"


def test_several_who_look_at_once_tell_it_once(store: LocalStore) -> None:
    told, begin = Told(), threading.Barrier(6)

    def run() -> None:
        begin.wait()
        for minute in range(5):
            look(store, told, NOW + timedelta(minutes=minute), HELD, LATE)

    threads = [threading.Thread(target=run) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(told.said) == [("opened", "day is held: 2024-01-01"), ("opened", "day is late: 2024-01-01")]


def test_what_a_killed_process_was_sending_is_sent_after_a_while(store: LocalStore) -> None:
    class Killed(BaseException):
        pass

    def dies(_: Sequence[Incident]) -> tuple[bool, str]:
        raise Killed

    with pytest.raises(Killed):
        record(store, [HELD], ["day_held"], NOW, remind=DAY, send=dies)
    told = Told()
    look(store, told, NOW + timedelta(minutes=1), HELD)
    assert told.said == []
    look(store, told, NOW + timedelta(minutes=11), HELD)
    assert told.said == [("opened", "day is held: 2024-01-01")]


def test_where_nobody_is_told_incidents_are_kept_and_later_only_reminded_of(store: LocalStore) -> None:
    look(store, None, NOW, HELD)
    assert [i.due for i in load_incidents(store).open] == [""]
    told = Told()
    look(store, told, NOW + timedelta(hours=1), HELD)
    assert told.said == []
    look(store, told, NOW + DAY, HELD)
    assert told.said == [("reminder", "day is held: 2024-01-01")]


def test_ended_incidents_are_kept_for_ninety_days(store: LocalStore) -> None:
    look(store, None, NOW, HELD)
    look(store, None, NOW + DAY)
    look(store, None, NOW + 90 * DAY)
    assert len(load_incidents(store).incidents) == 1
    look(store, None, NOW + 92 * DAY)
    assert load_incidents(store).incidents == ()


def test_a_damaged_document_is_kept_aside_and_begun_anew(store: LocalStore, tmp_path: Path) -> None:
    (tmp_path / paths.incidents()).write_text("{")
    told = Told()
    look(store, told, NOW, HELD)
    assert len(told.said) == 1
    assert any((tmp_path / "damaged").iterdir())


def incident(number: int, due: str, text: str = "why") -> Incident:
    fields = {"rule": "feed_left_out", "day": "2024-01-01", "subject": f"a/trades/S{number}", "text": text}
    moments = {"opened": NOW - 2 * DAY, "told": NOW, "closed": NOW if due == "closed" else None}
    return Incident.model_validate({**fields, **moments, "due": due, "command": f"mend {number}"})


def test_a_message_says_what_since_when_why_and_what_mends_it() -> None:
    title, text = message("production", [incident(1, "opened")], NOW, lambda day: f"https://page/{day}")
    assert title == "[production] feed is left out: 2024-01-01 a/trades/S1"
    assert text == (
        "feed is left out: 2024-01-01 a/trades/S1\nwhy\nTo mend it: mend 1\nReport: https://page/2024-01-01"
    )
    title, text = message("production", [incident(1, "closed")], NOW, str)
    assert title == "[production] ended: feed is left out: 2024-01-01 a/trades/S1"
    assert text == "Ended after 2 days: feed is left out: 2024-01-01 a/trades/S1"


def test_a_message_of_many_counts_them_and_tells_a_dozen() -> None:
    many = [incident(n, "opened", "x" * 5_000) for n in range(30)]
    some = [incident(40, "reminder"), incident(41, "closed")]
    title, text = message("production", [*some, *many], NOW, str)
    assert title == "[production] 30 new, 1 still open, 1 ended"
    assert text.count("To mend it") == 12
    assert text.endswith("20 more incidents: backfill-assets incidents --open")
    assert len(text) < 8_000


@pytest.mark.parametrize(
    "seconds, words",
    [(0, "less than a minute"), (61, "1 minute"), (7_199, "1 hour"), (86_400, "1 day"), (200_000, "2 days")],
)
def test_ages_in_words(seconds: int, words: str) -> None:
    assert age_words(timedelta(seconds=seconds)) == words
