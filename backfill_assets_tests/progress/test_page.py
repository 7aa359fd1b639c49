"""The page over the service in this process: its content, its refusals, and a browser's permissions."""

from __future__ import annotations

import hashlib
import html
import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dagster as dg
import pytest
from dagster._core.execution.backfill import BulkActionStatus
from dagster._core.test_utils import create_run_for_test
from starlette.testclient import TestClient

from backfill_assets.alerts.incidents import Problem, record
from backfill_assets.automation.run_process import RunProcess
from backfill_assets.days import day_range, utc_now
from backfill_assets.definitions import defs
from backfill_assets.lake import documents, paths
from backfill_assets.lake.store import open_store
from backfill_assets.progress import page as page_package
from backfill_assets.progress.model import CalendarDay
from backfill_assets.progress.page import render, view
from backfill_assets.progress.page.routes import _to_do
from backfill_assets.progress.service import Backfills
from backfill_assets.progress.stored_days import _first_remedy
from backfill_assets.quality.settled import load_day
from backfill_assets.report.month import DaySummary
from backfill_assets.settings import PriceSettings
from backfill_assets_tests.progress.conftest import client_of
from backfill_assets_tests.progress.planned_lake import BTC, ETH, Lake
from backfill_assets_tests.progress.small_assets import end_backfill

HTMX = {"HX-Request": "true"}
FORM = {"start": "2024-01-01", "end": "2024-01-03", "request_id": "one"}
STATIC = Path(page_package.__file__).parent / "static"
SHA256 = "d6fdc75f204e6bdefa99b69bf1e6d4ac69b8a364f77929f45c13476b4000f717"


def part(client: TestClient, job_id: str = "") -> str:
    answer = client.get(f"/page/jobs/{job_id}" if job_id else "/page/now")
    assert answer.status_code == 200
    return answer.text


def started(client: TestClient, **changes: Any) -> str:
    answer = client.post("/page/start", data={**FORM, **changes}, headers=HTMX)
    assert answer.status_code == 202, answer.text
    return re.findall(r"/jobs/([a-z0-9-]+)", answer.text)[0]


# --- resources that a browser may load -------------------------------------------------------------------


def test_htmx_is_the_released_file_with_its_license() -> None:
    content = (STATIC / "htmx.min.js").read_bytes()
    assert hashlib.sha256(content).hexdigest() == SHA256
    assert b'version:"2.0.11"' in content
    assert "Zero-Clause BSD" in (STATIC / "htmx.LICENSE").read_text(encoding="utf-8")


def test_everything_comes_from_this_server_and_the_policy_allows_nothing_else(client: TestClient) -> None:
    answer = client.get("/")
    assert answer.headers["content-security-policy"] == render.POLICY
    assert "unsafe" not in render.POLICY
    assert answer.headers["x-content-type-options"] == "nosniff"
    loaded = re.findall(r'(?:src|href)="([^"#]+)"', answer.text)
    assert {url for url in loaded if not url.startswith("/")} == {"data:,"}
    assert "style=" not in answer.text
    assert re.search(r"<script(?! defer src=)", answer.text) is None
    static = [url for url in loaded if url.startswith("/static/")]
    assert len(static) == len(render.STATIC)
    for url in static:
        found = client.get(url)
        assert found.status_code == 200
        assert "immutable" in found.headers["cache-control"]
    assert client.get("/static/..%2Frender.py").status_code == 404
    assert client.get("/static/htmx.LICENSE").status_code == 404


def test_the_style_is_that_of_the_report_and_not_a_copy(client: TestClient) -> None:
    from backfill_assets.report.page import _environment

    assert client.get("/static/report.css").text == _environment().get_template("report.css").render()
    assert "--good:" not in (STATIC / "page.css").read_text(encoding="utf-8")


# --- content of the page ------------------------------------------------------------------------------------


def test_an_empty_page_says_so_and_what_to_do(client: TestClient) -> None:
    text = client.get("/").text
    assert "Nothing is running" in text
    assert "No backfill has been started yet." in text


