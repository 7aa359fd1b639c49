"""The lake as a Dagster resource.

Only this module of the folder knows Dagster. For a bucket the client comes from dagster-gcp's
``GCSResource``, so credentials are found as in every other Dagster deployment on Google Cloud.
"""

from __future__ import annotations

from backfill_assets.lake.store import GCS_SCHEME, Store, open_store
from backfill_assets.orchestration import EnvironmentResource
from backfill_assets.settings import resolve


class LakeResource(EnvironmentResource):
    """Opens the store that the settings name; no file or bucket is touched before ``store`` is called."""

    def store(self) -> Store:
        """Open the lake; failures are ``BackfillError`` with the remedy."""
        lake = self.settings().lake
        uri = resolve(lake.uri)
        if not uri.startswith(GCS_SCHEME):
            return open_store(lake)
        from dagster_gcp import GCSResource

        from backfill_assets.lake.gcs import credentials_explained

        with credentials_explained(uri):
            client = GCSResource().get_client()
        return open_store(lake, client=client)
