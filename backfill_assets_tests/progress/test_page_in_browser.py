"""The page in a real browser over a real service, daemon and runs: plan, start, watch, retry, cancel.

``test-artefacts/page`` keeps pictures of the pages.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from backfill_assets.standins.faults import Fault
from backfill_assets.standins.market import Market
from backfill_assets.standins.tardis import TardisStandin
from backfill_assets_tests.emulators.browser import Browser, chromium, installed
from backfill_assets_tests.progress.rig import EXCHANGES, SYMBOLS, Rig, running_rig, take_away_feeds

pytestmark = [
    pytest.mark.story,
    pytest.mark.timeout(500),
    pytest.mark.skipif(installed() is None, reason="needs Chromium and its driver"),
]

ARTEFACTS = Path(__file__).parents[2] / "test-artefacts" / "page"
PHONE, DESK = 390, 1280
TOKEN = "s3cret"
GOOD, BAD = "2024-01-01", "2024-01-02"


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """A service with a token, a daemon and a market; six feeds of nine of the second day are missing."""
    home = tmp_path_factory.mktemp("page")
    rows = {(exchange, symbol): 3_000 for exchange in EXCHANGES for symbol in SYMBOLS}
    with TardisStandin(Market(rows=rows), clock=lambda: datetime(2024, 2, 10, tzinfo=UTC)) as standin:
        for feed in take_away_feeds(standin, BAD):
            # The delay is long enough to see a day at work.
            standin.faults.put_dataset(feed, GOOD, Fault(delay_seconds=3))
        with running_rig(home, standin, BACKFILL_API_TOKEN=TOKEN) as rig:
            yield rig


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as opened:
        yield opened


class Reader:
    """A person at the page."""

    def __init__(self, browser: Browser, live: Rig) -> None:
        self.browser = browser
        self.live = live

    def open(self, path: str = "/", *, width: int = DESK, dark: bool = False) -> None:
        self.browser.open(f"{self.live.url}{path}", width=width, dark=dark)

    def find(self, css: str) -> Any:
        return self.browser.driver.find_element(By.CSS_SELECTOR, css)

    def text(self, css: str) -> str:
        return str(self.find(css).text)

    def wait(self, look: Callable[[], Any]) -> Any:
        """Wait until the condition is true; parts of the page are replaced during a look."""

        def patient() -> Any:
            try:
                return look()
            except StaleElementReferenceException:
                return None

        return self.live.wait(patient, 200)

    def there(self, css: str) -> Any:
        """The element, once it is there."""
        return self.wait(lambda: self.browser.driver.find_elements(By.CSS_SELECTOR, css))[0]

    def click(self, css: str) -> None:
        """Click the point at which a mouse would click, once the page has stopped scrolling there."""

        def click() -> bool:
            element = self.find(css)
            self.browser.run("arguments[0].scrollIntoView({behavior: 'instant', block: 'center'})", element)
            element.click()
            return True

        self.there(css)
        self.wait(click)

    def says(self, css: str, words: str) -> None:
        self.wait(lambda: words in self.text(css))

    def tab_to(self, css: str) -> None:
        """Press Tab until the element has the focus."""
        for _ in range(60):
            self.browser.driver.switch_to.active_element.send_keys(Keys.TAB)
            if self.browser.run("return document.activeElement.matches(arguments[0])", css):
                return
        pytest.fail(f"{css} is not reached by keyboard")

    def press(self, *keys: str) -> None:
        self.browser.driver.switch_to.active_element.send_keys(*keys)

    def days(self, first: str, last: str) -> None:
        for name, day in (("start", first), ("end", last)):
            self.browser.run("arguments[0].value = arguments[1]", self.find(f"#form [name={name}]"), day)

    def picture(self, name: str) -> None:
        self.browser.screenshot(ARTEFACTS / f"{name}.png")

    def is_whole(self) -> None:
        """The page made no external request, logged no complaint, and has no element outside the window."""
        asked = [url for url in self.browser.external_requests if not url.startswith(self.live.url)]
        assert asked == []
        assert [c for c in self.browser.complaints if " 401 " not in c] == []
        run = self.browser.run
        assert run("return document.documentElement.scrollWidth <= window.innerWidth")


@pytest.fixture
def reader(browser: Browser, live: Rig) -> Reader:
    return Reader(browser, live)


@pytest.fixture(scope="module")
def job(browser: Browser, live: Rig) -> str:
    """Two days, planned, started and watched to the end by mouse: the first is published, the second held."""
    reader = Reader(browser, live)
    reader.open()
    browser.run("sessionStorage.clear()")
    reader.open()
    assert "Nothing is running" in reader.text("#now h1")
    reader.days(GOOD, BAD)
    reader.click("#show-plan")
    reader.says("#plan", "2 days to run of 2")
    assert live.ask("/api/v1/backfill/recent") == {"jobs": []}, "a plan starts nothing"
    reader.picture("1-plan")
    reader.click("#start-it")
    reader.says("#plan", "This needs the token")
    assert live.ask("/api/v1/backfill/recent") == {"jobs": []}
    reader.find("#token").send_keys(TOKEN)
    reader.click("#show-plan")
    reader.click("#start-it")
    reader.says("#plan", "Started: 2024-01-01 to 2024-01-02")
    [found] = live.ask("/api/v1/backfill/recent")["jobs"]
    job_id = str(found["job_id"])
    reader.says("#now h1", "1 backfill running")
    reader.there(f".day-row progress[aria-label='Feeds of {GOOD}']")
    reader.picture("2-running")
    assert "1 backfill running" in browser.run("return document.getElementById('said').textContent")
    reader.says("#now h1", "Nothing is running")
    return job_id


def test_a_backfill_is_planned_started_and_watched_to_its_end(reader: Reader, job: str) -> None:
    status = reader.live.status(job)
    assert (status.state, status.days_by_state) == ("failed", {"held": 1, "published": 1})
    reader.says(".look", "1 of 2 days: 2024-01-02 held")
    first = reader.find(".look li")
    assert f"{BAD} is held: " in first.text, "a day that waits for a person comes before what was told of it"
    assert f"--partition {BAD}" in first.find_element(By.CSS_SELECTOR, "pre.command").text
    reader.is_whole()


def test_the_calendar_follows_and_leads_to_the_report_of_the_day(reader: Reader, job: str) -> None:
    reader.open()
    cell = reader.there(f"#d-{GOOD}.d-published")
    assert cell.get_attribute("aria-label").startswith("Mon 2024-01-01: published")
    assert "held" in reader.there(f"#d-{BAD}.d-held").get_attribute("aria-label")
    reader.click(f"#d-{GOOD}")
    reader.says("h1", "1 January 2024")
    reader.click("#theme")
    assert reader.browser.run("return document.documentElement.dataset.theme") == "light", "its scripts run"
    reader.click("a[href='2024-01.html']")
    reader.says("h1", "January 2024")


@pytest.mark.parametrize(("width", "dark"), [(DESK, False), (DESK, True), (PHONE, False), (PHONE, True)])
@pytest.mark.parametrize("name", ["all", "job"])
def test_the_pages_fit_the_window_in_light_and_dark(
    name: str, width: int, dark: bool, reader: Reader, job: str
) -> None:
    reader.open("/" if name == "all" else f"/jobs/{job}", width=width, dark=dark)
    reader.there("h1")
    reader.picture(f"3-{name}-{width}-{'dark' if dark else 'light'}")
    reader.is_whole()
    background = reader.browser.run("return getComputedStyle(document.body).backgroundColor")
    assert (sum(int(n) for n in background[4:-1].split(",")) < 200) == dark


def test_the_api_can_be_tried_without_another_server(reader: Reader, job: str) -> None:
    reader.open("/docs")
    reader.says("#explorer", "/api/v1/backfill/status/{job_id}")
    loaded = reader.browser.run("return performance.getEntriesByType('resource').map(e => e.name)")
    assert loaded
    assert [url for url in loaded if not url.startswith(reader.live.url)] == []


def test_what_a_screen_reader_needs_is_there(reader: Reader, job: str) -> None:
    for path in ("/", f"/jobs/{job}"):
        reader.open(path)
        run = reader.browser.run
        assert run("return document.documentElement.lang") == "en"
        assert run("return document.querySelectorAll('h1').length") == 1
        assert run("return document.querySelectorAll('main, header.top, nav[aria-label]').length") == 3
        unnamed = run("""
            const wanted = 'a, button, summary, progress, [role=img]';
            const name = (e) => e.getAttribute('aria-label') || e.textContent.trim();
            const inputs = [...document.querySelectorAll('input')].filter((e) => !e.labels.length);
            return [...[...document.querySelectorAll(wanted)].filter((e) => !name(e)), ...inputs]
              .map((e) => e.outerHTML);
        """)
        assert unnamed == []
        ids = run("return [...document.querySelectorAll('[id]')].map((e) => e.id)")
        assert len(ids) == len(set(ids))


def test_a_failed_backfill_is_retried_by_keyboard_alone(reader: Reader, job: str) -> None:
    reader.live.standin.faults.clear()
    reader.open(f"/jobs/{job}")
    reader.tab_to(f"#retry-{job}")
    reader.press(Keys.ENTER)
    assert "again the days of" in reader.text("#question")
    reader.press(Keys.ESCAPE)
    assert reader.live.status(job).attempt == 1, "an escape changes nothing"
    reader.browser.run("arguments[0].focus()", reader.find(f"#retry-{job}"))
    reader.press(Keys.ENTER)
    reader.picture("4-question")
    reader.tab_to("#confirm-yes")
    reader.press(Keys.ENTER)
    reader.says("#notice", "Started again as attempt 2")
    reader.says("#job .chips", "succeeded")
    assert reader.live.status(job).days_by_state == {"published": 2}
    reader.picture("5-retried")


def test_a_running_backfill_is_cancelled_by_mouse(reader: Reader, job: str) -> None:
    reader.open()
    reader.days("2024-01-10", "2024-01-17")
    reader.click("#show-plan")
    reader.click("#start-it")
    reader.says("#plan", "Started")
    job_id = reader.text("#plan code")
    button = f"#cancel-{job_id}"
    reader.says("#now h1", "1 backfill running")
    reader.click(button)
    reader.click("#confirm-no")
    assert reader.live.status(job_id).state == "running"
    reader.click(button)
    reader.picture("6-cancel")
    reader.click("#confirm-yes")
    reader.says("#notice", "Being canceled")
    reader.says("#now h1", "Nothing is running")
    status = reader.live.status(job_id)
    assert status.state == "canceled"
    assert status.days_by_state["canceled"] >= 3
    reader.is_whole()


def test_a_server_out_of_reach_is_told_and_what_was_known_stays(reader: Reader, job: str) -> None:
    reader.open()
    before = reader.text("#now h2")
    reader.live.kill("service")
    reader.browser.run("htmx.trigger('#now', 'jobs-changed')")
    reader.browser.run("htmx.trigger(document.body, 'jobs-changed')")
    reader.says("#offline", "The server does not answer. This page shows the state at")
    assert reader.text("#now h2") == before
    reader.live.start_service()
    reader.wait(lambda: not reader.find("#offline").is_displayed())
