"""Dagster's web UI as an ASGI application, for a server that also has other routes.

It does the work that ``dagster-webserver`` does at its start, without starting a server. That takes private
calls of Dagster, and this file holds all of them. Queries without a token are limited, because a small query
may cost seconds of processor time; open web sockets and the subscriptions of each are limited too. Readers'
mutations are refused here, because not every mutation checks permissions.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import logging
import re
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final

from dagster import DagsterInstance, __version__
from dagster._core.workspace.context import WorkspaceProcessContext, WorkspaceRequestContext
from dagster._core.workspace.load_target import ModuleTarget
from dagster_webserver.webserver import DagsterWebserver
from graphql import GraphQLError, OperationType, get_operation_ast, parse
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse, Response
from starlette.types import Scope
from starlette.websockets import WebSocket, WebSocketDisconnect

if TYPE_CHECKING:
    from starlette.applications import Starlette

LOGGER: Final = logging.getLogger(__name__)
#: Without a name of its own the location has the module's name, as for a daemon started with ``-m``.
#: Dagster keeps switched-off schedules and started runs by location name; another name does not have them.
_CODE_LOCATION: Final = "backfill_assets.definitions"
#: Queries without a token that run at once, and that wait to run; a browser sends six at once.
_MOST_AT_WORK: Final = 2
_MOST_WAITING: Final = 60
_RETRY_AFTER: Final = {"Retry-After": "2"}
#: The form of a run's id; text in any other form names no run and must not reach the database driver.
_RUN_ID: Final = re.compile(r"[A-Za-z0-9-]{1,64}")
_NO_QUERY: Final = 'send a JSON object with a query, such as {"query": "{ version }"}'
_NO_MUTATION: Final = "a mutation needs POST and, where serve.token is set, the token: sign in at /login"
#: Subscriptions are parsed in the event loop; the UI's largest has 7,000 characters.
_MOST_OF_SUBSCRIPTION: Final = 20_000
#: Most web sockets open at once; a tab of the UI has one. Behind a proxy that hides its clients, all people
#: have one address.
MOST_SOCKETS: Final = 256
MOST_SOCKETS_OF_ADDRESS: Final = 64
#: Most subscriptions that a web socket has at once, and most that it may begin: Dagster keeps a task and an
#: id for each until the socket closes. The UI has fewer than ten, and reconnects when the socket is closed.
MOST_SUBSCRIPTIONS: Final = 100
MOST_STARTS: Final = 10_000
_LONGEST_ID: Final = 100
#: Codes of the WebSocket protocol (RFC 6455, and IANA's registry for the last).
_UNSUPPORTED, _MALFORMED, _POLICY, _TRY_AGAIN = 1003, 1007, 1008, 1013
_NO_MESSAGE: Final = "send the messages of graphql-ws: JSON objects with a type"


class _Workspace(WorkspaceProcessContext):
    """Gives every request its own context, with the permissions of a reader or of an editor."""

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


class _Refused(Exception):
    """Closes a web socket with this close code and reason."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code


class _CheckedSocket(WebSocket):
    """Raises ``_Refused`` for messages that Dagster's endpoint would treat as its own fault."""

    def __init__(self, websocket: WebSocket) -> None:
        super().__init__(websocket.scope, websocket.receive, websocket.send)
        #: Ids of started subscriptions that have not ended.
        self._subscriptions: set[str] = set()
        self._starts = 0

    async def receive_json(self, mode: str = "text") -> Any:
        try:
            found = _encodable(await super().receive_json(mode))
        except (KeyError, TypeError) as error:  # there is no text
            raise _Refused(_UNSUPPORTED, _NO_MESSAGE) from error
        except (ValueError, RecursionError) as error:
            raise _Refused(_MALFORMED, _NO_MESSAGE) from error
        if not _is_message(found):
            raise _Refused(_MALFORMED, _NO_MESSAGE)
        if found["type"] == "start":
            self._subscriptions.add(found["id"])
            self._starts += 1
        elif found["type"] == "stop":
            self._subscriptions.discard(found.get("id"))
        if len(self._subscriptions) > MOST_SUBSCRIPTIONS:
            raise _Refused(_POLICY, f"at most {MOST_SUBSCRIPTIONS} subscriptions at once")
        if self._starts > MOST_STARTS:
            raise _Refused(_TRY_AGAIN, f"at most {MOST_STARTS} subscriptions: connect again")
        return found

    async def send_json(self, data: Any, mode: str = "text") -> None:
        if data["type"] in ("complete", "error"):
            self._subscriptions.discard(data["id"])
        await super().send_json(data, mode)


