"""The HTTP interface: each route calls one method of ``service`` and does nothing else.

It is versioned under ``/api/v1``; ``/openapi.json`` describes it, and ``/docs`` is a page to try it on.
"""

from __future__ import annotations

import hashlib
from importlib.metadata import version
from typing import Annotated, Final, Literal

from fastapi import APIRouter, FastAPI, Header, Query, Request, Response
from fastapi.responses import PlainTextResponse, RedirectResponse, StreamingResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import BaseModel
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Receive, Scope, Send

from backfill_assets.failures import BackfillError, TransientFailure
from backfill_assets.frames.conditions import MarketCoverage, QualityAnswer
from backfill_assets.progress import problems
from backfill_assets.progress.answers import Answers
from backfill_assets.progress.events import changes, seen_revision
from backfill_assets.progress.explorer import explorer_router
from backfill_assets.progress.guard import BASIC, Access, Guard, Refusal
from backfill_assets.progress.metrics import MeasureRequests, Metrics
from backfill_assets.progress.model import (
    FINAL_JOB_STATES,
    BackfillRequest,
    Calendar,
    Day,
    IncidentList,
    IncidentStatus,
    Job,
    Jobs,
    JobState,
    JobStatus,
    Name,
    Problem,
)
from backfill_assets.progress.page.routes import PARTS_PREFIX, page_router, refused_part
from backfill_assets.progress.plan import Plan
from backfill_assets.progress.service import Backfills
from backfill_assets.settings import BASE_TIMEFRAME

_JSON: Final = "application/json"
_PREFIX: Final = "/api/v1"
UI_PREFIX: Final = "/dagster"
#: The path at which a browser signs in to Dagster's UI.
LOGIN: Final = "/login"
_DESCRIPTION: Final = (
    "Backfills of daily market data: start them, and see their progress and the outcome of each day. "
    "A job is one of Dagster's backfills; errors are RFC 9457 problem details."
)


class _WithUi:
    """ASGI middleware: requests below the prefix go to the Dagster UI, all others to the inner app."""

    def __init__(self, app: ASGIApp, ui: ASGIApp) -> None:
        self._app = app
        self._ui = ui

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope.get("path", "")
        is_ui = path == UI_PREFIX or path.startswith(f"{UI_PREFIX}/")
        await (self._ui if is_ui else self._app)(scope, receive, send)


def create_app(
    service: Backfills, *, token: str = "", hosts: tuple[str, ...] = (), ui: ASGIApp | None = None
) -> FastAPI:
    """Make the API and page of a service, and the Dagster UI below ``UI_PREFIX``, all behind the guard.

    Parameters
    ----------
    token, hosts
        As in ``guard.Access``.
    ui
        Answers requests below ``UI_PREFIX``; asks ``guard.may_change`` before any change.
    """
    # Dagster's UI reads by POST, and answers without the token as to a reader.
    access = Access(token, hosts, readable={f"{UI_PREFIX}/graphql"} if ui else ())
    metrics = Metrics(service)
    app = FastAPI(
        title="backfill-assets",
        version=version("backfill-assets"),
        description=_DESCRIPTION,
        responses=problems.responses(500, 503),
        docs_url=None,
        redoc_url=None,
    )
    problems.install(app)
    # The last added is the outermost.
    if ui:
        app.add_middleware(_WithUi, ui=ui)
    app.add_middleware(Guard, access=access, refuse=_refuse)
    app.add_middleware(MeasureRequests, metrics=metrics)
    app.add_middleware(Answers)
    app.include_router(_reading(service))
    app.include_router(_data(service))
    app.include_router(_changing(service))
    app.include_router(_operating(service, metrics))
    app.include_router(page_router(service, needs_token=bool(token)))
    app.include_router(explorer_router())
    if ui:
        app.include_router(_signing_in(access))
    _describe_problems(app)
    return app


def _refuse(request: Request, refusal: Refusal) -> Response:
    if request.url.path.startswith(PARTS_PREFIX):
        return refused_part(refusal)
    return problems.problem(request, refusal.status, refusal.detail, headers=refusal.headers)


def _signing_in(access: Access) -> APIRouter:
    """Let a browser ask for the token, for which Dagster's UI has no field, and send it from then on."""
    router = APIRouter(include_in_schema=False)

    @router.get(LOGIN)
    async def login(request: Request) -> Response:
        if not access.is_authenticated(request):
            raise HTTPException(401, "give any name, and serve.token as the password", BASIC)
        return RedirectResponse(UI_PREFIX, 303)

    return router


