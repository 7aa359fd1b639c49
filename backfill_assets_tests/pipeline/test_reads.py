"""Reads of a day: how often each document, how often each data file, asset by asset.

No other test notices this promise: a judgment or a file that is read once more gives the same tables. A store
below the lake's store counts the reads.
"""

from __future__ import annotations

import subprocess
import sys
import threading
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from click.testing import CliRunner

from backfill_assets.candles import build
from backfill_assets.cli import main
from backfill_assets.failures import PermanentFailure
from backfill_assets.lake.local import LocalStore
from backfill_assets.quality import context, settle
from backfill_assets.rule_set import RULES_VERSION
from backfill_assets.standins.faults import Fault, not_found

DAY, NEXT = "2024-01-02", "2024-01-03"
#: Limit of reads of one document by one asset, or by the checks of one.
DOCUMENT_BUDGET = 3
ABSENT = "binance/trades/BTCUSDT"
LAKE_ASSETS = ("instruments", "ticks", "candles")


class Counts:
    """Reads and opens by step and path; a step is an asset, or the checks of an asset."""

    def __init__(self) -> None:
        self.step = ""
        self.reads: dict[str, Counter[str]] = defaultdict(Counter)
        self.opens: dict[str, Counter[str]] = defaultdict(Counter)
        self.written: list[str] = []
        self.verdicts = 0
        #: Looks at the comparison of a feed's prices with the trades.
        self.comparisons = 0
        self.lock = threading.Lock()

    def opened(self, kind: str, *steps: str) -> Counter[str]:
        """How often each data file below ``kind`` was opened, by these steps or by all."""
        wanted = steps or tuple(self.opens)
        found: Counter[str] = Counter()
        for step in wanted:
            found += self.opens[step]
        return Counter({path: n for path, n in found.items() if path.startswith(f"{kind}/")})


@pytest.fixture
def counts(monkeypatch: pytest.MonkeyPatch) -> Counts:
    """Counts every call of the local store in this test."""
    counted = Counts()
    read, local_copy, judge = LocalStore.read, LocalStore.local_copy, settle.judge_feed
    judged_prices = context.judged_prices
    put_file, put_bytes = LocalStore.put_file, LocalStore.put_bytes

    def counting_read(self: LocalStore, path: str) -> Any:
        with counted.lock:
            counted.reads[counted.step][path] += 1
        return read(self, path)

    @contextmanager
    def counting_copy(self: LocalStore, path: str) -> Iterator[Path]:
        with counted.lock:
            counted.opens[counted.step][path] += 1
        with local_copy(self, path) as file:
            yield file

    def counting_put(self: LocalStore, file: Path, path: str) -> None:
        counted.written.append(path)
        put_file(self, file, path)

    def counting_put_bytes(self: LocalStore, data: bytes, path: str) -> None:
        counted.written.append(path)
        put_bytes(self, data, path)

    def counting_judge(*arguments: Any) -> Any:
        counted.verdicts += 1
        return judge(*arguments)

    def counting_prices(*arguments: Any) -> Any:
        counted.comparisons += 1
        return judged_prices(*arguments)

    monkeypatch.setattr(LocalStore, "read", counting_read)
    monkeypatch.setattr(LocalStore, "local_copy", counting_copy)
    monkeypatch.setattr(LocalStore, "put_file", counting_put)
    monkeypatch.setattr(LocalStore, "put_bytes", counting_put_bytes)
    monkeypatch.setattr(settle, "judge_feed", counting_judge)
    monkeypatch.setattr(context, "judged_prices", counting_prices)
    return counted


def run(pipeline: Any, day: str, counts: Counts) -> dg.ExecuteInProcessResult:
    """Run the day and count by the step at work."""
    counts.reads.clear()
    counts.opens.clear()
    counts.written.clear()
    counts.verdicts = counts.comparisons = 0
    original = dg.DagsterInstance.handle_new_event

    def following(self: dg.DagsterInstance, entry: Any, **more: Any) -> Any:
        event = entry.dagster_event
        if event is not None and event.event_type_value == "STEP_START":
            counts.step = event.step_key.replace("__", "/")
        return original(self, entry, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dg.DagsterInstance, "handle_new_event", following)
        result = pipeline.run(day)
    counts.step = ""
    assert result.success
    return result


def test_a_first_day_opens_each_tick_file_for_the_proof_of_its_candles_and_the_load(pipeline, counts):
    run(pipeline, DAY, counts)
    ticks = counts.opened("ticks", *LAKE_ASSETS, *(f"{asset}_checks" for asset in LAKE_ASSETS))
    assert len(ticks) == 9
    assert set(ticks.values()) == {1}, "the comparison by another engine; decoding has made the candles"
    assert set(counts.opened("ticks").values()) == {2}, "and once to be loaded into the embedded warehouse"
    assert counts.verdicts == 9, "one verdict per feed"
    assert counts.comparisons == 9, "one look per feed, not one per pair of feeds"
    partials = counts.opened("partials", "candles")
    assert len(partials) == 9
    assert set(partials.values()) == {1}, "to be kept, merged and compared"


def test_the_next_day_judges_the_neighbour_once_and_opens_none_of_its_tick_files(pipeline, counts):
    pipeline.begin_after(DAY)
    run(pipeline, NEXT, counts)
    assert counts.verdicts == 18
    assert not [path for path in counts.opened("ticks") if f"/{DAY}/" in path]
    assert set(counts.opened("partials", "candles").values()) == {2}, "both days are made of both days' files"


