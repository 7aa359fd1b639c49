"""Templates, static files, and the headers of every page.

The policy forbids style attributes and inline scripts, so a length is the value of a ``progress`` element and
a color is a class. The day's report contains its own style and scripts; it is served in a sandbox with its
own origin, so that nothing in it can read the token kept by this page.
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
#: Static files by name, with their folders; templates are rendered, and all others are sent as they are.
STATIC: Final = {
    "htmx.min.js": ("text/javascript", _HERE / "static"),
    "page.js": ("text/javascript", _HERE / "static"),
    "page.css": ("text/css", _HERE / "static"),
    "theme.js": ("text/javascript", _REPORT / "templates"),
    "report.css": ("text/css", _REPORT / "templates"),
}

#: Most incidents of a day or a month that its report shows.
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
    """Return the value as written into a page: foreign text must not change the direction of text around it.

    The filter ``e`` leaves a value unchanged, for a field that is sent back.
    """
    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    return "\n".join(printable(line) for line in value.split("\n"))


def text(name: str, **context: Any) -> str:
    """Render a template as text."""
    return _environment().get_template(name).render(**context)


def page(name: str, status: int = 200, headers: dict[str, str] | None = None, **context: Any) -> HTMLResponse:
    """Render a template as an answer."""
    sent = {**_COMMON, "Content-Security-Policy": POLICY, **(headers or {})}
    return HTMLResponse(text(name, **context), status, sent)


def live(name: str, seen: str, **context: Any) -> Response:
    """Return a self-refreshing part, or 204 if the browser already has it, so that nothing flickers.

    The focus and the place of a screen reader also stay.
    """
    made = hashlib.sha256(text(name, mark="", **context).encode()).hexdigest()[:16]
    if made == seen:
        return Response(status_code=204, headers=_COMMON)
    return page(name, mark=made, **context)


def report(content: bytes, incidents: Sequence[Incident], now: datetime) -> HTMLResponse:
    """Return a page of the lake unchanged, with its incidents below the headline.

    The lake's page does not contain them: ages change by the minute, and pages depend only on the data.
    """
    if incidents:
        head, end, rest = content.partition(b"</section>")
        shown = text("report_incidents.html.j2", incidents=incidents, now=now) if end else ""
        content = b"".join([head, end, shown.encode(), rest])
    return HTMLResponse(content, headers={**_COMMON, "Content-Security-Policy": REPORT_POLICY})


def asset_url(name: str) -> str:
    """Return the address of a static file; it changes with the content, so browsers may cache it."""
    return f"/static/{name}?v={hashlib.sha256(_static(name)).hexdigest()[:12]}"


def static(name: str) -> Response | None:
    """Return the static file of that name, or None."""
    if name not in STATIC:
        return None
    headers = {"Cache-Control": "public, max-age=31536000, immutable", "X-Content-Type-Options": "nosniff"}
    return Response(_static(name), media_type=STATIC[name][0], headers=headers)


@lru_cache(maxsize=len(STATIC))
def _static(name: str) -> bytes:
    if name == "report.css":
        return text(name).encode()
    return (STATIC[name][1] / name).read_bytes()
