"""Access to a started service with Dagster's UI, over real sockets, with a token and without.

No daemon runs: launched backfills wait, and appear in the list of jobs.
"""

from __future__ import annotations

import base64
import html
import http.client
import json
import socket
import time
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Subprotocol

from backfill_assets.automation.dagster_ui import (
    MOST_SOCKETS,
    MOST_SOCKETS_OF_ADDRESS,
    MOST_SUBSCRIPTIONS,
    owner_of,
)
from backfill_assets.progress.guard import MOST_BYTES, MOST_QUERY_BYTES
from backfill_assets.standins.market import Market
from backfill_assets.standins.tardis import TardisStandin
from backfill_assets_tests.emulators.browser import chromium, installed
from backfill_assets_tests.progress.rig import Rig, running_rig

TOKEN = "s3cret:with a colon and à"
NAME = "backfill.example"
BEARER = {"Authorization": f"Bearer {TOKEN}".encode().decode("latin-1")}
BASIC = {"Authorization": f"Basic {base64.b64encode(f'any:{TOKEN}'.encode()).decode()}"}
LAUNCH = (
    'mutation { launchPartitionBackfill(backfillParams: {partitionNames: ["2024-01-01"], '
    'assetSelection: [{path: ["report"]}]}) { __typename } }'
)
WIPE = 'mutation { wipeAssets(assetPartitionRanges: [{assetKey: {path: ["report"]}}]) { __typename } }'
READ = "{ version permissions { permission value } }"
PATHS = [
    *("/", "/page/now", "/jobs/abcdefgh", "/reports/2024-01-01.html", "/static/page.js", "/docs"),
    *("/openapi.json", "/api/v1/backfill/recent", "/healthz", "/readyz", "/metrics", "/nothing"),
    *("/dagster", "/dagster/", "/dagster/runs", "/dagster/server_info", "/dagster/graphql?query={version}"),
    "/login",
]


