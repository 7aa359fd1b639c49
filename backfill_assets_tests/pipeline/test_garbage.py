"""Files that ``gc`` frees and files that it spares, also beside a day that runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pytest
import yaml
from click.testing import CliRunner

from backfill_assets.cli import main
from backfill_assets.days import utc_now
from backfill_assets.feeds import Feed
from backfill_assets.files import TEMPORARY_PREFIX
from backfill_assets.lake import paths
from backfill_assets.lake.store import Store, open_store
from backfill_assets.settings import LakeSettings
from backfill_assets.warehouse import garbage as garbage_module
from backfill_assets.warehouse.garbage import Garbage, free, garbage
from backfill_assets_tests.emulators.gcs import gcs_server
from backfill_assets_tests.pipeline.conftest import Pipeline
from backfill_assets_tests.quality.watched_stores import ReadOnlyStore

DAY = "2024-01-02"
ONE_FEED = {"exchanges": ["binance"], "symbols": ["BTC-USDT"], "data_types": ["trades"]}
TABLES = ("instruments", "trades", "candles", "coverage")
MONTHS_AGO = (utc_now() - timedelta(days=90)).timestamp()
NAMES = [name * 64 for name in "abcde"]
FEED = Feed("binance", "trades", "BTCUSDT")
#: No document names a file of this day; its neighbors are not neighbors of ``DAY``.
FAR = "2024-03-02"


@pytest.fixture
def pipeline(make_pipeline, standin, tmp_path) -> Pipeline:
    made: Pipeline = make_pipeline(standin, universe=[ONE_FEED])
    made.begin_after(DAY)
    (tmp_path / "scratch").mkdir()
    content = yaml.safe_load(made.file.read_text())
    content["lake"]["scratch"] = str(tmp_path / "scratch")
    made.file.write_text(yaml.safe_dump(content))
    return made


def lake_of(pipeline: Pipeline) -> Path:
    return pipeline.folder / "lake"


def age(folder: Path) -> None:
    for file in folder.rglob("*"):
        os.utime(file, (MONTHS_AGO, MONTHS_AGO))


def gc(pipeline: Pipeline, *words: str) -> str:
    done = CliRunner(env={"BACKFILL_ENV": str(pipeline.file)}).invoke(main, ["gc", *words])
    assert done.exit_code == 0, done.output
    return done.output


def counts(said: str) -> dict[str, int]:
    words = [line.split() for line in said.splitlines()[-5:-1]]
    return {kind.rstrip(":"): int(count.rstrip(",")) for kind, count, *_ in words}


def test_only_what_is_old_and_named_by_nothing_is_freed_and_only_when_asked(pipeline: Pipeline) -> None:
    lake, scratch = lake_of(pipeline), Path(pipeline.settings.lake.scratch)
    manifest = next((lake / "ticks").rglob("manifest.json"))
    loading = lake / paths.publication("trades", DAY)
    named = f"{lake}/ticks/{NAMES[4]}.parquet"
    loading.write_text(loading.read_text().replace('"loading":[]', f'"loading":["{named}"]'))
    assert named in loading.read_text()
    made = {
        "replaced": manifest.with_name(f"{NAMES[0]}.parquet"),
        "orphan": lake / "ticks/binance/trades/ETHUSDT" / DAY / f"{NAMES[1]}.parquet",
        "rejected": lake / "rejected/binance/trades/ETHUSDT" / DAY / f"{NAMES[2]}.csv.gz",
        "temporary": scratch / f"{TEMPORARY_PREFIX}0123abcd" / "part",
    }
    spared = [
        manifest.with_name(f"{NAMES[4]}.parquet"),
        scratch / "backfill-research" / "part",
        scratch / f"{TEMPORARY_PREFIX}notes" / "part",
        lake / "candles/my.txt",
    ]
    for file in (*made.values(), *spared):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"1234")
    assert counts(gc(pipeline)) == dict.fromkeys(made, 0), "all are young"
    age(lake)
    age(scratch)
    before = pipeline.store.sizes("")
    said = gc(pipeline)
    assert counts(said) == dict.fromkeys(made, 1)
    for kind, file in made.items():
        name = file.parent.as_posix() if kind == "temporary" else file.relative_to(lake).as_posix()
        assert f"{kind:<10} {'4 B':>10}  {name}\n" in said
    assert pipeline.store.sizes("") == before
    assert "16 B freed" in gc(pipeline, "--apply", "--older-than", "60d")
    assert not any(file.exists() for file in made.values())
    assert all(file.exists() for file in spared)
    gone = {file.relative_to(lake).as_posix() for kind, file in made.items() if kind != "temporary"}
    assert set(pipeline.store.sizes("")) == set(before) - gone
    assert counts(gc(pipeline, "--apply")) == dict.fromkeys(made, 0)


@pytest.mark.parametrize("given", ["1d", "0d", "30", "-3d", "1e3d", "", "30 days"])
def test_an_age_that_is_none_or_too_short_is_refused_in_a_line(given: str) -> None:
    done = CliRunner().invoke(main, ["gc", "--older-than", given, "--apply"])
    assert (done.exit_code, done.stdout) == (2, "")
    assert (
        done.stderr
        == f"Error: older than: '{given}' is not an age: write days, at least 2d, for example 30d\n"
    )


@pytest.mark.story
@pytest.mark.timeout(300)
def test_a_day_that_runs_beside_it_ends_as_without_it(pipeline: Pipeline) -> None:
    """The day's old files are there and no document names them; the run is about to name them again."""
    lake = lake_of(pipeline)
    expected = {table: pipeline.table(table, DAY) for table in TABLES}
    for document in lake.rglob("*.json"):
        document.unlink()
    age(lake)
    environment = {**os.environ, "BACKFILL_ENV": str(pipeline.file)}
    environment.pop("DAGSTER_HOME", None)
    command = [sys.executable, "-m", "backfill_assets.cli", "run", "--date", DAY]
    # Half of the old files are freed before the run begins, the other half during the run.
    before = utc_now() - timedelta(days=30)
    found = list(garbage(pipeline.store, pipeline.settings.lake, before))
    freed = len(list(free(pipeline.store, found[::2], before)))
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        while process.poll() is None:
            met = garbage(pipeline.store, pipeline.settings.lake, before)
            freed += len(list(free(pipeline.store, met, before)))
        assert process.stdout is not None
        said = process.stdout.read()
    assert process.returncode == 0, said
    assert freed > 0
    for table, rows in expected.items():
        assert pipeline.table(table, DAY).equals(rows), table
    assert not list(garbage(pipeline.store, pipeline.settings.lake, before))


