"""Lake, warehouse and Dagster's records differ: each difference is named, and repaired if it can be."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import dagster as dg
import polars as pl
import pytest
from click.testing import CliRunner

from backfill_assets.cli import main
from backfill_assets.lake import paths
from backfill_assets.progress.reconcile import ASSETS, Difference, Places, differences, mend
from backfill_assets.warehouse.garbage import unnamed_files
from backfill_assets.warehouse.presence import partitions
from backfill_assets_tests.pipeline.conftest import Pipeline
from backfill_assets_tests.quality.watched_stores import ReadOnlyStore

DAY = "2024-01-02"
ONE_FEED = {"exchanges": ["binance"], "symbols": ["BTC-USDT"], "data_types": ["trades"]}
STORED = frozenset(ASSETS) - {"ohlcv"}
HASH = "0" * 64


@pytest.fixture
def pipeline(make_pipeline, standin) -> Pipeline:
    made: Pipeline = make_pipeline(standin, universe=[ONE_FEED])
    made.begin_after(DAY)
    return made


@contextmanager
def compared(pipeline: Pipeline, *, lacking: str = "") -> Iterator[Places]:
    """Dagster has every asset of the day but one."""
    materialized = {asset: {DAY} for asset in STORED - {lacking}} | {lacking: set(), "ohlcv": set()}
    warehouse = pipeline.warehouse
    store = ReadOnlyStore(pipeline.folder / "lake")
    there = partitions(pipeline.settings.warehouse)
    yield Places(store, pipeline.settings, warehouse, None, materialized, unnamed_files(store), there)
    warehouse.close()


def everything(folder: Path) -> dict[str, tuple[int, int]]:
    """Size and time of change of every file and folder."""
    found = {path.as_posix(): path.lstat() for path in folder.rglob("*")}
    return {path: (about.st_size, about.st_mtime_ns) for path, about in found.items()}


def kinds(found: list[Difference]) -> set[tuple[str, str]]:
    return {(difference.kind, difference.what) for difference in found}


def lose_partition(pipeline: Pipeline) -> None:
    (pipeline.folder / "warehouse/candles" / f"{DAY}.parquet").unlink()


def change_partition(pipeline: Pipeline) -> None:
    file = pipeline.folder / "warehouse/trades" / f"{DAY}.parquet"
    rows = pl.read_parquet(file)
    rows.with_columns(pl.col("price") * 2).write_parquet(file)


def lose_entry(pipeline: Pipeline) -> None:
    (pipeline.folder / "lake" / paths.publication("coverage", DAY)).unlink()


def publish_others(pipeline: Pipeline) -> None:
    file = pipeline.folder / "lake" / paths.publication("trades", DAY)
    content = json.loads(file.read_text())
    content["published"]["fingerprint"] = content["fingerprint"] = "others"
    file.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("damage", "difference"),
    [
        (lose_partition, ("missing_partition", "candles")),
        (change_partition, ("changed_partition", "trades")),
        (publish_others, ("other_content", "trades")),
    ],
)
def test_a_table_that_differs_is_named_and_published_again(
    damage: Callable[[Pipeline], None], difference: tuple[str, str], pipeline: Pipeline
) -> None:
    with compared(pipeline) as places:
        assert differences(places, DAY) == []
        table = difference[1]
        before = pipeline.table(table, DAY)
        damage(pipeline)
        found = differences(places, DAY)
        assert kinds(found) == {difference}
        assert list(mend(replace(places, store=pipeline.store), found, lambda *_: None)) == []
        assert differences(places, DAY) == []
        assert pipeline.table(table, DAY).equals(before)


def test_a_lost_ledger_entry_is_made_again(pipeline: Pipeline) -> None:
    lose_entry(pipeline)
    with compared(pipeline) as places:
        found = differences(places, DAY)
        assert kinds(found) == {("missing_partition", "coverage"), ("only_in_dagster", "bigquery/coverage")}
        assert found[0].text == "is there, but the ledger does not know it"
        assert list(mend(replace(places, store=pipeline.store), found, lambda *_: None)) == []
        assert differences(places, DAY) == []


def test_files_that_lack_and_files_that_nothing_names_are_listed(pipeline: Pipeline) -> None:
    [file] = (pipeline.folder / "lake/ticks").rglob("*.parquet")
    name = file.relative_to(pipeline.folder / "lake").as_posix()
    orphan = name.replace(file.stem, HASH)
    file.rename(pipeline.folder / "lake" / orphan)
    with compared(pipeline) as places:
        found = differences(places, DAY)
    assert kinds(found) == {("missing_file", name), ("orphan_file", orphan)}


@pytest.mark.parametrize("stage", ["ticks", "instruments"])
def test_a_lost_manifest_is_a_difference_and_its_file_is_no_orphan(stage: str, pipeline: Pipeline) -> None:
    [file] = (pipeline.folder / "lake" / stage).rglob("manifest.json")
    file.unlink()
    with compared(pipeline) as places:
        found = differences(places, DAY)
    name = file.relative_to(pipeline.folder / "lake").as_posix()
    assert kinds(found) == {("missing_file", name)}


def test_what_dagster_lacks_and_what_only_dagster_has(pipeline: Pipeline) -> None:
    with compared(pipeline, lacking="ticks") as places:
        assert kinds(differences(places, DAY)) == {("not_in_dagster", "ticks")}
        assert places.all_days() == [DAY]
    shutil.rmtree(pipeline.folder / "lake")
    with compared(pipeline) as places:
        found = kinds(differences(places, DAY))
    tables = ("candles", "coverage", "instruments", "quality", "trades")
    assert found == {
        *(("only_in_dagster", asset) for asset in STORED),
        *(("orphan_partition", table) for table in tables),
    }


def test_a_partition_that_nothing_has_published_is_listed_and_left(pipeline: Pipeline) -> None:
    folder, other = pipeline.folder / "warehouse/candles", "2024-02-01"
    shutil.copy(folder / f"{DAY}.parquet", folder / f"{other}.parquet")
    with compared(pipeline) as places:
        assert places.all_days() == [DAY, other]
        found = differences(places, other)
        assert kinds(found) == {("orphan_partition", "candles")}
        assert list(mend(replace(places, store=pipeline.store), found, lambda *_: None)) == []
    assert (folder / f"{other}.parquet").exists()


def test_a_table_that_cannot_be_published_is_told_and_keeps_no_other_from_it(pipeline: Pipeline) -> None:
    [ticks] = (pipeline.folder / "lake/ticks").rglob("*.parquet")
    ticks.unlink()
    change_partition(pipeline)
    lose_partition(pipeline)
    with compared(pipeline) as places:
        found = differences(places, DAY)
        [failed] = mend(replace(places, store=pipeline.store), found, lambda *_: None)
        assert (failed.what, ticks.name in failed.text) == ("trades", True)
        assert {what for _, what in kinds(differences(places, DAY))} == {
            "trades",
            ticks.relative_to(pipeline.folder / "lake").as_posix(),
        }


def test_a_damaged_document_is_a_difference_and_ends_nothing(pipeline: Pipeline) -> None:
    [file] = (pipeline.folder / "lake/ticks").rglob("manifest.json")
    file.write_bytes(b"{")
    with compared(pipeline) as places:
        found = differences(places, DAY)
    assert {kind for kind, _ in kinds(found)} == {"unreadable"}


def test_a_lost_database_of_dagster_is_filled_again(
    pipeline: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    monkeypatch.setenv("DAGSTER_HOME", str(home))
    runner = CliRunner(env={"BACKFILL_ENV": str(pipeline.file)})
    before = everything(pipeline.folder)
    told = runner.invoke(main, ["reconcile", "--json"])
    assert told.exit_code == 1, told.output
    assert everything(pipeline.folder) == before, "without --apply nothing is written"
    answer = json.loads(told.stdout)
    assert answer["days"] == 1
    assert {(d["day"], d["kind"], d["what"]) for d in answer["differences"]} == {
        (DAY, "not_in_dagster", asset) for asset in STORED
    }
    for words in (["--apply"], []):
        mended = runner.invoke(main, ["reconcile", *words])
        assert (mended.exit_code, mended.output) == (0, "1 day: 0 differences\n")
    with dg.DagsterInstance.get() as instance:
        keys = [dg.AssetKey.from_user_string(asset) for asset in STORED]
        assert all(instance.get_materialized_partitions(key) == {DAY} for key in keys)
