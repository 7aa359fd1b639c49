"""The HTTP interface in this process: its answers, their form, and who gets them."""

from __future__ import annotations

import asyncio
import json
import re
import threading
import time
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import schemathesis
from dagster import DagsterInstance
from dagster._core.execution.backfill import BulkActionStatus
from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as examples
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import response_schema_conformance, status_code_conformance
from starlette.testclient import TestClient

from backfill_assets.definitions import defs
from backfill_assets.lake import paths
from backfill_assets.progress.api import create_app
from backfill_assets.progress.events import changes, seen_revision
from backfill_assets.progress.guard import is_loopback
from backfill_assets.progress.model import BackfillRequest
from backfill_assets.progress.page.routes import page_router
from backfill_assets.progress.problems import MEDIA_TYPE
from backfill_assets.progress.service import Backfills
from backfill_assets_tests.obstacles import put_in_the_way
from backfill_assets_tests.progress.conftest import BASE, client_of
from backfill_assets_tests.progress.planned_lake import BTC, Lake
from backfill_assets_tests.progress.small_assets import end_backfill

BODY = {"start": "2024-01-01", "end": "2024-01-03"}
CHANGING = ["/api/v1/backfill", "/api/v1/backfill/abcdefgh/cancel", "/api/v1/backfill/abcdefgh/retry"]


def is_problem(answer: Any, status: int) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == MEDIA_TYPE
    content: dict[str, Any] = answer.json()
    assert content["status"] == status
    assert content["title"]
    return content


def test_a_new_job_is_accepted_and_the_same_request_found_again(client: TestClient) -> None:
    first = client.post("/api/v1/backfill", json={**BODY, "request_id": "r"}, headers={"X-Requester": "ann"})
    assert first.status_code == 202
    again = client.post("/api/v1/backfill", json={**BODY, "request_id": "r"})
    assert again.status_code == 200
    assert again.json() == first.json()
    assert first.json()["requester"] == "ann"
    status = client.get(first.headers["location"])
    assert status.status_code == 200
    assert [day["day"] for day in status.json()["days"]] == ["2024-01-01", "2024-01-02", "2024-01-03"]
    [job] = client.get("/api/v1/backfill/recent").json()["jobs"]
    assert job["job_id"] == first.json()["job_id"]
    assert client.get("/api/v1/backfill/recent?state=failed").json() == {"jobs": []}
    is_problem(client.post("/api/v1/backfill", json={**BODY, "end": "2024-01-02", "request_id": "r"}), 409)


@pytest.mark.parametrize(
    ("body", "pointer", "words"),
    [
        ({"end": "2024-01-03"}, "/start", "Field required"),
        ({**BODY, "end": "2023-01-01"}, "/start", "before it starts"),
        ({**BODY, "exchanges": ["mtgox"]}, "/exchanges/0", "'mtgox' is not an exchange"),
        ({**BODY, "start": "1.1.2024"}, "/start", "write it as YYYY-MM-DD"),
        ({**BODY, "start": "2024-02-30"}, "/start", "'2024-02-30' is not a day: write it as YYYY-MM-DD"),
        ({**BODY, "start": "0000-00-00"}, "/start", "'0000-00-00' is not a day: write it as YYYY-MM-DD"),
        ({**BODY, "start": 1704067200}, "/start", "write a day as text"),
        ({**BODY, "start": "2024-01-01T00:00:00"}, "/start", "write it as YYYY-MM-DD"),
        ({**BODY, "symbol": "BTC-USDT"}, "/symbol", "Extra inputs"),
        ({**BODY, "at_once": 0}, "/at_once", "greater than or equal to 1"),
        ({**BODY, "at_once": 2}, "/at_once", "of dagster.yaml has none: add backfill_assets/at_once_2"),
        ({**BODY, "order": "random"}, "/order", "'oldest' or 'newest'"),
    ],
)
def test_a_wrong_request_is_a_problem_that_points_at_the_part(
    body: dict[str, Any], pointer: str, words: str, client: TestClient
) -> None:
    content = is_problem(client.post("/api/v1/backfill", json=body), 422)
    assert [error["pointer"] for error in content["errors"]] == [pointer]
    assert words in content["errors"][0]["detail"]
    assert words in content["detail"]