def _changing(service: Backfills) -> APIRouter:
    router = APIRouter(prefix=_PREFIX, tags=["backfill"], responses=problems.responses(401, 403, 413))

    @router.post(
        "/backfill",
        status_code=202,
        response_model=Job,
        responses={
            200: {"model": Job, "description": "The job that this request_id already made."},
            **problems.responses(400, 409, 422),
        },
    )
    def create(
        request: Request,
        body: BackfillRequest,
        response: Response,
        x_requester: Annotated[
            str, Header(max_length=200, description="Name of the requester, for the record.")
        ] = "",
    ) -> Job:
        """Start a backfill. Repeating a request_id returns the same job."""
        who = x_requester or (request.client.host if request.client else "")
        job, is_new = service.create(body, who)
        response.status_code = 202 if is_new else 200
        response.headers["Location"] = job.links.self
        return job

    @router.post("/backfill/{job_id}/cancel", status_code=202, responses=problems.responses(404, 409, 422))
    def cancel(job_id: str) -> Job:
        """Stop the job: no further day starts, and running days are ended. Finished days stay."""
        return service.cancel(job_id)

    @router.post("/backfill/{job_id}/retry", status_code=202, responses=problems.responses(404, 409, 422))
    def retry(job_id: str) -> Job:
        """Run the failed, held, missing, unreadable and canceled days again, as the job's next attempt."""
        return service.retry(job_id)

    return router


def _reading(service: Backfills) -> APIRouter:
    router = APIRouter(prefix=_PREFIX, tags=["backfill"])

    @router.get(
        "/backfill/status/{job_id}",
        response_model=JobStatus,
        responses={
            304: {"description": "Nothing has changed since the answer with this ETag."},
            **problems.responses(404, 422),
        },
    )
    def status(job_id: str, if_none_match: Annotated[str, Header(max_length=200)] = "") -> Response:
        """Return the job with each of its days; with ``If-None-Match``, only if it has changed."""
        return _tagged(*service.status_json(job_id), if_none_match)

    @router.get("/backfill/recent", responses=problems.responses(422))
    def recent(limit: Annotated[int, Query(ge=1, le=1_000)] = 20, state: JobState | None = None) -> Jobs:
        """Return jobs, the newest first."""
        return Jobs(jobs=tuple(service.recent(limit, state)))

    @router.get("/plan", responses=problems.responses(422))
    def plan(
        start: Annotated[Day, Query(description="First day, in UTC.")],
        end: Annotated[Day, Query(description="Last day, included.")],
        exchanges: Annotated[list[Name], Query(max_length=100)] = [],  # noqa: B006
        symbols: Annotated[list[Name], Query(max_length=1_000)] = [],  # noqa: B006
        data_types: Annotated[list[Name], Query(max_length=100)] = [],  # noqa: B006
        refresh: bool = False,
        all_days: bool = False,
        at_once: Annotated[int | None, Query(ge=1, le=1_000)] = None,
        order: Literal["oldest", "newest"] = "oldest",
    ) -> Plan:
        """Return the files, loads, storage and time of such a backfill without starting it."""
        return service.plan(
            BackfillRequest(
                start=start,
                end=end,
                exchanges=tuple(exchanges),
                symbols=tuple(symbols),
                data_types=tuple(data_types),
                refresh=refresh,
                all_days=all_days,
                at_once=at_once,
                order=order,
            )
        )

    @router.get("/days", responses=problems.responses(422))
    def days(
        first: Annotated[Day, Query(alias="from", description="First day.")],
        last: Annotated[Day, Query(alias="to", description="Last day, included.")],
    ) -> Calendar:
        """Return the calendar: the days readable in the warehouse, and the feeds left out."""
        return Calendar(days=tuple(service.days(first, last)))

    @router.get("/incidents")
    def incidents(
        all_of_them: Annotated[
            bool, Query(alias="all", description="Include incidents that ended in the last 90 days.")
        ] = False,
    ) -> IncidentList:
        """Return incidents that wait for a person: held, late and failed days and the like."""
        found = service.incidents()
        shown = sorted(found.incidents, key=lambda i: i.opened) if all_of_them else found.open
        names = tuple(IncidentStatus.model_fields)
        return IncidentList(
            incidents=tuple(IncidentStatus(**{name: getattr(i, name) for name in names}) for i in shown),
            failure=found.trouble,
            failing=found.failing,
        )

    @router.get(
        "/backfill/{job_id}/events",
        response_class=StreamingResponse,
        responses={
            200: {
                "content": {"text/event-stream": {"schema": {"type": "string"}}},
                "description": "One event per change: its data is the job, and its id the revision.",
            },
            204: {"description": "The job has ended, and no change is newer than Last-Event-ID."},
            **problems.responses(404, 422),
        },
    )
    async def events(job_id: str, last_event_id: Annotated[str | None, Header()] = None) -> Response:
        """Stream the job's changes as server-sent events until it has ended."""
        seen = seen_revision(last_event_id)
        try:
            job = await run_in_threadpool(service.job, job_id)
        except TransientFailure:
            # A browser that reconnects would give up for good.
            if not seen:
                raise
        else:
            if job.state in FINAL_JOB_STATES and job.revision == seen:
                return Response(status_code=204)
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        return StreamingResponse(
            changes(service, job_id, seen), media_type="text/event-stream", headers=headers
        )

    return router