def test_the_plan_has_the_numbers_of_the_plan_and_starts_what_it_shows(client: TestClient) -> None:
    days = {"start": "2024-01-01", "end": "2024-01-03", "order": "newest"}
    wanted = {**days, "exchanges": ["kraken"], "reason": "a <hole>"}
    answer = client.get("/page/plan", params=wanted)
    assert answer.status_code == 200
    plan = client.get("/api/v1/plan", params={**wanted, "reason": []}).json()
    assert f"<b>{len(plan['days_to_run'])} days</b> to run of 3" in answer.text
    assert f"<b>at most {plan['files']}</b> to fetch, again: kraken" in answer.text
    fields = dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)">', answer.text))
    assert fields.pop("request_id").startswith("page-")
    assert fields == {
        **days,
        "exchanges": "kraken",
        "reason": "a &lt;hole&gt;",
    }


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"end": "2023-12-31"}, "before it starts"),
        ({"exchanges": "mtgox"}, "is not an exchange of the universe"),
        ({"start": "yesterday"}, "write it as YYYY-MM-DD"),
        ({"start": ""}, "start: Field required"),
        ({"at_once": "all"}, "at once: Input should be a valid integer"),
        ({"order": "random"}, "order: Input should be &#39;oldest&#39; or &#39;newest&#39;"),
        ({"end": "2024-12-31"}, "more than serve.max_days (100)"),
    ],
)
def test_what_cannot_be_run_is_said_in_words_beside_the_form(
    changes: dict[str, str], words: str, client: TestClient
) -> None:
    for answer in (
        client.get("/page/plan", params={**FORM, **changes}),
        client.post("/page/start", data={**FORM, **changes}, headers=HTMX),
    ):
        assert answer.status_code == 422
        assert answer.headers["content-type"].startswith("text/html")
        assert 'role="alert"' in answer.text
        assert words in answer.text
    assert client.get("/api/v1/backfill/recent").json() == {"jobs": []}


def test_a_start_twice_is_one_job(client: TestClient) -> None:
    job_id = started(client, reason="x")
    again = client.post("/page/start", data={**FORM, "reason": "x"}, headers=HTMX)
    assert again.status_code == 200
    assert "Already started" in again.text
    [job] = client.get("/api/v1/backfill/recent").json()["jobs"]
    assert job["job_id"] == job_id
    assert job["requester"].startswith("page, ")


def test_a_job_is_shown_cancelled_and_its_end_offers_a_retry(
    client: TestClient, rig: SimpleNamespace
) -> None:
    job_id = started(client)
    text = part(client)
    assert "1 backfill waiting to start" in text
    assert f"/page/jobs/{job_id}/cancel" in text
    assert "no Dagster daemon has run yet" in text, "what is stuck is at the top"
    answer = client.post(f"/page/jobs/{job_id}/cancel", headers=HTMX)
    assert answer.status_code == 202
    assert answer.headers["hx-trigger"] == "jobs-changed"
    assert f"/page/jobs/{job_id}/cancel" not in part(client)
    end_backfill(rig.instance, job_id, BulkActionStatus.CANCELED)
    text = part(client, job_id)
    assert f"/page/jobs/{job_id}/retry" in text
    assert "every 2s" not in text, "what has ended is not asked for again"
    assert client.post(f"/page/jobs/{job_id}/retry", headers=HTMX).status_code == 202
    again = client.post(f"/page/jobs/{job_id}/retry", headers=HTMX)
    assert (again.status_code, "is queued" in again.text) == (409, True)
    assert "attempt 2" in part(client)


def test_a_part_that_has_not_changed_is_not_sent_again(client: TestClient) -> None:
    for path, day in (("/page/now?", "2024-01-01"), ("/page/calendar?year=2024&", "2024-12-30")):
        seen = re.findall(r"seen=(\w{16})", client.get(path).text)[0]
        assert client.get(f"{path}seen={seen}").status_code == 204
        started(client, start=day, end=day, request_id=day)
        answer = client.get(f"{path}seen={seen}")
        assert answer.status_code == 200
        assert f"seen={seen}" not in answer.text


def test_an_unknown_job_or_page_is_said_to_be_unknown(client: TestClient) -> None:
    for path in (
        "/jobs/nosuchjb",
        "/reports/2024-01-01.html",
        "/reports/2024-13.html",
        "/days/2024-01-01/report",
    ):
        answer = client.get(path)
        assert answer.status_code == 404
        assert "There is nothing here" in answer.text
    assert client.post("/page/jobs/nosuchjb/cancel", headers=HTMX).status_code == 404


def test_words_of_a_request_are_text_and_no_markup(client: TestClient) -> None:
    evil = "<script>alert(1)</script>"
    job_id = started(client, reason=evil)
    for text in (client.get("/").text, part(client), part(client, job_id)):
        assert evil not in text
        assert "&lt;script&gt;alert(1)" in text


