"""The Tardis client as a Dagster resource.

The only module of this folder that knows Dagster. It holds no connection and no secret, so a code location
that contains it loads without either.
"""

from __future__ import annotations

import dagster as dg
from pydantic import Field

from backfill_assets.settings import current_settings, load_settings, settings_file
from backfill_assets.tardis.client import TardisClient


class TardisResource(dg.ConfigurableResource[TardisClient]):
    """Gives assets a Tardis client with the settings of an environment."""

    environment: str = Field(
        default="",
        description="Name or file of the environment whose Tardis settings apply; empty means BACKFILL_ENV.",
    )

    def client(self) -> TardisClient:
        """Make a client with the settings as they are now."""
        settings = load_settings(settings_file(self.environment)) if self.environment else current_settings()
        return TardisClient(settings.tardis)
