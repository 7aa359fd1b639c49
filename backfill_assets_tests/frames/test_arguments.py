"""Each wrong argument of a caller in Python is refused in one line that says how to mend it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pandas as pd
import polars as pl
import pytest

import backfill_assets as ba
from backfill_assets.failures import BackfillError, BadInput, SettingsError
from backfill_assets.frames.data import Data
from backfill_assets.frames.frame import Frame
from backfill_assets_tests.frames.market_days import EXCHANGE, day, publish_days, symbol

MARKET, DAY = (EXCHANGE, symbol(0)), day(0)
CANDLES = {"timeframe": "1h", "start": DAY}
#: The method, and the arguments that it needs besides the wrong one.
METHODS: dict[str, dict[str, Any]] = {
    "candles": {"exchange": EXCHANGE, "symbol": symbol(0), **CANDLES},
    "coverage": {"exchange": EXCHANGE, "symbol": symbol(0), **CANDLES},
    "ticks": {"data_type": "trades", "exchange": EXCHANGE, "symbol": symbol(0), "start": DAY},
    "trades": {"exchange": EXCHANGE, "symbol": symbol(0), "start": DAY},
    "quotes": {"exchange": EXCHANGE, "symbol": symbol(0), "start": DAY},
    "book": {"exchange": EXCHANGE, "symbol": symbol(0), "start": DAY},
    "quality": {"start": DAY},
    "days": {"start": DAY},
    "instruments": {"start": DAY},
}
FRAME = pl.DataFrame({"symbol": ["BTC-USDT", "ETH-USDT"]})
#: By argument: wrong values, and the words that name the fault.
TIMES = [
    (20240102, "has type int: give a string, a date or a datetime"),
    ([DAY], "has type list: give a string"),
    (FRAME, "has type DataFrame: give a string"),
    (b"2024-01-02", "has type bytes: give a string"),
    ("", "'' is not a time: write 2024-01-31"),
    ("yesterday\n", "is not a time: write 2024-01-31"),
    (pd.NaT, "NaT is not between 2000-01-01 and 2099-12-31: correct the year"),
]
TEXTS = [
    (["BTC-USDT"], "has type list: give one text, such as"),
    (("BTC-USDT",), "has type tuple: give one text, such as"),
    (7, "has type int: give one text, such as"),
    (b"binance", "has type bytes: give one text, such as"),
    (FRAME, "has type DataFrame: give one text, such as"),
]
NONE = (None, "has type NoneType: ")
SWITCH = [NONE, ("no", "has type str: give True or False"), (FRAME, "has type DataFrame: give True or False")]
WRONG: dict[str, list[tuple[Any, str]]] = {
    "start": [*TIMES, NONE],
    "end": [*TIMES, (DAY, "is not after start"), (day(-1), "is not after start")],
    "exchange": TEXTS,
    "symbol": TEXTS,
    "timeframe": [
        NONE,
        (60, "timeframe has type int: choose from 1m, "),
        (["1h"], "timeframe has type list: choose from 1m, "),
        ("1min", "timeframe; did you mean 1m"),
    ],
    "on_gap": [
        NONE,
        (False, "value of on_gap has type bool: choose from raise, warn, mask"),
        ("ignore", "'ignore' is not a value of on_gap; choose from raise, warn, mask"),
    ],
    "final": SWITCH,
    "fill": SWITCH,
}
DATA_TYPES = {
    "ticks": [
        NONE,
        (["trades"], "data type has type list"),
        ("trade", "'trade' is not a data type; did you"),
    ],
    "book": [NONE, ("trades", "'trades' is not a data type of books; choose from book_snapshot_5, ")],
    "quality": TEXTS,
}


SECRET_TEXT = "tardis:\n  api_key: SECRET\n  datasets_endpoint: http://127.0.0.1\n"


def wrong_values(method: str) -> dict[str, list[tuple[Any, str]]]:
    """The wrong values of each argument of the method, with the words that name the fault."""
    found = {name: values for name, values in WRONG.items() if name in Data.__dict__[method].__annotations__}
    for name in {"exchange", "symbol"} & {*METHODS[method]} - ({"symbol"} if method == "candles" else set()):
        found[name] = [*TEXTS, NONE]
    return found | ({"data_type": DATA_TYPES[method]} if method in DATA_TYPES else {})


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return publish_days(tmp_path_factory.mktemp("arguments"), 2, 2)


@pytest.fixture(scope="module")
def data(settings: Path) -> Data:
    return ba.open(settings)


@pytest.fixture
def frame(data: Data) -> Frame:
    return data.candles(*MARKET, "1h", DAY)


def refusal(call: Callable[[], object], kind: type[BackfillError] = BadInput) -> str:
    with pytest.raises(kind) as refused:
        call()
    said = str(refused.value)
    assert said
    assert said.isprintable(), "one line"
    assert len(said) < 300
    return said


@pytest.mark.parametrize(("method", "name"), [(m, name) for m in METHODS for name in wrong_values(m)])
def test_a_wrong_argument_is_named_with_its_remedy(data: Data, method: str, name: str) -> None:
    call = getattr(data, method)
    for value, said in wrong_values(method)[name]:
        given = {**METHODS[method], name: value}
        assert said in refusal(lambda given=given: call(**given))


@pytest.mark.parametrize("method", METHODS)
def test_no_argument_of_a_method_is_left_out_above(method: str) -> None:
    assert {*Data.__dict__[method].__annotations__} - {"return"} == {*wrong_values(method)}


def test_fill_needs_a_stored_timeframe(data: Data) -> None:
    said = refusal(lambda: data.candles(*MARKET, "2h", DAY, fill=True))
    assert "'2h' is not a stored timeframe, as fill needs one; " in said


@pytest.mark.parametrize(
    "start",
    [
        date(2023, 1, 1),
        datetime(2023, 1, 1),  # noqa: DTZ001 - without a zone it is UTC
        datetime(2023, 1, 1, 9, tzinfo=timezone(timedelta(hours=9))),
        pd.Timestamp("2023-01-01"),
        pd.Timestamp("2023-01-01T09:00", tz="Asia/Tokyo"),
        pd.Timestamp("2022-12-31T19:00:00.000000001", tz="America/New_York"),
    ],
    ids=repr,
)
def test_a_date_a_datetime_and_a_pandas_timestamp_are_times(data: Data, start: Any) -> None:
    hours = data.candles(*MARKET, "1h", start, start + timedelta(days=1), on_gap="warn").to_polars()
    assert hours["open_time"][0] == datetime(2023, 1, 1, tzinfo=UTC)
    assert hours.height == 24


@pytest.mark.parametrize("file", [None, 7, ["a.parquet"], b"a.parquet", "", "candles", "candles.json"])
def test_a_frame_is_written_to_a_path_that_names_a_format(frame: Frame, file: Any) -> None:
    named = file if isinstance(file, str) else f"file has type {type(file).__name__}: give a path"
    assert named in refusal(lambda: frame.write(file))


@pytest.mark.parametrize("connection", ["candles.duckdb", 7, [], ""])
def test_a_connection_that_is_none_of_duckdb_is_refused(frame: Frame, connection: Any) -> None:
    assert "connection has type " in refusal(lambda: frame.to_duckdb(connection))


@pytest.mark.parametrize("given", [7, ["local"], b"local", {"name": "local"}, True, 0, (), "", SECRET_TEXT])
def test_settings_are_a_path_or_a_name(given: Any) -> None:
    said = refusal(lambda: ba.open(given))
    assert "SECRET" not in said
    assert "give a settings file, the name of one in the package, or nothing for that of BACKFILL_ENV" in said


@pytest.mark.parametrize("source", [None, 7, ["lake"], "bucket", ""])
def test_a_source_is_one_of_two(source: Any) -> None:
    assert "choose from warehouse, lake" in refusal(lambda: ba.open(source=source))


def test_settings_that_are_no_file_are_refused_under_the_name_that_was_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("folder").mkdir()
    for given, said in (
        ("nowhere.yaml", "nowhere.yaml: there is no such file"),
        (Path("nowhere"), f"{tmp_path / 'nowhere'}: there is no such file"),
        (
            Path("folder"),
            f"{tmp_path / 'folder'}: is a folder, not a settings file; give the path of a .yaml file",
        ),
        ("./folder", "./folder: is a folder, not a settings file; give the path of a .yaml file"),
        ("folder", "folder: unknown environment; choose from local"),
    ):
        assert refusal(lambda given=given: ba.open(given), SettingsError).startswith(said)


def test_the_environment_of_the_process_is_that_of_no_settings(
    settings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BACKFILL_ENV", str(settings))
    assert ba.open().settings == ba.open(str(settings)).settings
