"""BigQuery on loopback: bqemulator 1.4.0, with load jobs as the service runs them.

As it comes, the emulator refuses ``table$YYYYMMDD``, empties a table whose load fails, matches Parquet
columns by position, hides the text of views, takes nulls in required columns, runs a job id twice, never has
a job that is still running, and wants an extension from the network to start. This file puts its own loads
in the place of the emulator's: one transaction, rows of the named partition only, columns by name, 409 for a
job id that was used, cancellation. It patches internals, so the version is pinned.

Run as a program it serves until it is ended and prints its URL in the first line; ``serve`` starts such a
process and is what fixtures use. ``POST /faults`` arms the next loads: ``{"load_delay_seconds": 2}`` leaves
every load running for that long, ``{"load_errors": [{"reason": "backendError", "message": "…"}]}`` makes as
many loads fail after their rows were read, ``{"lost_answers": 1}`` runs the next submission and then answers
503.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO
from uuid import uuid4

PROJECT = "test-project"
START_SECONDS = 60


@dataclass(frozen=True)
class Emulator:
    """A running emulator: where it is, and the directory that ``gs://`` stands for."""

    url: str
    gcs_root: Path
    pid: int

    def arm(self, **faults: Any) -> None:
        """Set faults of the loads to come; without arguments there are none."""
        body = json.dumps({"load_delay_seconds": 0, "load_errors": [], "lost_answers": 0, **faults}).encode()
        request = urllib.request.Request(f"{self.url}/faults", data=body, method="POST")
        with urllib.request.urlopen(request, timeout=10) as answer:
            answer.read()