@pytest.fixture(scope="module", params=["open", "locked"])
def rig(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    home = tmp_path_factory.mktemp(request.param)
    settings = home / "settings.yaml"
    settings.write_text(
        "universe: [{exchanges: [kraken], symbols: [BTC-USDT]}]\n"
        f"lake: {{uri: {home}/lake}}\nwarehouse: {{kind: duckdb, folder: {home}/warehouse}}\n"
        f"serve: {{hosts: [{NAME}]}}\n"
    )
    # The token ends with a newline, as in a file with one line.
    extra = {"BACKFILL_ENV": str(settings)} | (
        {"BACKFILL_API_TOKEN": f"{TOKEN}\n"} if request.param == "locked" else {}
    )
    with (
        TardisStandin(Market(rows={})) as standin,
        running_rig(home, standin, options=("--with-ui",), daemon=(), **extra) as found,
    ):
        yield found


@pytest.fixture
def open_rig(rig: Rig) -> Rig:
    if "BACKFILL_API_TOKEN" in rig.environment:
        pytest.skip("of a service without a token")
    return rig


@pytest.fixture
def locked(rig: Rig) -> Rig:
    if "BACKFILL_API_TOKEN" not in rig.environment:
        pytest.skip("of a service with a token")
    return rig


class Answer:
    """Status, headers and body of an answer."""

    def __init__(self, found: http.client.HTTPResponse) -> None:
        self.status, self.headers, self.body = found.status, found.headers, found.read()
        self.text = html.unescape(self.body.decode("utf-8", "replace"))


def ask(
    rig: Rig, method: str, path: str, headers: Mapping[str, str] | None = None, body: object = None
) -> Answer:
    data = None if body is None else json.dumps(body).encode()
    return send(rig, method, path, {"Content-Type": "application/json"} | dict(headers or {}), data)


def send(rig: Rig, method: str, path: str, headers: Mapping[str, str], data: bytes | None) -> Answer:
    connection = http.client.HTTPConnection(urlsplit(rig.url).netloc, timeout=60)
    try:
        connection.request(method, path, data, dict(headers))
        return Answer(connection.getresponse())
    finally:
        connection.close()


def graphql(rig: Rig, query: str, headers: Mapping[str, str] | None = None) -> Any:
    return json.loads(ask(rig, "POST", "/dagster/graphql", headers, {"query": query}).text)


def subscribing(rig: Rig) -> ClientConnection:
    """An open web socket of Dagster's UI; the ``with`` block closes it."""
    address = f"{rig.url.replace('http', 'ws')}/dagster/graphql"
    return connect(address, subprotocols=[Subprotocol("graphql-ws")], proxy=None)


def jobs(rig: Rig) -> list[Any]:
    """Ids of the launched backfills that Dagster has at this moment."""
    query = "{ partitionBackfillsOrError { ... on PartitionBackfills { results { id } } } }"
    found: list[Any] = graphql(rig, query)["data"]["partitionBackfillsOrError"]["results"]
    return found


def test_a_get_launches_nothing_whoever_sends_it(rig: Rig) -> None:
    before = jobs(rig)
    for headers in ({}, BEARER, BASIC, {"Host": "evil.example"}, {"Origin": "https://evil.example"}):
        ask(rig, "GET", f"/dagster/graphql?query={quote(LAUNCH)}", headers)
    assert jobs(rig) == before


NUX = "mutation { setNuxSeen }"
#: Dagster asks for no permission for any of them.
UNCHECKED = [
    NUX,
    'mutation { logTelemetry(action: "a", clientTime: "1", clientId: "c", metadata: "{}") { __typename } }',
    f"query Harmless {{ version }} {NUX.replace('mutation', 'mutation Seen')}&operationName=Seen",
]


@pytest.mark.parametrize("mutation", UNCHECKED)
def test_a_mutation_without_permissions_of_its_own_is_for_editors_and_never_by_get(
    mutation: str, rig: Rig
) -> None:
    query, _, name = mutation.partition("&operationName=")
    seen = rig.home / ".nux" / "nux.yaml"
    seen.unlink(missing_ok=True)
    for headers in ({}, BEARER, BASIC):
        address = f"/dagster/graphql?query={quote(query)}&operationName={name}".removesuffix(
            "&operationName="
        )
        assert ask(rig, "GET", address, headers).status == 403
    body = {"query": query, "operationName": name or None}
    is_locked = "BACKFILL_API_TOKEN" in rig.environment
    assert not is_locked or ask(rig, "POST", "/dagster/graphql", {}, body).status == 403
    with subscribing(rig) as subscriber:
        subscriber.send(json.dumps({"type": "start", "id": "1", "payload": body}))
        assert json.loads(subscriber.recv(timeout=60))["type"] == "error"
    assert not seen.exists()


def test_an_editor_may_send_mutations_that_ask_for_no_permission(rig: Rig) -> None:
    assert "errors" not in graphql(rig, NUX, BEARER)
    assert (rig.home / ".nux" / "nux.yaml").exists()


@pytest.mark.parametrize("path", PATHS)
def test_no_name_but_the_services_own_is_answered(path: str, rig: Rig) -> None:
    for host in ("evil.example", f"evil.example:{urlsplit(rig.url).port}", "localhost.evil.example", ""):
        answer = ask(rig, "GET", path, {"Host": host})
        assert answer.status == 403
        assert repr(host) in answer.text
        assert "evil.example" not in answer.headers.get("location", "")
    for host in ("localhost", "127.0.0.1:443", "[::1]:80", "LOCALHOST:9"):
        assert ask(rig, "GET", path, {"Host": host}).status != 403


@pytest.mark.parametrize("path", [p for p in PATHS if p != "/login"])
def test_no_page_of_another_site_is_answered(path: str, rig: Rig) -> None:
    for origin in ("https://evil.example", "null", "http://127.0.0.1:9", "http://user@127.0.0.1"):
        for method in ("GET", "POST"):
            answer = ask(rig, method, path, {"Origin": origin, **BEARER}, {})
            assert answer.status == 403
            assert repr(origin) in answer.text
            assert urlsplit(rig.url).netloc in answer.text
    assert ask(rig, "GET", path, {"Origin": rig.url}).status != 403


def shake_hands(rig: Rig, **headers: str) -> str:
    """The first line of the answer to a request for a web socket."""
    with raw_web_socket(rig, **headers) as connection:
        return connection.makefile("rb").readline().decode()


def raw_web_socket(rig: Rig, source: str = "127.0.0.1", **headers: str) -> socket.socket:
    """A connection on which this address asks for a web socket; the answer is not read."""
    address = urlsplit(rig.url)
    fields = {
        "Host": address.netloc,
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Protocol": "graphql-ws",
        **headers,
    }
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    server = (str(address.hostname), int(address.port or 0))
    connection = socket.create_connection(server, timeout=60, source_address=(source, 0))
    connection.sendall(f"GET /dagster/graphql HTTP/1.1\r\n{lines}\r\n".encode())
    return connection


def test_the_web_socket_asks_for_host_and_origin_too(rig: Rig) -> None:
    assert " 403 " in shake_hands(rig, Origin="https://evil.example")
    assert " 403 " in shake_hands(rig, Host="evil.example")
    assert " 101 " in shake_hands(rig, Origin=rig.url)
    assert " 101 " in shake_hands(rig)


def test_without_a_token_this_machine_changes_what_it_likes_in_dagsters_ui(open_rig: Rig) -> None:
    before = len(jobs(open_rig))
    assert graphql(open_rig, LAUNCH) == {
        "data": {"launchPartitionBackfill": {"__typename": "LaunchBackfillSuccess"}}
    }
    assert len(jobs(open_rig)) == before + 1


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("localhost:3080", "http://127.0.0.1"),
        ("localhost:3080", "https://127.0.0.1"),
        ("localhost:3080", "http://127.0.0.1:443"),
        ("127.0.0.1:3080", "http://127.0.0.1"),
        ("127.0.0.1:3080", f"https://{NAME}"),
        ("localhost", "https://localhost"),
        ("localhost", "http://localhost:443"),
    ],
)
def test_without_a_token_a_page_at_another_port_of_this_machine_is_another_site(
    host: str, origin: str, open_rig: Rig
) -> None:
    before = jobs(open_rig)
    body = {"start": "2024-01-01", "end": "2024-01-01"}
    assert ask(open_rig, "POST", "/api/v1/backfill", {"Host": host, "Origin": origin}, body).status == 403
    assert " 403 " in shake_hands(open_rig, Host=host, Origin=origin)
    assert jobs(open_rig) == before
    for own in (host, f"{host.split(':')[0]}:80"):
        assert ask(open_rig, "GET", "/healthz", {"Host": own, "Origin": f"http://{own}"}).status == 200


