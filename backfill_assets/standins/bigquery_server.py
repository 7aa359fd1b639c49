"""The process behind ``bigquery``: bqemulator 1.4.0, with load jobs as the service runs them.

Without patches, the emulator refuses ``table$YYYYMMDD``, empties a table whose load fails, matches Parquet
columns by position, hides the text of views, accepts nulls in required columns, runs a job id twice, never
has a job that is still running, and needs an extension from the network to start. This file replaces the
emulator's loads with its own: one transaction, rows of the named partition only, columns by name, 409 for a
job id that was used, cancellation. It patches internals, so the version is pinned. ``POST /faults`` sets the
``LoadFaults``; ``GET /faults`` returns those that are left.

It prints its URL in the first line and serves until it is ended.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, TextIO
from uuid import uuid4

from backfill_assets.standins.bigquery import PROJECT, LoadFaults


@dataclass
class _State:
    """The faults that are left, and whether each load was canceled."""

    faults: LoadFaults = field(default_factory=LoadFaults)
    cancelled: dict[tuple[str, str], asyncio.Event] = field(default_factory=dict)
    running: set[asyncio.Task[None]] = field(default_factory=set)

    def takes(self, name: str) -> bool:
        """Use up one of the counted faults; False when none is left."""
        left = getattr(self.faults, name)
        self._leave(name, max(0, left - 1))
        return bool(left)

    def takes_table(self, name: str, table: str) -> bool:
        """Use up an entry of the table; False if there is none."""
        left = list(getattr(self.faults, name))
        if table not in left:
            return False
        left.remove(table)
        self._leave(name, left)
        return True

    def _leave(self, name: str, left: Any) -> None:
        self.faults = replace(self.faults, **{name: left})

    def delay_of(self, table: str) -> float:
        """Return how long a load of the table that begins now takes."""
        is_slow = self.faults.slow_tables is None or self.takes_table("slow_tables", table)
        return self.faults.load_delay_seconds if is_slow else 0.0

    def error_of(self, table: str) -> Mapping[str, str] | None:
        """Return the error of a load of the table that has read its rows; None if it succeeds."""
        errors = list(self.faults.load_errors)
        found = next((e for e in errors if e.get("table", table) == table), None)
        if found is not None:
            errors.remove(found)
            self._leave("load_errors", errors)
        return found


class LoadError(Exception):
    """A load fails with this reason and message, and without effect."""

    def __init__(self, *, reason: str, message: str) -> None:
        super().__init__(message)
        self.error = {"reason": reason, "message": message}


def _unavailable(message: str) -> dict[str, Any]:
    return {"error": {"code": 503, "message": message, "errors": []}}


def _columns(schema: Any) -> dict[str, Any]:
    return {column.name: column for column in schema.fields}


def _execute(config: dict[str, Any], project: str, ctx: Any, state: _State) -> dict[str, str]:
    """Do the load in one transaction and return its statistics; a ``LoadError`` changes nothing."""
    from bqemulator.storage.sql_identifiers import quoted_table_ref

    destination = config["destinationTable"]
    table, _, partition = destination["tableId"].partition("$")
    owner, dataset = destination.get("projectId", project), destination["datasetId"]
    meta = ctx.catalog.get_table(owner, dataset, table)
    if meta is None:
        raise LoadError(reason="notFound", message=f"Not found: Table {owner}:{dataset}.{table}")
    paths = _source_paths(config["sourceUris"], ctx)
    target = quoted_table_ref(owner, dataset, table)
    quoted = ", ".join("'" + path.replace("'", "''") + "'" for path in paths)
    source = f"read_parquet([{quoted}], union_by_name = true)"
    inside = "true"
    if partition:
        day = f"{partition[:4]}-{partition[4:6]}-{partition[6:]}"
        inside = f"\"{meta.time_partitioning.field}\" = DATE '{day}'"
    execute = ctx.engine.execute
    execute("BEGIN TRANSACTION")
    try:
        _check_rows(execute, meta, source, inside, f"{owner}:{dataset}.{destination['tableId']}")
        rows = execute(f"SELECT count(*) FROM {source}").fetchone()[0]
        if config.get("writeDisposition") == "WRITE_TRUNCATE":
            execute(f"DELETE FROM {target} WHERE {inside}")
        execute(f"INSERT INTO {target} BY NAME SELECT * FROM {source}")
        if error := state.error_of(table):
            raise LoadError(reason=error["reason"], message=error["message"])
        execute("COMMIT")
    except Exception:
        execute("ROLLBACK")
        raise
    return {"outputRows": str(rows), "inputFiles": str(len(paths)), "inputFileBytes": "0", "outputBytes": "0"}


def _source_paths(uris: list[str], ctx: Any) -> list[str]:
    from bqemulator.jobs import executor

    paths: list[str] = []
    for uri in uris:
        pattern = Path(executor._resolve_uri(uri, ctx))
        found = sorted(str(path) for path in pattern.parent.glob(pattern.name))
        if not found:
            raise LoadError(reason="notFound", message=f"Not found: URI {uri}")
        paths += found
    return paths


def _check_rows(execute: Any, meta: Any, source: str, inside: str, name: str) -> None:
    there = {row[0]: row[1] for row in execute(f"DESCRIBE SELECT * FROM {source}").fetchall()}
    wanted = _columns(meta.schema_)
    for column in there:
        if column not in wanted:
            raise LoadError(
                reason="invalid",
                message=f"Provided Schema does not match Table {name}. Cannot add field {column}",
            )
    for column, declared in wanted.items():
        if declared.mode != "REQUIRED":
            continue
        if column not in there:
            raise LoadError(
                reason="invalid", message=f"Provided Schema does not match Table {name}. Missing {column}"
            )
        if execute(f'SELECT 1 FROM {source} WHERE "{column}" IS NULL LIMIT 1').fetchall():
            raise LoadError(reason="invalid", message=f"Required column {column} has nulls")
    if execute(f"SELECT 1 FROM {source} WHERE NOT coalesce({inside}, false) LIMIT 1").fetchall():
        raise LoadError(
            reason="invalid",
            message=f"Some rows belong to different partitions rather than destination {name}",
        )


def _install_engine() -> None:
    """Remove parts of the engine that need the network or copy tables."""
    from bqemulator.storage.engine import DuckDBEngine
    from bqemulator.versioning.snapshots import SnapshotManager

    DuckDBEngine._load_spatial = lambda _self: None  # Only GEOGRAPHY needs it, and it is downloaded.
    capture = SnapshotManager.capture
    # Time travel would copy the whole table at each load.
    SnapshotManager.capture = lambda self, *a, kind="AUTO": (
        None if kind == "AUTO" else capture(self, *a, kind=kind)
    )


def _install_jobs(state: _State) -> None:
    """Replace the emulator's load jobs with those of this file; a job id counts once."""
    from bqemulator.api.routes import jobs, upload
    from bqemulator.catalog.models import JobMeta
    from bqemulator.domain.errors import AlreadyExistsError

    upload._PERMITTED_MEDIA_CONTENT_TYPES = (*upload._PERMITTED_MEDIA_CONTENT_TYPES, "*/*")

    def job(project: str, job_id: str, kind: str, config: dict[str, Any], ctx: Any, **more: Any) -> Any:
        now = ctx.clock.now()
        values = {
            "state": "RUNNING",
            "statistics": {},
            "creation_time": now,
            "start_time": now,
            "etag": job_id,
        }
        return JobMeta(
            project_id=project, job_id=job_id, job_type=kind, configuration=config, **{**values, **more}
        )

    def refuse_used_id(project: str, job_id: str | None, ctx: Any) -> None:
        if job_id and ctx.catalog.get_job(project, job_id):
            msg = f"Already Exists: Job {project}:US.{job_id}"
            raise AlreadyExistsError(msg)

    async def finish(running: Any, ctx: Any, delay: float) -> Any:
        cancelled = state.cancelled[running.project_id, running.job_id]
        if delay:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(cancelled.wait(), delay)
        more: dict[str, Any] = {"statistics": {"load": {"outputRows": "0"}}}
        # Only taking the lock awaits below, so a load is one step of the event loop.
        async with ctx.engine.write_lock():
            try:
                if cancelled.is_set():
                    raise LoadError(
                        reason="stopped", message="Job execution was cancelled: User requested cancellation"
                    )
                load = running.configuration["load"]
                more = {"statistics": {"load": _execute(load, running.project_id, ctx, state)}}
            except LoadError as failure:
                more["error_result"] = failure.error
            except Exception as error:  # noqa: BLE001 - the engine's errors are the job's
                more["error_result"] = {"reason": "invalid", "message": f"Error while reading data: {error}"}
        done = running.model_copy(update={"state": "DONE", "end_time": ctx.clock.now(), **more})
        ctx.catalog.upsert_job(done)
        return done

    async def run_load(
        project: str, job_id: str, config: dict[str, Any], ctx: Any, media: Path | None
    ) -> Any:
        table = config["load"]["destinationTable"]["tableId"].partition("$")[0]
        if state.takes_table("used_ids", table):
            ctx.catalog.upsert_job(job(project, job_id, "QUERY", {"query": {}}, ctx, state="DONE"))
        refuse_used_id(project, job_id, ctx)
        state.cancelled[project, job_id] = asyncio.Event()
        running = job(project, job_id, "LOAD", config, ctx)
        ctx.catalog.upsert_job(running)
        delay = state.delay_of(table)
        if not delay:
            return await finish(running, ctx, 0)
        kept = None
        if media is not None:
            # The upload's own file is deleted with the request; the job outlives both.
            kept = media.with_name(f"{media.name}.{uuid4().hex}")
            os.link(media, kept)
            load = {**config["load"], "sourceUris": [f"file://{kept}"]}
            running = running.model_copy(update={"configuration": {**config, "load": load}})

        async def later() -> None:
            await finish(running, ctx, delay)
            if kept is not None:
                kept.unlink()

        task = asyncio.create_task(later())
        state.running.add(task)
        task.add_done_callback(state.running.discard)
        return running

    async def insert_load(project: str, job_id: str, config: dict[str, Any], ctx: Any) -> Any:
        return await run_load(project, job_id, config, ctx, None)

    async def upload_load(
        *, project_id: str, configuration: dict[str, Any], media_path: str, ctx: Any
    ) -> Any:
        config = dict(configuration)
        job_id = config.pop("_jobId", None) or f"job_{uuid4().hex}"
        config["load"] = {**config["load"], "sourceUris": [f"file://{media_path}"]}
        return job_id, await run_load(project_id, job_id, config, ctx, Path(media_path))

    from_envelope, run_query = upload._load_configuration_from_envelope, jobs._handle_query_job

    def with_job_id(envelope: dict[str, Any]) -> dict[str, Any]:
        wanted = (envelope.get("jobReference") or {}).get("jobId")
        return {**from_envelope(envelope), "_jobId": wanted}

    async def query_once(
        project: str, job_id: str, config: dict[str, Any], *, dry_run: bool, ctx: Any, **more: Any
    ) -> Any:
        if not dry_run:
            refuse_used_id(project, job_id, ctx)
            ctx.catalog.upsert_job(job(project, job_id, "QUERY", config, ctx))
        return await run_query(project, job_id, config, dry_run=dry_run, ctx=ctx, **more)

    jobs._handle_load_job_with_async_envelope = insert_load
    jobs._handle_query_job = query_once
    upload._load_configuration_from_envelope = with_job_id
    upload._run_load = upload_load