@contextlib.contextmanager
def serve(gcs_root: Path) -> Iterator[Emulator]:
    """Run an emulator in a process of its own on a free port; its tables are gone when it ends."""
    with tempfile.TemporaryDirectory(prefix="bigquery-emulator-") as scratch:
        log = Path(scratch) / "log"
        with log.open("wb") as errors:
            process = subprocess.Popen(
                [sys.executable, __file__, "--gcs-root", str(gcs_root), "--scratch", scratch],
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        try:
            url = _first_line(process)
            if not url.startswith("http"):
                raise RuntimeError(f"the emulator did not start: {url!r} {log.read_text()[-2000:]}")
            yield Emulator(url, gcs_root, process.pid)
        finally:
            process.kill()
            process.wait(timeout=10)


def _first_line(process: subprocess.Popen[str]) -> str:
    lines: queue.Queue[str] = queue.Queue()

    def read() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            lines.put(line.strip())
        lines.put("")

    threading.Thread(target=read, daemon=True).start()
    try:
        return lines.get(timeout=START_SECONDS)
    except queue.Empty:
        return ""


@dataclass
class Faults:
    """What is to go wrong, and for each load whether it was cancelled."""

    load_delay_seconds: float = 0
    lost_answers: int = 0
    load_errors: list[dict[str, str]] = field(default_factory=list)
    cancelled: dict[tuple[str, str], asyncio.Event] = field(default_factory=dict)
    running: set[asyncio.Task[None]] = field(default_factory=set)


class LoadError(Exception):
    """A load that ends with this reason and message, and without effect."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.error = {"reason": reason, "message": message}


def _columns(schema: Any) -> dict[str, Any]:
    return {column.name: column for column in schema.fields}


def _execute(config: dict[str, Any], project: str, ctx: Any, faults: Faults) -> dict[str, str]:
    """Do the load in one transaction and return its statistics; raises ``LoadError`` and changes nothing."""
    from bqemulator.storage.sql_identifiers import quoted_table_ref

    destination = config["destinationTable"]
    table, _, partition = destination["tableId"].partition("$")
    owner, dataset = destination.get("projectId", project), destination["datasetId"]
    meta = ctx.catalog.get_table(owner, dataset, table)
    if meta is None:
        raise LoadError("notFound", f"Not found: Table {owner}:{dataset}.{table}")
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
        if faults.load_errors:
            error = faults.load_errors.pop(0)
            raise LoadError(error["reason"], error["message"])
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
            raise LoadError("notFound", f"Not found: URI {uri}")
        paths += found
    return paths


def _check_rows(execute: Any, meta: Any, source: str, inside: str, name: str) -> None:
    there = {row[0]: row[1] for row in execute(f"DESCRIBE SELECT * FROM {source}").fetchall()}
    wanted = _columns(meta.schema_)
    for column in there:
        if column not in wanted:
            raise LoadError(
                "invalid", f"Provided Schema does not match Table {name}. Cannot add field {column}"
            )
    for column, declared in wanted.items():
        if declared.mode != "REQUIRED":
            continue
        if column not in there:
            raise LoadError("invalid", f"Provided Schema does not match Table {name}. Missing {column}")
        if execute(f'SELECT 1 FROM {source} WHERE "{column}" IS NULL LIMIT 1').fetchall():
            raise LoadError("invalid", f"Required column {column} has nulls")
    if execute(f"SELECT 1 FROM {source} WHERE NOT coalesce({inside}, false) LIMIT 1").fetchall():
        raise LoadError("invalid", f"Some rows belong to different partitions rather than destination {name}")


def install(faults: Faults) -> None:
    """Put our load jobs, and what they need, in the place of the emulator's."""
    from bqemulator import server
    from bqemulator.api.routes import jobs, tables, upload
    from bqemulator.catalog.memory_repository import MemoryCatalogRepository
    from bqemulator.catalog.models import JobMeta
    from bqemulator.domain.errors import AlreadyExistsError
    from bqemulator.storage.engine import DuckDBEngine
    from bqemulator.storage.sql_identifiers import quoted_table_ref
    from bqemulator.storage.type_map import bq_schema_to_duckdb_columns
    from bqemulator.versioning.snapshots import SnapshotManager

    DuckDBEngine._load_spatial = lambda _self: None  # Only GEOGRAPHY needs it, and it comes from the network.
    capture = SnapshotManager.capture
    # Time travel would copy the whole table at each load.
    SnapshotManager.capture = lambda self, *a, kind="AUTO": (
        None if kind == "AUTO" else capture(self, *a, kind=kind)
    )
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
            raise AlreadyExistsError(f"Already Exists: Job {project}:US.{job_id}")

    async def finish(running: Any, ctx: Any, delay: float) -> Any:
        cancelled = faults.cancelled[running.project_id, running.job_id]
        if delay:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(cancelled.wait(), delay)
        more: dict[str, Any] = {"statistics": {"load": {"outputRows": "0"}}}
        # Nothing below awaits except for the lock, so one load is one step of the event loop.
        async with ctx.engine.write_lock():
            try:
                if cancelled.is_set():
                    raise LoadError("stopped", "Job execution was cancelled: User requested cancellation")
                load = running.configuration["load"]
                more = {"statistics": {"load": _execute(load, running.project_id, ctx, faults)}}
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
        refuse_used_id(project, job_id, ctx)
        faults.cancelled[project, job_id] = asyncio.Event()
        running = job(project, job_id, "LOAD", config, ctx)
        ctx.catalog.upsert_job(running)
        if not faults.load_delay_seconds:
            return await finish(running, ctx, 0)
        kept = None
        if media is not None:
            # The upload's own file goes with the request; the job outlives both.
            kept = media.with_name(f"{media.name}.{uuid4().hex}")
            os.link(media, kept)
            load = {**config["load"], "sourceUris": [f"file://{kept}"]}
            running = running.model_copy(update={"configuration": {**config, "load": load}})

        async def later() -> None:
            await finish(running, ctx, faults.load_delay_seconds)
            if kept is not None:
                kept.unlink()

        task = asyncio.create_task(later())
        faults.running.add(task)
        task.add_done_callback(faults.running.discard)
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

    make_app = server.create_app

    def app_with_controls(ctx: Any) -> Any:
        app = make_app(ctx)

        async def set_faults(request: Any) -> Any:
            body = await request.json()
            faults.load_delay_seconds, faults.load_errors = body["load_delay_seconds"], body["load_errors"]
            faults.lost_answers = body["lost_answers"]
            return JSONResponse({})

        async def cancel(request: Any) -> Any:
            project, job_id = request.path_params["project"], request.path_params["job"]
            if (project, job_id) in faults.cancelled:
                faults.cancelled[project, job_id].set()
            return JSONResponse({"job": jobs.get_job(project, job_id, ctx)})

        @app.middleware("http")
        async def answer(request: Any, proceed: Any) -> Any:
            parts = request.url.path.split("/")
            makes_table = request.method == "POST" and parts[-3:-2] == ["datasets"] and parts[-1] == "tables"
            if makes_table and ctx.catalog.get_dataset(parts[-4], parts[-2]) is None:
                error = {"reason": "notFound", "message": f"Not found: Dataset {parts[-4]}:{parts[-2]}"}
                body = {"error": {"code": 404, "message": error["message"], "errors": [error]}}
                return JSONResponse(body, status_code=404)
            response = await proceed(request)
            if faults.lost_answers and request.method == "POST" and request.url.path.endswith("/jobs"):
                faults.lost_answers -= 1
                return JSONResponse(
                    {"error": {"code": 503, "message": "lost", "errors": []}}, status_code=503
                )
            return response

        from starlette.responses import JSONResponse
        from starlette.routing import Route

        path = "/bigquery/v2/projects/{project}/jobs/{job}/cancel"
        app.router.routes.insert(0, Route("/faults", set_faults, methods=["POST"]))
        app.router.routes.insert(0, Route(path, cancel, methods=["POST"]))
        return app

    jobs._handle_load_job_with_async_envelope = insert_load
    jobs._handle_query_job = query_once
    upload._load_configuration_from_envelope = with_job_id
    upload._run_load = upload_load
    MemoryCatalogRepository.update_table = update_columns
    tables._table_to_rest = with_view
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
    print(emulator.rest_url, file=announce, flush=True)
    await asyncio.Event().wait()


def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gcs-root", type=Path, required=True)
    parser.add_argument("--scratch", type=Path, required=True)
    arguments = parser.parse_args()
    # The emulator logs to stdout from its first import on; there the URL is to be alone.
    announce, sys.stdout = sys.stdout, sys.stderr
    install(Faults())
    asyncio.run(_serve_forever(arguments.gcs_root, arguments.scratch, announce))


if __name__ == "__main__":
    main()
