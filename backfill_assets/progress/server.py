"""``backfill-assets serve``: API and page, and optionally the Dagster UI.

It is one process behind one guard. Without a token it binds only to loopback and says so. With a token, the
Dagster UI is read-only for browsers that have not signed in.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import ExitStack
from typing import Final

import uvicorn

from backfill_assets.automation.backfills import AssetGraph
from backfill_assets.failures import SettingsError
from backfill_assets.orchestration import open_instance
from backfill_assets.progress.api import LOGIN, UI_PREFIX, create_app
from backfill_assets.progress.guard import MOST_QUERY_BYTES, is_anonymous, is_loopback, may_change
from backfill_assets.progress.service import Backfills, need_home
from backfill_assets.progress.watch import watching
from backfill_assets.settings import current_settings, resolve

#: Open event streams are ended when the server is told to stop.
_SHUTDOWN_SECONDS: Final = 3


def serve(
    graph: Callable[[], AssetGraph],
    *,
    host: str = "",
    port: int | None = None,
    with_ui: bool = False,
    say: Callable[[str], None] = print,
) -> None:
    """Serve until a signal ends the process.

    Parameters
    ----------
    graph
        Returns all assets; called after all possible mistakes are checked, since it takes seconds.
    host, port
        Override ``serve.host`` and ``serve.port``; port 0 takes a free port.
    say
        Receives the server's addresses, and who may make changes.

    Raises
    ------
    SettingsError
        The address can be reached by others and there is no token, or the token is blank.
    PermanentFailure
        Dagster's instance cannot be opened, or the address is in use.
    """
    settings = current_settings().serve
    host, port = host or settings.host, settings.port if port is None else port
    token = _token(resolve(settings.token))
    if not token and not is_loopback(host):
        msg = (
            f"{host} can be reached from other machines, and serve.token is empty: set BACKFILL_API_TOKEN "
            "(or serve.token), or bind to 127.0.0.1"
        )
        raise SettingsError(msg)
    with ExitStack() as stack:
        listener = stack.enter_context(_listen(host, port))
        need_home()
        instance = stack.enter_context(open_instance())
        ui_url = UI_PREFIX if with_ui else ""
        loaded = graph()
        service = Backfills(instance, lambda: loaded, dagster_url=ui_url)
        stack.callback(service.close)
        stack.enter_context(watching(service))
        ui = None
        if with_ui:
            # This import takes a second, which other commands should not pay.
            from backfill_assets.automation.dagster_ui import dagster_ui

            ui = stack.enter_context(dagster_ui(instance, UI_PREFIX, may_change, is_anonymous))
        address = _address(listener)
        # Pages at other ports of that name are other sites.
        own = f"{host}:{listener.getsockname()[1]}"
        app = create_app(service, token=token, hosts=(*settings.hosts, own), ui=ui)
        say(f"Page: {address}/")
        say(f"API: {address}/docs")
        if with_ui:
            sign_in = f" (read-only until you sign in at {LOGIN}: any name, the token as password)"
            say(f"Dagster UI: {address}{UI_PREFIX}{sign_in if token else ''}")
        say(
            "Changing calls need the bearer token."
            if token
            else "No token is set: only this machine is served, and all its users may start backfills."
        )
        config = uvicorn.Config(
            app,
            # h11 limits the headers of a request; the faster httptools does not.
            http="h11",
            ws_max_size=MOST_QUERY_BYTES,
            log_config=None,
            log_level="warning",
            timeout_graceful_shutdown=_SHUTDOWN_SECONDS,
            server_header=False,
        )
        uvicorn.Server(config).run(sockets=[listener])


def _token(found: str) -> str:
    """Return the token without its file's newline, which no header can carry."""
    if found and not found.strip():
        msg = "serve.token has only blanks: set BACKFILL_API_TOKEN (or serve.token) to a secret, or unset it"
        raise SettingsError(msg)
    return found.strip()


def _listen(host: str, port: int) -> socket.socket:
    """Bind the address before anything else is opened, so that a port in use is reported at once."""
    name = host.strip("[]")
    try:
        family, kind, _, _, address = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        msg = f"{host}:{port} cannot be used ({error.strerror}): choose another --port or --host"
        raise SettingsError(msg) from error
    return listener


def _address(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
