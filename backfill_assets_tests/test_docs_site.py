"""The site of the docs: every page is in it, all content is local, the search works on files."""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from backfill_assets_tests.emulators.browser import chromium, installed

REPOSITORY = Path(__file__).parents[1]
SCRIPT = REPOSITORY / "scripts" / "docs_site.py"
WORKER = "e8e412dbcfea9b7e31b5ffa288d7b6035915e714c542f4176a0cdbe262fc9609"


def build(folder: Path, script: Path = SCRIPT) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(script), str(folder)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("docs")
    done = build(folder)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout == f"{folder}/site/index.html\n"
    return folder / "site"


def menu() -> set[str]:
    """The pages in the menu."""
    text = (REPOSITORY / "mkdocs.yml").read_text(encoding="utf-8")
    [nav] = re.findall(r"^nav:\n(.*)", text, re.MULTILINE | re.DOTALL)
    return {page for part in yaml.safe_load(nav) for pages in part.values() for page in pages}


def test_every_page_of_the_docs_is_in_the_site_and_in_its_menu(site):
    pages = {page.name for page in (REPOSITORY / "docs").glob("*.md")}
    assert pages < menu()
    assert {page.removesuffix(".md") for page in menu()} == {page.stem for page in site.glob("*.html")} - {
        "404"
    }


def test_no_page_loads_anything_from_elsewhere(site):
    for page in site.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        loaded = re.findall(r'<(?:script|img|iframe)[^>]* src="([^"]+)"', text)
        loaded += re.findall(r'<link[^>]* href="([^"]+)"', text)
        assert loaded
        assert [address for address in loaded if "//" in address] == [], page.name
        here = [address.partition("?")[0] for address in loaded if not address.startswith(("#", "data:"))]
        if page.name != "404.html":
            assert [address for address in here if not (page.parent / address).is_file()] == []


def test_tables_code_and_anchors_are_as_on_github(site):
    for page in ("data", "settings", "operations"):
        text = (REPOSITORY / "docs" / f"{page}.md").read_text(encoding="utf-8")
        shown = (site / f"{page}.html").read_text(encoding="utf-8")
        assert shown.count("<table>") == len(re.findall(r"^\|---", text, re.MULTILINE)), page
        assert "```" not in shown
    assert 'id="where-to-change-what"' in (site / "architecture.html").read_text(encoding="utf-8")
    index = (site / "index.html").read_text(encoding="utf-8")
    assert 'src="day.png"' in index
    assert "flowchart" not in index


def test_a_link_that_leads_nowhere_fails_by_its_page(tmp_path):
    clone = tmp_path / "clone"
    shutil.copytree(REPOSITORY / "docs", clone / "docs")
    shutil.copytree(REPOSITORY / "scripts", clone / "scripts")
    for name in ("README.md", "CHANGELOG.md", "SECURITY.md", "mkdocs.yml", "LICENSE"):
        shutil.copyfile(REPOSITORY / name, clone / name)
    for name in (".github", "benchmarks", "deploy", "examples", "monitoring", "backfill_assets"):
        (clone / name).symlink_to(REPOSITORY / name)
    page = clone / "docs" / "start.md"
    page.write_text(
        page.read_text(encoding="utf-8") + "\nSee [there](data.md#no-such-part).\n", encoding="utf-8"
    )
    done = build(tmp_path / "built", clone / "scripts" / "docs_site.py")
    assert done.returncode == 1
    assert "start.md" in done.stderr
    assert "anchor does not exist" in done.stderr


@pytest.mark.story
@pytest.mark.skipif(installed() is None, reason="needs Chromium and its driver")
def test_a_page_that_is_opened_as_a_file_finds_words_of_other_pages_without_a_network(site):
    found = (
        "return [...document.querySelectorAll('*')].filter(e => e.shadowRoot)"
        ".flatMap(e => [...e.shadowRoot.querySelectorAll('a')].map(a => a.href))"
    )
    with chromium() as browser:
        browser.open(site / "index.html")
        WebDriverWait(browser.driver, 20).until(
            lambda driver: driver.find_element(By.CSS_SELECTOR, ".md-search__button")
        ).click()
        # The click makes the field, which takes the keys.
        WebDriverWait(browser.driver, 20).until(
            lambda driver: driver.execute_script(
                "return document.activeElement.shadowRoot?.activeElement != null"
            )
        )
        browser.driver.switch_to.active_element.send_keys("raw_sha256")
        WebDriverWait(browser.driver, 20).until(
            lambda driver: any("data.html?h=raw_sha256" in link for link in driver.execute_script(found))
        )
        assert browser.external_requests == []
        assert browser.complaints == []


def test_the_script_of_others_is_the_file_of_its_package():
    content = (REPOSITORY / "scripts" / "site" / "iframe-worker.js").read_bytes()
    assert hashlib.sha256(content).hexdigest() == WORKER