@pytest.mark.timeout(60, method="thread")
@pytest.mark.parametrize(
    "path",
    [
        paths.settled_day("2024-01-02"),
        paths.day_summary("2024-01-02"),
        paths.publication("candles", "2024-01-02"),
        paths.ticks_manifest(BTC, "2024-01-02"),
    ],
)
def test_a_damaged_document_stops_no_request(instance: DagsterInstance, tmp_path: Path, path: str) -> None:
    lake = Lake(tmp_path / "lake")
    for day in ("2024-01-01", "2024-01-02", "2024-01-03"):
        lake.run(day)
    put_in_the_way(tmp_path / "lake" / path, "a FIFO")
    service = Backfills(instance, defs.resolve_asset_graph, lambda: lake.settings)
    client = client_of(SimpleNamespace(service=service))
    for address in ("/", "/page/calendar?year=2024", "/api/v1/plan?start=2024-01-01&end=2024-01-03"):
        assert client.get(address).status_code == 200
    found = client.get("/api/v1/days?from=2024-01-01&to=2024-01-03").json()["days"]
    assert [found[0]["outcome"], found[2]["outcome"]] == ["published", "published"]
    made = client.post("/api/v1/backfill", json={**BODY, "all_days": True})
    assert made.status_code == 202
    job = f"/api/v1/backfill/{made.json()['job_id']}"
    assert client.post(f"{job}/cancel").status_code == 202
    end_backfill(instance, made.json()["job_id"], BulkActionStatus.CANCELED)
    assert client.post(f"{job}/retry").json()["attempt"] == 2
    service.close()


def test_whoever_polls_gets_the_status_only_when_it_has_changed(client: TestClient) -> None:
    job = client.post("/api/v1/backfill", json=BODY).json()
    first = client.get(job["links"]["self"])
    tag = {"If-None-Match": first.headers["ETag"]}
    again = client.get(job["links"]["self"], headers=tag)
    assert (again.status_code, again.content, again.headers["ETag"]) == (304, b"", first.headers["ETag"])
    client.post(f"/api/v1/backfill/{job['job_id']}/cancel")
    changed = client.get(job["links"]["self"], headers=tag)
    assert (changed.status_code, changed.json()["state"]) == (200, "canceling")
    assert changed.headers["ETag"] != first.headers["ETag"]


def test_every_other_mistake_is_a_problem_too(client: TestClient) -> None:
    found = is_problem(client.get("/nothing/here"), 404)
    assert found["detail"] == "this address does not exist: /docs lists the API's addresses"
    found = is_problem(client.get("/api/v1/backfill/status/abcdefgh"), 404)
    assert found["detail"] == "there is no job 'abcdefgh': /api/v1/backfill/recent lists them"
    is_problem(client.get("/api/v1/backfill/abcdefgh/events"), 404)
    found = is_problem(client.delete("/api/v1/backfill/recent"), 405)
    assert found["detail"] == "this address does not accept DELETE: /docs lists the API's addresses"
    is_problem(client.get("/api/v1/backfill/recent?limit=0"), 422)
    is_problem(client.get("/api/v1/days?from=2024-01-02&to=2024-01-01"), 422)
    is_problem(
        client.post("/api/v1/backfill", content=b"{", headers={"Content-Type": "application/json"}), 422
    )
    job_id = client.post("/api/v1/backfill", json=BODY).json()["job_id"]
    is_problem(client.post(f"/api/v1/backfill/{job_id}/retry"), 409)


