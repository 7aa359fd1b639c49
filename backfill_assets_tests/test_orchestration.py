"""Failures become Dagster's failures: a rerun happens only if it can change something."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from contextlib import closing

import dagster as dg
import pytest

from backfill_assets.failures import FeedAbsent, NotExportedYet, PermanentFailure, TransientFailure
from backfill_assets.orchestration import TABLE_ROWS, failures_as_dagster, open_instance, table_metadata
from backfill_assets_tests.obstacles import folder_of_nobody


@pytest.mark.parametrize(
    "failure",
    [
        PermanentFailure("no"),
        FeedAbsent("gone"),
        NotExportedYet("later"),
        TransientFailure("quota is used up", retry_after_seconds=1_801),
    ],
)
def test_what_a_rerun_soon_cannot_change_forbids_retries(failure):
    with pytest.raises(dg.Failure) as raised, failures_as_dagster():
        raise failure
    assert raised.value.allow_retries is False
    assert raised.value.description == str(failure)


@pytest.mark.parametrize(("asked", "waits"), [(None, 30), (5, 5), (1_800, 1_800)])
def test_a_passing_failure_asks_for_the_step_again_after_the_wait_that_was_asked_for(asked, waits):
    with pytest.raises(dg.RetryRequested) as raised, failures_as_dagster():
        raise TransientFailure("busy", retry_after_seconds=asked)
    assert (raised.value.max_retries, raised.value.seconds_to_wait) == (2, waits)


def test_a_bug_passes_through_unchanged():
    with pytest.raises(KeyError), failures_as_dagster():
        raise KeyError("bug")


def test_a_metadata_table_shows_the_first_rows_and_every_kind_of_cell():
    rows = [{"n": i, "what": ("a", i), "none": None} for i in range(TABLE_ROWS + 1)]
    shown = table_metadata(rows)
    assert len(shown.records) == TABLE_ROWS
    assert shown.records[3].data == {"n": 3, "what": "('a', 3)", "none": None}
    assert table_metadata([]).records == []


def test_an_instance_is_opened_in_a_folder_whatever_the_environment_names(tmp_path, monkeypatch):
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "gone"))
    (tmp_path / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    with open_instance(str(tmp_path)) as instance:
        assert instance.get_runs_count() == 0
        assert instance.root_directory == str(tmp_path)


OPEN_WHEN_TOLD = """
import sys
from backfill_assets.orchestration import open_instance
print("ready", flush=True)
sys.stdin.readline()
with open_instance() as instance:
    assert instance.get_runs_count() == 0
"""


def test_processes_that_open_a_fresh_home_together_all_have_it(tmp_path, monkeypatch):
    """Use Dagster's own storage, which makes its tables without a lock."""
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", OPEN_WHEN_TOLD],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(8)
    ]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()
    for process in processes:
        _, errors = process.communicate(timeout=200)
        assert process.returncode == 0, errors


def test_records_that_others_have_made_together_are_refused_in_one_line(tmp_path):
    open_instance(str(tmp_path)).dispose()
    [file] = tmp_path.rglob("runs.db")
    with closing(sqlite3.connect(file)) as database, database:
        database.execute("INSERT INTO alembic_version VALUES ('another')")
    with pytest.raises(PermanentFailure) as refused:
        open_instance(str(tmp_path))
    assert f"Dagster's storage cannot be opened (DAGSTER_HOME={tmp_path}): " in str(refused.value)
    assert "more than one head" in str(refused.value)


def test_a_home_that_may_not_be_written_is_opened_where_its_records_lie_elsewhere(tmp_path):
    open_instance(str(tmp_path)).dispose()  # It loads libraries that the other user may not read.
    with folder_of_nobody() as home:
        records = home / "records"
        records.mkdir()
        (home / "dagster.yaml").write_text(
            f"telemetry: {{enabled: false}}\nstorage: {{sqlite: {{base_dir: {records}}}}}\n"
        )
        home.chmod(0o500)
        try:
            with open_instance(str(home)) as instance:
                assert instance.get_runs_count() == 0
        finally:
            home.chmod(0o700)
