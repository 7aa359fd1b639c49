"""Dagster's web UI as an ASGI application, for a server that has other routes as well.

What ``dagster-webserver`` does when it starts, without starting a server; these are Dagster's private calls,
so they are in this file only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from dagster import DagsterInstance, __version__
from dagster._core.workspace.context import WorkspaceProcessContext, WorkspaceRequestContext
from dagster._core.workspace.load_target import ModuleTarget
from starlette.requests import HTTPConnection
from starlette.types import Scope

if TYPE_CHECKING:
    from starlette.applications import Starlette

#: Without a name of its own the location has the module's, like that of a daemon started with ``-m``:
#: a schedule that is switched off, and a run that is started, under one name is unknown under another.
_CODE_LOCATION: Final = "backfill_assets.definitions"


class _Workspace(WorkspaceProcessContext):
    """Gives every request a context of its own, with the permissions of a reader or of an editor."""

    may_change: Callable[[Scope], bool]

    def create_request_context(self, source: object | None = None) -> WorkspaceRequestContext:
        is_editor = isinstance(source, HTTPConnection) and self.may_change(source.scope)
        return WorkspaceRequestContext(
            instance=self.instance,
            current_workspace=self.get_current_workspace(),
            process_context=self,
            version=self.version,
            source=source,
            read_only=not is_editor,
        )


@contextmanager
def dagster_ui(
    instance: DagsterInstance, prefix: str, may_change: Callable[[Scope], bool]
) -> Iterator[Starlette]:
    """The UI below ``prefix``, with a code server of its own for as long as the ``with`` block lasts.

    ``may_change`` tells from a request's ASGI scope whether it may change something.
    """
    from dagster_webserver.app import create_app_from_workspace_process_context

    target = ModuleTarget(
        module_name=_CODE_LOCATION, attribute=None, working_directory=None, location_name=None
    )
    with _Workspace(instance, version=__version__, read_only=True, workspace_load_target=target) as context:
        context.may_change = may_change
        yield create_app_from_workspace_process_context(context, path_prefix=prefix)
