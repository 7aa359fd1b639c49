"""Dagster's web UI as an ASGI application, for a server that has other routes as well.

What ``dagster-webserver`` does when it starts, without starting a server; these are Dagster's private calls,
so they are in this file only.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from dagster import DagsterInstance, __version__
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import ModuleTarget

if TYPE_CHECKING:
    from starlette.applications import Starlette

_CODE_LOCATION: Final = "backfill_assets.definitions"


@contextmanager
def dagster_ui(instance: DagsterInstance, prefix: str, *, read_only: bool) -> Iterator[Starlette]:
    """The UI below ``prefix``, with a code server of its own for as long as the ``with`` block lasts."""
    from dagster_webserver.app import create_app_from_workspace_process_context

    target = ModuleTarget(
        module_name=_CODE_LOCATION, attribute=None, working_directory=None, location_name="backfill_assets"
    )
    with WorkspaceProcessContext(
        instance, version=__version__, read_only=read_only, workspace_load_target=target
    ) as context:
        yield create_app_from_workspace_process_context(context, path_prefix=prefix)
