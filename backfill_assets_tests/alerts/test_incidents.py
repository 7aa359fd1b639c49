"""An incident is told at its beginning, once a day while it lasts, and at its end, by any process."""

from __future__ import annotations

import json
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
    """Takes messages, or refuses them."""

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
    record(store, problems, lambda incident: incident.rule in rules, lambda: now, remind=DAY, send=told)


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
        record(store, [HELD], lambda _: True, lambda: NOW, remind=DAY, send=dies)
    told = Told()
    look(store, told, NOW + timedelta(minutes=1), HELD)
    assert told.said == []
    look(store, told, NOW + timedelta(minutes=11), HELD)
    assert told.said == [("opened", "day is held: 2024-01-01")]


def test_a_process_without_addresses_leaves_what_is_due_to_one_that_has_them(store: LocalStore) -> None:
    look(store, None, NOW, HELD)
    told = Told()
    look(store, told, NOW + timedelta(minutes=5), HELD)
    look(store, None, NOW + timedelta(minutes=10))
    look(store, told, NOW + timedelta(minutes=15))
    assert [due for due, _ in told.said] == ["opened", "closed"]
    told.answer = (False, "down")
    look(store, told, NOW + timedelta(minutes=20), HELD)
    look(store, None, NOW + timedelta(minutes=25), HELD)
    assert load_incidents(store).failure == "down"
    told.answer = (True, "")
    look(store, told, NOW + timedelta(minutes=30), HELD)
    assert [due for due, _ in told.said] == ["opened", "closed", "opened"]


def test_an_end_that_was_not_delivered_for_a_day_is_no_news(store: LocalStore) -> None:
    told = Told()
    look(store, told, NOW, HELD)
    told.answer = (False, "down")
    look(store, told, NOW + timedelta(hours=1))
    told.answer = (True, "")
    look(store, told, NOW + 2 * DAY)
    assert told.said == [("opened", "day is held: 2024-01-01")]
    assert load_incidents(store).due == ()


def test_an_end_that_is_seen_while_the_beginning_is_sent_is_told(store: LocalStore) -> None:
    told = Told()

    def ends_meanwhile(due: Sequence[Incident]) -> tuple[bool, str]:
        look(store, None, NOW + timedelta(minutes=1))
        return told(due)

    record(store, [HELD], lambda _: True, lambda: NOW, remind=DAY, send=ends_meanwhile)
    look(store, told, NOW + timedelta(minutes=5))
    assert [due for due, _ in told.said] == ["opened", "closed"]


def test_a_clock_that_was_ahead_silences_nothing(store: LocalStore) -> None:
    class Killed(BaseException):
        pass

    def dies(_: Sequence[Incident]) -> tuple[bool, str]:
        raise Killed

    with pytest.raises(Killed):
        record(store, [HELD], lambda _: True, lambda: NOW + 30 * DAY, remind=DAY, send=dies)
    told = Told()
    look(store, told, NOW, HELD)
    look(store, told, NOW + DAY, HELD)
    assert [due for due, _ in told.said] == ["opened", "reminder"]


def test_a_claim_counts_from_when_it_was_made(store: LocalStore) -> None:
    moments = iter([NOW, NOW + timedelta(minutes=9), NOW + timedelta(minutes=9)])
    told, other = Told(), Told()

    def slow(due: Sequence[Incident]) -> tuple[bool, str]:
        look(store, other, NOW + timedelta(minutes=15), HELD)
        return told(due)

    next(moments)
    record(store, [HELD], lambda _: True, lambda: NOW + timedelta(minutes=9), remind=DAY, send=slow)
    assert (len(told.said), other.said) == (1, [])


def test_reminders_come_at_the_same_time_of_each_day(store: LocalStore) -> None:
    told = Told()
    for minutes in range(0, 5 * 1_440, 7):
        look(store, told, NOW + timedelta(minutes=minutes), HELD)
    (incident,) = load_incidents(store).open
    assert [due for due, _ in told.said] == ["opened", *["reminder"] * 4]
    assert (incident.told - NOW) % DAY == timedelta()


def test_failures_that_nobody_follows_any_more_end_without_a_word(store: LocalStore) -> None:
    told, failed = Told(), Problem("backfill_failed", "65 held", subject="abc")
    look(store, told, NOW, failed, HELD, rules=("backfill_failed", "day_held"))
    look(store, told, NOW + 7 * DAY, rules=("backfill_failed", "day_held"))
    assert [name for due, name in told.said if due == "closed"] == ["day is held: 2024-01-01"]
    assert load_incidents(store).open == ()


