"""A real bucket under the contract of every lake's store: compare-and-swap, whole objects, no lost counts.

``BACKFILL_LIVE_GCS=gs://bucket/prefix python -m pytest backfill_assets_tests/live -m live`` runs them, with
Google credentials that have roles/storage.objectUser on the bucket. Each test works below a random prefix of
its own and deletes its objects. The service takes about one write per second to one object, so the tests in
which many writers meet take minutes. With ``STORAGE_EMULATOR_HOST`` set they ask a stand-in.
"""

from __future__ import annotations

import os

import pytest

from backfill_assets_tests.lake.test_store_contract import *  # noqa: F403 - the shared tests

pytestmark = [
    pytest.mark.live,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(
        not os.environ.get("BACKFILL_LIVE_GCS"),
        reason="asks a real bucket only with BACKFILL_LIVE_GCS=gs://bucket/prefix",
    ),
]
