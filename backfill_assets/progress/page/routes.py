"""The addresses of the page; each calls the service and renders its answer or its refusal.

Changing addresses are behind the guard like those of the API: the page's script sends the token from the
tab's memory with every change, as ``Authorization``. A change must also carry the header that htmx sets,
which a form of another site cannot; so no other site can start a backfill through a user's browser.
"""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date
from typing import Annotated, Any, Final
from urllib.parse import parse_qs
from uuid import uuid4

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import RedirectResponse
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

from backfill_assets.alerts.incidents import Incident, Incidents
from backfill_assets.automation.due import look_back
from backfill_assets.days import parse_day, shift, utc_now
from backfill_assets.failures import BackfillError, PermanentFailure
from backfill_assets.progress.guard import Refusal
from backfill_assets.progress.model import CalendarDay, Day, Job
from backfill_assets.progress.page import render, view
from backfill_assets.progress.problems import RETRY_AFTER_SECONDS, status_of
from backfill_assets.progress.request import InvalidRequest, backfill_request
from backfill_assets.progress.selection import PARTS
from backfill_assets.progress.service import DAYS_OF_RUNS, Backfills
from backfill_assets.progress.statuses import UnknownJob

#: Prefix of addresses of parts of the page, whose errors are also parts.
PARTS_PREFIX: Final = "/page/"
#: Jobs in the table of the latest backfills.
RECENT: Final = 12
#: Seconds between readings of the calendar while no job ends; the schedule adds a day once a day.
SECONDS_BETWEEN_READS: Final = 30.0
_SINGLE: Final = ("start", "end", "reason", "request_id", "at_once", "order")
_PAGE_NAME: Final = re.compile(r"[0-9]{4}-[0-9]{2}(-[0-9]{2})?")
Seen = Annotated[str, Query(max_length=16)]
Year = Annotated[int | None, Query(ge=2000, le=2999)]


def page_router(service: Backfills, *, needs_token: bool = False) -> APIRouter:
    """Return all routes of the page; with ``needs_token`` it has a field for the token."""
    router = APIRouter(include_in_schema=False)
    _add_reading(router, service, needs_token=needs_token)
    _add_changing(router, service)
    return router


def refused_part(refusal: Refusal) -> Response:
    """Return the guard's refusal as text beside the form or the button."""
    words = (
        "This needs the token: type it at the top of the page, then try again."
        if refusal.status == 401
        else f"Refused: {refusal.detail}."
    )
    return render.page("problem.html.j2", refusal.status, texts=(words,))


@dataclass(slots=True)
class _Days:
    """The calendar of a year, shared by all browsers, and read again when a job has ended or after a while.

    Reading it takes a read of the lake per day, and the top of the page is requested every other second.
    """

    service: Backfills
    found: dict[int | None, tuple[float, str, dict[str, Any]]] = field(default_factory=dict)

    def of(self, year: int | None, ended: str) -> dict[str, Any]:
        """Return the values of the calendar's template; ``ended`` as in ``view.Now``."""
        read, known, content = self.found.get(year, (0.0, "", {}))
        if not content or known != ended or time.monotonic() - read > SECONDS_BETWEEN_READS:
            content = _calendar(self.service, year)
            self.found[year] = (time.monotonic(), ended, content)
        return content


def _add_reading(router: APIRouter, service: Backfills, *, needs_token: bool) -> None:
    calendars = _Days(service)

    def current(year: int | None = None) -> dict[str, Any]:
        moment = utc_now()
        active, recent = service.unfinished(), service.recent(RECENT)
        newest = calendars.of(None, view.ended(active, recent))
        now = view.now_view(active, recent, moment, newest["to_do"])
        etas = {job.job_id: view.eta_words(job, moment) for job in now.active}
        shown = newest if year is None else calendars.of(year, now.ended)
        return {"now": now, "etas": etas, "newest": newest, "calendar": shown}

    @router.get("/")
    def index() -> Response:
        settings = service.settings
        yesterday = shift(utc_now().date().isoformat(), -1)
        return render.page(
            "index.html.j2",
            mark="",
            needs_token=needs_token,
            environment=settings.name,
            choices={
                part: sorted({name for entry in settings.universe for name in getattr(entry, part)})
                for part in PARTS
            },
            yesterday=yesterday,
            dagster_url=settings.serve.dagster_url,
            **current(),
        )

    @router.get("/page/now")
    def now(seen: Seen = "") -> Response:
        return render.live("now.html.j2", seen, **current())

    @router.get("/page/calendar")
    def calendar(year: Year = None, seen: Seen = "") -> Response:
        return render.live("calendar.html.j2", seen, calendar=current(year)["calendar"])

    @router.get("/page/plan")
    def plan(request: Request) -> Response:
        try:
            wanted = backfill_request(_values(parse_qs(request.url.query)))
            found = service.plan(wanted)
        except BackfillError as failure:
            return _refused(failure)
        return render.page(
            "plan.html.j2", plan=found, wanted=wanted, request_id=wanted.request_id or f"page-{uuid4()}"
        )

    @router.get("/jobs/{job_id}")
    def job(job_id: str) -> Response:
        try:
            return render.page("job_page.html.j2", mark="", needs_token=needs_token, **_job(service, job_id))
        except UnknownJob as failure:
            return render.page("lost.html.j2", 404, text=str(failure), needs_token=needs_token)

    @router.get("/page/jobs/{job_id}")
    def job_part(job_id: str, seen: Seen = "") -> Response:
        return render.live("job.html.j2", seen, **_job(service, job_id))

    @router.get("/days/{day}/report")
    def day_report(day: Day) -> Response:
        return RedirectResponse(f"/reports/{day.isoformat()}.html", 307)

    @router.get("/reports/{name}.html")
    def report(name: str) -> Response:
        try:
            content = service.report(name) if _PAGE_NAME.fullmatch(name) else None
        except PermanentFailure:
            content = None
        if content is None:
            words = f"The lake has no page of {name}: it is written when a day is run."
            return render.page("lost.html.j2", 404, text=words, needs_token=needs_token)
        return render.report(content, _incidents_of(service, name), utc_now())

    @router.get("/static/{name}")
    def static(name: str) -> Response:
        found = render.static(name)
        if found is None:
            raise HTTPException(404)
        return found


