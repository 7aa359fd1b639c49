"""The warehouse as a Dagster resource: the embedded one, or BigQuery through ``dagster_gcp``'s own resource.

Besides assets and checks, only this module of the folder knows Dagster.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import dagster as dg

from backfill_assets.orchestration import EnvironmentResource
from backfill_assets.settings import DuckDBWarehouse as DuckDBSettings
from backfill_assets.settings import resolve
from backfill_assets.warehouse.protocol import Warehouse, open_warehouse


class WarehouseResource(EnvironmentResource):
    """Opens the warehouse that the settings name; it is not touched before ``open`` is entered."""

    def link(self, table: str) -> dg.MetadataValue:
        """Return the table's place for a person: its page in Google's console, or its folder."""
        settings = self.settings().warehouse
        if isinstance(settings, DuckDBSettings):
            return dg.MetadataValue.path(Path(resolve(settings.folder)).absolute() / table)
        place = f"p={resolve(settings.project)}&d={resolve(settings.dataset)}&t={table}"
        return dg.MetadataValue.url(f"https://console.cloud.google.com/bigquery?{place}&page=table")

    @contextmanager
    def open(self) -> Iterator[Warehouse]:
        """Lend the warehouse for the block; failures are ``BackfillError`` with the remedy."""
        settings = self.settings().warehouse
        if isinstance(settings, DuckDBSettings) or resolve(settings.endpoint):
            with closing(open_warehouse(settings)) as opened:
                yield opened
            return
        # Google's libraries take most of a second to load, and a code location that only loads does not use
        # them.
        from dagster_gcp import BigQueryResource

        from backfill_assets.warehouse.bigquery import BigQueryWarehouse

        project, location = resolve(settings.project), resolve(settings.location)
        with BigQueryResource(project=project, location=location).get_client() as client:
            yield BigQueryWarehouse(
                client,
                f"{client.project}.{resolve(settings.dataset)}",
                location=location,
                job_timeout_seconds=settings.job_timeout_seconds,
                daily_loads=settings.load_jobs_per_table_and_day,
            )
