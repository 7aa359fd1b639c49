"""The Tardis client as a Dagster resource.

Only this module of the folder knows Dagster. It holds no connection and no secret, so a code location that
contains it loads without either.
"""

from __future__ import annotations

from backfill_assets.orchestration import EnvironmentResource
from backfill_assets.tardis.client import TardisClient


class TardisResource(EnvironmentResource):
    """Gives assets a Tardis client with the settings of an environment."""

    def client(self) -> TardisClient:
        """Make a client with the current settings."""
        return TardisClient(self.settings().tardis)
