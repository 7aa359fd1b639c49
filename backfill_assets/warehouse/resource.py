"""The warehouse as a Dagster resource: the embedded one, or BigQuery through ``dagster_gcp``'s own resource.

The one module of this folder that knows Dagster besides assets and checks.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg
from dagster_gcp import BigQueryResource
from pydantic import Field

from backfill_assets.failures import SettingsError
from backfill_assets.orchestration import EnvironmentResource
from backfill_assets.settings import DuckDBWarehouse as DuckDBSettings
from backfill_assets.settings import resolve
from backfill_assets.warehouse.protocol import Warehouse, open_warehouse

if TYPE_CHECKING:
    from google.cloud.bigquery import Client

    from backfill_assets.warehouse.bigquery import BigQueryWarehouse


class BigQueryEndpointResource(BigQueryResource):
    """``BigQueryResource`` that may talk to another endpoint than Google's, without credentials."""

    endpoint: str | None = Field(
        default=None, description="Base URL of a stand-in; empty means Google's own service."
    )

    @contextmanager
    def get_client(self) -> Iterator[Client]:
        """A client for the endpoint; for Google's own service the one that ``dagster_gcp`` makes."""
        if not self.endpoint:
            with super().get_client() as client:
                yield client
            return
        from backfill_assets.warehouse.bigquery import open_client

        if not self.project:
            msg = "a BigQuery endpoint needs a project: set warehouse.project"
            raise SettingsError(msg)
        with closing(open_client(self.project, self.location or "US", self.endpoint)) as client:
            yield client

    @contextmanager
    def get_warehouse(
        self, dataset: str, *, job_timeout_seconds: float = 3600, daily_loads: int | None = 1400
    ) -> Iterator[BigQueryWarehouse]:
        """The warehouse in ``dataset`` of the client's project."""
        from backfill_assets.warehouse.bigquery import BigQueryWarehouse

        with self.get_client() as client:
            yield BigQueryWarehouse(
                client,
                f"{client.project}.{dataset}",
                location=self.location or "US",
                job_timeout_seconds=job_timeout_seconds,
                daily_loads=daily_loads,
            )


class WarehouseResource(EnvironmentResource):
    """Opens the warehouse that the settings name; nothing is touched before ``open`` is entered."""

    def link(self, table: str) -> dg.MetadataValue:
        """Where a person finds the table: its page in Google's console, or its folder."""
        settings = self.settings().warehouse
        if isinstance(settings, DuckDBSettings):
            return dg.MetadataValue.path(Path(resolve(settings.folder)).absolute() / table)
        place = f"p={resolve(settings.project)}&d={resolve(settings.dataset)}&t={table}"
        return dg.MetadataValue.url(f"https://console.cloud.google.com/bigquery?{place}&page=table")

    @contextmanager
    def open(self) -> Iterator[Warehouse]:
        """The warehouse, closed at the end of the block; failures are ``BackfillError`` with the remedy."""
        settings = self.settings().warehouse
        if isinstance(settings, DuckDBSettings):
            with closing(open_warehouse(settings)) as embedded:
                yield embedded
            return
        resource = BigQueryEndpointResource(
            project=resolve(settings.project),
            location=resolve(settings.location),
            endpoint=resolve(settings.endpoint) or None,
        )
        with resource.get_warehouse(
            resolve(settings.dataset),
            job_timeout_seconds=settings.job_timeout_seconds,
            daily_loads=settings.load_jobs_per_table_and_day,
        ) as warehouse:
            yield warehouse
