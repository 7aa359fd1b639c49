"""Templates, static files, and the headers that every page goes out with.

Style attributes and inline scripts are forbidden by the policy, so a length is the value of a ``progress``
element and a color is a class. The day's report brings its style and scripts inside itself; it is served in
a sandbox of its own origin, so that nothing in it can read the token that this page keeps.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import jinja2
from fastapi.responses import HTMLResponse, Response
from markupsafe import Markup

from backfill_assets.alerts.incidents import Incident
from backfill_assets.failures import printable
from backfill_assets.progress.page import view
from backfill_assets.progress.plan_money import money_text
from backfill_assets.quality.remedies import approve_command
from backfill_assets.readable_numbers import bytes_text, plural, seconds_text
from backfill_assets.report import page as report_page

_HERE: Final = Path(__file__).parent
_REPORT: Final = Path(report_page.__file__).parent
POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
#: The report's own policy, without this page's origin; its links may leave the sandbox.
REPORT_POLICY: Final = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:; "
    "base-uri 'none'; frame-ancestors 'none'; "
    "sandbox allow-scripts allow-popups allow-popups-to-escape-sandbox"
)
_COMMON: Final = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
#: Names of static files, with where they lie; templates are rendered, all others sent as they are.
STATIC: Final = {
    "htmx.min.js": ("text/javascript", _HERE / "static"),
    "page.js": ("text/javascript", _HERE / "static"),
    "page.css": ("text/css", _HERE / "static"),
    "theme.js": ("text/javascript", _REPORT / "templates"),
    "report.css": ("text/css", _REPORT / "templates"),
}

#: Incidents of a day or a month that its report shows.
_MOST_INCIDENTS: Final = 50


@lru_cache(maxsize=1)
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([_HERE / "templates", _REPORT / "templates"]),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
        finalize=_shown,
    )
    environment.filters.update(
        score=report_page.score,
        moment=report_page.moment,
        bytes=bytes_text,
        seconds=seconds_text,
        plural=plural,
        money=money_text,
        days=view.days_words,
        span=view.span,
    )
    environment.globals.update(
        STATES=view.STATES,
        JOB_STATES=view.JOB_STATES,
        ASSET_SIGNS=view.ASSET_SIGNS,
        approve_command=approve_command,
        asset_url=asset_url,
        by_state=view.by_state,
        needs_a_look=view.needs_a_look,
        steps=view.steps,
        MOST_INCIDENTS=_MOST_INCIDENTS,
    )
    return environment


def _shown(value: object) -> object:
    """The value as it is written into a page: words of others must not turn the words around them.

    The filter ``e`` leaves a value as it is, for a field that is sent back.
    """
    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    return "\n".join(printable(line) for line in value.split("\n"))


def text(name: str, **context: Any) -> str:
    """A template as text."""
    return _environment().get_template(name).render(**context)


def page(name: str, status: int = 200, headers: dict[str, str] | None = None, **context: Any) -> HTMLResponse:
    """A template as an answer."""
    sent = {**_COMMON, "Content-Security-Policy": POLICY, **(headers or {})}
    return HTMLResponse(text(name, **context), status, sent)


def live(name: str, seen: str, **context: Any) -> Response:
    """A part that asks for itself again: 204 while it is what the browser has, so that nothing flickers.

    Focus and what a screen reader is reading stay where they are as well.
    """
    made = hashlib.sha256(text(name, mark="", **context).encode()).hexdigest()[:16]
    if made == seen:
        return Response(status_code=204, headers=_COMMON)
    return page(name, mark=made, **context)


def report(content: bytes, incidents: Sequence[Incident], now: datetime) -> HTMLResponse:
    """A page of the lake, as it lies there, with its incidents below the headline.

    The lake's page does not have them: ages change by the minute, and pages follow from the data alone.
    """
    if incidents:
        head, end, rest = content.partition(b"</section>")
        shown = text("report_incidents.html.j2", incidents=incidents, now=now) if end else ""
        content = b"".join([head, end, shown.encode(), rest])
    return HTMLResponse(content, headers={**_COMMON, "Content-Security-Policy": REPORT_POLICY})


def asset_url(name: str) -> str:
    """The address of a static file; it changes with the content, so browsers may keep it."""
    return f"/static/{name}?v={hashlib.sha256(_static(name)).hexdigest()[:12]}"


def static(name: str) -> Response | None:
    """A static file, or None where there is none of that name."""
    if name not in STATIC:
        return None
    headers = {"Cache-Control": "public, max-age=31536000, immutable", "X-Content-Type-Options": "nosniff"}
    return Response(_static(name), media_type=STATIC[name][0], headers=headers)


@lru_cache(maxsize=len(STATIC))
def _static(name: str) -> bytes:
    if name == "report.css":
        return text(name).encode()
    return (STATIC[name][1] / name).read_bytes()