#: Characters that turn text around, begin a terminal's commands, end a line, or are invisible.
UNPRINTABLE = "\u202e\u2066\x1b[2J\x9b\u2028\u200b"


def test_words_of_a_request_show_no_character_that_turns_or_hides_others(client: TestClient) -> None:
    body = {"start": "2024-01-01", "end": "2024-01-03", "reason": f"a {UNPRINTABLE} hole für 🕳"}
    sent = {b"X-Requester": "me\u202e".encode()}
    job_id = client.post("/api/v1/backfill", json=body, headers=sent).json()["job_id"]
    for text in (client.get("/").text, part(client), part(client, job_id)):
        assert not set(UNPRINTABLE) - set("[2J") & set(text)
        assert "a \\u202e\\u2066\\u001b[2J\\u009b\\u2028\\u200b hole für 🕳" in text
        assert "\x80" not in text, "of the requester's name, which is read as Latin-1"


def test_the_plan_sends_back_the_reason_as_it_was_typed(client: TestClient) -> None:
    answer = client.get("/page/plan", params={**FORM, "reason": "a <hole>\u202e"})
    assert 'name="reason" value="a &lt;hole&gt;\u202e"' in answer.text


@pytest.mark.parametrize("address", ["/api/v1/backfill", "/page/start"])
def test_a_reason_that_postgres_cannot_store_is_refused(address: str, client: TestClient) -> None:
    body = {"start": "2024-01-01", "end": "2024-01-03", "reason": "a\0hole"}
    sent = {"data": body, "headers": HTMX} if "page" in address else {"json": body}
    answer = client.post(address, **sent)
    assert (answer.status_code, "has a NUL character: remove it" in answer.text) == (422, True)
    assert client.get("/api/v1/backfill/recent").json() == {"jobs": []}


def test_a_report_is_served_from_the_lake_and_cannot_reach_the_token(
    client: TestClient, rig: SimpleNamespace
) -> None:
    store = open_store(rig.settings.lake)
    store.replace(paths.day_report("2024-01-02"), b"<h1>the day</h1>", None)
    store.replace(paths.month_report("2024-01"), b"<h1>the month</h1>", None)
    answer = client.get("/days/2024-01-02/report")
    assert answer.text == "<h1>the day</h1>"
    policy = answer.headers["content-security-policy"]
    assert "sandbox" in policy
    assert "allow-same-origin" not in policy
    month = client.get("/reports/2024-01.html")
    assert (month.status_code, "2024-01" in month.text) == (200, True), "as the pages link to each other"


def test_a_report_is_served_with_the_incidents_of_its_day_and_their_age(
    client: TestClient, rig: SimpleNamespace
) -> None:
    store, now = open_store(rig.settings.lake), utc_now()
    stored = b"<main><section>headline</section><section>the rest</section></main>"
    store.replace(paths.day_report("2024-01-02"), stored, None)
    before = client.get("/reports/2024-01-02.html").content
    assert before == stored
    problems = [
        Problem("feed_left_out", "<b>quarantine</b>", day, "binance/trades/BTCUSDT", "mend it")
        for day in ("2024-01-02", "2024-01-03")
    ]
    late = Problem("day_late", "no run", "2024-01-02")
    for found, hours in (([*problems, late], 50), (problems, 49)):
        moment = now - timedelta(hours=hours)
        record(store, found, lambda _: True, lambda moment=moment: moment, remind=timedelta(1), send=None)
    page = client.get("/reports/2024-01-02.html").text
    headline, shown, rest = page.split("</section>", 2)
    assert (headline, rest) == ("<main><section>headline", "<section>the rest</section></main>")
    assert "feed is left out: 2024-01-02 binance/trades/BTCUSDT, open for 2 days" in shown
    assert "day is late: 2024-01-02, ended after 1 hour" in shown
    assert "&lt;b&gt;quarantine" in shown
    assert "mend it" in shown
    assert "2024-01-03" not in shown
    stored_now = store.read(paths.day_report("2024-01-02"))
    assert stored_now is not None
    assert stored_now.data == stored, "the lake's page follows from the data alone"
    store.replace(paths.month_report("2024-01"), b"", None)
    month = client.get("/reports/2024-01.html").text
    assert month.count("feed is left out: 2024-01-0") == 2
    assert month.index("Incidents</h2>") < month.index("Feeds by day")
    (Path(store.uri) / paths.incidents()).write_text("{")
    assert client.get("/reports/2024-01-02.html").content == stored


