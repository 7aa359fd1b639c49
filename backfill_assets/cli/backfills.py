"""Commands of backfills: plan, start, watch, cancel and retry, and the service."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import click

from backfill_assets.cli.group import BACKFILLS, DAY, NAMES, console, json_text, main
from backfill_assets.failures import PermanentFailure, printable


def days_and_feeds(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options of a backfill and its plan."""
    for option in (
        click.option("--order", metavar="oldest|newest", help="Days that run first; default: the oldest."),
        click.option(
            "--at-once", metavar="N", help="Most days to run at once; default: as many as the queue allows."
        ),
        click.option("--all-days", is_flag=True, help="Also run days that are already good."),
        click.option("--refresh", is_flag=True, help="Fetch again files that the lake has."),
        click.option("--data-types", type=NAMES, default="", help="Fetch only these data types again."),
        click.option("--symbols", type=NAMES, default="", help="Fetch only these canonical symbols again."),
        click.option("--exchanges", type=NAMES, default="", help="Fetch only these exchanges' feeds again."),
        click.option("--end", type=DAY, required=True, help="Last day, included."),
        click.option("--start", type=DAY, required=True, help="First day, in UTC."),
    ):
        command = option(command)
    return command


@main.command(section=BACKFILLS, example="plan --start 2024-01-01 --end 2024-01-31")
@days_and_feeds
@click.option("--online", is_flag=True, help="Ask Tardis for the symbols listed on days that were never run.")
@click.option("--json", "as_json", is_flag=True, help="The plan as JSON, as in the API.")
def plan(online: bool, as_json: bool, **fields: Any) -> None:
    """Plan a backfill: its work and its cost.

    It shows the files, loads, storage and time, and the days that are already good; it writes nothing.
    """
    from backfill_assets.automation.history import measured_runs
    from backfill_assets.automation.run_order import backfill_places
    from backfill_assets.lake.store import open_store
    from backfill_assets.orchestration import open_instance
    from backfill_assets.progress.plan import make_plan, vendor_listing
    from backfill_assets.progress.plan_text import plan_text
    from backfill_assets.progress.request import backfill_request
    from backfill_assets.settings import current_settings
    from backfill_assets.tardis.client import TardisClient

    settings = current_settings()
    with open_instance() as instance:
        runs, at_once = measured_runs(instance), backfill_places(instance)
    found = make_plan(
        open_store(settings.lake),
        settings,
        backfill_request(fields),
        runs=runs,
        runs_at_once=at_once,
        listing=vendor_listing(TardisClient(settings.tardis), settings) if online else None,
    )
    click.echo(json_text(found.model_dump_json(indent=2)) if as_json else plan_text(found))


@main.command(section=BACKFILLS, example="serve --port 3080")
@click.option("--host", default="", help="Address to listen at; default: serve.host.")
@click.option("--port", type=click.IntRange(0, 65535), help="0 takes a free port; default: serve.port.")
@click.option("--with-ui", is_flag=True, help="Also serve the Dagster UI, under /dagster.")
def serve(host: str, port: int | None, with_ui: bool) -> None:
    """Serve page and API: start, watch, cancel and retry backfills.

    Ctrl-C ends it, with exit code 0.
    """
    from backfill_assets.progress.server import serve as run_server

    # The server shuts down in order, then raises the interrupt again.
    with suppress(KeyboardInterrupt):
        run_server(_asset_graph, host=host, port=port, with_ui=with_ui, say=click.echo)


@main.command(
    section=BACKFILLS,
    example='backfill --start 2024-01-01 --end 2024-01-31 --reason "first month" --wait',
)
@days_and_feeds
@click.option("--reason", default="", help="The reason for the job, for later readers.")
@click.option("--request-id", help="Repeating an id returns the same job instead of a new one.")
@click.option("--wait", is_flag=True, help="Watch the job until it has ended; the exit code is its outcome.")
def backfill(wait: bool, **fields: Any) -> None:
    """Start a backfill of a range of days.

    Dagster's daemon runs it. Exit codes of --wait are 0: all published, 1: failed or held days, 3: canceled.
    """
    from backfill_assets.progress import commands
    from backfill_assets.progress.request import backfill_request

    request = backfill_request(fields)
    with _backfills() as service:
        job, is_new = service.create(request, commands.requester())
        click.echo(commands.started(job, is_new=is_new))
        if wait:
            sys.exit(commands.wait(service, job.job_id, click.echo, console()))
        click.echo(f"backfill-assets status {job.job_id} shows its progress")
        for trouble in service.troubles():
            click.echo(f"! {printable(trouble)}", err=True)


@main.command(section=BACKFILLS, example="status twqndbej")
@click.argument("job")
@click.option("--json", "as_json", is_flag=True, help="With every day, as in the API.")
def status(job: str, as_json: bool) -> None:
    """Show the progress of a backfill and the outcome of its days."""
    from backfill_assets.progress import commands

    with _backfills() as service:
        if as_json:
            click.echo(json_text(service.status_json(job)[0]))
        else:
            click.echo(commands.status_text(service.status(job)))


@main.command(section=BACKFILLS, example="recent --state failed")
@click.option(
    "--limit", type=click.IntRange(1, 1_000), default=20, show_default=True, help="How many to list."
)
@click.option(
    "--state",
    type=click.Choice(["queued", "running", "canceling", "canceled", "succeeded", "failed"]),
    help="Only backfills in this state.",
)
@click.option("--json", "as_json", is_flag=True, help="As in the API.")
def recent(limit: int, state: Any, as_json: bool) -> None:
    """List backfills, the newest first."""
    from backfill_assets.progress import commands
    from backfill_assets.progress.model import Jobs

    with _backfills() as service:
        jobs = service.recent(limit, state)
    if as_json:
        click.echo(json_text(Jobs(jobs=tuple(jobs)).model_dump_json()))
    else:
        commands.show_recent(jobs, console())


@main.command(section=BACKFILLS, example="cancel twqndbej")
@click.argument("job")
def cancel(job: str) -> None:
    """Stop a backfill.

    No further day starts, running days are ended, and finished days stay.
    """
    with _backfills() as service:
        click.echo(f"{job} is {service.cancel(job).state}")


@main.command(section=BACKFILLS, example="retry twqndbej --wait")
@click.argument("job")
@click.option("--wait", is_flag=True, help="Watch the job until it has ended, like backfill --wait.")
def retry(job: str, wait: bool) -> None:
    """Run the bad days of a backfill again.

    These are failed, held, missing, unreadable and canceled days, and those that lack a file.
    """
    from backfill_assets.progress import commands

    with _backfills() as service:
        again = service.retry(job)
        click.echo(f"{job} is {again.state}, attempt {again.attempt}")
        if wait:
            sys.exit(commands.wait(service, job, click.echo, console()))


@contextmanager
def _backfills() -> Iterator[Any]:
    from backfill_assets.progress.service import open_backfills
    from backfill_assets.progress.statuses import UnknownJob

    with open_backfills(_asset_graph) as service:
        try:
            yield service
        except UnknownJob as failure:
            msg = f"{failure}: backfill-assets recent lists them"
            raise PermanentFailure(msg) from failure


def _asset_graph() -> Any:
    from backfill_assets.definitions import defs

    return defs.resolve_asset_graph()
