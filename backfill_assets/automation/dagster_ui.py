"""Dagster's web UI as an ASGI application, for a server that has other routes as well.

What ``dagster-webserver`` does when it starts, without starting a server; these are Dagster's private calls,
so they are in this file only. Queries of requests without a token are bounded, since a small one may cost
seconds of the processor. Mutations are refused to readers here, since not every one asks for permissions.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any, Final

from dagster import DagsterInstance, __version__
from dagster._core.workspace.context import WorkspaceProcessContext, WorkspaceRequestContext
from dagster._core.workspace.load_target import ModuleTarget
from dagster_webserver.webserver import DagsterWebserver
from graphql import GraphQLError, OperationType, get_operation_ast, parse
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse
from starlette.types import Scope
from starlette.websockets import WebSocket

if TYPE_CHECKING:
    from starlette.applications import Starlette

#: Without a name of its own the location has the module's, like that of a daemon started with ``-m``:
#: a schedule that is switched off, and a run that is started, under one name is unknown under another.
_CODE_LOCATION: Final = "backfill_assets.definitions"
#: Queries without a token that are at work, and that wait for it; a browser sends six at once.
_MOST_AT_WORK: Final = 2
_MOST_WAITING: Final = 60
_RETRY_AFTER: Final = {"Retry-After": "2"}
_NO_MUTATION: Final = "a mutation needs POST and, where serve.token is set, the token: sign in at /login"
#: A subscription is parsed in the event loop; the largest one of the UI has 7,000 characters.
_MOST_OF_SUBSCRIPTION: Final = 20_000


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


class _Webserver(DagsterWebserver[_Workspace, WorkspaceRequestContext]):
    """Refuses mutations to readers, and bounds what requests without a token take of the machine."""

    def __init__(self, context: _Workspace, prefix: str, is_anonymous: Callable[[Scope], bool]) -> None:
        super().__init__(context, prefix)
        self._is_anonymous = is_anonymous
        self._places = asyncio.Semaphore(_MOST_AT_WORK)
        self._waiting = 0

    async def execute_graphql_request(self, request: Request, *args: Any, **kwargs: Any) -> JSONResponse:
        """Answer the query when one of the places is free."""
        if not self._is_anonymous(request.scope):
            return await super().execute_graphql_request(request, *args, **kwargs)
        async with self._place():
            return await super().execute_graphql_request(request, *args, **kwargs)

    async def gen_graphql_response(
        self,
        request_context: WorkspaceRequestContext,
        query: str,
        variables: dict[str, Any] | None,
        operation_name: str | None,
    ) -> JSONResponse:
        """Answer the query, unless it is a mutation of a reader."""
        if request_context.read_only and _is_mutation(query, operation_name):
            return JSONResponse({"data": None, "errors": [{"message": _NO_MUTATION}]}, 403)
        return await super().gen_graphql_response(request_context, query, variables, operation_name)

    async def execute_graphql_subscription(
        self, websocket: WebSocket, operation_id: str, query: str, *args: Any, **kwargs: Any
    ) -> Any:
        """Subscribe, unless the query is far larger than those of the UI."""
        # Else a row of messages that have arrived together would keep all others waiting.
        await asyncio.sleep(0)
        if self._is_anonymous(websocket.scope) and len(query) > _MOST_OF_SUBSCRIPTION:
            return None, GraphQLError(f"at most {_MOST_OF_SUBSCRIPTION} characters").formatted
        return await super().execute_graphql_subscription(websocket, operation_id, query, *args, **kwargs)

    @asynccontextmanager
    async def _place(self) -> AsyncIterator[None]:
        if self._waiting >= _MOST_WAITING:
            raise HTTPException(503, "too many queries at once: ask again", _RETRY_AFTER)
        self._waiting += 1
        try:
            await self._places.acquire()
        finally:
            self._waiting -= 1
        try:
            yield
        finally:
            self._places.release()


def _is_mutation(query: str, operation_name: str | None) -> bool:
    # Most queries are not parsed twice.
    if "mutation" not in query:
        return False
    try:
        operation = get_operation_ast(parse(query), operation_name)
    except GraphQLError:
        return False
    return operation is not None and operation.operation is OperationType.MUTATION


@contextmanager
def dagster_ui(
    instance: DagsterInstance,
    prefix: str,
    may_change: Callable[[Scope], bool],
    is_anonymous: Callable[[Scope], bool],
) -> Iterator[Starlette]:
    """The UI below ``prefix``, with a code server of its own for as long as the ``with`` block lasts.

    ``may_change`` and ``is_anonymous`` tell from a request's ASGI scope whether it may change something, and
    whether it lacks the token.
    """
    target = ModuleTarget(
        module_name=_CODE_LOCATION, attribute=None, working_directory=None, location_name=None
    )
    with _Workspace(instance, version=__version__, read_only=True, workspace_load_target=target) as context:
        context.may_change = may_change
        yield _Webserver(context, prefix, is_anonymous).create_asgi_app()