# --- permission to change the state -----------------------------------------------------------------------

CHANGING = ["/page/start", "/page/jobs/abcdefgh/cancel", "/page/jobs/abcdefgh/retry"]


def test_every_changing_address_is_known_here(rig: SimpleNamespace) -> None:
    from backfill_assets.progress.page.routes import page_router

    routes: Any = page_router(rig.service).routes
    changing = {route.path for route in routes if route.methods - {"GET", "HEAD"}}
    assert {path.replace("{job_id}", "abcdefgh") for path in changing} == set(CHANGING)


@pytest.mark.parametrize("path", CHANGING)
def test_with_a_token_changes_need_it_and_looking_does_not(path: str, rig: SimpleNamespace) -> None:
    with client_of(rig, "s3cret", "http://backfill.example:3080") as client:
        for header in ({}, {"Authorization": "Bearer wrong"}, {"Cookie": "token=s3cret"}):
            answer = client.post(path, data=FORM, headers={**HTMX, **header})
            assert answer.status_code == 401
            assert "This needs the token" in answer.text
        answer = client.post(path, data=FORM, headers={**HTMX, "Authorization": "Bearer s3cret"})
        assert answer.status_code in (202, 404)
        assert 'id="token"' in client.get("/").text
    with client_of(rig) as client:
        assert 'id="token"' not in client.get("/").text


@pytest.mark.parametrize("path", CHANGING)
@pytest.mark.parametrize(
    "headers",
    [{}, {**HTMX, "Origin": "https://evil.example"}, {**HTMX, "Host": "evil.example:3080"}],
    ids=["no htmx", "other site", "other name"],
)
def test_a_post_of_another_site_changes_nothing(
    path: str, headers: dict[str, str], client: TestClient
) -> None:
    answer = client.post(path, data=FORM, headers=headers)
    assert answer.status_code == 403
    assert client.get("/api/v1/backfill/recent").json() == {"jobs": []}


# --- the calendar -------------------------------------------------------------------------------------------


def test_states_differ_by_sign_and_not_by_color_alone() -> None:
    signs = [sign for sign, _ in view.STATES.values()]
    assert len(set(signs)) == len(signs)


def test_each_day_stands_under_its_weekday_and_says_what_it_is() -> None:
    days = [CalendarDay(day=day, outcome="missing") for day in day_range("2024-02-01", "2024-03-01")]
    quarantined = tuple(f"binance/trades/F{i}" for i in range(5))
    days[0] = CalendarDay(
        day="2024-02-01",
        outcome="degraded",
        feeds=9,
        quarantined=quarantined,
        report="x",
        job_id="j",
        job_state="waiting",
    )
    february, march = view.months(days)
    assert (february.name, february.cells[:3]) == ("February", (None, None, None)), "a Thursday"
    assert (len(february.cells), len(march.cells)) == (3 + 29, 4 + 1)
    cell = february.cells[3]
    assert cell is not None
    assert (cell.href, cell.at_work, cell.sign) == ("/days/2024-02-01/report", "queued", "…")
    assert cell.words == (
        "Thu 2024-02-01: degraded, not sealed, 4 of 9 feeds, left out: binance/trades/F0, "
        "binance/trades/F1, binance/trades/F2 and 2 more, waiting in backfill j"
    )


def test_the_newest_year_with_days_is_shown_and_others_a_click_away(
    client: TestClient, rig: SimpleNamespace
) -> None:
    store = open_store(rig.settings.lake)
    for day in ("2022-12-30", "2023-12-30"):
        summary = DaySummary(day=day, state="held", sealed=False, completeness=None, quality=None, feeds=())
        documents.update(store, paths.day_summary(day), DaySummary, lambda _, s=summary: s)
    text = client.get("/page/calendar").text
    assert "Days of 2023" in text
    assert 'hx-get="/page/calendar?year=2022"' in text
    assert 'aria-label="Sat 2023-12-30: held, not sealed, 0 of 0 feeds"' in text
    assert "Days of 2022" in client.get("/page/calendar?year=2022").text
    assert client.get("/page/calendar?year=99999").status_code == 422