def _install_tables() -> None:
    """Let tables that exist gain columns, and show the text of views."""
    from bqemulator.api.routes import tables
    from bqemulator.catalog.memory_repository import MemoryCatalogRepository
    from bqemulator.storage.sql_identifiers import quoted_table_ref
    from bqemulator.storage.type_map import bq_schema_to_duckdb_columns

    update_table = MemoryCatalogRepository.update_table

    def update_columns(self: Any, meta: Any) -> Any:
        before = self.get_table(meta.project_id, meta.dataset_id, meta.table_id)
        there = _columns(before.schema_) if before else {}
        added = [
            {"name": c.name, "type": c.type, "mode": c.mode}
            for c in meta.schema_.fields
            if c.name not in there
        ]
        target = quoted_table_ref(meta.project_id, meta.dataset_id, meta.table_id)
        for name, kind in bq_schema_to_duckdb_columns(added):
            self._engine.execute(f'ALTER TABLE {target} ADD COLUMN "{name}" {kind}')
        return update_table(self, meta)

    described = tables._table_to_rest

    def with_view(table: Any) -> dict[str, Any]:
        view = {"view": {"query": table.view_query, "useLegacySql": False}} if table.view_query else {}
        return {**described(table), **view}

    MemoryCatalogRepository.update_table = update_columns
    tables._table_to_rest = with_view


