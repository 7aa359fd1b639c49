"""Bad input: one line with the mistake, its place and the remedy; a non-zero exit; no partial work."""

from __future__ import annotations

import json
import re
import socket
import subprocess
from pathlib import Path

import pytest

from backfill_assets_tests.cli.conftest import REPOSITORY

CANDLES = ("candles", "--exchange", "binance", "--symbol", "BTC-USDT", "--date")


@pytest.mark.parametrize("command", [("demo",), (*CANDLES, "2024-01-01")], ids=["demo", "candles"])
def test_an_unknown_environment_names_the_known_ones(desk, command):
    answer = desk.set(BACKFILL_ENV="prodution").run(*command)
    assert answer.code == 1
    assert answer.error == (
        "BACKFILL_ENV=prodution: unknown environment; choose from local, production, staging, tardis, "
        "or give a path to a .yaml file"
    )
    assert answer.out == ""
    assert desk.left == []


def test_a_settings_file_that_is_not_there_is_named(desk):
    answer = desk.set(BACKFILL_ENV="./mine.yaml").run(*CANDLES, "2024-01-01")
    assert (answer.code, answer.error) == (1, "BACKFILL_ENV=./mine.yaml: there is no such file")


def test_an_unknown_key_of_the_settings_is_named_with_its_file_before_anything_is_done(
    desk, settings_file, standin
):
    file = settings_file(standin.url, warehouse={"kind": "duckdb", "folder": "./w", "fodler": "./w"})
    answer = desk.set(BACKFILL_ENV=str(file), BACKFILL_STANDIN_URL=standin.url).run("demo")
    assert answer.code == 1
    assert answer.error.startswith(f"{file}: warehouse.duckdb.fodler: unknown key; did you mean folder?")
    assert desk.left == []
    assert standin.requests == []


@pytest.mark.parametrize("day", ["2024-1-1", "2024-02-30", "01.01.2024", "20240101", "today", ""])
def test_a_malformed_day_is_shown_the_right_form(desk, day):
    from click.testing import CliRunner

    from backfill_assets.cli import main

    result = CliRunner().invoke(main, [*CANDLES, day])
    assert result.exit_code == 2
    message = f"Error: '{day}' is not a day: write it as YYYY-MM-DD, for example 2024-01-01\n"
    assert result.stderr == message
    assert result.stdout == ""


@pytest.mark.parametrize("day", ["0001-01-01", "9999-12-31"])
@pytest.mark.parametrize("command", [("quality",), CANDLES[:-1], ("reconcile",)], ids=" ".join)
def test_a_year_far_away_is_refused_by_commands_that_only_look(desk, command, day):
    option = "--end" if day > "2024" else "--start" if command == ("reconcile",) else "--date"
    other = ("--start", "2024-01-01") if command == ("reconcile",) else ("--date", "2024-01-01")
    answer = desk.run(*command, *(other if option == "--end" else ()), option, day)
    assert answer.code == 2
    assert answer.error == f"{day} is not between 2000-01-01 and 2099-12-31: correct the year"


def test_output_that_the_shell_has_closed_is_dropped(desk):
    line = f"{desk.command()[0]} candles --date 2024-01-01 --exchange binance --symbol BTC-USDT"
    for closed in (">&-", "2>&-", ">&- 2>&-"):
        answer = desk.run("-c", f"{line} {closed}", program="/bin/sh")
        assert answer.code == 1
        assert "Traceback" not in answer.out + answer.err


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
@pytest.mark.parametrize("command", [("settings",), ("settings", "--schema")], ids=" ".join)
def test_an_output_that_is_full_is_one_line(desk, command):
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            desk.command(*command),
            cwd=desk.folder,
            env=desk.environment,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr.startswith("Error: No space left on device: free some")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("command", ["demo", "candles"])
def test_a_malformed_day_ends_the_real_command_at_once(desk, command):
    more = CANDLES[1:-1] if command == "candles" else ()
    answer = desk.run(command, *more, "--date", "2024-13-01")
    assert answer.code == 2
    assert "'2024-13-01' is not a day: write it as YYYY-MM-DD" in answer.error
    assert desk.left == []