# --- a lake in a folder and in a bucket --------------------------------------------------------------------


@pytest.fixture(scope="module")
def gcs_url() -> Iterator[str]:
    with gcs_server("bucket") as url:
        yield url


@pytest.fixture(params=["directory", "bucket"])
def lake(pipeline: Pipeline, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> LakeSettings:
    """A finished day, and beside it a replaced file of it and an orphan of another month."""
    if request.param == "bucket":
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", request.getfixturevalue("gcs_url"))
        settings = LakeSettings(uri=f"gs://bucket/{uuid4().hex}", scratch=str(pipeline.folder))
        store = open_store(settings)
        for path in pipeline.store.list(""):
            data = (lake_of(pipeline) / path).read_bytes()
            if path.endswith(".json"):
                store.replace(path, data, None)
            else:
                store.put_bytes(data, path)
    else:
        settings = pipeline.settings.lake
    for path in (REPLACED, ORPHAN):
        open_store(settings).put_bytes(b"1234", path)
    return settings


REPLACED, ORPHAN = paths.ticks_data(FEED, DAY, NAMES[0]), paths.ticks_data(FEED, FAR, NAMES[1])


def soon() -> datetime:
    """A moment after every file's time: the time of an object in a bucket cannot be set."""
    return utc_now() + timedelta(minutes=1)


def freed_of(store: Store, found: list[Garbage]) -> dict[str, str]:
    return {one.path: one.kind for one in free(store, found, soon())}


def cut(data: bytes) -> bytes:
    return data[:1]


def as_of_a_newer_version(data: bytes) -> bytes:
    content = json.loads(data)
    key = "day" if "day" in content else "generation"
    return json.dumps({**content, key: {"is": content[key]}}).encode()


def test_what_is_named_by_nothing_is_freed_in_either_store(lake: LakeSettings) -> None:
    store = open_store(lake)
    before = set(store.sizes(""))
    assert freed_of(store, list(garbage(store, lake, soon()))) == {REPLACED: "replaced", ORPHAN: "orphan"}
    assert set(store.sizes("")) == before - {REPLACED, ORPHAN}


@pytest.mark.parametrize("change", [cut, as_of_a_newer_version])
@pytest.mark.parametrize(
    "document",
    [
        paths.ticks_manifest(FEED, DAY),
        paths.day_record(DAY),
        paths.settled_day(DAY),
        paths.measures(DAY),
        paths.publication("trades", DAY),
        paths.settled_day("2024-01-03"),
    ],
)
def test_a_document_that_cannot_be_read_spares_all_of_its_day_and_no_other(
    document: str, change: Callable[[bytes], bytes], lake: LakeSettings
) -> None:
    store = open_store(lake)
    stored = store.read(document)
    data = change(stored.data if stored else b'{"day": "2024-01-03"}')
    store.replace(document, data, stored and stored.generation)
    assert freed_of(store, list(garbage(store, lake, soon()))) == {ORPHAN: "orphan"}


@pytest.mark.parametrize(
    ("document", "spared"),
    [
        (paths.ticks_manifest(FEED, DAY), {REPLACED}),
        (paths.instruments_manifest("binance", DAY), {paths.instruments_data("binance", DAY, NAMES[2])}),
        (paths.measures(DAY), {paths.made_data("candles", DAY, NAMES[2])}),
    ],
)
def test_a_document_that_is_lost_spares_what_it_may_have_named(
    document: str, spared: set[str], pipeline: Pipeline
) -> None:
    store, lake = pipeline.store, pipeline.settings.lake
    for path in spared:
        store.put_bytes(b"1234", path)
    assert {one.path for one in garbage(store, lake, soon())} == spared
    store.delete(document)
    assert not list(garbage(store, lake, soon()))


def test_a_file_that_is_named_after_it_was_listed_is_spared(lake: LakeSettings) -> None:
    store = open_store(lake)
    found = list(garbage(store, lake, soon()))
    # A newer version of the package may name files in a part that this version does not know.
    manifest = store.read(paths.ticks_manifest(FEED, DAY))
    assert manifest is not None
    content = {**json.loads(manifest.data), "more": [NAMES[0]]}
    store.replace(paths.ticks_manifest(FEED, DAY), json.dumps(content).encode(), manifest.generation)
    assert freed_of(store, found) == {ORPHAN: "orphan"}


def test_a_file_that_is_put_again_after_it_was_listed_is_spared(lake: LakeSettings) -> None:
    store, before = open_store(lake), utc_now()
    found = list(garbage(store, lake, soon()))
    assert len(found) == 2
    store.delete(REPLACED)
    store.put_bytes(b"1234", REPLACED)
    store.delete(ORPHAN)
    assert not list(free(store, found, before))
    assert store.exists(REPLACED)


def test_a_clock_that_is_ahead_of_the_lakes_frees_nothing(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline.store.put_bytes(b"1234", REPLACED)
    ahead = timedelta(days=60)
    monkeypatch.setattr(garbage_module, "utc_now", lambda: utc_now() + ahead)
    monkeypatch.setattr("backfill_assets.days.utc_now", lambda: datetime.now().astimezone() + ahead)
    done = CliRunner(env={"BACKFILL_ENV": str(pipeline.file)}).invoke(main, ["gc", "--apply"])
    assert done.exit_code == 2
    assert "(UTC), so ages are not known and nothing is freed: set the clock" in done.stderr
    assert done.stderr.count("\n") == 1
    assert pipeline.store.exists(REPLACED)


def test_without_apply_nothing_is_written(pipeline: Pipeline) -> None:
    pipeline.store.put_bytes(b"1234", REPLACED)
    store = ReadOnlyStore(lake_of(pipeline))
    assert [one.path for one in garbage(store, pipeline.settings.lake, soon())] == [REPLACED]


def test_a_file_with_another_name_in_the_lake_is_spared(pipeline: Pipeline) -> None:
    """Only the folder of the partials is linked, so there is no manifest beside the second name."""
    lake, store = lake_of(pipeline), pipeline.store
    named = paths.partials_data(FEED, FAR, NAMES[2])
    store.put_bytes(b"1234", named)
    manifest = json.dumps({"feed": str(FEED), "day": FAR, "more": [NAMES[2]]})
    store.replace(paths.ticks_manifest(FEED, FAR), manifest.encode(), None)
    (lake / "partials/binance/trades/AAA").symlink_to(lake / "partials/binance/trades/BTCUSDT")
    # The order of the folders on the disk decides which of the names a listing has.
    aliased = Garbage("orphan", named.replace("BTCUSDT", "AAA"), 4)
    assert not list(free(store, [aliased], soon()))
    assert store.exists(named)


def test_a_temporary_folder_that_is_used_again_or_a_link_is_spared(pipeline: Pipeline) -> None:
    scratch, before = Path(pipeline.settings.lake.scratch), utc_now() - timedelta(days=30)
    kept = scratch / "notes"
    folders = [scratch / f"{TEMPORARY_PREFIX}0000000{n}" for n in range(3)]
    for folder in (kept, *folders):
        (folder / "part").mkdir(parents=True)
    link = scratch / f"{TEMPORARY_PREFIX}00000009"
    link.symlink_to(kept)
    age(scratch)
    os.utime(link, (MONTHS_AGO, MONTHS_AGO), follow_symlinks=False)
    (folders[0] / "part" / "young").touch()
    found = list(garbage(pipeline.store, pipeline.settings.lake, before))
    assert {one.path for one in found} == {str(folder) for folder in folders[1:]}
    (folders[1] / "part" / "young").touch()
    assert [one.path for one in free(pipeline.store, found, before)] == [str(folders[2])]
    assert (kept / "part").exists()
    assert (folders[1] / "part").exists()
