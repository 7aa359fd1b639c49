"""Repetitions of the tests with random moments and orders: one, or as many as ``make storm`` sets."""

from __future__ import annotations

import os
from typing import Final

import pytest

TIMES: Final = int(os.environ.get("BACKFILL_TIMES", "1"))
#: Whether ``make storm`` runs: only it has time for tests that take minutes each.
IS_STORM: Final = "BACKFILL_TIMES" in os.environ
takes_minutes: Final = pytest.mark.skipif(not IS_STORM, reason="takes minutes: make storm")
