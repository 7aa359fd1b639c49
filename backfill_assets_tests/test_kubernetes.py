"""Days as Jobs of a cluster: Dagster's launcher takes the values of the chart, and the Jobs that it makes are
those of the Kubernetes API.

The cluster is a server on loopback. It takes a Job as the API does: by the classes of Kubernetes' own client,
which are generated from the API's description. It refuses unknown keys and missing ones.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

import dagster as dg
import pytest
import yaml
from dagster._core.definitions.reconstruct import ReconstructableRepository
from dagster._core.launcher import LaunchRunContext
from dagster._core.launcher.base import WorkerStatus
from dagster._core.test_utils import create_run_for_test
from dagster_k8s import K8sRunLauncher
from kubernetes import client

from backfill_assets.automation.lost_runs import lost
from backfill_assets.automation.run_order import backfill_places
from backfill_assets.days import utc_now

REPOSITORY: Final = Path(__file__).parents[1]
IMAGE: Final = "backfill-assets:0.1.0"


def values() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((REPOSITORY / "deploy" / "helm-values.yaml").read_text())
    return found


def taken(body: Any, kind: str) -> Any:
    """The object as the API's own classes know it, without unknown keys."""
    api = client.ApiClient()
    return api.sanitize_for_serialization(api.deserialize(SimpleNamespace(data=json.dumps(body)), kind))


def objection(body: Any, kind: str) -> str:
    """Reason for which the API would refuse the object; empty if it accepts the object."""
    try:
        known = taken(body, kind)
    except (ValueError, TypeError) as error:
        return str(error)
    return "" if known == body else f"of {json.dumps(body)} it knows {json.dumps(known)}"


class Cluster(ThreadingHTTPServer):
    """The part of the API that deals with Jobs."""

    def __init__(self) -> None:
        self.jobs: dict[str, dict[str, Any]] = {}
        self.refused: list[str] = []
        super().__init__(("127.0.0.1", 0), _Requests)

    @property
    def job(self) -> dict[str, Any]:
        [job] = self.jobs.values()
        return job


class _Requests(BaseHTTPRequestHandler):
    server: Cluster

    def log_message(self, *_: Any) -> None:
        pass

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        why = objection(body, "V1Job")
        if why or not re.fullmatch(r"/apis/batch/v1/namespaces/[a-z0-9-]+/jobs", self.path):
            self.server.refused.append(why or self.path)
            self._answer(422, {"kind": "Status", "message": why})
            return
        self.server.jobs[body["metadata"]["name"]] = {**body, "status": {"active": 1}}
        self._answer(201, body)

    def do_GET(self) -> None:
        if "/pods" in self.path:
            self._answer(200, {"kind": "PodList", "apiVersion": "v1", "items": []})
            return
        job = self.server.jobs.get(self.path.split("?")[0].removesuffix("/status").rpartition("/")[2])
        self._answer(200 if job else 404, job or {"kind": "Status", "code": 404})

    def do_DELETE(self) -> None:
        self.server.jobs.pop(self.path.split("?")[0].rpartition("/")[2], None)
        self._answer(200, {"kind": "Status", "status": "Success"})

    def _answer(self, status: int, body: Any) -> None:
        text = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)


def instance_settings(found: dict[str, Any], kubeconfig: Path) -> dict[str, Any]:
    """Dagster's settings as the chart writes them from its values, with SQLite in place of Postgres."""
    k8s = found["runLauncher"]["config"]["k8sRunLauncher"]
    daemon = found["dagsterDaemon"]
    queue = daemon["runCoordinator"]["config"]["queuedRunCoordinator"]
    concurrency, snake = found["concurrency"], lambda name: re.sub(r"([A-Z])", r"_\1", name).lower()
    return {
        "run_launcher": {
            "module": "dagster_k8s",
            "class": found["runLauncher"]["type"],
            "config": {
                "load_incluster_config": False,
                "kubeconfig_file": str(kubeconfig),
                "job_namespace": "days",
                "image_pull_policy": k8s["imagePullPolicy"],
                "service_account_name": found["serviceAccount"]["name"],
                "dagster_home": "/opt/dagster/dagster_home",
                "instance_config_map": "dagster-instance",
                "postgres_password_secret": found["global"]["postgresqlSecretName"],
                "env_secrets": [secret["name"] for secret in k8s["envSecrets"]],
                "volumes": k8s["volumes"],
                "volume_mounts": k8s["volumeMounts"],
                "resources": k8s["resources"],
                "security_context": k8s["securityContext"],
                "run_k8s_config": {snake(name): config for name, config in k8s["runK8sConfig"].items()},
            },
        },
        "run_coordinator": {
            "module": "dagster.core.run_coordinator",
            "class": daemon["runCoordinator"]["type"],
            "config": {snake(name): value for name, value in queue.items()},
        },
        "concurrency": {
            "pools": {snake(name): value for name, value in concurrency["pools"].items()},
            "runs": {snake(name): value for name, value in concurrency["runs"].items()},
        },
        "run_monitoring": {snake(name): value for name, value in daemon["runMonitoring"].items()},
        "run_retries": {snake(name): value for name, value in daemon["runRetries"].items()},
        "retention": {
            kind: {"purge_after_days": found["retention"][kind]["purgeAfterDays"]}
            for kind in ("schedule", "sensor")
        },
        **found["additionalInstanceConfig"],
    }


