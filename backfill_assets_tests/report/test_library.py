"""The charting library is the released file, with its license, and makes no request."""

from __future__ import annotations

import hashlib
import re

from backfill_assets.report import page

SHA256 = "e21cc5caa0226ef30bd8549c50b9ef926615f2a4ee6b4e486353477a55f598cf"


def test_the_library_is_the_released_file_with_its_license() -> None:
    folder = page._HERE / "static"
    content = (folder / page.LIBRARY).read_bytes()
    assert hashlib.sha256(content).hexdigest() == SHA256
    assert b"v5.2.1" in content[:200]
    assert "Apache License" in (folder / "lightweight-charts.LICENSE").read_text()[:200]


def test_the_library_can_stand_inside_a_page() -> None:
    text = (page._HERE / "static" / page.LIBRARY).read_text()
    assert re.search(r"</script|<!--", text, re.IGNORECASE) is None
    assert re.search(r"fetch\(|XMLHttpRequest|sendBeacon|importScripts", text) is None