def test_the_bound_name_lists_the_pages_at_its_own_port_alone(tmp_path: Path) -> None:
    (tmp_path / "settings.yaml").write_text(
        "universe: [{exchanges: [kraken], symbols: [BTC-USDT]}]\n"
        f"lake: {{uri: {tmp_path}/lake}}\nwarehouse: {{kind: duckdb, folder: {tmp_path}/warehouse}}\n"
    )
    extra = {"BACKFILL_ENV": str(tmp_path / "settings.yaml"), "BACKFILL_API_TOKEN": TOKEN}
    options = ("--host", socket.gethostname())
    with (
        TardisStandin(Market(rows={})) as standin,
        running_rig(tmp_path, standin, options=options, daemon=(), **extra) as found,
    ):
        own = {"Host": f"{socket.gethostname()}:{urlsplit(found.url).port}"}
        assert ask(found, "GET", "/healthz", {**own, "Origin": f"http://{own['Host']}"}).status == 200
        assert (
            ask(found, "GET", "/healthz", {**own, "Origin": f"http://{socket.gethostname()}"}).status == 403
        )


def test_without_a_token_nobody_comes_through_a_proxy(open_rig: Rig) -> None:
    answer = ask(open_rig, "GET", "/", {"X-Forwarded-For": "203.0.113.9"})
    assert (answer.status, "set serve.token" in answer.text) == (403, True)
    assert ask(open_rig, "GET", "/", {"Host": NAME}).status == 403


