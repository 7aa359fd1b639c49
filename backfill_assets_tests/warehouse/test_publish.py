"""Publishing: the warehouse's final content for any publisher, in any order, and after any death."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from warehouse_samples import DAY, NEXT_DAY, loaded, partition, plan, set_lake, write

from backfill_assets.days import utc_now
from backfill_assets.failures import DayHeld, PermanentFailure, Superseded, TransientFailure
from backfill_assets.lake import paths
from backfill_assets.warehouse import ledger
from backfill_assets.warehouse.publish import Partition, Publication, changes, publish
from backfill_assets.warehouse.totals import compare_totals

pytestmark = pytest.mark.timeout(90)

BUTTON = "User requested cancellation"
PUBLISHER = Path(__file__).with_name("warehouse_publisher.py")


def _version(bench: Any, lake: Path, price: float, count: int = 3) -> list[dict[str, Any]]:
    """Make this the lake's content and return it."""
    content = bench.rows(price=price, count=count)
    set_lake(lake, write(lake / "data" / f"{price}-{count}.parquet", content, bench.table.schema))
    return content


def _publish(bench: Any, store: Any, lake: Path, **more: Any) -> Publication:
    return publish(store, bench.warehouse, bench.table, DAY, lambda: plan(lake, bench.table), **more)


