"""Make the pictures of the README again: the page of a day and the calendar of its month, of generated days.

``.venv/bin/python scripts/pictures.py`` runs days of the local environment in a temporary folder and writes
``docs/day.png`` and ``docs/calendar.png``. It needs Debian's ``chromium``.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

DOCS: Final = Path(__file__).parents[1] / "docs"
FIRST, LAST, MONTH = "2024-01-01", "2024-01-10", "2024-01"
#: By picture: the page, and the size of the window in pixels.
PICTURES: Final = {
    "day.png": (f"{FIRST}.html", "1100,860"),
    "calendar.png": (f"{MONTH}.html", "1100,620"),
}


def main() -> None:
    """Run the days and take the pictures."""
    command = [sys.executable, "-m", "backfill_assets.cli"]
    with tempfile.TemporaryDirectory() as folder:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("BACKFILL_")}
        environment = {**kept, "BACKFILL_DATA": folder}
        run = [*command, "run", "--date", FIRST, "--end", LAST]
        subprocess.run([*command, "standins", "--", *run], env=environment, check=True)
        for name, (page, size) in PICTURES.items():
            shoot(Path(folder) / "lake" / "reports" / page, DOCS / name, size)


def shoot(page: Path, picture: Path, size: str) -> None:
    """Write a picture of the page in a window of this size."""
    browser = shutil.which("chromium")
    if browser is None:
        msg = "chromium is not installed (Debian: apt install chromium)"
        raise SystemExit(msg)
    # No sandbox, because root may not have one.
    flags = ("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--window-size={size}")
    with tempfile.TemporaryDirectory() as profile:
        shot = [*flags, f"--user-data-dir={profile}", f"--screenshot={picture}", page.as_uri()]
        subprocess.run([browser, *shot], check=True, timeout=120, stderr=subprocess.DEVNULL)


if __name__ == "__main__":
    main()