def test_only_days_up_to_today_and_as_many_as_may_be_asked_for() -> None:
    today = datetime(2024, 2, 3, tzinfo=UTC).date()
    first, last = view.year_range(2024, today, 800)
    assert (first.isoformat(), last) == ("2024-01-01", today)
    assert view.year_range(2023, today, 800)[1].isoformat() == "2023-12-31"
    assert view.year_range(2023, today, 100)[0].isoformat() == "2023-09-23"


def test_a_job_that_does_not_move_is_told_and_one_that_does_is_not(
    client: TestClient, rig: SimpleNamespace
) -> None:
    started(client)
    [job] = rig.service.unfinished()
    job = job.model_copy(update={"warnings": ()})
    for minutes, stuck in ((9, 0), (11, 1)):
        now = view.now_view([job], [job], job.updated + timedelta(minutes=minutes))
        assert len(now.troubles) == stuck
    assert "nothing has changed since" in now.troubles[0].text


# --- work for a person --------------------------------------------------------------------------------------


@pytest.fixture
def lake(rig: SimpleNamespace) -> Lake:
    """An empty lake, and the service over it and its warehouse."""
    found = Lake(Path(rig.settings.lake.uri))
    rig.service = Backfills(rig.instance, defs.resolve_asset_graph, lambda: found.settings)
    return found


@pytest.fixture
def lake_page(rig: SimpleNamespace, lake: Lake) -> Iterator[TestClient]:
    with client_of(rig) as found:
        yield found


@pytest.fixture
def bad_days(lake: Lake) -> Lake:
    """One held and two degraded days, one of which lacks a file, after runs without a backfill."""
    lake.run("2024-12-01")
    lake.run("2024-12-02", state="held", absent=(BTC, ETH), tables=("quality",))
    lake.run("2024-12-03", state="degraded", absent=(ETH,))
    lake.run("2024-12-04", state="degraded")
    return lake


def test_the_plan_tells_its_money_where_there_are_prices(lake_page: TestClient, lake: Lake) -> None:
    lake.run("2024-12-01")
    wanted = {"start": "2024-12-01", "end": "2024-12-02", "order": "oldest"}
    asked = {**wanted, "reason": "", "request_id": ""}
    assert "Money" not in lake_page.get("/page/plan", params=asked).text
    assert lake_page.get("/api/v1/plan", params=wanted).json()["money"] is None
    prices = {"date": "2026-11-30", "download_per_gb": 250}
    lake.settings = lake.settings.model_copy(update={"prices": PriceSettings.model_validate(prices)})
    assert lake_page.get("/api/v1/plan", params=wanted).json()["money"] == {
        "currency": "USD",
        "date": "2026-11-30",
        "costs": [{"what": "download", "amount": {"low": 1.0, "high": 1.0}}],
        "once": {"low": 1.0, "high": 1.0},
        "month": {"low": 0, "high": 0},
        "binds": "download",
    }
    said = "<dd>1.00 USD (download 1.00); most is download; prices of 2026-11-30</dd>"
    assert f"<dt>Money</dt>{said}" in lake_page.get("/page/plan", params=asked).text


def test_days_that_are_not_good_are_told_first_with_reason_and_command(
    lake_page: TestClient, bad_days: Lake
) -> None:
    text = html.unescape(part(lake_page))
    assert "3 things to look at" in text
    assert "Nothing is stuck" not in text
    held, other, lacking = re.findall(r"<li>(2024-\d\d-\d\d is .*?)</li>", text, re.DOTALL)
    assert held.startswith("2024-12-02 is held: only 0 of 2 feeds are accepted")
    assert "404" in held
    assert "--partition 2024-12-02" in held
    assert other.startswith("2024-12-04 is degraded: ")
    assert lacking.startswith("2024-12-03 is degraded: ")
    assert "binance/trades/ETHUSDT: 404" in lacking
    assert 'href="/days/2024-12-02/report"' in held
    assert text.index("2024-12-02 is held") < text.index("Latest backfills")


def test_a_day_whose_every_feed_counts_is_run_again_only_where_the_warehouse_lacks_it(bad_days: Lake) -> None:
    found = load_day(bad_days.store, "2024-12-04")
    assert found is not None
    assert _first_remedy(found, "degraded") == "", "a run leaves a low score as it is"
    assert _first_remedy(found, "missing").endswith("--partition 2024-12-04")


