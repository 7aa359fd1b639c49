"""The lake as a Dagster resource.

The only module of this folder that knows Dagster.
"""

from __future__ import annotations

from backfill_assets.lake.store import Store, open_store
from backfill_assets.orchestration import EnvironmentResource


class LakeResource(EnvironmentResource):
    """Opens the store that the settings name; nothing is touched before ``store`` is called."""

    def store(self) -> Store:
        """Open the lake; failures are ``BackfillError`` with the remedy."""
        return open_store(self.settings().lake)