@pytest.mark.parametrize("day", ["2019-03-29", "2099-01-01"])
def test_a_day_that_no_run_can_have_is_refused_before_anything_is_done(desk, standin, day):
    answer = desk.set(BACKFILL_STANDIN_URL=standin.url).run("demo", "--date", day)
    assert answer.code == 2
    assert answer.error.startswith(f"{day} cannot be run: days go from 2019-03-30 to ")
    assert desk.left == []
    assert standin.requests == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--start", "2024-01-04", "--end", "2024-01-01"), "swap them"),
        (("--start", "2018-01-04", "--end", "2024-01-01"), "2018-01-04 cannot be run"),
        (("--start", "2024-01-01", "--end", "2024-01-01", "--symbols", "BTCUSDT"), "did you mean BTC-USDT"),
        (
            ("--start", "2024-01-01", "--end", "2024-01-01", "--at-once", "0"),
            "at once: Input should be greater",
        ),
        (
            ("--start", "2024-01-01", "--end", "2024-01-01", "--order", "up"),
            "order: Input should be 'oldest' or",
        ),
    ],
)
@pytest.mark.parametrize("command", ["backfill", "plan"])
def test_days_and_names_that_cannot_be_run_are_a_wrong_call(desk, dagster_home, command, words, said):
    answer = desk.set(DAGSTER_HOME=str(dagster_home)).run(command, *words)
    assert answer.code == 2
    assert said in answer.error
    assert desk.left == []


def test_a_backfill_that_the_world_refuses_is_no_wrong_call(desk):
    answer = desk.run("backfill", "--start", "2024-01-01", "--end", "2024-01-01")
    assert (answer.code, answer.error.partition(":")[0]) == (1, "DAGSTER_HOME is not set")


def test_a_dagster_home_that_is_not_there_is_one_line(desk, standin):
    missing = str(desk.folder / "missing")
    answer = desk.set(BACKFILL_STANDIN_URL=standin.url, DAGSTER_HOME=missing).run("demo")
    assert answer.code == 1
    assert answer.error.startswith(f"Dagster's storage cannot be opened (DAGSTER_HOME={missing}): ")
    assert answer.error.endswith("correct DAGSTER_HOME or DAGSTER_POSTGRES_URL, or unset them")
    # The command asks the server for the name in its first line, and for no file.
    assert {request.path for request in standin.requests} <= {"/"}


@pytest.mark.parametrize("month", ["2024-13", "2024-1", "2024", "2024-01-01", "January"])
def test_a_malformed_month_is_shown_the_right_form(desk, month):
    answer = desk.run("report", "--month", month)
    assert answer.code == 2
    assert answer.error == f"'{month}' is not a month: write it as YYYY-MM, for example 2024-01"
    assert desk.left == []


@pytest.mark.parametrize("command", ["verify", "baseline"])
def test_a_range_that_ends_before_it_starts_is_refused_by_commands_that_look(desk, command):
    answer = desk.run(command, "--start", "2024-01-02", "--end", "2024-01-01")
    assert answer.code == 2
    assert answer.error == "the range ends (2024-01-01) before it starts (2024-01-02): swap them"
    assert desk.left == []


@pytest.mark.parametrize("command", ["status", "cancel", "retry"])
def test_an_unknown_job_names_the_command_that_lists_jobs(desk, dagster_home, command):
    answer = desk.set(DAGSTER_HOME=str(dagster_home)).run(command, "zzz")
    assert (answer.code, answer.error) == (1, "there is no job 'zzz': backfill-assets recent lists them")


def test_without_a_daemon_no_time_left_is_told(desk, dagster_home):
    desk.set(DAGSTER_HOME=str(dagster_home))
    job_id = desk.run("backfill", "--start", "2024-01-01", "--end", "2024-01-01").out.partition(":")[0]
    answer = desk.run("status", job_id)
    assert "no Dagster daemon has run yet" in answer.out
    assert "  left  " not in answer.out


def test_a_taken_port_is_named_with_the_option_that_changes_it(desk):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for command in ((), ("--", "touch", "ran")):
            answer = desk.run("standins", "--port", str(port), *command)
            assert answer.code == 1
            assert answer.error == (
                f"port {port} is in use on 127.0.0.1: choose another with --port, or 0 for a free one"
            )
    assert desk.left == []