def test_of_many_bad_days_the_latest_are_told_and_the_others_counted(
    lake_page: TestClient, bad_days: Lake
) -> None:
    for number in range(5, 12):
        bad_days.run(f"2024-12-{number:02d}", state="degraded", absent=(ETH,))
    told = re.findall(r"<li>(2024-\d\d-\d\d) is", part(lake_page))
    assert told == ["2024-12-02", "2024-12-11", "2024-12-10", "2024-12-09", "2024-12-08"]
    assert "5 degraded more, in the calendar below" in part(lake_page)


def test_where_every_day_is_published_nothing_is_to_be_done(lake_page: TestClient, lake: Lake) -> None:
    lake.run("2024-12-01")
    text = part(lake_page)
    assert "no single run of the last 7 days has failed" in text
    assert "every judged day of 2024 is published" in text
    assert "to look at" not in text


def single_run(rig: SimpleNamespace, day: str, **tags: str) -> str:
    """A run at work, in the form that ``dg launch`` makes."""
    tags = {"dagster/partition": day, **tags}
    return create_run_for_test(rig.instance, status=dg.DagsterRunStatus.STARTED, tags=tags).run_id


def test_a_day_whose_last_single_run_failed_is_told_with_the_command_until_it_is_run_again(
    lake_page: TestClient, lake: Lake, rig: SimpleNamespace
) -> None:
    lake.run("2024-12-01")
    single_run(rig, "2024-12-02")
    for day in ("2024-12-03", "2024-12-04"):
        rig.instance.report_run_failed(rig.instance.get_run_by_id(single_run(rig, day)))
    single_run(rig, "2024-12-04", **{"dagster/backfill": "abcdefgh"})
    text = html.unescape(part(lake_page))
    [told] = re.findall(r"<li>(.*?)</li>", text, re.DOTALL)
    assert re.match(r"2024-12-03: its last run, started 20\S+ \d\d:\d\d UTC outside a backfill, failed", told)
    assert "--partition 2024-12-03" in told
    assert "Nothing is stuck" not in text


def test_a_single_run_whose_process_is_gone_counts_as_failed(
    lake_page: TestClient, lake: Lake, rig: SimpleNamespace
) -> None:
    lake.run("2024-12-01")
    run_id = single_run(rig, "2024-12-02")
    # A process with this id began at another time.
    gone = replace(RunProcess.this(run_id), since=1.0)
    rig.instance.add_run_tags(run_id, gone.tags())
    assert "2024-12-02: its last run" in part(lake_page)


def test_a_bad_day_is_told_once_though_its_single_run_failed(
    lake_page: TestClient, lake: Lake, rig: SimpleNamespace
) -> None:
    lake.run("2024-12-02", state="held", absent=(BTC, ETH), tables=("quality",))
    rig.instance.report_run_failed(rig.instance.get_run_by_id(single_run(rig, "2024-12-02")))
    assert "1 thing to look at" in part(lake_page)


def test_the_look_back_of_the_schedule_counts_beside_the_newest_year(
    rig: SimpleNamespace, lake: Lake
) -> None:
    """In the first days of a year the look-back reaches into the year before."""
    lake.run("2023-12-31", state="held", tables=("quality",))
    lake.run("2024-01-01")
    days = rig.service.days(date(2024, 1, 1), date(2024, 1, 2))
    told = _to_do(rig.service, days, date(2024, 1, 3))
    assert [trouble.day for trouble in told] == ["2023-12-31"]


def test_a_canceled_backfill_with_failed_days_is_told_beside_one_that_failed(
    client: TestClient, rig: SimpleNamespace
) -> None:
    started(client)
    [job] = rig.service.unfinished()
    ended = job.model_copy(update={"state": "canceled", "days_by_state": {"failed": 1, "canceled": 2}})
    [trouble] = view.now_view([], [ended], job.updated).troubles
    assert trouble.text == "2024-01-01 to 2024-01-03 canceled: 1 failed"
    harmless = ended.model_copy(update={"days_by_state": {"published": 1, "canceled": 2}})
    assert view.now_view([], [harmless], job.updated).troubles == ()


def test_no_time_is_left_of_a_backfill_that_is_stuck_or_is_being_cancelled(
    client: TestClient, rig: SimpleNamespace
) -> None:
    job_id = started(client)
    assert "time left" not in part(client, job_id) + part(client), "no daemon runs it"
    job = rig.service.job(job_id).model_copy(update={"warnings": ()})
    assert view.eta_words(job, job.created).startswith("time left")
    assert view.eta_words(job.model_copy(update={"state": "canceling"}), job.created) == ""