def test_an_unexpected_error_is_a_problem_that_gives_nothing_away(
    client: TestClient, rig: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def bug(*_: object) -> None:
        msg = "the password is swordfish"
        raise RuntimeError(msg)

    monkeypatch.setattr(rig.service, "recent", bug)
    content = is_problem(client.get("/api/v1/backfill/recent"), 500)
    assert "swordfish" not in json.dumps(content)


@pytest.mark.parametrize("path", CHANGING)
def test_with_a_token_every_changing_call_needs_it(path: str, rig: SimpleNamespace) -> None:
    with client_of(rig, "s3cret", "http://backfill.example:3080") as client:
        for header in (None, "Bearer wrong", "Bearer s3cre", "Basic s3cret", "s3cret", "Bearer \xe9"):
            headers = {} if header is None else {"Authorization": header.encode("latin-1")}
            answer = client.post(path, json=BODY, headers=headers)  # type: ignore[arg-type]
            is_problem(answer, 401)
            assert answer.headers["www-authenticate"] == "Bearer"
        answer = client.post(path, json=BODY, headers={"Authorization": "Bearer s3cret"})
        assert answer.status_code in (202, 404)
        assert client.get("/api/v1/backfill/recent").status_code == 200, "reading needs none"


def test_no_changing_route_is_without_guard(rig: SimpleNamespace) -> None:
    with client_of(rig, "s3cret") as client:
        paths = client.get("/openapi.json").json()["paths"]
        changing = {
            path for path, methods in paths.items() if methods.keys() & {"post", "put", "patch", "delete"}
        }
        assert {path.replace("{job_id}", "abcdefgh") for path in changing} == set(CHANGING)


@pytest.mark.parametrize("path", CHANGING)
def test_without_a_token_pages_of_other_sites_change_nothing(path: str, rig: SimpleNamespace) -> None:
    with client_of(rig) as client:
        is_problem(client.post(path, json=BODY, headers={"Origin": "https://evil.example"}), 403)
        is_problem(client.post(path, json=BODY, headers={"Host": "evil.example:3080"}), 403)
        is_problem(client.post(path, json=BODY, headers={"Origin": "null"}), 403)
        assert client.post(path, json=BODY, headers={"Origin": BASE}).status_code in (202, 404)
    assert len(rig.service.recent()) <= 1


@pytest.mark.parametrize(
    ("host", "loopback"),
    [("127.0.0.1", True), ("localhost", True), ("[::1]", True), ("127.9.9.9", True), ("0.0.0.0", False),
     ("::", False), ("10.0.0.1", False), ("localhost.evil.example", False), ("", False)],
)  # fmt: skip
def test_loopback_is_told_from_what_others_reach(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback


def test_a_huge_request_is_refused_unread(client: TestClient) -> None:
    is_problem(client.post("/api/v1/backfill", json={**BODY, "reason": "x" * 2_000_000}), 413)


def test_readiness_says_what_is_missing_and_liveness_does_not_care(client: TestClient) -> None:
    assert client.get("/healthz").text == "ok\n"
    assert "no Dagster daemon has run yet" in is_problem(client.get("/readyz"), 503)["detail"]


def test_the_metrics_count_jobs_and_requests_by_route(client: TestClient) -> None:
    client.post("/api/v1/backfill", json=BODY)
    for _ in range(3):
        client.get("/api/v1/backfill/status/abcdefgh")
    client.get("/some/random/path")
    text = client.get("/metrics").text
    assert 'backfill_jobs{state="queued"} 1.0' in text
    assert 'backfill_jobs{state="failed"} 0.0' in text
    route = 'method="GET",route="/api/v1/backfill/status/{job_id}",status="404"'
    assert f"backfill_http_requests_total{{{route}}} 3.0" in text
    assert "random" not in text


def events_of(text: str) -> list[tuple[int, dict[str, Any]]]:
    found = []
    for block in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if "data" in fields:
            found.append((int(fields["id"]), json.loads(fields["data"])))
    return found


def test_events_tell_every_change_until_the_end_and_go_on_after_the_last_that_was_seen(
    client: TestClient, rig: SimpleNamespace
) -> None:
    job_id = client.post("/api/v1/backfill", json=BODY).json()["job_id"]

    def cancel() -> None:
        time.sleep(0.7)
        rig.service.cancel(job_id)
        time.sleep(2)
        end_backfill(rig.instance, job_id, BulkActionStatus.CANCELED)

    threading.Thread(target=cancel).start()
    answer = client.get(f"/api/v1/backfill/{job_id}/events")
    assert answer.headers["content-type"].startswith("text/event-stream")
    found = events_of(answer.text)
    assert [job["state"] for _, job in found] == ["queued", "canceling", "canceled"]
    revisions = [revision for revision, _ in found]
    assert revisions == sorted(set(revisions))
    assert [job["revision"] for _, job in found] == revisions
    rest = client.get(f"/api/v1/backfill/{job_id}/events", headers={"Last-Event-ID": str(revisions[0])})
    assert [job["state"] for _, job in events_of(rest.text)] == ["canceled"]
    done = client.get(f"/api/v1/backfill/{job_id}/events", headers={"Last-Event-ID": str(revisions[-1])})
    assert (done.status_code, done.text) == (204, "")


def test_a_silent_stream_gives_signs_of_life(rig: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backfill_assets.progress.events.SECONDS_BETWEEN_LOOKS", 0.01)
    monkeypatch.setattr("backfill_assets.progress.events.SECONDS_BETWEEN_HEARTBEATS", 0.02)
    job, _ = rig.service.create(BackfillRequest.model_validate(BODY))

    async def first(count: int) -> list[str]:
        found: list[str] = []
        async for text in changes(rig.service, job.job_id, job.revision):
            found.append(text)
            if len(found) == count:
                break
        return found

    assert asyncio.run(first(3)) == ["retry: 2000\n\n", ": still here\n\n", ": still here\n\n"]


@pytest.mark.parametrize(
    ("given", "revision"), [("12", 12), (None, 0), ("", 0), ("x", 0), ("-1", 0), ("²", 0), ("9" * 99, 0)]
)
def test_a_last_event_id_that_is_none_of_ours_begins_at_the_beginning(
    given: str | None, revision: int
) -> None:
    assert seen_revision(given) == revision


#: Texts in the place of a day, a job or a name, quoted as a path.
BAD_PARTS = [
    *("x", "2024-02-30", "2024-13-01", "2024-1-1", "20240101", "0000-00-00", "99999-01-01", "-1"),
    *("2024-01-01T00:00", "%00", "..%2f..%2fetc", "%2e%2e", "%0a", "%ff%fe", "%F0%9F%92%A9", "%25"),
    *("a" * 5_000, "'%20or%201=1"),
]
GET_WITH_QUERY = [
    *("/api/v1/days", "/api/v1/plan", "/api/v1/backfill/recent"),
    *("/page/plan", "/page/calendar", "/page/now"),
]


def test_every_route_with_a_parameter_answers_a_bad_one_with_what_is_wrong(
    client: TestClient, rig: SimpleNamespace
) -> None:
    of_api = client.get("/openapi.json").json()["paths"]
    of_page: Any = page_router(rig.service).routes
    routes = [(path, method.upper()) for path, methods in of_api.items() for method in methods]
    routes += [(route.path, method) for route in of_page for method in route.methods]
    routes = [(path, method) for path, method in routes if "{" in path]
    assert len(routes) >= 10
    for (route, method), bad in product(routes, BAD_PARTS):
        path = re.sub(r"\{[^}]*\}", lambda _, bad=bad: bad, route)  # type: ignore[misc]
        answer = client.request(method, path, headers={"HX-Request": "true"}, follow_redirects=True)
        assert 400 <= answer.status_code < 500, (method, path, answer.text[:200])
        if route.startswith(("/api", "/days")):
            is_problem(answer, answer.status_code)


def test_no_bad_query_is_an_error_of_the_server(client: TestClient) -> None:
    for path, name, bad in product(GET_WITH_QUERY, ("from", "start", "year", "limit", "seen"), BAD_PARTS):
        answer = client.get(f"{path}?{name}={bad}&to=2024-01-01&end=2024-01-01")
        assert answer.status_code < 500, (path, name, bad, answer.text[:200])


def test_no_request_makes_the_server_fail_or_answer_what_its_document_does_not_say(
    rig: SimpleNamespace,
) -> None:
    app = create_app(rig.service)
    schema = schemathesis.openapi.from_asgi("/openapi.json", app, headers={"Host": "localhost"})
    counted = 0
    for operation in schema.get_all_operations():
        # A stream of a job that never ends would not end; its errors are those of the status.
        strategy = operation.ok().as_strategy()

        @examples(
            max_examples=8,
            deadline=None,
            database=None,
            derandomize=True,
            phases=[Phase.explicit, Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=strategy)
        def ask(case: Any) -> None:
            nonlocal counted
            counted += 1
            answer = case.call(base_url=BASE)
            if case.path in ("/readyz",):
                return
            checks = [not_a_server_error, status_code_conformance, response_schema_conformance]
            case.validate_response(answer, checks=checks)

        ask()
    assert counted >= 20
