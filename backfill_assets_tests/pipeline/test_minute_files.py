"""The file of a ticker's numbers by minute, as runs, ``verify`` and ``gc`` treat it."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from backfill_assets.cli import main
from backfill_assets.days import utc_now
from backfill_assets.feeds import Feed
from backfill_assets.lake import paths
from backfill_assets.lake.manifests import load_manifest, update_manifest
from backfill_assets.progress.plan import make_plan
from backfill_assets.progress.request import backfill_request
from backfill_assets.warehouse.garbage import free, garbage
from backfill_assets_tests.pipeline.conftest import Pipeline

DAY = "2024-01-02"
TICKER = Feed("binance-futures", "derivative_ticker", "BTCUSDT")
PERPETUAL = {
    "exchanges": ["binance-futures"],
    "symbols": ["BTC-USDT"],
    "instrument_types": ["perpetual"],
    "data_types": ["trades", "derivative_ticker"],
}


@pytest.fixture
def pipeline(make_pipeline, standin) -> Pipeline:
    """A finished day of a perpetual's trades and ticker."""
    made: Pipeline = make_pipeline(standin, universe=[PERPETUAL])
    made.begin_after(DAY)
    return made


def numbers_file(pipeline: Pipeline) -> Path:
    newest = load_manifest(pipeline.store, TICKER, DAY).newest
    assert newest is not None
    assert newest.minute_numbers is not None
    path = paths.partials_data(TICKER, DAY, newest.minute_numbers.content)
    return pipeline.folder / "lake" / path


def verify(pipeline: Pipeline, *words: str) -> Result:
    return CliRunner(env={"BACKFILL_ENV": str(pipeline.file)}).invoke(main, ["verify", "--date", DAY, *words])


def lose(file: Path) -> str:
    file.unlink()
    return "is gone"


def flip(file: Path) -> str:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    return "does not have the bytes that its name says"


@pytest.mark.parametrize("harm", [lose, flip])
def test_verify_finds_the_file_mending_sets_it_aside_and_the_next_run_makes_the_same_again(
    pipeline: Pipeline, harm: Callable[[Path], str]
) -> None:
    assert verify(pipeline).exit_code == 0
    file = numbers_file(pipeline)
    whole, manifest = file.read_bytes(), pipeline.store.read(paths.ticks_manifest(TICKER, DAY))
    said = harm(file)
    found = verify(pipeline)
    assert found.exit_code == 1
    assert f"{file} {said}" in found.output
    assert verify(pipeline, "--mend").exit_code == 1
    assert not file.exists()
    plan = make_plan(pipeline.store, pipeline.settings, backfill_request({"start": DAY, "end": DAY}))
    assert plan.days_to_run == (DAY,)
    assert pipeline.run(DAY).success
    assert [path.split("/")[-5] for path in pipeline.downloads] == ["derivative_ticker"]
    assert file.read_bytes() == whole
    assert pipeline.store.read(paths.ticks_manifest(TICKER, DAY)) == manifest
    assert verify(pipeline).exit_code == 0


def test_gc_spares_the_file_while_a_manifest_names_it_and_frees_it_afterwards(pipeline: Pipeline) -> None:
    store, lake, file = pipeline.store, pipeline.settings.lake, numbers_file(pipeline)
    months_ago = (utc_now() - timedelta(days=90)).timestamp()
    for old in (pipeline.folder / "lake").rglob("*"):
        os.utime(old, (months_ago, months_ago))
    before = utc_now() - timedelta(days=30)
    assert not list(garbage(store, lake, before))
    update_manifest(
        store,
        TICKER,
        DAY,
        lambda held: held.model_copy(
            update={"versions": tuple(v.model_copy(update={"minute_numbers": None}) for v in held.versions)}
        ),
    )
    [freed] = free(store, list(garbage(store, lake, before)), before)
    assert (freed.kind, freed.path) == ("replaced", file.relative_to(pipeline.folder / "lake").as_posix())
    assert not file.exists()
