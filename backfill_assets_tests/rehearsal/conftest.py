"""The undisturbed run that scenarios compare with, once for each file of tests."""

from __future__ import annotations

import pytest

from backfill_assets.rehearsal.stage import Undisturbed, undisturbed
from backfill_assets_tests.rehearsal.played import DAY


@pytest.fixture(scope="module")
def compared(tmp_path_factory) -> Undisturbed:
    return undisturbed(tmp_path_factory.mktemp("whole") / "house", DAY)
