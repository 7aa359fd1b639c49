"""Lakes for the tests: every test that uses ``store`` runs on a directory and on a bucket."""

from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from backfill_assets.lake.store import Store, open_store
from backfill_assets.settings import LakeSettings
from backfill_assets_tests.emulators.gcs import gcs_server

BUCKET = "lake-bucket"


@pytest.fixture(scope="session")
def gcs_url() -> Iterator[str]:
    """A server with the bucket ``lake-bucket``, empty at first; each test uses its own prefix."""
    with gcs_server(BUCKET) as url:
        yield url


@pytest.fixture
def gcs_lake(gcs_url: str, monkeypatch: pytest.MonkeyPatch) -> LakeSettings:
    """An empty lake in the bucket."""
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", gcs_url)
    return LakeSettings(uri=f"gs://{BUCKET}/{uuid4().hex}")


@pytest.fixture(params=["directory", "bucket"])
def lake(request: pytest.FixtureRequest, tmp_path: Path) -> LakeSettings:
    """An empty lake of either kind, for tests that open it several times."""
    if request.param == "directory":
        return LakeSettings(uri=str(tmp_path / "lake"))
    settings: LakeSettings = request.getfixturevalue("gcs_lake")
    return settings


@pytest.fixture
def store(lake: LakeSettings) -> Store:
    """An empty lake's store."""
    return open_store(lake)