@contextmanager
def _publisher(bench: Any, lake: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A publisher in a separate process, after its imports."""
    settings = json.dumps(bench.settings.model_dump())
    process = subprocess.Popen(
        [sys.executable, str(PUBLISHER), settings, str(lake), *arguments], stdout=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait(timeout=10)


def _line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_the_first_publication_makes_the_table_and_its_rows(publishing: Any, store: Any, lake: Path) -> None:
    content = _version(publishing, lake, 1.5)
    outcome = _publish(publishing, store, lake)
    assert (outcome.state, outcome.rows) == ("published", 3)
    assert publishing.read() == content
    entry = ledger.entry(store, publishing.table.name, DAY)
    assert entry is not None
    assert (entry.state, entry.open, entry.loading) == ("done", (), ())
    assert entry.published is not None
    assert (entry.published.job, entry.published.totals) == (outcome.job, outcome.totals)


def test_publishing_the_same_again_loads_nothing(publishing: Any, store: Any, lake: Path) -> None:
    _version(publishing, lake, 1.5)
    first = _publish(publishing, store, lake)
    before = ledger.entry(store, publishing.table.name, DAY)
    second = _publish(publishing, store, lake)
    assert second == replace(first, state="skipped")
    assert ledger.entry(store, publishing.table.name, DAY) == before


def test_going_back_to_an_old_version_ends_with_it(publishing: Any, store: Any, lake: Path) -> None:
    for price in (1.5, 2.5, 1.5):
        content = _version(publishing, lake, price)
        assert _publish(publishing, store, lake).state == "published"
    assert publishing.read() == content


def test_an_empty_plan_takes_the_rows_away(publishing: Any, store: Any, lake: Path) -> None:
    _version(publishing, lake, 1.5)
    _publish(publishing, store, lake)
    set_lake(lake)
    assert _publish(publishing, store, lake).rows == 0
    assert publishing.read() == []
    assert _publish(publishing, store, lake).state == "skipped"


def test_a_load_that_a_person_stops_is_one_failure_and_is_not_submitted_again(
    bigquery_bench: Any, store: Any, lake: Path
) -> None:
    _version(bigquery_bench, lake, 1.5)
    bigquery_bench.emulator.arm(load_delay_seconds=60)
    with ThreadPoolExecutor(1) as pool:
        publishing = pool.submit(_publish, bigquery_bench, store, lake)
        while (job := _load_job(bigquery_bench, store)) is None:
            assert not publishing.done(), publishing.result()
        # The button in Google's console does the same.
        job.cancel(timeout=30)
        bigquery_bench.emulator.arm()
        with pytest.raises(
            PermanentFailure, match="User requested cancellation: not stopped by another publisher"
        ):
            publishing.result(timeout=60)
    table = bigquery_bench.table.name
    assert ledger.submissions(store, table, utc_now()) == 1
    entry = ledger.entry(store, table, DAY)
    assert entry is not None
    assert entry.failure is not None
    assert BUTTON in entry.failure
    assert _publish(bigquery_bench, store, lake).state == "published", "when somebody asks for it again"


def _load_job(bench: Any, store: Any) -> Any:
    """The job that the latest claim has submitted, if there is one."""
    entry = ledger.entry(store, bench.table.name, DAY)
    if entry is None:
        return None
    return bench.warehouse._find(bench.warehouse.job_id(bench.table, DAY, entry.generation))


def test_rows_removed_behind_our_back_are_loaded_again(publishing: Any, store: Any, lake: Path) -> None:
    content = _version(publishing, lake, 1.5)
    _publish(publishing, store, lake)
    publishing.tamper()
    assert len(publishing.read()) == 2
    assert _publish(publishing, store, lake).state == "published"
    assert publishing.read() == content


def test_values_changed_behind_our_back_are_loaded_again_though_all_totals_agree(
    publishing: Any, store: Any, lake: Path
) -> None:
    content = _version(publishing, lake, 1.5)
    _publish(publishing, store, lake)
    before = publishing.warehouse.totals(publishing.table, DAY)
    publishing.swap()
    assert publishing.read() != content
    assert compare_totals(before, publishing.warehouse.totals(publishing.table, DAY)) == []
    published = ledger.entry(store, publishing.table.name, DAY).published
    found = changes(publishing.warehouse, publishing.table, DAY, published)
    assert found == ["rows are not those that were published, though all totals agree"]
    assert _publish(publishing, store, lake).state == "published"
    assert publishing.read() == content
    assert _publish(publishing, store, lake).state == "skipped"


def test_a_publication_that_names_no_content_is_compared_by_its_totals(
    publishing: Any, store: Any, lake: Path
) -> None:
    _version(publishing, lake, 1.5)
    _publish(publishing, store, lake)
    path = paths.publication(publishing.table.name, DAY)
    entry = json.loads(store.read(path).data)
    del entry["published"]["content"]
    store.replace(path, json.dumps(entry).encode(), store.read(path).generation)
    assert _publish(publishing, store, lake).state == "skipped"
    publishing.tamper()
    assert _publish(publishing, store, lake).state == "published"


def test_a_damaged_partition_is_loaded_again(duckdb_bench: Any, store: Any, lake: Path) -> None:
    content = _version(duckdb_bench, lake, 1.5)
    _publish(duckdb_bench, store, lake)
    (duckdb_bench.warehouse.folder / duckdb_bench.table.name / f"{DAY}.parquet").write_bytes(b"not Parquet")
    assert _publish(duckdb_bench, store, lake).state == "published"
    assert duckdb_bench.read() == content


def test_rows_that_differ_from_the_lake_fail_with_the_difference_and_stay_open(
    publishing: Any, store: Any, lake: Path
) -> None:
    _version(publishing, lake, 1.5)
    honest = loaded(plan(lake, publishing.table))
    totals = replace(honest.totals[0], exact=(5, *honest.totals[0].exact[1:]))
    summed = publishing.table.exact_sums[0]
    wrong = partition("wrong", replace(honest, totals=(totals,)))
    with pytest.raises(PermanentFailure, match=f"sum of {summed} is 5 in the lake"):
        publish(store, publishing.warehouse, publishing.table, DAY, lambda: wrong)
    entry = ledger.entry(store, publishing.table.name, DAY)
    assert entry is not None
    assert (entry.state, entry.published) == ("intent", None)
    assert f"sum of {summed} is 5" in (entry.failure or "")
    assert _publish(publishing, store, lake).state == "published"


def test_a_float_sum_within_the_tolerance_is_no_difference(publishing: Any, store: Any, lake: Path) -> None:
    _version(publishing, lake, 1.5)
    honest = loaded(plan(lake, publishing.table))

    def off_by(share: float) -> Partition:
        first, *more = honest.totals[0].floats
        totals = replace(honest.totals[0], floats=(first * (1 + share), *more))
        return partition(f"off by {share}", replace(honest, totals=(totals,)))

    near, far = off_by(5e-10), off_by(5e-9)
    assert publish(store, publishing.warehouse, publishing.table, DAY, lambda: near).state == "published"
    with pytest.raises(PermanentFailure, match=f"sum of {publishing.table.float_sums[0]}"):
        publish(store, publishing.warehouse, publishing.table, DAY, lambda: far)


def test_what_the_lake_says_after_the_claim_is_published(publishing: Any, store: Any, lake: Path) -> None:
    _version(publishing, lake, 1.5)
    calls: list[Partition] = []

    def changing() -> Partition:
        calls.append(plan(lake, publishing.table))
        if len(calls) == 1:
            _version(publishing, lake, 2.5)
        return calls[-1]

    outcome = publish(store, publishing.warehouse, publishing.table, DAY, changing)
    assert publishing.read() == publishing.rows(price=2.5)
    assert outcome.fingerprint == plan(lake, publishing.table).fingerprint != calls[0].fingerprint


def test_a_held_day_is_not_claimed(publishing: Any, store: Any) -> None:
    def held() -> Partition:
        raise DayHeld("2024-01-01 is held")

    with pytest.raises(DayHeld):
        publish(store, publishing.warehouse, publishing.table, DAY, held)
    assert ledger.entry(store, publishing.table.name, DAY) is None


def test_a_failed_load_leaves_the_previous_rows_and_the_next_publisher_heals(
    publishing: Any, store: Any, lake: Path
) -> None:
    content = _version(publishing, lake, 1.5)
    _publish(publishing, store, lake)
    bad = [*publishing.rows(price=2.5), *publishing.rows(count=1, day=NEXT_DAY)]
    set_lake(lake, write(lake / "data" / "bad.parquet", bad, publishing.table.schema))
    with pytest.raises(PermanentFailure, match=NEXT_DAY):
        _publish(publishing, store, lake)
    assert publishing.read() == content
    content = _version(publishing, lake, 3.5)
    _publish(publishing, store, lake)
    assert publishing.read() == content


def test_a_publisher_killed_between_claim_and_load_can_load_no_more(
    publishing: Any, store: Any, lake: Path
) -> None:
    _version(publishing, lake, 1.5)
    with _publisher(publishing, lake, "PAUSE") as process:
        assert [_line(process), _line(process)] == ["ready", "claimed"]
    dead = ledger.entry(store, publishing.table.name, DAY)
    assert dead is not None
    assert dead.state == "intent"
    content = _version(publishing, lake, 2.5)
    assert _publish(publishing, store, lake).state == "published"
    files = loaded(plan(lake, publishing.table)).files
    with pytest.raises(Superseded):
        publishing.warehouse.replace_partition(publishing.table, DAY, files, dead.generation)
    assert publishing.read() == content


def test_a_publisher_that_wakes_up_late_finds_the_newer_rows(publishing: Any, store: Any, lake: Path) -> None:
    _version(publishing, lake, 1.5)
    with _publisher(publishing, lake, "PAUSE") as process:
        assert [_line(process), _line(process)] == ["ready", "claimed"]
        content = _version(publishing, lake, 2.5)
        assert _publish(publishing, store, lake).state == "published"
        (lake / "go").touch()
        assert _line(process) == "skipped"
    assert publishing.read() == content


def test_a_job_whose_client_was_killed_cannot_overwrite_a_newer_publication(
    bigquery_bench: Any, store: Any, lake: Path
) -> None:
    bigquery_bench.warehouse.ensure_table(bigquery_bench.table)
    _version(bigquery_bench, lake, 1.5)
    bigquery_bench.emulator.arm(load_delay_seconds=20)
    with _publisher(bigquery_bench, lake) as process:
        assert _line(process) == "ready"
        job = _running_load(bigquery_bench, store)
    bigquery_bench.emulator.arm()
    content = _version(bigquery_bench, lake, 2.5)
    assert _publish(bigquery_bench, store, lake).state == "published"
    job.reload(timeout=10)
    assert (job.state, job.error_result["reason"]) == ("DONE", "stopped")
    assert bigquery_bench.read() == content


def test_a_job_whose_client_was_killed_takes_effect_if_nobody_publishes_after_it(
    bigquery_bench: Any, store: Any, lake: Path
) -> None:
    bigquery_bench.warehouse.ensure_table(bigquery_bench.table)
    content = _version(bigquery_bench, lake, 1.5)
    bigquery_bench.emulator.arm(load_delay_seconds=1)
    with _publisher(bigquery_bench, lake) as process:
        assert _line(process) == "ready"
        _running_load(bigquery_bench, store)
    deadline = time.monotonic() + 20
    while bigquery_bench.read() != content:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    bigquery_bench.emulator.arm()
    assert _publish(bigquery_bench, store, lake).state == "published"


def _running_load(bench: Any, store: Any) -> Any:
    from google.api_core.exceptions import NotFound

    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        entry = ledger.entry(store, bench.table.name, DAY)
        if entry is not None:
            try:
                job = bench.client.get_job(
                    bench.warehouse.job_id(bench.table, DAY, entry.generation), timeout=10
                )
            except NotFound:
                pass
            else:
                assert job.state == "RUNNING"
                return job
        time.sleep(0.02)
    raise AssertionError("the publisher submitted nothing")


def test_three_threads_that_publish_one_day_converge(publishing: Any, store: Any, lake: Path) -> None:
    content = _version(publishing, lake, 1.5, count=50)
    with ThreadPoolExecutor(3) as pool:
        outcomes = list(pool.map(lambda _: _publish(publishing, store, lake), range(3)))
    assert "published" in {outcome.state for outcome in outcomes}
    assert {outcome.rows for outcome in outcomes} == {50}
    assert publishing.read() == content
    assert _publish(publishing, store, lake).state == "skipped"


def test_three_processes_that_publish_a_changing_day_end_with_its_last_version(
    publishing: Any, store: Any, lake: Path
) -> None:
    _version(publishing, lake, 1.5)
    with (
        _publisher(publishing, lake) as first,
        _publisher(publishing, lake) as second,
        _publisher(publishing, lake) as third,
    ):
        processes = (first, second, third)
        assert [_line(process) for process in processes] == ["ready"] * 3
        content = _version(publishing, lake, 2.5)
        # A process that changes the lake publishes afterwards.
        _publish(publishing, store, lake)
        assert all(_line(process) in ("published", "skipped") for process in processes)
    assert publishing.read() == content
    assert _publish(publishing, store, lake).state == "skipped"


def test_a_lost_ledger_does_not_stop_publishing(publishing: Any, store: Any, lake: Path) -> None:
    _version(publishing, lake, 1.5)
    _publish(publishing, store, lake)
    store.delete(paths.publication(publishing.table.name, DAY))
    content = _version(publishing, lake, 2.5)
    assert _publish(publishing, store, lake).state == "published"
    assert publishing.read() == content


def test_a_publisher_that_is_overtaken_every_time_gives_up_and_says_so(
    publishing: Any, store: Any, lake: Path
) -> None:
    _version(publishing, lake, 1.5)
    publishing.warehouse.ensure_table(publishing.table)

    def overtaken() -> Partition:
        # Another publisher claims after each claim of this one.
        ledger.claim(store, publishing.table.name, DAY, "another")
        return plan(lake, publishing.table)

    with pytest.raises(TransientFailure, match="other publishers were faster 2 times"):
        publish(
            store, publishing.warehouse, publishing.table, DAY, overtaken, attempts=2, patience_seconds=0.1
        )
    assert publishing.read() == []
    assert _publish(publishing, store, lake).state == "published"


def test_an_overtaken_publisher_waits_for_the_newer_one_instead_of_overtaking_it(
    publishing: Any, store: Any, lake: Path
) -> None:
    _version(publishing, lake, 1.5)
    overtakers: list[threading.Thread] = []
    outcomes: list[Publication] = []

    def slow() -> Partition:
        result = plan(lake, publishing.table)
        time.sleep(0.5)
        return result

    def other() -> None:
        outcomes.append(publish(store, publishing.warehouse, publishing.table, DAY, slow))

    calls: list[int] = []

    def overtaken_once() -> Partition:
        calls.append(1)
        if len(calls) == 2:
            overtakers.append(threading.Thread(target=other))
            overtakers[0].start()
            time.sleep(1.0)  # by now the other publisher has claimed
        return plan(lake, publishing.table)

    outcome = publish(store, publishing.warehouse, publishing.table, DAY, overtaken_once)
    overtakers[0].join(timeout=30)
    assert (outcome.state, outcomes[0].state) == ("skipped", "published")


def test_nobody_waits_for_a_publisher_that_failed(publishing: Any, store: Any, lake: Path) -> None:
    content = _version(publishing, lake, 1.5)
    calls: list[int] = []

    def overtaken_once() -> Partition:
        calls.append(1)
        if len(calls) == 2:
            newer = ledger.claim(store, publishing.table.name, DAY, "another")
            ledger.give_up(store, publishing.table.name, DAY, newer, "failed")
        return plan(lake, publishing.table)

    start = time.monotonic()
    assert publish(store, publishing.warehouse, publishing.table, DAY, overtaken_once).state == "published"
    assert time.monotonic() - start < 30
    assert publishing.read() == content


def test_loads_beyond_the_daily_limit_wait_for_the_next_day(
    bigquery_bench: Any, store: Any, lake: Path
) -> None:
    bigquery_bench.warehouse._daily_loads = 2
    for price in (1.5, 2.5):
        _version(bigquery_bench, lake, price)
        _publish(bigquery_bench, store, lake)
    _version(bigquery_bench, lake, 3.5)
    with pytest.raises(TransientFailure, match="2 loads of this table today, the limit is 2: waits for"):
        _publish(bigquery_bench, store, lake)
    assert bigquery_bench.read() == bigquery_bench.rows(price=2.5)
    _version(bigquery_bench, lake, 2.5)
    bigquery_bench.warehouse._daily_loads = 3
    assert _publish(bigquery_bench, store, lake).state == "published"