def test_a_failure_of_other_addresses_is_forgotten(store: LocalStore) -> None:
    told = Told()
    told.answer = (True, "JSON (number 2) did not take the message")
    record(store, [HELD], lambda _: True, lambda: NOW, remind=DAY, send=told, addresses="both")
    assert load_incidents(store).failure
    record(store, [HELD], lambda _: True, lambda: NOW, remind=DAY, send=told, addresses="one")
    assert (load_incidents(store).failure, load_incidents(store).failing) == ("", None)


def test_ended_incidents_are_kept_for_ninety_days(store: LocalStore) -> None:
    look(store, None, NOW, HELD)
    look(store, None, NOW + DAY)
    look(store, None, NOW + 90 * DAY)
    assert len(load_incidents(store).incidents) == 1
    look(store, None, NOW + 92 * DAY)
    assert load_incidents(store).incidents == ()


@pytest.mark.parametrize("content", ["{", "", "[]", "\0\1", '{"incidents": 3}'])
def test_a_damaged_document_is_begun_anew(store: LocalStore, tmp_path: Path, content: str) -> None:
    (tmp_path / paths.incidents()).write_text(content)
    assert load_incidents(store).open == ()
    told = Told()
    look(store, told, NOW, HELD)
    assert len(told.said) == 1
    assert any((tmp_path / "damaged").iterdir())


@pytest.mark.parametrize("day", ["nonsense", "2024-13-45", "../../etc/passwd", 7])
def test_a_damaged_incident_takes_no_other_with_it(store: LocalStore, tmp_path: Path, day: object) -> None:
    look(store, None, NOW, HELD, LATE)
    file = tmp_path / paths.incidents()
    content = json.loads(file.read_text())
    content["incidents"][0]["day"] = day
    content["incidents"][1]["rule"] = "of_a_later_version"
    file.write_text(json.dumps(content))
    assert [i.name for i in load_incidents(store).open] == ["of_a_later_version: 2024-01-01"]


def test_texts_and_commands_are_kept_and_told_in_bounds(store: LocalStore) -> None:
    said: list[Incident] = []

    def keep(due: Sequence[Incident]) -> tuple[bool, str]:
        said.extend(due)
        return True, ""

    many = [Problem("feed_left_out", "x" * 10**6, "2024-01-01", f"f{n}", "y" * 10**5) for n in range(50)]
    record(store, many, lambda _: True, lambda: NOW, remind=DAY, send=keep)
    assert (store.size(paths.incidents()) or 0) < 200_000
    assert len(message("production", said, NOW, str)[1]) < 8_000


def incident(number: int, due: str, text: str = "why") -> Incident:
    fields = {"rule": "feed_left_out", "day": "2024-01-01", "subject": f"a/trades/S{number}", "text": text}
    moments = {"opened": NOW - 2 * DAY, "told": NOW, "closed": NOW if due == "closed" else None}
    return Incident.model_validate({**fields, **moments, "due": due, "command": f"mend {number}"})


def test_a_message_says_what_since_when_why_and_what_mends_it() -> None:
    title, text = message("production", [incident(1, "opened")], NOW, lambda day: f"https://page/{day}")
    assert title == "[production] feed is left out: 2024-01-01 a/trades/S1"
    assert text == (
        "Open for 2 days: feed is left out: 2024-01-01 a/trades/S1\nwhy\n"
        "To mend it: mend 1\nReport: https://page/2024-01-01"
    )
    fresh = incident(1, "opened").model_copy(update={"opened": NOW})
    assert message("production", [fresh], NOW, str)[1].startswith("feed is left out: 2024-01-01")
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
    "words", ["@everyone", "<@&123>", "<!channel>", "<users/all>", "[click](http://evil)"]
)
def test_words_of_others_mention_nobody_and_are_no_links(words: str) -> None:
    bad = incident(1, "opened", words).model_copy(update={"subject": words})
    title, text = message("production", [bad], NOW, str)
    assert words not in title + text
    assert words in (title + text).replace("\u200b", "")


@pytest.mark.parametrize(
    "seconds, words",
    [(0, "less than a minute"), (61, "1 minute"), (7_199, "1 hour"), (86_400, "1 day"), (200_000, "2 days")],
)
def test_ages_in_words(seconds: int, words: str) -> None:
    assert age_words(timedelta(seconds=seconds)) == words