def test_no_step_of_a_first_day_reads_a_document_more_often_than_its_budget(pipeline, counts):
    pipeline.begin_after(DAY)
    run(pipeline, NEXT, counts)
    # A ledger entry is read before each of its changes, and a load changes it three times.
    over = {
        (step, path): n
        for step, reads in counts.reads.items()
        for path, n in reads.items()
        if n > 2 * DOCUMENT_BUDGET and not path.startswith("publications/")
    }
    assert over == {}


def test_a_rerun_with_nothing_to_do_opens_and_writes_no_data_file_and_judges_nothing(pipeline, counts):
    assert pipeline.run(DAY).success
    assert pipeline.run(NEXT).success
    run(pipeline, NEXT, counts)
    opened = {step: dict(found) for step, found in counts.opens.items() if found}
    assert opened == {}
    assert counts.written == []
    assert counts.verdicts == 0
    over = {
        (step, path): n
        for step, reads in counts.reads.items()
        for path, n in reads.items()
        if n > DOCUMENT_BUDGET
    }
    assert over == {}


def test_the_log_of_a_day_names_the_feeds_that_have_no_file_and_counts_the_others(pipeline):
    pipeline.with_fault(ABSENT, DAY, Fault(always=not_found()))
    result = pipeline.run(DAY)
    lines = [
        entry.message for entry in pipeline.instance.all_logs(result.run_id) if entry.step_key == "ticks"
    ]
    assert [line for line in lines if "trades/" in line and ABSENT not in line] == []
    assert len([line for line in lines if ABSENT in line and " absent: " in line]) == 1
    assert f"{DAY}: 1 absent, 8 fetched" in lines


def test_candles_read_the_partials_of_a_day_together_and_match_names_once_a_day(pipeline, monkeypatch):
    pipeline.begin_after(DAY)
    calls: Counter[str] = Counter()

    def count(target: Any, name: str) -> None:
        original = getattr(target, name)

        def counting(*arguments: Any, **more: Any) -> Any:
            calls[name] += 1
            return original(*arguments, **more)

        monkeypatch.setattr(target, name, counting)

    count(build, "read_partials")
    count(build.Partials, "of_day")
    count(build._Maker, "renamed")
    assert pipeline.run(NEXT).success
    # Both days are made of the files of three days each; names are also asked for by the hash of inputs and
    # the last prices.
    assert (calls["of_day"], calls["read_partials"]) == (2, 4)
    assert calls["renamed"] <= 3 * 6


COMMANDS = (
    ("candles", "--date", DAY, "--exchange", "binance", "--symbol", "BTC-USDT"),
    ("candles", "--date", DAY, "--exchange", "binance", "--symbol", "BTC-USDT", "--fill"),
    ("coverage", "--date", DAY),
    ("coverage", "--date", DAY, "--exchange", "binance", "--symbol", "BTC-USDT"),
    ("report", "--date", DAY, "--out", "{folder}/day.html"),
    ("report", "--month", DAY[:7], "--out", "{folder}/month.html"),
    ("plan", "--start", DAY, "--end", NEXT),
)


@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: " ".join(words[::2]))
def test_a_command_that_shows_writes_nothing_even_under_other_thresholds(
    pipeline, tmp_path, words, monkeypatch
):
    pipeline.begin_after(DAY)
    rules = pipeline.folder / "rules.yaml"
    rules.write_text(f"version: {RULES_VERSION}\nmissing_ids: 0\n")
    stricter = "thresholds: {rules: rules.yaml, day_completeness: 0.999}\n"
    pipeline.file.write_text(pipeline.file.read_text() + stricter)
    before = {file: file.read_bytes() for file in (pipeline.folder / "lake").rglob("*") if file.is_file()}

    def refuse(self, *_):
        msg = f"{self.uri}: this store refuses to write"
        raise PermanentFailure(msg)

    for name in ("replace", "put_file", "delete"):
        monkeypatch.setattr(LocalStore, name, refuse)
    given = [word.format(folder=tmp_path) for word in words]
    answer = CliRunner(env={"BACKFILL_ENV": str(pipeline.file)}).invoke(main, given)
    assert answer.exit_code == 0, answer.output
    after = {file: file.read_bytes() for file in (pipeline.folder / "lake").rglob("*") if file.is_file()}
    assert after == before


def test_a_change_of_thresholds_shows_after_the_next_run_of_the_day(pipeline):
    pipeline.begin_after(DAY)
    rules = pipeline.settled(DAY).settled.rules
    pipeline.file.write_text(pipeline.file.read_text() + "thresholds: {day_completeness: 0.999}\n")
    assert pipeline.settled(DAY).settled.rules == rules
    assert pipeline.settled(DAY).scores.state == "published"
    pipeline.run(DAY)
    assert pipeline.settled(DAY).settled.rules != rules
    assert pipeline.settled(DAY).scores.state == "degraded"


#: Libraries that take a quarter of a second and more to import; a run with nothing to do needs none of them.
HEAVY = ("pandas", "polars", "numba", "pandera", "dagster_gcp")


def test_a_rerun_with_nothing_to_do_imports_none_of_the_heavy_libraries(pipeline):
    assert pipeline.run(DAY).success
    code = f"""
import sys
import dagster as dg
from backfill_assets.definitions import build_definitions
job = build_definitions({str(pipeline.file)!r}).resolve_job_def("day")
with dg.DagsterInstance.ephemeral() as instance:
    assert job.execute_in_process(partition_key="{DAY}", instance=instance).success
print([name for name in {HEAVY} if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.splitlines()[-1] == "[]"
