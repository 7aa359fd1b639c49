"""Incidents that a look on 2024-03-01 at 12:00 finds in lake and records, and the people who are told."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dagster as dg
import pytest
import yaml

from backfill_assets.alerts.incidents import Incident, Incidents, load_incidents
from backfill_assets.days import utc_now
from backfill_assets.failures import TransientFailure
from backfill_assets.lake import documents, paths
from backfill_assets.lake.manifests import DayRecord
from backfill_assets.lake.resource import LakeResource
from backfill_assets.progress import watch
from backfill_assets.progress.facts import Records, RunFact, RunLog
from backfill_assets.progress.sensor import incidents
from backfill_assets.warehouse import ledger
from backfill_assets_tests.alerts.listener import Listener, listening
from backfill_assets_tests.obstacles import folder_of_nobody
from backfill_assets_tests.progress.planned_lake import BTC, ETH, NOW, SIZES, TABLES, Lake

DAYS = [f"2024-02-{day}" for day in range(23, 30)]
YESTERDAY = DAYS[-1]
NOTHING = Records([], [], daemon=None)


class WholeLake(Lake):
    """A lake with the named data files in their right size, published at 09:20 of the next day."""

    def run(self, day: str, published: datetime | None = None, **more: Any) -> None:
        super().run(day, **more)
        moment = published or datetime.fromisoformat(f"{day}T09:20:00+00:00") + timedelta(days=1)
        for table in TABLES:
            if (entry := ledger.entry(self.store, table, day)) is not None and entry.published is not None:
                self.rewrite(
                    table, day, published=entry.published.model_copy(update={"published_at": moment})
                )
        top = Path(self.store.uri)
        for feed, size in SIZES.items():
            file = top / paths.ticks_data(feed, day, "c" * 64)
            file.parent.mkdir(parents=True, exist_ok=True)
            with file.open("wb") as opened:
                opened.truncate(size // 2)
        for table in ("candles", "coverage"):
            folder = top / paths.made_prefix(table, day)
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "made.parquet").write_bytes(b"x")

    def rewrite(self, table: str, day: str, **update: Any) -> None:
        """Change the ledger's entry."""
        entry = ledger.entry(self.store, table, day)
        assert entry is not None
        changed = entry.model_copy(update=update)
        documents.update(self.store, paths.publication(table, day), ledger.Entry, lambda _: changed)


@pytest.fixture
def listener() -> Iterator[Listener]:
    with listening() as found:
        yield found


@pytest.fixture
def lake(tmp_path: Path, listener: Listener) -> WholeLake:
    found = WholeLake(tmp_path / "lake", alerts={"urls": listener.url, "page_url": "https://pages/"})
    for day in DAYS:
        found.run(day)
    return found


def look(lake: WholeLake, now: datetime = NOW, records: Callable[[], Records] = lambda: NOTHING) -> Incidents:
    return watch.look(lake.store, lake.settings, lambda: now, records)


def opened(lake: WholeLake, now: datetime = NOW, **more: Any) -> list[str]:
    return [incident.name for incident in look(lake, now, **more).open]


def test_good_days_are_no_incident(lake: WholeLake, listener: Listener) -> None:
    assert opened(lake) == []
    assert listener.got == []


def test_a_held_day_is_told_with_scores_reasons_report_and_command(
    lake: WholeLake, listener: Listener
) -> None:
    lake.run(YESTERDAY, state="held", lacking=(BTC, ETH), tables=("quality",))
    assert opened(lake) == [
        f"day is held: {YESTERDAY}",
        f"feed is left out: {YESTERDAY} {BTC}",
        f"feed is left out: {YESTERDAY} {ETH}",
    ]
    (text,) = listener.texts
    assert "[test] 3 new" in text
    assert "2 of 2 feeds left out" in text
    assert "To mend it: dg launch" in text
    assert f"Report: https://pages/days/{YESTERDAY}/report" in text
    lake.run(YESTERDAY)
    assert opened(lake, NOW + timedelta(minutes=1)) == []
    assert listener.texts[1].startswith("[test] 3 ended")


def test_a_feed_that_is_left_out_of_a_published_day(lake: WholeLake) -> None:
    lake.run(YESTERDAY, state="degraded", absent=(ETH,))
    assert opened(lake) == [f"feed is left out: {YESTERDAY} {ETH}"]


