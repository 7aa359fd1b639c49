"""The pages in a real browser: whole without a network, light and dark, on a phone, by keyboard alone."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

from backfill_assets.feeds import Feed
from backfill_assets.quality.book_minutes import BookMinutes
from backfill_assets.quality.bucket_states import MINUTES, runs_of
from backfill_assets.report.minutes import Minutes
from backfill_assets.report.model import day_report
from backfill_assets.report.page import day_page
from backfill_assets_tests.emulators.browser import Browser, chromium, installed
from backfill_assets_tests.report.report_samples import day_of, feed_report, verdict

pytestmark = pytest.mark.skipif(installed() is None, reason="needs Chromium and its driver")

GOOD, DEGRADED, HELD = "2024-01-02", "2024-01-03", "2024-01-05"
MONTH = "2024-01"
ARTEFACTS = Path(__file__).parents[2] / "test-artefacts" / "report"
PHONE, DESK = 390, 1280


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as opened:
        yield opened


def wait_for_chart(browser: Browser, feed: str = "feed-0") -> None:
    # A canvas is 300 pixels wide by default; the library sets its width when the browser next draws.
    drawn = f"return document.querySelector('#{feed} .chart[data-ready] canvas')?.width > 300"
    WebDriverWait(browser.driver, 20).until(lambda d: d.execute_script(drawn))


@pytest.mark.parametrize("name", [GOOD, DEGRADED, HELD, MONTH])
@pytest.mark.parametrize(("width", "dark"), [(DESK, False), (DESK, True), (PHONE, False), (PHONE, True)])
def test_a_page_is_whole_without_a_network_and_fits_the_window(browser, reports, name, width, dark):
    browser.open(reports.file(name), width=width, dark=dark)
    kind = f"{width}-{'dark' if dark else 'light'}"
    browser.screenshot(ARTEFACTS / f"{name}-{kind}.png")
    assert browser.external_requests == []
    assert browser.complaints == []
    assert browser.run("return document.documentElement.scrollWidth") <= width
    background = browser.run("return getComputedStyle(document.body).backgroundColor")
    brightness = sum(int(part) for part in background[4:-1].split(","))
    assert (brightness < 200) == dark


def test_a_request_to_another_host_and_an_error_would_be_seen(browser, reports, tmp_path):
    page = reports.file(GOOD).read_text()
    bad = tmp_path / "bad.html"
    bad.write_text(
        page.replace("default-src 'none';", "")
        .replace(
            "</main>",
            "</main><img src='http://127.0.0.1:9/pixel.png'><script>console.error('broken')</script>",
        )
        .replace("img-src data:", "img-src *")
    )
    browser.open(bad)
    assert browser.complains("broken")
    assert browser.complains("http://127.0.0.1:9/pixel.png")
    assert browser.external_requests == ["http://127.0.0.1:9/pixel.png"]


def test_the_policy_of_the_page_itself_forbids_to_load_anything(browser, reports, tmp_path):
    sneaky = tmp_path / "sneaky.html"
    text = reports.file(GOOD).read_text()
    sneaky.write_text(text.replace("</main>", "</main><img src='http://127.0.0.1:9/pixel.png'>"))
    browser.open(sneaky)
    assert browser.complains("Content Security Policy")


@pytest.mark.parametrize("day", [GOOD, DEGRADED, HELD])
def test_the_heat_map_covers_every_minute_of_every_feed(browser, reports, day):
    browser.open(reports.file(day))
    covered = browser.run("""
        return [...document.querySelectorAll('.strip svg .tables')].map((drawn) =>
          [...drawn.querySelectorAll('path')].map((path) => path.getAttribute('d'))
            .flatMap((d) => [...d.matchAll(/h(\\d+)/g)].map((m) => Number(m[1])))
            .reduce((sum, length) => sum + length, 0))
    """)
    assert covered == [1440] * 9
    labels = browser.run(
        "return [...document.querySelectorAll('.strip svg')].map((s) => s.getAttribute('aria-label'))"
    )
    assert all("Minutes: " in label for label in labels)


def test_states_differ_by_sign_and_pattern_and_not_by_color_alone(browser, reports):
    browser.open(reports.file(DEGRADED))
    signs = browser.run("return [...document.querySelectorAll('.mark')].map((m) => m.textContent)")
    assert {"×", "~"} <= set(signs)
    fills = browser.run("""
        return ['m', 'p', 'u'].map((code) => getComputedStyle(document.querySelector('.c-' + code)).fill)
    """)
    assert all("url(" in fill for fill in fills)


def test_the_first_screen_says_what_is_wrong_and_what_to_do(browser, reports):
    browser.open(reports.file(DEGRADED))
    shown = [e for e in browser.driver.find_elements(By.CSS_SELECTOR, ".answer, .task") if e.is_displayed()]
    first = [e for e in shown if "warn" not in e.get_attribute("class").split()]
    assert all(e.location["y"] + e.size["height"] < 1000 for e in first)
    told = "\n".join(e.text for e in shown)
    assert "2 of 9 feeds are left out" in told
    for words in (
        "kraken/trades/XBT-USDT",
        "the whole day",
        "500 ids are missing",
        "backfill-assets approve",
    ):
        assert words in told
    browser.open(reports.file(GOOD))
    assert "The day is good: all 9 feeds" in browser.driver.find_element(By.CSS_SELECTOR, ".answer").text
    assert browser.driver.find_element(By.CSS_SELECTOR, ".nothing").text.startswith("✓Nothing")


def test_the_heat_map_is_there_in_words_by_keyboard(browser, reports):
    browser.open(reports.file(DEGRADED))
    browser.driver.find_element(By.CSS_SELECTOR, ".as-text summary").send_keys(Keys.ENTER)
    table = browser.driver.find_element(By.CSS_SELECTOR, ".as-text table")
    assert table.is_displayed()
    assert len(table.find_elements(By.CSS_SELECTOR, "th[scope=rowgroup]")) == 9
    assert re.search(r"\d\d:\d\d–\d\d:\d\d in the pending file: \d+ missing", table.text)
    assert "longer silent than excused" in table.text


@pytest.mark.parametrize("dark", [False, True])
def test_minutes_of_books_stand_under_those_of_trades(browser, tmp_path, dark):
    lengths = {"v": 900, "c": 200, "s": 100, "d": 30, "x": 20, "g": 90, "n": 100}
    states = "".join(state * length for state, length in lengths.items())
    minutes = Minutes(states, (0,) * MINUTES)
    kept = BookMinutes(
        states=runs_of(states),
        valid_share=0.98765,
        longest_unchanged_seconds=7200.0,
        unchanged_at_end_seconds=12.5,
    )
    feed = Feed("binance", "incremental_book_L2", "BTCUSDT")
    told = {"feed": feed, "symbol": "BTC-USDT", "verdict": verdict(feed), "books": {"BTC-USDT": kept}}
    book = feed_report(1, minutes=minutes, marks=minutes.marks(), **told)
    page = tmp_path / "books.html"
    page.write_text(day_page(day_of((book, feed_report(0)))))
    browser.open(page, dark=dark)
    browser.screenshot(ARTEFACTS / f"books-{'dark' if dark else 'light'}.png")
    legend = browser.driver.find_element(By.CSS_SELECTOR, ".legend").text
    for words in ("book proven 900", "book diverged 30", "book crossed 20", "book unchanged 100"):
        assert words in re.sub(r"\s+", " ", legend)
    assert {"≠", "⇄"} <= {m.text for m in browser.driver.find_elements(By.CSS_SELECTOR, ".mark")}
    looks = browser.run("""
        return 'vcsdxn'.split('').map((code) => {
            const style = getComputedStyle(document.querySelector('.c-' + code));
            return style.fill.startsWith('url') ? style.fill : style.stroke;
        })
    """)
    assert len(set(looks)) == 6
    assert all("url(" in look for look in looks[3:])
    shown = browser.driver.find_element(By.CSS_SELECTOR, "#feed-0 .body").text
    assert (
        "A valid book for 98.7 % of the day; longest without a change 2 h; last change 12.5 s before" in shown
    )
    cells = browser.driver.find_elements(By.CSS_SELECTOR, "#feed-0 [role=gridcell]")
    assert [cells[1200].get_attribute("aria-label"), cells[1200].text] == ["20:00 book diverged", "≠"]
    assert browser.complaints == []


def test_minutes_with_an_unconfirmed_spike_are_marked_on_heat_map_minutes_and_chart(browser, tmp_path):
    states = "t" * 700 + "e" * 740
    minutes = Minutes(states, tuple(int(s == "t") for s in states), (61,))
    feed = feed_report(0, frames={"1m": 1, "5m": 5, "1h": 60}, minutes=minutes, marks=minutes.marks())
    page = tmp_path / "spike.html"
    page.write_text(day_page(day_of((feed, feed_report(1)))))
    browser.open(page)
    wait_for_chart(browser)
    assert [m.text for m in browser.driver.find_elements(By.CSS_SELECTOR, ".mark")] == ["▲"]
    assert "unconfirmed spike" in browser.driver.find_element(By.CSS_SELECTOR, ".legend").text
    cells = browser.driver.find_elements(By.CSS_SELECTOR, "details[open] [role=gridcell]")
    flagged = [c.get_attribute("aria-label") for c in cells[60:64] if c.text == "▲"]
    assert flagged == ["01:01 traded, 1 trade, an unconfirmed spike is its high or low"]
    assert browser.run("return document.querySelector('#feed-0 .chart').dataset.spikes") == "1"
    assert browser.complaints == []


def test_the_minutes_of_a_feed_are_walked_by_keyboard(browser, reports):
    browser.open(reports.file(GOOD))
    cells = browser.driver.find_elements(By.CSS_SELECTOR, "details[open] [role=gridcell]")
    assert len(cells) == 1440
    browser.run("arguments[0].focus()", cells[0])
    for key in (Keys.ARROW_RIGHT, Keys.ARROW_DOWN, Keys.END):
        browser.driver.switch_to.active_element.send_keys(key)
    assert browser.run("return document.activeElement.dataset.i") == "119"
    readout = browser.driver.find_element(By.CSS_SELECTOR, "details[open] .readout").text
    assert readout.startswith("01:59 ")
    assert (
        browser.run(
            "return document.querySelectorAll('details[open] [role=gridcell][tabindex=\"0\"]').length"
        )
        == 1
    )
    browser.driver.switch_to.active_element.send_keys(Keys.ARROW_RIGHT, Keys.ARROW_UP, Keys.ARROW_UP)
    assert browser.run("return document.activeElement.dataset.i") == "0", "the edge of the day stops the walk"


def test_candles_are_drawn_and_their_timeframe_is_chosen_by_keyboard(browser, reports):
    browser.open(reports.file(GOOD))
    wait_for_chart(browser)
    drawn = browser.run("""
        const canvas = document.querySelector('.chart canvas');
        const pixels = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
        const colors = new Set();
        for (let i = 0; i < pixels.length; i += 4) colors.add(pixels.slice(i, i + 3).join());
        return [canvas.width, colors.size];
    """)
    assert drawn[0] > 500
    assert drawn[1] > 3, "an empty chart has the colors of its background and its grid alone"
    button = browser.driver.find_element(By.CSS_SELECTOR, "[data-frame='1h']")
    assert button.get_attribute("aria-pressed") == "false"
    button.send_keys(Keys.ENTER)
    assert button.get_attribute("aria-pressed") == "true"
    rows = browser.run("return document.querySelectorAll('details[open] .hours-table tbody tr').length")
    assert rows == 24


def test_a_feed_is_opened_from_the_heat_map_by_keyboard(browser, reports):
    browser.open(reports.file(GOOD))
    row = browser.driver.find_elements(By.CSS_SELECTOR, "a.row")[4]
    row.send_keys(Keys.ENTER)
    WebDriverWait(browser.driver, 10).until(lambda d: d.execute_script("return location.hash") == "#feed-4")
    wait_for_chart(browser, "feed-4")
    assert browser.run("return document.getElementById('feed-4').open")
    assert browser.run("return document.activeElement.closest('details').id") == "feed-4"


def test_the_theme_is_switched_by_keyboard_and_remembered(browser, reports):
    browser.open(reports.file(GOOD))
    browser.run("localStorage.clear()")
    browser.open(reports.file(GOOD))
    light = browser.run("return getComputedStyle(document.body).backgroundColor")
    button = browser.driver.find_element(By.ID, "theme")
    button.send_keys(Keys.ENTER)
    button.send_keys(Keys.SPACE)
    assert button.text == "Theme: dark"
    assert browser.run("return getComputedStyle(document.body).backgroundColor") != light
    browser.open(reports.file(GOOD))
    assert browser.run("return document.documentElement.dataset.theme") == "dark"
    browser.run("localStorage.clear()")


def test_the_month_leads_to_its_days_and_they_lead_back(browser, reports):
    browser.open(reports.file(MONTH))
    cells = browser.driver.find_elements(By.CSS_SELECTOR, "a.cell")
    assert len(cells) == 4 * (1 + 9), "of the day and of each feed"
    link = next(c for c in cells if "BTCUSDT on 2024-01-03: quarantine" in c.get_attribute("aria-label"))
    link.send_keys(Keys.ENTER)
    WebDriverWait(browser.driver, 10).until(lambda d: d.current_url.endswith("2024-01-03.html"))
    assert "degraded" in browser.driver.title
    browser.driver.find_element(By.LINK_TEXT, "2024-01").click()
    WebDriverWait(browser.driver, 10).until(lambda d: d.current_url.endswith("2024-01.html"))


def test_what_a_screen_reader_needs_is_there(browser, reports):
    for name in (DEGRADED, MONTH):
        browser.open(reports.file(name))
        assert browser.run("return document.documentElement.lang") == "en"
        assert browser.run("return document.querySelectorAll('h1').length") == 1
        unnamed = browser.run("""
            const wanted = 'a, button, summary, [role=img], [role=grid], [tabindex="0"]';
            return [...document.querySelectorAll(wanted)]
              .filter((e) => !(e.getAttribute('aria-label') || e.textContent.trim())).map((e) => e.outerHTML);
        """)
        assert unnamed == []
        headers = browser.run("return [...document.querySelectorAll('th')].filter((th) => !th.scope).length")
        assert headers == 0


def test_text_of_a_vendor_is_text_and_no_markup(browser, reports, tmp_path):
    from dataclasses import replace

    report = day_report(reports.pipeline.store, reports.pipeline.settings, DEGRADED)
    evil = "</script><script>window.hacked = 1</script><img src=x onerror='window.hacked=1'>"
    verdict = report.feeds[0].verdict.model_copy(update={"reasons": (evil,)})
    page = tmp_path / "evil.html"
    changed = replace(
        report, feeds=(replace(report.feeds[0], verdict=verdict), *report.feeds[1:]), reasons=(evil,)
    )
    page.write_text(day_page(changed))
    browser.open(page)
    assert browser.run("return window.hacked === undefined")
    assert evil in browser.driver.find_element(By.CSS_SELECTOR, ".reasons").text