def test_without_the_token_dagsters_ui_is_read_only(locked: Rig) -> None:
    before = jobs(locked)
    reported = "/dagster/report_asset_materialization/report?partition=2024-01-01"
    assert ask(locked, "POST", reported, BEARER, {}).status == 200
    count = (
        '{ assetOrError(assetKey: {path: ["report"]}) { ... on Asset { assetMaterializations { runId } } } }'
    )
    stored = graphql(locked, count)["data"]["assetOrError"]["assetMaterializations"]
    assert len(stored) == 1, "reading needs no token"
    for headers in (
        {},
        {"Authorization": "Bearer wrong"},
        {"Authorization": "Basic !"},
        {"Cookie": TOKEN_COOKIE},
    ):
        for mutation in (LAUNCH, WIPE):
            answer = graphql(locked, mutation, headers)
            assert answer["data"] is None
            assert "sign in at /login" in answer["errors"][0]["message"]
        assert ask(locked, "POST", reported, headers, {}).status == 401
        permissions = graphql(locked, READ, headers)["data"]["permissions"]
        assert {p["value"] for p in permissions} == {False}
    assert jobs(locked) == before
    assert graphql(locked, count)["data"]["assetOrError"]["assetMaterializations"] == stored


TOKEN_COOKIE = "token=s3cret"


@pytest.mark.parametrize("headers", [BEARER, BASIC], ids=["bearer", "basic"])
def test_with_the_token_dagsters_ui_and_the_api_change_what_is_asked(
    headers: dict[str, str], locked: Rig
) -> None:
    before = len(jobs(locked))
    assert "LaunchBackfillSuccess" in str(graphql(locked, LAUNCH, headers))
    body = {"start": "2024-01-01", "end": "2024-01-01"}
    assert ask(locked, "POST", "/api/v1/backfill", headers, body).status == 202
    assert len(jobs(locked)) == before + 2


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        (f"{NAME}:443", f"https://{NAME}"),
        (NAME, f"https://{NAME}:443"),
        (NAME.upper(), f"http://{NAME}"),
        (f"{NAME}:8443", f"https://{NAME}:8443"),
        ("127.0.0.1:3080", f"https://{NAME}"),
        ("10.1.2.3", "http://10.1.2.3:80"),
        ("[fd00::1]:3080", "http://[fd00::1]:3080"),
    ],
)
def test_a_proxy_in_front_is_passed_by_its_listed_name(host: str, origin: str, locked: Rig) -> None:
    headers = {"Host": host, "Origin": origin, "X-Forwarded-For": "203.0.113.9", **BEARER}
    body = {"start": "2024-01-01", "end": "2024-01-01", "request_id": "proxied"}
    assert ask(locked, "POST", "/api/v1/backfill", headers, body).status in (200, 202)


def test_a_proxy_that_is_not_listed_is_told_what_came_and_what_is_served(locked: Rig) -> None:
    other_name = ask(locked, "GET", "/", {"Host": "proxy.example"})
    assert "'proxy.example' is not a name of this service" in other_name.text
    assert NAME in other_name.text
    assert "serve.hosts" in other_name.text
    other_origin = ask(locked, "POST", "/api/v1/backfill", {"Origin": "https://proxy.example", **BEARER}, {})
    assert "'https://proxy.example'" in other_origin.text
    assert f"'{urlsplit(locked.url).netloc}'" in other_origin.text
    assert "must forward the Host" in other_origin.text


@pytest.mark.parametrize("path", PATHS)
def test_every_answer_tells_browsers_what_they_may_do_with_it(path: str, rig: Rig) -> None:
    for headers in ({}, {"Host": "evil.example"}, {"Origin": "null"}):
        for method in ("GET", "POST", "DELETE"):
            answer = ask(rig, method, path, headers)
            assert answer.headers.get_all("x-content-type-options") == ["nosniff"]
            assert answer.headers["x-frame-options"] == "SAMEORIGIN"
            assert answer.headers["cross-origin-resource-policy"] == "same-origin"
            assert answer.headers["referrer-policy"]