def test_a_directory_without_data_sets_is_named(desk):
    answer = desk.run("standins", "--datasets", "nowhere", "--", "touch", "ran")
    assert answer.code == 1
    assert "nowhere" in answer.error
    assert desk.left == []


def test_a_command_that_is_not_there_is_named(desk):
    answer = desk.run("standins", "--", "no-such-command")
    assert (answer.code, answer.error) == (
        1,
        "cannot run 'no-such-command': No such file or directory; check its spelling and PATH",
    )


def test_an_unknown_subcommand_or_option_is_a_usage_error(desk):
    from click.testing import CliRunner

    from backfill_assets.cli import main

    for arguments in (["candels"], ["demo", "--day", "2024-01-01"], ["candles"]):
        result = CliRunner().invoke(main, arguments)
        assert result.exit_code == 2
        assert re.search(
            r"^Error: (No such command|No such option|Missing option)", result.stderr, re.MULTILINE
        )


def test_the_demo_refuses_an_environment_that_is_for_real(desk):
    answer = desk.set(BACKFILL_ENV="staging").run("demo")
    assert (answer.code, answer.error) == (
        1,
        "BACKFILL_ENV=staging does not read the Tardis stand-in, as the demo needs: unset it",
    )
    assert desk.left == []


#: Markup of the table's library, an emoji by its name, a cleared screen, a forged line, color, right to left.
WORDS = "[/nope] [bold]b[/] :boom: \x1b[2J\nforged \x9b31m \u202e.dne"
SHOWN = r"[/nope] [bold]b[/] :boom: \u001b[2J\nforged \u009b31m \u202e.dne"


def test_words_of_others_are_shown_on_one_line_and_do_nothing(desk, tmp_path):
    (tmp_path / "dagster.yaml").symlink_to(REPOSITORY / "dagster.yaml")
    desk.set(DAGSTER_HOME=str(tmp_path))
    days = ("--start", "2024-01-01", "--end", "2024-01-01")
    started = desk.run("backfill", *days, "--reason", WORDS)
    assert started.code == 0, started.err
    job_id = started.out.partition(":")[0]
    for command in (("recent",), ("status", job_id)):
        answer = desk.run(*command)
        assert answer.code == 0, answer.err
        assert SHOWN in answer.out
    for command in (("recent", "--json"), ("status", job_id, "--json")):
        answer = desk.run(*command)
        assert answer.out.rstrip("\n").isprintable()
        found = json.loads(answer.out)
        assert found.get("jobs", [found])[0]["request"]["reason"] == WORDS
    refused = desk.run("status", WORDS)
    assert refused.error.isprintable()


def test_every_word_of_a_job_that_others_may_have_written_is_shown_so(capsys):
    from rich.console import Console

    from backfill_assets.progress import commands
    from backfill_assets.progress.model import DayStatus, JobStatus

    schema = JobStatus.model_json_schema()
    job = JobStatus.model_validate(made_up(schema, schema["$defs"]))
    assert isinstance(job.days[0], DayStatus)
    text = commands.status_text(job)
    commands.show_recent([job], Console(width=400, markup=False, emoji=False))
    shown = text + capsys.readouterr().out
    assert shown.count(SHOWN) >= 5
    assert all(line.isprintable() for line in shown.splitlines())


def made_up(schema, known, name=""):
    """Content that the schema accepts, with ``WORDS`` in every free text."""
    if "$ref" in schema:
        return made_up(known[schema["$ref"].rpartition("/")[2]], known, name)
    if "const" in schema or "enum" in schema:
        return schema.get("const") or {"state": "failed"}.get(name, schema["enum"][-1])
    if "anyOf" in schema:
        return made_up(schema["anyOf"][0], known, name)
    kind = schema.get("type")
    if kind == "object" and "properties" in schema:
        return {key: made_up(one, known, key) for key, one in schema["properties"].items()}
    if kind == "object":
        return {}
    if kind == "array":
        return [made_up(one, known, name) for one in schema.get("prefixItems", [schema.get("items", {})])]
    if kind == "string":
        ours = {
            "date": "2024-01-01",
            "date-time": "2024-01-01T00:00:00Z",
            "day": "2024-01-01",
            "job_id": "job",
        }
        return ours.get(schema.get("format", name), "abcdefgh" if "pattern" in schema else WORDS)
    return {"integer": 1, "number": 1.0, "boolean": False}.get(kind)