class _Webserver(DagsterWebserver[_Workspace, WorkspaceRequestContext]):
    """Refuses readers' mutations, and limits the resources that requests without a token use."""

    def __init__(self, context: _Workspace, prefix: str, is_anonymous: Callable[[Scope], bool]) -> None:
        super().__init__(context, prefix)
        self._is_anonymous = is_anonymous
        self._places = asyncio.Semaphore(_MOST_AT_WORK)
        self._waiting = 0
        #: Count of open web sockets by the ``owner_of`` the client's address.
        self._sockets: Counter[str] = Counter()

    async def graphql_ws_endpoint(self, websocket: WebSocket) -> None:
        """Serve a web socket while there is room; close it with the fitting code at an invalid message."""
        checked = _CheckedSocket(websocket)
        address = owner_of(websocket.client.host) if websocket.client else ""
        self._sockets[address] += 1
        try:
            if self._sockets.total() > MOST_SOCKETS or self._sockets[address] > MOST_SOCKETS_OF_ADDRESS:
                await checked.accept(subprotocol="graphql-ws")
                raise _Refused(_TRY_AGAIN, "too many web sockets are open: close some, or try again later")
            await super().graphql_ws_endpoint(checked)
        except _Refused as refused:
            LOGGER.warning("a web socket of %s is closed (%d): %s", address, refused.code, refused)
            with suppress(RuntimeError, WebSocketDisconnect):  # the client closed first
                await checked.close(refused.code, str(refused))
        finally:
            self._sockets[address] -= 1
            if not self._sockets[address]:
                del self._sockets[address]

    async def graphql_http_endpoint(self, request: Request) -> Response:
        """Answer a query; answer 400 to an invalid one, where Dagster's own endpoint would raise."""
        try:
            _check_query(request, await request.body())
        except (ValueError, RecursionError) as error:
            raise HTTPException(400, _NO_QUERY) from error
        found: Response = await super().graphql_http_endpoint(request)
        return found

    async def download_captured_logs_endpoint(self, request: Request) -> Response:
        """Answer with the log, or 404 for a path outside the log folder."""
        try:
            found: Response = await super().download_captured_logs_endpoint(request)
        except ValueError as error:
            raise HTTPException(404, "no such log") from error
        return found

    async def download_debug_file_endpoint(self, request: Request) -> Response:
        """Answer with the run's records, or 404 for an unknown run."""
        run_id = request.path_params["run_id"]
        get_run = self._process_context.instance.get_run_by_id
        if not _RUN_ID.fullmatch(run_id) or await run_in_threadpool(get_run, run_id) is None:
            raise HTTPException(404, "no such run")
        found: Response = await super().download_debug_file_endpoint(request)
        return found

    async def execute_graphql_request(self, request: Request, *args: Any, **kwargs: Any) -> JSONResponse:
        """Answer the query when a place is free."""
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
        """Answer the query, unless it is a reader's mutation."""
        if request_context.read_only and _is_mutation(query, operation_name):
            return JSONResponse({"data": None, "errors": [{"message": _NO_MUTATION}]}, 403)
        return await super().gen_graphql_response(request_context, query, variables, operation_name)

    async def execute_graphql_subscription(
        self, websocket: WebSocket, operation_id: str, query: str, *args: Any, **kwargs: Any
    ) -> Any:
        """Subscribe, unless the query is far larger than the UI's queries."""
        # Otherwise, messages that arrived together would keep all others waiting.
        await asyncio.sleep(0)
        if self._is_anonymous(websocket.scope) and len(query) > _MOST_OF_SUBSCRIPTION:
            return None, GraphQLError(f"at most {_MOST_OF_SUBSCRIPTION} characters").formatted
        try:
            return await super().execute_graphql_subscription(websocket, operation_id, query, *args, **kwargs)
        except RecursionError:
            return None, GraphQLError("the query is nested too deeply").formatted

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


def owner_of(address: str) -> str:
    """Return the address; for IPv6 its /64 network, since a host may take any address in it (RFC 4291)."""
    try:
        found = ipaddress.IPv6Address(address.partition("%")[0])
    except ValueError:
        return address
    if found.ipv4_mapped:
        return str(found.ipv4_mapped)
    return str(ipaddress.IPv6Network((found, 64), strict=False))


def _check_query(request: Request, body: bytes) -> None:
    """Raise ValueError or RecursionError for an invalid query request, by the rules of Dagster's endpoint.

    The endpoint itself answers a request without a query in words.
    """
    content_type = request.headers.get("content-type", "")
    fields: Any = request.query_params
    if request.method == "POST" and "application/json" in content_type:
        fields = _parsed(body)
    elif request.method == "POST" and "application/graphql" in content_type:
        fields = {"query": body.decode()}
    if not isinstance(fields, Mapping):
        raise ValueError(_NO_QUERY)
    variables = fields.get("variables")
    if isinstance(variables, str):
        variables = _parsed(variables)
    texts = (fields.get("query"), fields.get("operationName"))
    if not isinstance(variables, dict | None) or not all(isinstance(text, str | None) for text in texts):
        raise ValueError(_NO_QUERY)


def _is_message(found: Any) -> bool:
    """Whether a JSON value is a graphql-ws message in the parts that Dagster's endpoint reads."""
    if not isinstance(found, dict) or not isinstance(found.get("type"), str):
        return False
    if found["type"] != "start":
        return isinstance(found.get("id"), str | None)
    payload = found.get("payload")
    return (
        isinstance(found.get("id"), str)
        and len(found["id"]) <= _LONGEST_ID
        and isinstance(payload, dict)
        and isinstance(payload.get("query"), str)
        and isinstance(payload.get("variables"), dict | None)
        and isinstance(payload.get("operation_name"), str | None)
    )


def _parsed(text: bytes | str) -> Any:
    return _encodable(json.loads(text))


def _encodable(found: Any) -> Any:
    """Remove the numbers and lone surrogates that Dagster's JSON answers cannot hold."""
    json.dumps(found, ensure_ascii=False, allow_nan=False).encode()
    return found


def _is_mutation(query: str, operation_name: str | None) -> bool:
    # This spares most queries a second parse.
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
    """Serve the UI below ``prefix``, with its own code server while the ``with`` block lasts.

    ``may_change`` and ``is_anonymous`` tell from a request's ASGI scope whether it may make changes, and
    whether it lacks the token.
    """
    target = ModuleTarget(
        module_name=_CODE_LOCATION, attribute=None, working_directory=None, location_name=None
    )
    with _Workspace(instance, version=__version__, read_only=True, workspace_load_target=target) as context:
        context.may_change = may_change
        yield _Webserver(context, prefix, is_anonymous).create_asgi_app()
