"""The files of deploy/ pass their own tools, agree with the package, and start the promised services.

No engine runs the image: a test does each step of the Dockerfile in an empty folder and environment, and
starts the commands of compose.yaml there, over a real Postgres, until their own health checks pass.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import dagster as dg
import pytest
import yaml
from dagster_postgres import PostgresRunStorage

from backfill_assets.automation.instance_storage import BACKFILLS_WAIT
from backfill_assets.automation.run_launcher import ForkingRunLauncher
from backfill_assets.rehearsal.postgres import binaries, postgres_server
from backfill_assets.settings import load_settings
from backfill_assets_tests.times import takes_minutes

REPOSITORY: Final = Path(__file__).parents[1]
DEPLOY: Final = REPOSITORY / "deploy"
TOOLS: Final = Path(sys.executable).parent
START_SECONDS: Final = 120.0


def text(name: str) -> str:
    return (REPOSITORY / name).read_text(encoding="utf-8")


def load(name: str) -> Any:
    return yaml.safe_load(text(name))


def complaints(*words: str | Path) -> str:
    """A tool's objections to a file; empty if it accepts the file."""
    done = subprocess.run(words, cwd=REPOSITORY, capture_output=True, text=True, timeout=60, check=False)
    return "" if done.returncode == 0 else done.stdout + done.stderr


@pytest.fixture(scope="module")
def postgres() -> Iterator[str]:
    if binaries() is None:
        pytest.skip("Postgres is not installed (initdb and postgres in PATH or /usr/lib/postgresql)")
    with postgres_server() as url:
        yield url.replace("postgresql://", "postgresql+psycopg2://")


# --- dagster.yaml ------------------------------------------------------------------------------------------


def test_the_clones_dagster_yaml_is_the_packages() -> None:
    """A file, because an archive of the clone would lose a link."""
    assert not (REPOSITORY / "dagster.yaml").is_symlink()
    package = (REPOSITORY / "backfill_assets" / "dagster.yaml").read_bytes()
    assert (REPOSITORY / "dagster.yaml").read_bytes() == package


def test_dagster_yaml_is_the_packages_but_for_its_storage() -> None:
    shipped, own = load("deploy/dagster.yaml"), load("backfill_assets/dagster.yaml")
    assert shipped.pop("storage") == {"postgres": {"postgres_url": {"env": "DAGSTER_POSTGRES_URL"}}}
    assert own.pop("storage")["custom"]["class"] == "InstanceStorage"
    assert shipped == own