def test_a_day_that_nobody_has_run_is_late_from_ten_on(lake: WholeLake) -> None:
    today = datetime(2024, 3, 2, tzinfo=UTC)
    assert opened(lake, today.replace(hour=9, minute=59)) == []
    (late,) = look(lake, today.replace(hour=10)).open
    assert (late.name, late.text) == ("day is late: 2024-03-01", "no run has recorded it by 10:00 UTC")
    # There are two incidents a day later, and the first is still the same incident.
    assert opened(lake, today.replace(hour=10) + timedelta(days=1)) == [
        "day is late: 2024-03-01",
        "day is late: 2024-03-02",
    ]


def test_a_late_day_says_what_it_waits_for(lake: WholeLake) -> None:
    record = DayRecord(day="2024-03-01", expected=(), recorded_at=NOW, awaiting_export=("binance",))
    documents.update(lake.store, paths.day_record("2024-03-01"), DayRecord, lambda _: record)
    (late,) = look(lake, NOW + timedelta(days=1)).open
    assert late.text == "binance is not exported yet"


def test_where_nothing_was_ever_run_nothing_is_late(tmp_path: Path) -> None:
    assert opened(WholeLake(tmp_path / "empty")) == []


def test_days_stay_late_however_long_nothing_runs(lake: WholeLake, listener: Listener) -> None:
    for days in range(1, 13):
        look(lake, NOW + timedelta(days=days))
    # The days are late from the first of March on, each until it is there.
    assert len(load_incidents(lake.store).open) == 12
    assert not any("ended" in text for text in listener.texts)


@pytest.mark.parametrize(("away", "late"), [(7, 7), (10, 10), (60, 7 + 31)])
def test_a_machine_that_was_off_names_the_days_that_no_schedule_asks_for_as_well(lake, away, late) -> None:
    found = opened(lake, NOW + timedelta(days=away))
    assert len(found) == late
    if away == 10:
        # The schedules are responsible for the last seven days; these three are left to people.
        assert found[:3] == [f"day is late: 2024-03-0{day}" for day in (1, 2, 3)]


def test_a_fresh_install_is_late_with_nothing_that_it_catches_up_with(tmp_path: Path) -> None:
    lake, now = WholeLake(tmp_path / "fresh"), datetime(2024, 3, 1, 15, tzinfo=UTC)
    for minutes, day in enumerate(DAYS):
        assert opened(lake, now + timedelta(minutes=5 * minutes)) == []
        lake.run(day, published=now + timedelta(minutes=5 * minutes + 1))
    assert opened(lake, now + timedelta(hours=1)) == []
    assert opened(lake, now + timedelta(days=1)) == ["day is late: 2024-03-01"]


def test_a_day_that_is_loaded_again_is_not_late(lake: WholeLake) -> None:
    lake.rewrite("candles", YESTERDAY, state="intent", claimed_at=NOW - timedelta(minutes=5))
    assert opened(lake) == []
    assert opened(lake, NOW + timedelta(hours=3)) == [f"day is late: {YESTERDAY}"]
    lake.rewrite("candles", YESTERDAY, claimed_at=NOW + timedelta(hours=3))
    # A load at work does not end the incident either.
    assert opened(lake, NOW + timedelta(hours=3, minutes=5)) == [f"day is late: {YESTERDAY}"]


def test_a_published_day_that_is_gone_from_a_table_is_late(lake: WholeLake) -> None:
    lake.partition("candles", YESTERDAY).unlink()
    assert opened(lake) == [f"day is late: {YESTERDAY}"]
    assert "candles" in load_incidents(lake.store).open[0].text


def test_a_damaged_document_of_a_day(lake: WholeLake) -> None:
    (Path(lake.store.uri) / paths.settled_day(YESTERDAY)).write_text("{")
    (found,) = look(lake).open
    assert found.name == f"document is damaged: {YESTERDAY}"
    assert "cannot be read" in found.text


def test_a_damaged_document_ends_no_incident_of_its_feeds(lake: WholeLake, listener: Listener) -> None:
    lake.run(YESTERDAY, state="degraded", absent=(ETH,))
    look(lake)
    file = Path(lake.store.uri) / paths.settled_day(YESTERDAY)
    before = file.read_text()
    file.write_text("{")
    assert len(opened(lake, NOW + timedelta(minutes=5))) == 2
    file.write_text(before)
    assert opened(lake, NOW + timedelta(minutes=10)) == [f"feed is left out: {YESTERDAY} {ETH}"]
    assert sum(text.count("feed is left out") for text in listener.texts) == 2  # title and text