def test_a_redirect_names_no_host(rig: Rig) -> None:
    for path in ("/api/v1/backfill/recent/", "/dagster", "/days/2024-01-01/report"):
        answer = ask(rig, "GET", path, {"Host": "localhost"})
        assert answer.status == 307
        assert answer.headers["location"].startswith("/")


@pytest.mark.parametrize("path", PATHS)
def test_head_answers_as_get_does_without_the_body(path: str, rig: Rig) -> None:
    get, head = (ask(rig, method, path) for method in ("GET", "HEAD"))
    assert (head.status, head.body) == (get.status, b"")
    assert head.headers.get("content-type") == get.headers.get("content-type")


def test_head_of_a_stream_ends(rig: Rig) -> None:
    body = {"start": "2024-01-01", "end": "2024-01-01", "request_id": "stream"}
    job = json.loads(ask(rig, "POST", "/api/v1/backfill", BEARER, body).text)
    connection = http.client.HTTPConnection(urlsplit(rig.url).netloc, timeout=60)
    for _ in range(2):
        connection.request("HEAD", job["links"]["events"])
        answer = connection.getresponse()
        assert (answer.status, answer.read()) == (200, b"")
    connection.close()


def peak_bytes(rig: Rig) -> int:
    """The most memory that the service has had; Linux reports it."""
    status = Path(f"/proc/{rig.running['service'].pid}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


def pour(rig: Rig, head: str, piece: bytes, pieces: int) -> bytes:
    """Send the head and then the pieces, until all is sent or the server closes the connection."""
    address = urlsplit(rig.url)
    with socket.create_connection((str(address.hostname), int(address.port or 0)), timeout=60) as connection:
        try:
            connection.sendall(head.replace("\n", "\r\n").encode())
            for _ in range(pieces):
                connection.sendall(piece)
        except (BrokenPipeError, ConnectionResetError):
            pass
        try:
            return connection.recv(65_536)
        except ConnectionResetError:
            return b""


MEGABYTE = b"x" * 2**20
GIGABYTE = 1024


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the memory of a process from Linux")
@pytest.mark.parametrize("path", ["/api/v1/backfill", "/page/start", "/dagster/graphql", "/healthz"])
@pytest.mark.parametrize(
    ("fields", "piece"),
    [
        (f"Content-Length: {2**30}\n\n", MEGABYTE),
        ("Transfer-Encoding: chunked\n\n", b"%x\r\n" % len(MEGABYTE) + MEGABYTE + b"\r\n"),
        ("X-Long: ", MEGABYTE),
    ],
    ids=["length", "chunked", "header"],
)
def test_a_gigabyte_is_not_taken_in(path: str, fields: str, piece: bytes, rig: Rig) -> None:
    ask(rig, "GET", "/healthz")
    before = peak_bytes(rig)
    for authorization in (f"Authorization: Bearer {TOKEN}", "X-No: token"):
        head = (
            f"POST {path} HTTP/1.1\nHost: {urlsplit(rig.url).netloc}\nContent-Type: application/json\n"
            f"{authorization}\n{fields}"
        )
        pour(rig, head, piece, GIGABYTE)
    assert peak_bytes(rig) - before < 100 * 2**20
    assert ask(rig, "GET", "/healthz").status == 200


def test_a_large_body_is_refused_by_what_it_says_of_itself(rig: Rig) -> None:
    """No byte of the body is sent, so the answer cannot have waited for it."""
    for length in (str(MOST_BYTES + 1), "9" * 30, "-1", "1e3", "²"):
        head = (
            f"POST /api/v1/backfill HTTP/1.1\nHost: {urlsplit(rig.url).netloc}\n"
            f"Authorization: Bearer {TOKEN}\nContent-Length: {length}\n\n"
        )
        assert pour(rig, head, b"", 0).split(b" ")[1] in (b"413", b"400")


def test_without_the_token_the_answer_comes_before_the_body(locked: Rig) -> None:
    head = (
        f"POST /api/v1/backfill HTTP/1.1\nHost: {urlsplit(locked.url).netloc}\n"
        "Content-Type: application/json\nContent-Length: 100\n\n"
    )
    assert pour(locked, head, b"", 0).startswith(b"HTTP/1.1 401")


JSON = "application/json"
MALFORMED = [
    *(
        (JSON, body)
        for body in (b"", b"[]", b'"text"', b"NaN", b"7", b"null", b"[" * 50_000, b"\xff\xfe", b"{")
    ),
    *((JSON, body) for body in (b"{}", b'{"query": 7}', b'{"query": ["{ version }"]}')),
    (JSON, b'[{"query": "{ version }"}]'),
    (JSON, b'{"query": "{ version }", "variables": [1]}'),
    (JSON, b'{"query": "{ version }", "variables": "[1]"}'),
    (JSON, b'{"query": "{ version }", "variables": {"a": NaN}}'),
    (JSON, b'{"query": "{ version }", "operationName": {}}'),
    (JSON, b'{"query": "{ \\ud800 }"}'),
    (JSON, b'{"query": "' + b"{a" * 20_000 + b'"}'),
    (JSON, b'{"query": "mutation ' + b"{a" * 20_000 + b'"}'),
    ("application/graphql", b"\xff"),
    ("text/plain", b"{ version }"),
    ("multipart/form-data; boundary=x", b"--x"),
]


@pytest.mark.parametrize(("content_type", "body"), MALFORMED)
def test_what_is_no_query_is_answered_400_without_a_traceback(
    content_type: str, body: bytes, rig: Rig
) -> None:
    before = (rig.home / "service.log").read_text()
    for headers in ({}, BEARER):
        answer = send(rig, "POST", "/dagster/graphql", {"Content-Type": content_type, **headers}, body)
        assert answer.status == 400
        assert answer.text
    assert (rig.home / "service.log").read_text() == before


def close_of(subscriber: ClientConnection) -> tuple[int, str]:
    """Code and reason with which the server closes the web socket; earlier messages are left out."""
    with pytest.raises(ConnectionClosed) as closed:
        deque((subscriber.recv(timeout=60) for _ in count()), maxlen=0)
    assert closed.value.rcvd is not None
    return closed.value.rcvd.code, closed.value.rcvd.reason


def start(**payload: object) -> dict[str, object]:
    return {"type": "start", "id": "1", "payload": payload}


NO_MESSAGES: list[object] = [
    *("", "{", "[" * 50_000, "NaN", "7", "null", "[]", '"start"', "{}", '{"type": 7}', '{"type": ["start"]}'),
    *('{"type": "stop", "id": {}}', '{"type": "start", "id": "\\ud800"}'),
    *({"type": "start", "id": "1"}, {"type": "start", "payload": {"query": "{ version }"}}),
    *(start(), start(query=7), start(query="{ version }", variables=[1])),
    start(query="{ version }", operation_name={}),
    {**start(query="{ version }"), "id": "1" * 101},
]


@pytest.mark.parametrize("message", NO_MESSAGES, ids=lambda message: json.dumps(message)[:40])
def test_a_web_socket_that_sends_no_message_is_closed_with_a_line_in_the_log(
    message: object, rig: Rig
) -> None:
    before = (rig.home / "service.log").read_text()
    with subscribing(rig) as subscriber:
        subscriber.send(message if isinstance(message, str) else json.dumps(message))
        code, reason = close_of(subscriber)
    assert (code, "graphql-ws" in reason) == (1007, True)
    [line] = (rig.home / "service.log").read_text()[len(before) :].splitlines()
    assert "a web socket of 127.0.0.1 is closed (1007): send the messages of graphql-ws" in line


def test_a_binary_message_and_deep_and_half_queries_leave_no_traceback(rig: Rig) -> None:
    before = (rig.home / "service.log").read_text()
    with subscribing(rig) as subscriber:
        subscriber.send(b"{}")
        assert close_of(subscriber)[0] == 1003
    with subscribing(rig) as subscriber:
        for query in ("{a" * 9_000, "subscription {", "{ version }", "subscription { a }"):
            subscriber.send(json.dumps(start(query=query)))
            assert json.loads(subscriber.recv(timeout=60))["type"] == "error"
        subscriber.send('{"type": "connection_init"}')
        assert json.loads(subscriber.recv(timeout=60)) == {"type": "connection_ack"}
        subscriber.send('{"type": "connection_terminate"}')
        assert close_of(subscriber)[0] == 1000
    assert "Traceback" not in (rig.home / "service.log").read_text()[len(before) :]


def test_web_sockets_are_bounded_by_address_and_in_all_and_room_comes_back(rig: Rig) -> None:
    before = (rig.home / "service.log").read_text()
    with ExitStack() as stack:
        per_address = MOST_SOCKETS_OF_ADDRESS
        for number in range(MOST_SOCKETS):
            opened = stack.enter_context(raw_web_socket(rig, f"127.0.0.{2 + number // per_address}"))
            assert opened.recv(12) == b"HTTP/1.1 101"
            if number == per_address - 1:
                with raw_web_socket(rig, "127.0.0.2") as other:
                    # After the head of the answer comes a frame with the code.
                    assert (1013).to_bytes(2, "big") in b"".join(iter(lambda: other.recv(4096), b""))
                with subscribing(rig) as subscriber:
                    subscriber.send('{"type": "connection_init"}')
                    assert json.loads(subscriber.recv(timeout=60)) == {"type": "connection_ack"}
        with subscribing(rig) as subscriber:
            assert close_of(subscriber) == (
                1013,
                "too many web sockets are open: close some, or try again later",
            )
        assert ask(rig, "GET", "/healthz").status == 200
    lines = (rig.home / "service.log").read_text()[len(before) :].splitlines()
    assert [line.partition(" is closed ")[2][:6] for line in lines] == ["(1013)", "(1013)"]

    def is_open() -> bool:
        with subscribing(rig) as subscriber:
            subscriber.send('{"type": "connection_init"}')
            try:
                return bool(subscriber.recv(timeout=60))
            except ConnectionClosed:
                return False

    rig.wait(is_open, seconds=60)


@pytest.mark.timeout(10)
@pytest.mark.parametrize(
    ("address", "owner"),
    [
        ("2001:db8:0:1::1", "2001:db8:0:1::/64"),
        ("2001:db8:0:1:ffff:ffff:ffff:ffff", "2001:db8:0:1::/64"),
        ("2001:db8:0:2::1", "2001:db8:0:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("192.0.2.7", "192.0.2.7"),
        ("testclient", "testclient"),
    ],
)
def test_all_addresses_that_a_host_may_take_by_ipv6_are_one(address: str, owner: str) -> None:
    assert owner_of(address) == owner


def test_the_subscriptions_of_a_web_socket_are_bounded_and_those_that_ended_do_not_count(rig: Rig) -> None:
    endless = "subscription { locationStateChangeEvents { __typename } }"
    with subscribing(rig) as subscriber:
        for number in range(MOST_SUBSCRIPTIONS * 2):
            subscriber.send(json.dumps({**start(query="{"), "id": str(number)}))
            assert json.loads(subscriber.recv(timeout=60))["type"] == "error"
        for number in range(MOST_SUBSCRIPTIONS + 1):
            subscriber.send(json.dumps({**start(query=endless), "id": str(number)}))
        assert close_of(subscriber) == (1008, f"at most {MOST_SUBSCRIPTIONS} subscriptions at once")


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("graphql", 400),
        ("graphql?query=%FF", 400),
        ("graphql?query={version}&variables=[1]", 400),
        (f"graphql?query={{version}}&variables={'[' * 20_000}", 400),
        (f"graphql?query={'{a' * 15_000}", 400),
        *((f"logs/{path}", 404) for path in ("..%2f..%2fetc%2fpasswd", "..", "", "a%00/b.out", "a/b/c.err")),
        *((f"download_debug/{run}", 404) for run in ("zzz", "%00", "a" * 36, "%F0%9F%98%80")),
    ],
)
def test_an_odd_address_of_dagsters_ui_is_answered_without_a_traceback(
    path: str, status: int, rig: Rig
) -> None:
    before = (rig.home / "service.log").read_text()
    for headers in ({}, BEARER):
        assert ask(rig, "GET", f"/dagster/{path}", headers).status == status
    assert (rig.home / "service.log").read_text() == before