def _add_changing(router: APIRouter, service: Backfills) -> None:
    def refusal(request: Request) -> Response | None:
        if request.headers.get("hx-request") == "true":
            return None
        return refused_part(Refusal(403, "not sent by this page"))

    @router.post("/page/start")
    async def start(request: Request) -> Response:
        if (refused := refusal(request)) is not None:
            return refused
        values = _values(parse_qs((await request.body()).decode("utf-8", "replace")))
        who = request.client.host if request.client else ""

        def create() -> tuple[Job, bool]:
            return service.create(backfill_request(values), f"page, {who}")

        try:
            job, is_new = await run_in_threadpool(create)
        except BackfillError as failure:
            return _refused(failure)
        return render.page(
            "started.html.j2", 202 if is_new else 200, {"HX-Trigger": "jobs-changed"}, job=job, is_new=is_new
        )

    def changed(request: Request, change: Callable[[str], Job], job_id: str) -> Response:
        if (refused := refusal(request)) is not None:
            return refused
        try:
            job = change(job_id)
        except BackfillError as failure:
            return _refused(failure)
        return render.page("changed.html.j2", 202, {"HX-Trigger": "jobs-changed"}, job=job)

    @router.post("/page/jobs/{job_id}/cancel")
    def cancel(request: Request, job_id: str) -> Response:
        return changed(request, service.cancel, job_id)

    @router.post("/page/jobs/{job_id}/retry")
    def retry(request: Request, job_id: str) -> Response:
        return changed(request, service.retry, job_id)


def _refused(failure: BackfillError) -> Response:
    """Return the failure as text beside the form or the button."""
    texts = [e.detail for e in failure.errors] if isinstance(failure, InvalidRequest) else [str(failure)]
    status = status_of(failure)
    headers = {"Retry-After": RETRY_AFTER_SECONDS} if status == 503 else {}
    return render.page("problem.html.j2", status, headers, texts=texts)


def _values(form: dict[str, list[str]]) -> dict[str, object]:
    single = {name: form.get(name, [""])[0] for name in _SINGLE}
    many = {part: tuple(name for name in form.get(part, []) if name) for part in PARTS}
    return {**single, **many, **{flag: flag in form for flag in ("refresh", "all_days")}}


def _calendar(service: Backfills, year: int | None) -> dict[str, Any]:
    today = utc_now().date()
    years = [known for known in service.years() if known <= today.year]
    shown = min(year or (years[-1] if years else today.year), today.year)
    first, last = view.year_range(shown, today, service.settings.serve.max_days)
    days = service.days(first, last)
    return {
        "year": shown,
        # If no year is chosen, the page moves to the newest by itself when a job begins there.
        "chosen": year is not None,
        "years": sorted({*years, today.year, shown}),
        "months": view.months(days),
        "counts": Counter(day.outcome for day in days),
        "to_do": _to_do(service, days, today) if year is None else [],
        "days_of_runs": DAYS_OF_RUNS,
        "incidents": _incidents(service) if year is None else [],
    }


def _incidents(service: Backfills) -> list[tuple[str, str]]:
    """Return name and age of each open incident, the oldest first."""
    now = utc_now()
    return [(incident.name, incident.age(now)) for incident in _known_incidents(service).open]


def _incidents_of(service: Backfills, name: str) -> list[Incident]:
    """Return incidents of a day or a month: open ones, oldest first, then the others, newest first."""
    known = _known_incidents(service)
    ended = sorted((i for i in known.incidents if i.closed), key=lambda i: i.opened, reverse=True)
    return [incident for incident in (*known.open, *ended) if incident.day.startswith(name)]


def _known_incidents(service: Backfills) -> Incidents:
    """Return the incidents of the last look; none if they cannot be read."""
    try:
        return service.incidents()
    except BackfillError:
        return Incidents()


def _to_do(service: Backfills, days: list[CalendarDay], today: date) -> list[view.Trouble]:
    """Return the days that wait for a person.

    They are among the newest year's days and the schedule's look-back, or their last run failed by itself.
    """
    shown = {day.day for day in days}
    others = [parse_day(day) for day in look_back(today, service.settings) if day not in shown]
    before = service.days(others[0], others[-1]) if others else []
    found = view.days_to_look_at([*days, *(day for day in before if day.day not in shown)])
    known = {day.day for day in (*found, *(day for day in days if day.job_state))}
    failed = [run for run in service.failed_runs(utc_now()) if run.day not in known]
    told = view.day_troubles(found, service.stored([day.day for day in found[: view.DAYS_TOLD]]))
    return [*told, *view.run_troubles(failed)]


def _job(service: Backfills, job_id: str) -> dict[str, Any]:
    status = service.status(job_id)
    rows, left_out = view.rows(status)
    return {"job": status, "rows": rows, "left_out": left_out, "eta": view.eta_words(status, utc_now())}
