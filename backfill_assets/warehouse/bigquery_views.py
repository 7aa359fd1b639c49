"""The views in BigQuery: created, or replaced if their text differs; only views that bear our label.

This is separate from the loads because nothing here is a job and nothing depends on it: a view is for
readers.
"""

from __future__ import annotations

from typing import Final

from google.api_core import exceptions as api
from google.api_core.retry import Retry
from google.cloud import bigquery

from backfill_assets.failures import TransientFailure
from backfill_assets.warehouse.bigquery_failures import translated
from backfill_assets.warehouse.views import BIGQUERY, VIEWS, View

#: The label of views that this package made and therefore may replace.
OURS: Final = {"made-by": "backfill-assets"}

_REQUEST_SECONDS: Final = 60.0
#: Attempts at a view while other writers make or change it at the same time.
_ATTEMPTS: Final = 5


def ensure_views(client: bigquery.Client, dataset: str, retry: Retry) -> tuple[str, ...]:
    """Make the views that the tables of ``project.dataset`` allow; see ``Warehouse.ensure_views``."""
    names = sorted({table.name for view in VIEWS for table in view.tables})
    found = {name: _columns(client, f"{dataset}.{name}", retry) for name in names}
    columns = {name: there for name, there in found.items() if there is not None}
    possible = [view for view in VIEWS if view.is_possible(columns)]
    return tuple(view.name for view in possible if not _ensure(client, dataset, retry, view))


def _columns(client: bigquery.Client, name: str, retry: Retry) -> list[str] | None:
    """Names of the table's columns; None if the table does not exist."""
    with translated(name):
        try:
            there = client.get_table(name, retry=retry, timeout=_REQUEST_SECONDS)
        except api.NotFound:
            return None
    return [field.name for field in there.schema]


def _ensure(client: bigquery.Client, dataset: str, retry: Retry, view: View) -> bool:
    """Create the view, or replace its text if that differs; False if another object has its name."""
    name = f"{dataset}.{view.name}"
    wanted = bigquery.Table(name)
    wanted.view_query = view.sql(BIGQUERY, lambda table: f"`{dataset}.{table}`")
    wanted.description, wanted.labels = view.description, OURS
    with translated(name):
        for _ in range(_ATTEMPTS):
            try:
                there = client.get_table(name, retry=retry, timeout=_REQUEST_SECONDS)
            except api.NotFound:
                try:
                    client.create_table(wanted, retry=retry, timeout=_REQUEST_SECONDS)
                except api.Conflict:
                    continue  # Another writer has made it; check whether it is this view.
                return True
            if there.table_type != "VIEW" or not OURS.items() <= there.labels.items():
                return False
            if (there.view_query, there.description) == (wanted.view_query, wanted.description):
                return True
            there.view_query, there.description = wanted.view_query, wanted.description
            try:
                client.update_table(there, ["view", "description"], retry=retry, timeout=_REQUEST_SECONDS)
            except api.PreconditionFailed:
                continue
            return True
    msg = f"{name}: other writers kept changing the view: run again"
    raise TransientFailure(msg)