def test_a_query_is_answered_in_each_form_in_which_dagster_takes_it(rig: Rig) -> None:
    question = "query A($n: Boolean!) { version @include(if: $n) } query B { version }"
    forms = [
        (
            JSON,
            json.dumps({"query": question, "operationName": "A", "variables": {"n": True}}).encode(),
        ),
        (JSON, json.dumps({"query": question, "operationName": "B", "variables": "{}"}).encode()),
        (JSON, b'{"query": "{ version }", "variables": null, "extensions": {}}'),
        ("application/graphql", b"{ version }"),
    ]
    for content_type, body in forms:
        answer = send(rig, "POST", "/dagster/graphql", {"Content-Type": content_type}, body)
        assert (answer.status, "version" in answer.text) == (200, True)


def aliases(number: int) -> str:
    """A query that takes seconds of the processor for each hundred thousand characters."""
    return "{" + " ".join(f"a{n}: version" for n in range(number)) + "}"


def test_a_query_without_the_token_is_far_smaller_than_a_request(rig: Rig) -> None:
    large = {"query": aliases(15_000)}
    refused = ask(rig, "POST", "/dagster/graphql", {}, large)
    assert (refused.status, str(MOST_QUERY_BYTES) in refused.text) == (413, True)
    allowed = 200 if "BACKFILL_API_TOKEN" in rig.environment else 413
    assert ask(rig, "POST", "/dagster/graphql", BEARER, large).status == allowed