def test_a_day_that_cannot_be_read_now_hides_no_other_and_ends_nothing(
    lake: WholeLake, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake.run(DAYS[0], state="held", tables=("quality",))
    lake.run(YESTERDAY, state="held", tables=("quality",))
    records = Records([failed_run(DAYS[0], "bigquery__quality"), failed_run("2024-01-05", "ticks")], [])
    names = [f"day is held: {day}" for day in (DAYS[0], YESTERDAY)] + ["run failed: 2024-01-05"]
    assert sorted(opened(lake, records=lambda: records)) == sorted(names)
    read = watch.stored_day

    def unsteady(store: Any, settings: Any, day: str) -> Any:
        if day == DAYS[0]:
            msg = "503"
            raise TransientFailure(msg)
        return read(store, settings, day)

    monkeypatch.setattr(watch, "stored_day", unsteady)
    assert sorted(opened(lake, NOW + timedelta(minutes=5), records=lambda: records)) == sorted(names)


def test_an_open_incident_of_a_day_that_the_schedule_no_longer_answers_for_stays(lake: WholeLake) -> None:
    lake.run(YESTERDAY, state="degraded", absent=(ETH,))
    look(lake)
    later = NOW + timedelta(days=20)
    assert f"feed is left out: {YESTERDAY} {ETH}" in opened(lake, later)
    lake.run(YESTERDAY)
    assert f"feed is left out: {YESTERDAY} {ETH}" not in opened(lake, later + timedelta(minutes=1))


def failed_run(day: str, *steps: str, failure: str = "it broke") -> tuple[RunFact, RunLog]:
    moments = dict.fromkeys(("created", "updated", "started", "ended"), NOW)
    run = RunFact(run_id="r", day=day, state="failed", will_retry=False, **moments)  # type: ignore[arg-type]
    return run, RunLog(failed=list(steps), failure=failure)


@pytest.mark.parametrize(
    "steps, name",
    [
        (("ticks",), "run failed"),
        ((), "run failed"),
        (("bigquery__candles",), "load failed"),
        (("ohlcv",), "load failed"),
        (("candles_checks", "bigquery_candles_checks"), "check could not run"),
        (("ticks", "candles_checks"), "run failed"),
    ],
)
def test_a_failed_run_is_told_by_what_failed(lake: WholeLake, steps: tuple[str, ...], name: str) -> None:
    records = Records([failed_run("2024-01-05", *steps)], [])
    (found,) = look(lake, records=lambda: records).open
    assert found.name == f"{name}: 2024-01-05"
    assert found.text.endswith("it broke")
    assert "--partition 2024-01-05" in found.command


def test_a_run_whose_process_is_gone_says_so() -> None:
    run, _ = failed_run("2024-01-05")
    lost = replace(run, state="running", ended=None)
    assert watch.run_problem(lost, RunLog()).text == "its process is gone"
    assert watch.run_problem(run, RunLog()).text == "no reason is known"


def test_the_failed_run_of_a_held_day_is_not_told_beside_it(lake: WholeLake) -> None:
    lake.run(YESTERDAY, state="held", tables=("quality",))
    records = Records([failed_run(YESTERDAY, "bigquery__quality")], [])
    assert opened(lake, records=lambda: records) == [f"day is held: {YESTERDAY}"]


def test_a_failed_backfill_is_one_incident_with_its_days(lake: WholeLake) -> None:
    request = SimpleNamespace(start="2023-01-01", end="2023-12-31")
    job: Any = SimpleNamespace(
        job_id="abc",
        request=request,
        days_by_state={"published": 300, "held": 65},
        failure=None,
        finished=NOW,
        updated=NOW,
    )
    old = SimpleNamespace(**{**vars(job), "job_id": "old", "finished": NOW - timedelta(days=8)})
    (found,) = look(lake, records=lambda: Records([], [job, old])).open  # type: ignore[list-item]
    assert (found.name, found.text) == (
        "backfill failed: abc",
        "2023-01-01 to 2023-12-31: 300 published, 65 held",
    )
    assert found.command == "backfill-assets retry abc"


def test_only_who_can_tell_says_that_the_daemon_is_gone_or_back(lake: WholeLake) -> None:
    gone = Records([], [], daemon="the Dagster daemon gave no sign of life since noon: start it")
    assert opened(lake, records=lambda: gone) == ["daemon gives no sign of life"]
    assert opened(lake, records=lambda: NOTHING) == ["daemon gives no sign of life"]
    assert opened(lake, records=lambda: Records([], [], daemon="")) == []


def test_records_that_cannot_be_read_end_no_incident_and_stop_no_other_rule(lake: WholeLake) -> None:
    look(lake, records=lambda: Records([failed_run("2024-01-05", "ticks")], []))
    lake.run(YESTERDAY, state="held", tables=("quality",))

    def away() -> Records:
        msg = "the database is away"
        raise TransientFailure(msg)

    assert opened(lake, records=away) == ["run failed: 2024-01-05", f"day is held: {YESTERDAY}"]


def test_the_sensor_looks_once_and_fails_no_run(lake: WholeLake, tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text(yaml.safe_dump(lake.settings.model_dump(include={"universe", "lake", "warehouse"})))
    resources = {"lake": LakeResource(environment=str(file))}
    with (
        dg.DagsterInstance.ephemeral() as instance,
        dg.build_sensor_context(instance, resources=resources) as context,
    ):
        # Yesterday is late from 10:00 on.
        late = 38 if utc_now().hour >= 10 else 37
        assert incidents.evaluate_tick(context).skip_message == f"{late} open incidents"
        file.unlink()
        skipped = incidents.evaluate_tick(context).skip_message or ""
    assert skipped.startswith("incidents cannot be checked: ")
    assert "there is no such file" in skipped


def test_a_disk_that_is_nearly_full_is_one_incident(lake: WholeLake, monkeypatch: pytest.MonkeyPatch) -> None:
    full = {"alerts": {"disk_free_percent": 99.9999}}
    (found,) = look(WholeLake(Path(lake.store.uri), **full)).open
    assert found.name.startswith("disk is nearly full: ")
    assert "% free" in found.text


def test_disks_of_other_machines_are_theirs(lake: WholeLake, monkeypatch: pytest.MonkeyPatch) -> None:
    full = WholeLake(Path(lake.store.uri), alerts={"disk_free_percent": 99.9999})
    assert len(look(full).open) == 1
    monkeypatch.setattr(watch, "_HERE", "another:")
    assert len(look(lake, NOW + timedelta(minutes=5)).open) == 1
    assert len(look(full, NOW + timedelta(minutes=10)).open) == 2


def test_the_thread_goes_on_after_what_nobody_thought_of(
    lake: WholeLake, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    looks: list[int] = []

    def breaks(*_: object) -> None:
        looks.append(1)
        raise OverflowError

    monkeypatch.setattr(watch, "SECONDS", 0.05)
    monkeypatch.setattr(watch, "look", breaks)
    service: Any = SimpleNamespace(store=lake.store, settings=lake.settings, records=lambda: NOTHING)
    with watch.watching(service):
        deadline = time.monotonic() + 10
        while len(looks) < 3 and time.monotonic() < deadline:
            time.sleep(0.05)
    assert len(looks) >= 3
    assert "incidents cannot be checked" in caplog.text


def test_a_message_that_cannot_be_sent_stops_no_look(lake: WholeLake, listener: Listener) -> None:
    lake.run(YESTERDAY, state="held", tables=("quality",))
    listener.status = 500
    found = look(lake)
    assert (len(found.open), found.failure) == (1, "JSON (number 1) did not take the message")
    wrong = WholeLake(Path(lake.store.uri), alerts={"urls": "nonsense"})
    assert "Apprise does not know address number" in look(wrong, NOW + timedelta(minutes=1)).failure
    listener.status = 200
    assert look(lake, NOW + timedelta(minutes=2)).failure == ""
    assert len(listener.texts) == 1


def test_a_variable_that_is_not_set_is_said_and_stops_no_look(lake: WholeLake) -> None:
    lake.run(YESTERDAY, state="held", tables=("quality",))
    names = {"urls": "${NOBODYS_URL}", "heartbeat_url": "${NOBODYS_HEARTBEAT}"}
    found = look(WholeLake(Path(lake.store.uri), alerts=names))
    assert [incident.rule for incident in found.open] == ["day_held"]
    assert "NOBODYS_URL" in found.failure
    lake.run(YESTERDAY)
    assert look(WholeLake(Path(lake.store.uri), alerts=names), NOW + timedelta(minutes=5)).open == ()


def test_names_and_reasons_with_signs_are_told_as_text(lake: WholeLake, listener: Listener) -> None:
    records = Records([failed_run("2024-01-05", "ticks", failure="\x1b[2J line\r\nbreak \u202e end")], [])
    look(lake, records=lambda: records)
    (text,) = listener.texts
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert text.split("\n")[1:3] == ["run failed: 2024-01-05", r"ticks: \u001b[2J line break \u202e end"]


def test_the_heartbeat_is_asked_for_once_when_yesterday_is_in_the_tables(
    lake: Lake, listener: Listener
) -> None:
    url = {"heartbeat_url": f"http://{listener.address}/beat"}
    beating = WholeLake(Path(lake.store.uri), alerts=url)
    for minutes in range(3):
        look(beating, NOW + timedelta(minutes=minutes))
    assert listener.got == [("/beat", None)]
    next_day = NOW + timedelta(days=1)
    look(beating, next_day)
    assert len(listener.got) == 1
    lake.run("2024-03-01", state="held", tables=("quality",))
    look(beating, next_day)
    assert len(listener.got) == 1
    lake.run("2024-03-01", state="degraded", absent=(ETH,))
    look(beating, next_day)
    assert len(listener.got) == 2


def test_a_heartbeat_that_was_not_taken_is_asked_for_again(lake: WholeLake, listener: Listener) -> None:
    beating = WholeLake(Path(lake.store.uri), alerts={"heartbeat_url": f"http://{listener.address}/beat"})
    listener.status = 500
    assert look(beating).trouble == "alerts.heartbeat_url answers 500"
    listener.status = 200
    look(beating, NOW + timedelta(minutes=1))
    look(beating, NOW + timedelta(minutes=2))
    assert len(listener.got) == 2


def test_a_lake_that_may_not_be_written_is_said_and_nothing_is_told() -> None:
    with folder_of_nobody() as folder:
        lake = WholeLake(folder / "lake")
        for day in DAYS:
            lake.run(day)
        Path(lake.store.uri).chmod(0o500)
        try:
            with pytest.raises(Exception, match="permission"):
                look(lake)
        finally:
            Path(lake.store.uri).chmod(0o700)


def test_a_version_that_waits_names_the_command_that_approves_it() -> None:
    from backfill_assets.progress.model import FeedVerdict, StoredDay

    feed = FeedVerdict(feed=str(BTC), outcome="publish", accepted=True, pending=True, content="c" * 64)
    day = StoredDay(outcome="published", feeds=2, notable=(feed,))
    (problem,) = watch.day_problems(YESTERDAY, day, late="")
    assert problem.rule == "version_pending"
    assert problem.command.startswith(
        f"backfill-assets approve --date {YESTERDAY} --feed {BTC} --content cccc"
    )


def test_a_feed_with_missing_ids_names_the_command_that_asks_the_exchange() -> None:
    from backfill_assets.progress.model import FeedVerdict, StoredDay

    ask = f"backfill-assets heal --date {YESTERDAY} --feed {BTC}"
    fields = {"feed": str(BTC), "outcome": "quarantine", "accepted": False, "pending": True}
    lacks = "40 ids are missing"
    with_command = f"{lacks}. Ask the exchange for the trades of the missing ids: {ask}"
    for heal, told in ((ask, with_command), ("", lacks)):
        feed = FeedVerdict.model_validate({**fields, "reasons": ("40 ids are missing",), "heal": heal})
        (problem,) = watch.day_problems(
            YESTERDAY, StoredDay(outcome="published", feeds=2, notable=(feed,)), late=""
        )
        assert problem.text == f"quarantine; {told}"


def test_the_document_of_incidents_is_read_by_later_versions(lake: WholeLake) -> None:
    look(lake, records=lambda: Records([failed_run("2024-01-05", "ticks")], []))
    file = Path(lake.store.uri) / paths.incidents()
    content = json.loads(file.read_text())
    content["incidents"][0]["of_a_later_version"] = 1
    file.write_text(json.dumps(content))
    assert isinstance(load_incidents(lake.store).open[0], Incident)
