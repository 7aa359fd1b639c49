"""A real browser without a screen: Debian's Chromium, driven by Selenium over its own driver.

Selenium would download a missing driver; here the driver and the browser are named, so nothing is
downloaded. Pages are opened from files, as a person opens a report from a message, or from a server.
"""

from __future__ import annotations

import base64
import json
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
#: Schemes of addresses within the page itself.
LOCAL_SCHEMES = ("file:", "data:", "blob:", "about:")


def installed() -> tuple[str, str] | None:
    """Browser and driver, or None if one of them is missing."""
    browser = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    driver = shutil.which("chromedriver")
    return (browser, driver) if browser and driver else None


@dataclass
class Browser:
    """One window; it keeps its network requests and its complaints since ``open``."""

    driver: webdriver.Chrome
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def open(
        self,
        file: Path | str,
        *,
        width: int = 1280,
        height: int = 900,
        dark: bool = False,
        fragment: str = "",
    ) -> None:
        """Show the file or address in a window of this size, for a reader who prefers light or dark."""
        self.driver.get("about:blank")
        self.listen()
        self.requests.clear()
        self.complaints.clear()
        self.command(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        self.command(
            "Emulation.setEmulatedMedia",
            features=[{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}],
        )
        self.driver.get((file if isinstance(file, str) else file.as_uri()) + fragment)
        self.listen()

    def listen(self) -> None:
        """Take over the browser's log entries since the last call."""
        for entry in self.driver.get_log("performance"):
            message = json.loads(entry["message"])["message"]
            if message["method"] == "Network.requestWillBeSent":
                self.requests.append(message["params"]["request"]["url"])
        self.complaints += [entry["message"] for entry in self.driver.get_log("browser")]

    def complains(self, words: str, seconds: float = 20) -> bool:
        """Whether a complaint has these words; the browser may log it some time after the page has loaded."""
        end = time.monotonic() + seconds
        while not any(words in line for line in self.complaints):
            if time.monotonic() > end:
                return False
            time.sleep(0.05)
            self.listen()
        return True

    @property
    def external_requests(self) -> list[str]:
        """Addresses of the requests that left the page itself."""
        self.listen()
        return [url for url in self.requests if not url.startswith(LOCAL_SCHEMES)]

    def run(self, script: str, *arguments: Any) -> Any:
        """The value of a script's ``return``."""
        return self.driver.execute_script(script, *arguments)

    def command(self, name: str, **parameters: Any) -> Any:
        """A command of the DevTools protocol."""
        return self.driver.execute_cdp_cmd(name, parameters)

    def screenshot(self, file: Path) -> Path:
        """The whole page as PNG."""
        file.parent.mkdir(parents=True, exist_ok=True)
        size = self.command("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": min(size["height"], 12_000), "scale": 1}
        shot = self.command("Page.captureScreenshot", captureBeyondViewport=True, clip=clip)
        file.write_bytes(base64.b64decode(shot["data"]))
        return file


@contextmanager
def chromium() -> Iterator[Browser]:
    """Start a browser with an empty profile; both are gone at the end."""
    found = installed()
    if found is None:
        msg = "Chromium is not installed (Debian: chromium, chromium-driver)"
        raise FileNotFoundError(msg)
    with tempfile.TemporaryDirectory(prefix="backfill-browser-", ignore_cleanup_errors=True) as profile:
        options = Options()
        options.binary_location = found[0]
        # No sandbox, because root may not have one; no /dev/shm, because containers lack it.
        for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"):
            options.add_argument(argument)
        for argument in ("--disable-background-networking", "--no-first-run", f"--user-data-dir={profile}"):
            options.add_argument(argument)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        driver = webdriver.Chrome(options=options, service=Service(found[1]))
        driver.set_page_load_timeout(60)
        try:
            yield Browser(driver)
        finally:
            driver.quit()