def _install_controls(state: _State) -> None:
    """Accept faults, cancel jobs, and answer like the service where the emulator differs."""
    from bqemulator import server
    from bqemulator.api.routes import jobs
    from starlette.responses import JSONResponse
    from starlette.routing import Route

    make_app = server.create_app

    def app_with_controls(ctx: Any) -> Any:
        app = make_app(ctx)

        async def set_faults(request: Any) -> Any:
            state.faults = LoadFaults(**await request.json())
            return JSONResponse({})

        async def get_faults(_: Any) -> Any:
            return JSONResponse(asdict(state.faults))

        async def cancel(request: Any) -> Any:
            project, job_id = request.path_params["project"], request.path_params["job"]
            if (project, job_id) in state.cancelled:
                state.cancelled[project, job_id].set()
            return JSONResponse({"job": jobs.get_job(project, job_id, ctx)})

        async def answer(request: Any, proceed: Any) -> Any:
            parts = request.url.path.split("/")
            makes_table = request.method == "POST" and parts[-3:-2] == ["datasets"] and parts[-1] == "tables"
            if makes_table and ctx.catalog.get_dataset(parts[-4], parts[-2]) is None:
                error = {"reason": "notFound", "message": f"Not found: Dataset {parts[-4]}:{parts[-2]}"}
                body = {"error": {"code": 404, "message": error["message"], "errors": [error]}}
                return JSONResponse(body, status_code=404)
            if parts[-1] != "faults" and state.takes("unavailable"):
                return JSONResponse(_unavailable("not now"), status_code=503)
            response = await proceed(request)
            if request.method == "POST" and parts[-1] == "jobs" and state.takes("lost_answers"):
                return JSONResponse(_unavailable("lost"), status_code=503)
            return response

        app.middleware("http")(answer)
        path = "/bigquery/v2/projects/{project}/jobs/{job}/cancel"
        app.router.routes.insert(0, Route("/faults", set_faults, methods=["POST"]))
        app.router.routes.insert(0, Route("/faults", get_faults, methods=["GET"]))
        app.router.routes.insert(0, Route(path, cancel, methods=["POST"]))
        return app

    server.create_app = app_with_controls


async def _serve_forever(gcs_root: Path, scratch: Path, announce: TextIO) -> None:
    from bqemulator.config import Settings
    from bqemulator.server import EmulatorServer

    settings = Settings(
        rest_port=0,
        grpc_port=0,
        default_project_id=PROJECT,
        gcs_local_root=gcs_root,
        upload_staging_dir=scratch / "uploads",
        enable_format_extensions=False,
        log_level="error",
    )
    emulator = EmulatorServer(settings)
    await emulator.start()
    announce.write(f"{emulator.rest_url}\n")
    announce.flush()
    await asyncio.Event().wait()


def main() -> None:
    """Serve until ended."""
    parser = argparse.ArgumentParser(description="BigQuery on loopback.")
    parser.add_argument("--gcs-root", type=Path, required=True)
    parser.add_argument("--scratch", type=Path, required=True)
    arguments = parser.parse_args()
    # The emulator logs to stdout from its first import on; stdout must hold the URL alone.
    announce, sys.stdout = sys.stdout, sys.stderr
    state = _State()
    _install_engine()
    _install_jobs(state)
    _install_tables()
    _install_controls(state)
    asyncio.run(_serve_forever(arguments.gcs_root, arguments.scratch, announce))


if __name__ == "__main__":
    main()