#: First and last day of a range, both included.
_From = Annotated[Day, Query(alias="from", description="First day, in UTC.")]
_To = Annotated[Day, Query(alias="to", description="Last day, included.")]
_Tag = Annotated[str, Header(max_length=200)]


def _data(service: Backfills) -> APIRouter:
    router = APIRouter(
        prefix=_PREFIX,
        tags=["data"],
        responses={
            304: {"description": "Nothing has changed since the answer with this ETag."},
            **problems.responses(422),
        },
    )

    @router.get("/coverage/{exchange}/{symbol}", response_model=MarketCoverage)
    def coverage(
        exchange: Name,
        symbol: Name,
        first: _From,
        last: _To,
        timeframe: Annotated[Name, Query()] = BASE_TIMEFRAME,
        if_none_match: _Tag = "",
    ) -> Response:
        """Return condition, last change and bucket states of one market, day by day."""
        return _answer(service.coverage(exchange, symbol, first, last, timeframe), if_none_match)

    @router.get("/quality", response_model=QualityAnswer)
    def quality(
        first: _From,
        last: _To,
        exchange: Annotated[str, Query(max_length=100)] = "",
        symbol: Annotated[str, Query(max_length=100)] = "",
        data_type: Annotated[str, Query(max_length=100)] = "",
        if_none_match: _Tag = "",
    ) -> Response:
        """Return condition, last change and evidence of each feed, day by day."""
        return _answer(service.quality(first, last, exchange, symbol, data_type), if_none_match)

    return router


def _answer(found: BaseModel, if_none_match: str) -> Response:
    text = found.model_dump_json()
    return _tagged(text, hashlib.sha256(text.encode()).hexdigest(), if_none_match)


def _tagged(text: str, digest: str, if_none_match: str) -> Response:
    """Answer with the JSON and its ETag, or with 304 if the client has it."""
    tag = f'"{digest}"'
    if tag in if_none_match:
        return Response(status_code=304, headers={"ETag": tag})
    return Response(text, media_type=_JSON, headers={"ETag": tag})


def _operating(service: Backfills, metrics: Metrics) -> APIRouter:
    router = APIRouter(tags=["operation"])

    @router.get("/healthz", response_class=PlainTextResponse)
    async def healthz() -> str:
        """Confirm that the process answers."""
        return "ok\n"

    @router.get("/readyz", response_class=PlainTextResponse)
    def readyz(request: Request) -> Response:
        """Confirm that the database answers and Dagster's daemon is alive; a 503 lists the failures.

        Undelivered messages do not make the service unready; the answer mentions them.
        """
        troubles = service.troubles()
        if troubles:
            return problems.problem(request, 503, "; ".join(troubles))
        try:
            failure = service.incidents().trouble
        except BackfillError as unread:
            failure = str(unread)
        return PlainTextResponse(f"ready\nalerts: {failure}\n" if failure else "ready\n")

    @router.get("/metrics", response_class=PlainTextResponse)
    def read_metrics() -> Response:
        """Return the metrics for Prometheus."""
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)

    return router


def _describe_problems(app: FastAPI) -> None:
    """Add the schema of problems, to which the routes' entries refer, to the OpenAPI document."""
    original = app.openapi

    def openapi() -> dict[str, object]:
        document = original()
        schema = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
        schemas = document.setdefault("components", {}).setdefault("schemas", {})
        schemas |= schema.pop("$defs", {})
        schemas["Problem"] = schema
        return document

    app.openapi = openapi  # type: ignore[method-assign]