@contextmanager
def serving() -> Iterator[Cluster]:
    with Cluster() as cluster:
        thread = threading.Thread(target=cluster.serve_forever, daemon=True)
        thread.start()
        try:
            yield cluster
        finally:
            cluster.shutdown()
            thread.join()


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with serving() as found:
        yield found


@pytest.fixture
def instance(cluster: Cluster, tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    server = {"server": f"http://127.0.0.1:{cluster.server_port}"}
    kubeconfig = tmp_path / "kube.yaml"
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "one", "cluster": server}],
        "users": [{"name": "one", "user": {"token": "none"}}],
        "contexts": [{"name": "one", "context": {"cluster": "one", "user": "one"}}],
        "current-context": "one",
    }
    kubeconfig.write_text(yaml.safe_dump(content))
    (tmp_path / "dagster.yaml").write_text(yaml.safe_dump(instance_settings(values(), kubeconfig)))
    with dg.DagsterInstance.from_config(str(tmp_path)) as found:
        yield found


def launched(instance: dg.DagsterInstance) -> dg.DagsterRun:
    repository = ReconstructableRepository.for_module(
        "backfill_assets.definitions", "defs", str(REPOSITORY), container_image=IMAGE
    )
    run = create_run_for_test(
        instance,
        job_name="day",
        tags={"dagster/partition": "2024-01-01"},
        status=dg.DagsterRunStatus.STARTING,
        job_code_origin=repository.get_reconstructable_job("day").get_python_origin(),
    )
    instance.run_launcher.launch_run(LaunchRunContext(run, workspace=None))
    return run


def test_the_values_are_settings_that_dagster_takes(instance: dg.DagsterInstance) -> None:
    assert type(instance.run_launcher) is K8sRunLauncher
    assert instance.run_retries_retry_on_asset_or_op_failure is False
    assert instance.run_monitoring_enabled is True
    queue = instance.get_concurrency_config().run_queue_config
    assert queue is not None
    assert backfill_places(instance) == queue.max_concurrent_runs - 1


def test_a_day_is_a_job_that_the_api_takes_with_what_the_values_say(
    instance: dg.DagsterInstance, cluster: Cluster
) -> None:
    run = launched(instance)
    assert cluster.refused == []
    spec = cluster.job["spec"]
    assert (spec["backoffLimit"], spec["ttlSecondsAfterFinished"]) == (0, 86400)
    pod = spec["template"]["spec"]
    assert pod["serviceAccountName"] == "backfill-assets"
    assert pod["securityContext"]["runAsNonRoot"] is True
    [container] = pod["containers"]
    assert container["image"] == IMAGE
    assert container["args"][:3] == ["dagster", "api", "execute_run"]
    assert run.run_id in container["args"][3]
    assert container["resources"] == values()["runLauncher"]["config"]["k8sRunLauncher"]["resources"]
    assert {"secretRef": {"name": "backfill-assets"}} in container["envFrom"]
    assert "/data/scratch" in {mount["mountPath"] for mount in container["volumeMounts"]}


def test_a_job_with_a_key_that_the_api_does_not_know_is_refused(
    instance: dg.DagsterInstance, cluster: Cluster
) -> None:
    launched(instance)
    job = {name: part for name, part in cluster.job.items() if name != "status"}
    assert objection(job, "V1Job") == ""
    pod = job["spec"]["template"]["spec"]
    pod["containers"][0]["resource"] = {}
    assert objection(job, "V1Job") != ""
    del pod["containers"][0]["resource"], pod["containers"]
    assert "containers" in objection(job, "V1Job")


def test_a_lost_pod_is_seen_by_the_launcher_and_left_to_dagsters_monitoring(
    instance: dg.DagsterInstance, cluster: Cluster
) -> None:
    run = launched(instance)
    launcher = instance.run_launcher
    assert launcher.supports_check_run_worker_health
    assert launcher.check_run_worker_health(run).status == WorkerStatus.RUNNING
    # Its process is on another machine, so a missing process here means nothing.
    assert lost(instance, utc_now()) == {}
    cluster.job["status"] = {"failed": 1}
    assert launcher.check_run_worker_health(run).status == WorkerStatus.FAILED


def test_a_run_that_is_cancelled_takes_its_job_along(instance: dg.DagsterInstance, cluster: Cluster) -> None:
    run = launched(instance)
    assert instance.run_launcher.terminate(run.run_id)
    assert cluster.jobs == {}


def test_what_the_values_say_of_pods_is_what_the_api_knows() -> None:
    found = values()
    parts = (
        found["dagsterWebserver"],
        found["dagsterDaemon"],
        *found["dagster-user-deployments"]["deployments"],
    )
    for part in parts:
        assert objection(part["resources"], "V1ResourceRequirements") == ""
        assert f"{part['image']['repository']}:{part['image']['tag']}" == IMAGE
        assert part["env"]["DAGSTER_BACKFILL_RETRY_DEFINITION_CHANGED_ERROR"] == "1"


def test_the_chart_that_is_named_is_that_of_the_dagster_that_is_pinned() -> None:
    [chart] = re.findall(r"--version (\S+)", (REPOSITORY / "deploy" / "helm-values.yaml").read_text())
    assert f"\ndagster=={chart} " in (REPOSITORY / "requirements.lock").read_text()