def test_many_queries_at_once_leave_the_service_in_reach(rig: Rig) -> None:
    query = {"query": aliases(2_000)}
    before = peak_bytes(rig)
    with ThreadPoolExecutor(100) as pool:
        asked = [pool.submit(ask, rig, "POST", "/dagster/graphql", {}, query) for _ in range(100)]
        slowest = 0.0
        while not all(one.done() for one in asked):
            began = time.monotonic()
            assert ask(rig, "GET", "/healthz").status == 200
            slowest = max(slowest, time.monotonic() - began)
            time.sleep(0.1)
    answers = [one.result() for one in asked]
    refused = [answer for answer in answers if answer.status != 200]
    assert slowest < 6
    assert peak_bytes(rig) - before < 200 * 2**20
    assert len(answers) - len(refused) >= 62
    assert refused
    assert all((answer.status, answer.headers["retry-after"]) == (503, "2") for answer in refused)


def test_a_large_subscription_without_the_token_is_refused(rig: Rig) -> None:
    start = {"type": "start", "id": "1", "payload": {"query": f"subscription {aliases(2_000)}"}}
    with subscribing(rig) as subscriber:
        subscriber.send(json.dumps(start))
        answer = json.loads(subscriber.recv(timeout=60))
    assert answer == {"type": "error", "id": "1", "payload": {"message": "at most 20000 characters"}}


@pytest.mark.skipif(installed() is None, reason="needs Chromium and its driver")
def test_a_browser_signs_in_to_dagsters_ui_with_the_token(locked: Rig) -> None:
    may_launch = """
        const done = arguments[arguments.length - 1];
        const body = JSON.stringify({query: '{ permissions { permission value } }'});
        const headers = {'Content-Type': 'application/json'};
        fetch('/dagster/graphql', {method: 'POST', body, headers}).then((answer) => answer.json())
          .then((found) => done(found.data.permissions.some((one) => one.value)));
    """
    with chromium() as browser:
        browser.open(f"{locked.url}/dagster/runs")
        assert browser.driver.execute_async_script(may_launch) is False
        signed = locked.url.replace("http://", f"http://me:{quote(TOKEN)}@")
        browser.open(f"{signed}/login")
        browser.open(f"{locked.url}/dagster/runs")
        assert browser.driver.execute_async_script(may_launch) is True