def test_dagster_yaml_opens_postgres(postgres: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAGSTER_POSTGRES_URL", postgres)
    with dg.DagsterInstance.from_config(str(DEPLOY)) as instance:
        assert type(instance.run_storage) is PostgresRunStorage
        assert type(instance.run_launcher) is ForkingRunLauncher
        assert instance.get_runs_count() == 0


# --- the image ---------------------------------------------------------------------------------------------


def test_the_dockerfile_has_nothing_that_hadolint_complains_about() -> None:
    assert complaints(TOOLS / "hadolint", DEPLOY / "Dockerfile") == ""


@dataclass
class Image:
    """The instructions of the Dockerfile, executed below ``root`` instead of in an engine."""

    root: Path
    folder: Path = Path()
    environment: dict[str, str] = field(default_factory=dict)
    health: list[str] = field(default_factory=list)
    command: list[str] = field(default_factory=list)
    user: str = "root"

    def here(self, words: str) -> str:
        """The words with absolute folders of the image moved below the root."""
        return re.sub(r"(?<![\w.])/(opt|data|etc)\b", rf"{self.root}/\1", words)

    def build(self, dockerfile: str) -> None:
        for line in re.sub(r"\\\n", " ", re.sub(r"^#.*\n", "", dockerfile, flags=re.MULTILINE)).splitlines():
            name, _, words = line.partition(" ")
            if name:
                getattr(self, f"do_{name.lower()}")(self.here(words))

    def do_arg(self, words: str) -> None:
        pass

    def do_expose(self, words: str) -> None:
        pass

    def do_volume(self, words: str) -> None:
        for folder in yaml.safe_load(words):
            Path(folder).mkdir(parents=True, exist_ok=True)

    def do_from(self, _: str) -> None:
        self.environment, self.user = {}, "root"

    def do_user(self, words: str) -> None:
        self.user = words

    def do_workdir(self, words: str) -> None:
        self.folder = Path(words)
        self.folder.mkdir(parents=True, exist_ok=True)

    def do_env(self, words: str) -> None:
        self.environment |= dict(word.split("=", 1) for word in shlex.split(words))

    def do_healthcheck(self, words: str) -> None:
        self.health = yaml.safe_load(words.partition("CMD ")[2])

    def do_cmd(self, words: str) -> None:
        self.command = yaml.safe_load(words)

    def do_copy(self, words: str) -> None:
        *sources, target = words.split()
        if sources[0].startswith("--from="):
            return
        folder = self.folder / target
        for source in sources:
            assert source in sent_to_the_engine(), (
                f"{source} is not sent to the engine: add it to .dockerignore"
            )
            found = REPOSITORY / source
            if found.is_dir():
                shutil.copytree(found, folder, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                folder.mkdir(parents=True, exist_ok=True)
                shutil.copy(found, folder)

    def do_run(self, words: str) -> None:
        script = re.sub(r"--mount=\S+", "", words)
        if "useradd" in script:
            for folder in re.findall(rf"{self.root}/\S+", script.partition("install -d")[2]):
                Path(folder).mkdir(parents=True, exist_ok=True)
            return
        done = self.runs("sh", "-ec", script)
        assert done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}"

    def runs(self, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
        """A command of the image, at its place in the image."""
        environment = self.variables(more)
        found = shutil.which(words[0], path=environment["PATH"])
        assert found is not None, words[0]
        return subprocess.run(
            [found, *words[1:]],
            cwd=self.folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=800,
            check=False,
        )

    def variables(self, more: Mapping[str, str] | None = None) -> dict[str, str]:
        """The environment of a process: the image's own, and from the caller only the path of programs."""
        path = f"{TOOLS}{os.pathsep}{os.environ['PATH']}"
        own = self.environment | {"PATH": self.environment.get("PATH", path).replace("$PATH", path)}
        # pip's cache is that of the caller, as with an engine.
        return {"HOME": os.environ["HOME"], "TMPDIR": str(self.root), **own, **(more or {})}


def sent_to_the_engine() -> set[str]:
    return {line[1:] for line in text(".dockerignore").splitlines() if line.startswith("!")}


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Image:
    made = Image(tmp_path_factory.mktemp("image"))
    made.build(text("deploy/Dockerfile"))
    return made


@pytest.mark.story
@takes_minutes
@pytest.mark.timeout(900)
def test_the_steps_of_the_image_install_a_package_that_says_its_version(image: Image) -> None:
    command = image.root / "opt" / "backfill" / "bin" / "backfill-assets"
    assert shutil.which("backfill-assets", path=image.variables()["PATH"]) == str(command)
    said = image.runs("backfill-assets", "--version")
    [version] = re.findall(r"^version = (.*)$", text("setup.cfg"), re.MULTILINE)
    assert said.stdout == f"backfill-assets, version {version}\n"
    assert image.user == "10001:10001"
    [packages] = image.root.glob("opt/backfill/lib/*/site-packages")
    modules = {path.stem for path in (packages / "backfill_assets").glob("*.py")}
    compiled = {
        path.name.partition(".")[0] for path in (packages / "backfill_assets").glob("__pycache__/*.pyc")
    }
    assert modules == compiled
    assert not (packages / "pip").exists()


# --- compose.yaml ------------------------------------------------------------------------------------------

GIVEN: Final = {"POSTGRES_PASSWORD": "p", "TARDIS_API_KEY": "k", "BACKFILL_API_TOKEN": "a" * 32}


def compose() -> dict[str, Any]:
    """The file as an engine reads it, with the required variables."""
    named = re.compile(r"\$\{(\w+)(?::([-?])([^}]*))?\}")
    replaced = named.sub(lambda m: GIVEN.get(m[1], m[3] if m[2] == "-" else ""), text("deploy/compose.yaml"))
    found: dict[str, Any] = yaml.safe_load(replaced)
    return found


def test_compose_is_what_its_specification_says() -> None:
    assert (
        complaints(
            TOOLS / "check-jsonschema", "--builtin-schema", "vendor.compose-spec", DEPLOY / "compose.yaml"
        )
        == ""
    )


def test_every_variable_without_a_default_is_demanded_by_name() -> None:
    asked = set(re.findall(r"\$\{(\w+):\?", text("deploy/compose.yaml")))
    assert asked == set(GIVEN)


def test_the_containers_may_do_little_and_share_what_runs_need() -> None:
    services = compose()["services"]
    ours = [service for service in services.values() if service["image"] == "backfill-assets"]
    assert len(ours) == 4
    for service in ours:
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert (service["pid"], service["hostname"]) == ("host", "backfill")
    ports = [port for service in services.values() for port in service.get("ports", ())]
    assert len(ports) == 4
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_files_that_are_mounted_exist_and_so_do_their_volumes() -> None:
    found = compose()
    for service in found["services"].values():
        for source in (volume.partition(":")[0] for volume in service.get("volumes", ())):
            known = (DEPLOY / source).is_file() if source.startswith(".") else source in found["volumes"]
            assert known, source
        for config in service.get("configs", ()):
            assert yaml.safe_load(found["configs"][config["source"]]["content"])


def test_prometheus_asks_under_the_job_of_the_rules_and_a_name_that_is_served() -> None:
    [job] = yaml.safe_load(compose()["configs"]["prometheus"]["content"])["scrape_configs"]
    assert f'up{{job="{job["job_name"]}"}}' in text("monitoring/alert_rules.yaml")
    [target] = job["static_configs"][0]["targets"]
    settings = load_settings(DEPLOY / "settings.yaml")
    assert target in settings.serve.hosts
    assert target == f"service:{settings.serve.port}"


def test_the_image_has_dagster_keep_backfills_over_an_outage() -> None:
    assert f"{BACKFILLS_WAIT}=1" in text("deploy/Dockerfile")


# --- systemd -----------------------------------------------------------------------------------------------

UNITS: Final = sorted((DEPLOY / "systemd").glob("*.service"))


@pytest.fixture(params=UNITS, ids=lambda path: path.stem)
def unit(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The unit beside the others, with the commands of this environment."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed (Debian: systemd)")
    for path in UNITS:
        content = path.read_text(encoding="utf-8").replace("/opt/backfill/bin", str(TOOLS))
        (tmp_path / path.name).write_text(content)
    found: Path = tmp_path / request.param.name
    return found


def test_systemd_knows_every_line_of_a_unit(unit: Path) -> None:
    done = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_a_unit_exposes_little_of_the_machine(unit: Path) -> None:
    assert complaints("systemd-analyze", "security", "--offline=true", "--threshold=20", unit) == ""


def test_the_units_environment_has_what_the_image_has() -> None:
    lines = [line for line in text("deploy/systemd/environment").splitlines() if not line.startswith("#")]
    names = {line.partition("=")[0] for line in lines}
    of_the_image = set(re.findall(r"\b([A-Z_]+)=\S+", text("deploy/Dockerfile").partition("USER ")[0]))
    own = {name for name in of_the_image if name.startswith(("BACKFILL", "DAGSTER", "NUMBA"))}
    assert own | set(compose()["services"]["daemon"]["environment"]) <= names


def test_the_steps_of_the_page_lay_out_what_the_units_read(tmp_path: Path) -> None:
    section = text("docs/deploy.md").partition("## systemd on one machine")[2].partition("\n## ")[0]
    [block] = re.findall(r"```sh\n(.*?)```", section, re.DOTALL)
    lines = [line for line in block.splitlines() if line.startswith(("install", "ln"))]
    (tmp_path / "etc/systemd/system").mkdir(parents=True)
    script = re.sub(r"(?<![\w.])/(etc|var)\b", rf"{tmp_path}/\1", "\n".join(lines))
    script = script.replace("-o backfill -g backfill", "")
    subprocess.run(["bash", "-ec", script], cwd=REPOSITORY, check=True, timeout=30)
    variables = dict(
        line.split("=", 1)
        for line in (tmp_path / "etc/backfill/environment").read_text().splitlines()
        if not line.startswith("#")
    )
    assert (tmp_path / f"{variables['DAGSTER_HOME'].lstrip('/')}/dagster.yaml").read_text() == text(
        "deploy/dagster.yaml"
    )
    assert load_settings(tmp_path / variables["BACKFILL_ENV"].lstrip("/")).name == "one_machine"
    for path in UNITS:
        folders = re.findall(r"^WorkingDirectory=/(.*)$", path.read_text(), re.MULTILINE)
        assert [(tmp_path / folder / "workspace.yaml").is_file() for folder in folders] == [True]


def test_files_that_the_commands_of_the_page_name_exist() -> None:
    blocks = re.findall(r"```sh\n(.*?)```", text("docs/deploy.md"), re.DOTALL)
    named = {path for block in blocks for path in re.findall(r"\bdeploy/[\w./-]*\w", block)}
    assert {path for path in named - {"deploy/.env"} if not (REPOSITORY / path).exists()} == set()
    assert len(named) > 5


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@contextmanager
def running(words: list[str], folder: Path, environment: Mapping[str, str], log: Path) -> Iterator[None]:
    with log.open("w") as output:
        process = subprocess.Popen(
            words, cwd=folder, env=environment, stdout=output, stderr=output, start_new_session=True
        )
    try:
        yield
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@pytest.mark.story
@takes_minutes
@pytest.mark.timeout(900)
def test_the_commands_of_compose_start_and_their_health_checks_pass(image: Image, postgres: str) -> None:
    services = compose()["services"]
    shutil.copy(DEPLOY / "settings.yaml", (settings := image.root / "settings.yaml"))
    given = {name: value or "" for name, value in services["daemon"]["environment"].items()}
    given |= {"DAGSTER_POSTGRES_URL": postgres, "BACKFILL_ENV": str(settings)}
    ports = {"3000": str(free_port()), "3080": str(free_port())}

    def here(words: list[str]) -> list[str]:
        said = [re.sub(r"\b(3000|3080)\b", lambda m: ports[m[0]], word) for word in words]
        return [word.replace("0.0.0.0", "127.0.0.1") for word in said]

    opened = image.runs(*services["records"]["command"], **given)
    assert opened.returncode == 0, opened.stderr
    assert image.command == services["service"]["command"]
    commands = {
        "daemon": (services["daemon"]["command"], services["daemon"]["healthcheck"]["test"][1:]),
        "webserver": (services["webserver"]["command"], services["webserver"]["healthcheck"]["test"][1:]),
        "service": ([*image.command, "--port", "3080"], image.health),
    }
    for name, (command, health) in commands.items():
        log = image.root / f"{name}.log"
        words = here(command)
        words[0] = str(image.root / "opt" / "backfill" / "bin" / words[0])
        assert image.runs(*here(health), **given).returncode != 0, f"{name} is healthy before it is started"
        with running(words, image.folder, image.variables(given), log):
            deadline = time.monotonic() + START_SECONDS
            while (last := image.runs(*here(health), **given)).returncode != 0:
                assert time.monotonic() < deadline, f"{name}: {last.stderr}\n{log.read_text()}"
                time.sleep(1)


# --- Terraform ---------------------------------------------------------------------------------------------


def test_terraform_reads_its_files_and_would_write_them_as_they_are() -> None:
    if shutil.which("terraform") is None:
        pytest.skip("terraform is not installed")
    assert complaints("terraform", "fmt", "-check", "-diff", DEPLOY / "terraform") == ""


def test_the_account_has_the_roles_of_the_page_and_no_other() -> None:
    written = set(re.findall(r'^\s+role\s+= "(.*)"$', text("deploy/terraform/main.tf"), re.MULTILINE))
    told = set(re.findall(r"\| .*\(?`(roles/[\w.]+)`\)? \|", text("docs/operations.md")))
    assert told
    # The last role lets pods act for the account, and gives the account nothing.
    assert written - {"roles/iam.workloadIdentityUser"} == told


def test_the_variables_that_terraform_hands_out_are_those_of_production() -> None:
    given = set(re.findall(r"^\s+(BACKFILL_\w+)\s+=", text("deploy/terraform/outputs.tf"), re.MULTILINE))
    asked = set(re.findall(r"\$\{(BACKFILL_\w+)", text("backfill_assets/environments/production.yaml")))
    assert given == asked | {"BACKFILL_ENV"}
