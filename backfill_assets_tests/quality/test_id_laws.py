"""Each venue's promise about its trade ids is data with its support; no judgment goes beyond its evidence."""

from __future__ import annotations

import gzip
import itertools
import os
import random
from pathlib import Path
from typing import Any

import pytest
import yaml

from backfill_assets.days import shift, start_us
from backfill_assets.failures import SettingsError
from backfill_assets.feeds import Feed
from backfill_assets.id_laws import DEFAULT_ID_LAWS, ID_LAWS, IdLaw, law_of, load_id_laws
from backfill_assets.lake.local import LocalStore
from backfill_assets.lake.store import Store
from backfill_assets.quality.completeness import id_class
from backfill_assets.quality.rules import quality
from backfill_assets.quality.settled import SettledFeed, load_settled
from backfill_assets_tests.candles.candle_lake import bring
from backfill_assets_tests.candles.candle_samples import DAY, SECOND, START, Trade
from backfill_assets_tests.quality.quality_samples import profile, symbol, without_ids


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return LocalStore(tmp_path / "lake")


def settled(store: Store, feed: Feed, day: str = DAY) -> SettledFeed:
    found = load_settled(store, day)
    of_feed = found.feed(feed) if found else None
    assert of_feed is not None
    return of_feed


def contiguous(rows: int, start_us: int = START) -> list[tuple[int, Trade]]:
    step = 86_398 * SECOND // rows
    return [
        (us, Trade(us, 100.0 + n % 5, 0.5, id=str(424_242 + n)))
        for n in range(rows)
        for us in [start_us + SECOND + n * step]
    ]


def test_nine_of_ten_trades_lost_of_a_venue_that_counts_are_a_loss(store: Store) -> None:
    feed = Feed("okex", "trades", "BTC-USDT")
    whole = contiguous(100_000)
    bring(store, DAY, whole, feed)
    verdict = settled(store, feed).verdict
    assert (verdict.outcome, verdict.completeness_state, verdict.evidence_class) == (
        "publish",
        "inner_proven",
        "A",
    )
    thinned = LocalStore(Path(str(store.uri)) / "thinned")
    bring(thinned, DAY, sorted(random.Random(7).sample(whole, 10_000), key=lambda a: a[0]), feed)
    lost = settled(thinned, feed).verdict
    assert (lost.outcome, lost.completeness_state, lost.evidence_class) == ("quarantine", "degraded", "A")
    assert lost.completeness == pytest.approx(0.1, abs=0.001)


def held_out(of_law: IdLaw, seed: int) -> tuple[str, list[tuple[int, Trade]]]:
    """A day from which no law was made: 6,000 to 12,000 trades, with ids that follow the law."""
    chance = random.Random(seed)
    day = shift(of_law.first_day or DAY, 7 * seed)
    rows = chance.randrange(6_000, 12_000)
    times = sorted(start_us(day) + chance.randrange(SECOND, 86_399 * SECOND) for _ in range(rows))
    if of_law.law == "contiguous_with_holes":
        steps = (chance.choice((2, 3, 6)) if chance.random() < 0.004 else 1 for _ in range(rows))
        ids = [str(n) for n in itertools.accumulate(steps, initial=chance.randrange(1, 10**9))]
    elif of_law.law == "contiguous":
        first = chance.randrange(1, 10**9)
        ids = [str(first + n) for n in range(rows)]
    else:
        ids = [str(chance.getrandbits(50)) for _ in range(rows)]
    return day, [(us, Trade(us, 100.0 + n % 5, 0.5, id=ids[n])) for n, us in enumerate(times)]


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("of_law", ID_LAWS, ids=lambda one: one.exchange)
def test_of_days_held_out_none_is_lost_falsely_and_each_that_lost_a_tenth_is_found(
    of_law: IdLaw, seed: int, tmp_path: Path
) -> None:
    feed = Feed(of_law.exchange, of_law.data_type, "BTC-USDT")
    day, whole = held_out(of_law, seed)
    at_random = [one for one in whole if random.Random(one[0]).random() >= 0.1]
    found = []
    for name, rows in (("whole", whole), ("every tenth", [*whole]), ("at random", at_random)):
        if name == "every tenth":
            del rows[9::10]
        store = LocalStore(tmp_path / name)
        bring(store, day, rows, feed)
        verdict = settled(store, feed, day).verdict
        assert verdict.id_law == of_law.statement
        assert verdict.completeness is not None
        found.append((verdict.outcome, verdict.completeness_state, round(verdict.completeness, 1)))
    if of_law.evidence_class == "C":
        # Such ids prove nothing, so nothing is called proven.
        assert found == [("publish", "estimated", 1.0)] * 3
    else:
        clean = "inner_proven" if of_law.law == "contiguous" else "estimated"
        assert found == [("publish", clean, 1.0), *[("quarantine", "degraded", 0.9)] * 2]


REAL_DATA = os.environ.get("BACKFILL_REAL_DATA")


@pytest.mark.skipif(not REAL_DATA, reason="BACKFILL_REAL_DATA is not set")
@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize(
    "file",
    [
        *(f"binance/trades/2019/10/{day}/XRPETH.csv.gz" for day in (11, 12, 13)),
        "binance-futures/trades/2024/08/08/ETHUSDT.csv.gz",
    ],
)
def test_of_real_files_none_is_lost_falsely_and_each_that_lost_a_tenth_is_found(
    file: str, seed: int, tmp_path: Path
) -> None:
    exchange, data_type, *date, name = file.split("/")
    feed, day = Feed(exchange, data_type, name.partition(".")[0]), "-".join(date)
    text = gzip.decompress((Path(REAL_DATA or "") / "tardis/datasets/v1" / file).read_bytes()).decode()
    rows = [line.split(",") for line in text.splitlines()[1:]]
    whole = [(int(r[3]), Trade(int(r[2]), float(r[6]), float(r[7]), r[4], r[5])) for r in rows]
    chance = random.Random(seed)
    found = []
    for n, kept in enumerate((whole, [one for one in whole if chance.random() >= 0.1])):
        store = LocalStore(tmp_path / str(n))
        bring(store, day, kept, feed)
        verdict = settled(store, feed, day).verdict
        found.append((verdict.outcome, verdict.missing_ids))
    (whole_day, (outcome, missing)) = found
    assert (whole_day, outcome) == (("publish", 0), "quarantine")
    assert missing == pytest.approx(len(whole) - len(kept), abs=3), "the first and the last may be among them"


def test_a_verdict_names_the_law_and_its_support(store: Store) -> None:
    feed, other = Feed("okex", "trades", "BTC-USDT"), Feed("nobody-knows", "trades", "BTC-USDT")
    bring(store, DAY, contiguous(50), feed)
    bring(store, DAY, contiguous(50), other)
    law = settled(store, feed).verdict.id_law
    assert law.startswith("ids are contiguous per symbol from 2023-10-19 (documented; ")
    assert "https://www.okx.com/docs-v5/" in law
    assert settled(store, other).verdict.id_law == ""


def test_nothing_is_judged_by_a_law_before_its_first_day_of_evidence(store: Store) -> None:
    feed, day = Feed("okex", "trades", "BTC-USDT"), "2023-10-18"
    bring(store, day, contiguous(5_000, start_us(day)), feed)
    verdict = settled(store, feed, day).verdict
    assert (verdict.evidence_class, verdict.completeness_state, verdict.id_law) == ("C", "estimated", "")


@pytest.mark.parametrize(
    ("exchange", "day", "expected"),
    [
        ("binance", "2019-03-29", "C"),
        ("binance", "2019-03-30", "A"),
        ("coinbase", "2019-03-30", "A"),
        ("kraken", "2026-07-09", "C"),
        ("kraken", "2026-07-10", "A"),
        ("binance-futures", "2019-11-17", "B"),
        ("okex", "2023-10-18", "C"),
        ("okex", "2023-10-19", "A"),
        ("hyperliquid", DAY, "C"),
        ("upbit", DAY, "C"),
        ("bitmex", DAY, "C"),
        ("nobody-knows", DAY, "C"),
    ],
)
def test_the_laws_of_the_package(exchange: str, day: str, expected: str) -> None:
    assert id_class(law_of(ID_LAWS, Feed(exchange, "trades", "X"), day)) == expected


@pytest.mark.parametrize(
    ("kind", "evidence", "order", "trades", "conflicts"),
    [
        ("contiguous", "A", True, True, True),
        ("contiguous_with_holes", "B", True, True, True),
        ("contiguous_across_symbols", "C", True, True, True),
        ("steps", "C", True, True, True),
        ("monotone", "C", True, True, True),
        ("unique", "C", False, True, True),
        ("hash", "C", False, True, False),
        ("not_unique", "C", False, False, False),
    ],
)
def test_each_kind_of_law_says_four_things(
    kind: Any, evidence: str, order: bool, trades: bool, conflicts: bool
) -> None:
    found = law(law=kind)
    assert (found.evidence_class, found.gives_order, found.names_trades, found.forbids_conflicts) == (
        evidence,
        order,
        trades,
        conflicts,
    )
    assert kind in DEFAULT_ID_LAWS.read_text(encoding="utf-8"), "the file's head explains it"


def law(**changes: Any) -> IdLaw:
    return IdLaw(**{**OF_OKEX, **changes})


OF_OKEX = {"exchange": "okex", "data_type": "trades", "law": "monotone", "support": "seen", "source": "here"}


def test_an_id_with_two_payloads_is_a_fault_where_ids_name_one_trade() -> None:
    numbers, texts = profile(symbol(conflicting_rows=9)), profile(without_ids(conflicting_rows=9))
    for found, of_law, score in (
        (numbers, None, 0.0),
        (texts, None, 1.0),
        (texts, law(law="unique"), 0.0),
        (numbers, law(law="hash"), 1.0),
        (numbers, law(law="not_unique"), 1.0),
    ):
        assert quality(found, law=of_law).score == score


def test_rows_of_a_venue_whose_ids_are_not_unique_all_count() -> None:
    found = profile(symbol(duplicate_rows=4))
    assert (found.repeated_rows(None), found.may_repeat_trades(None)) == (4, True)
    other = law(law="not_unique")
    assert (found.repeated_rows(other), found.may_repeat_trades(other)) == (0, False)
    assert quality(found, law=other).warnings == (
        "4 rows repeat an id with the same payload: the venue's ids are not unique, so all count",
    )


# --- a user's own file -------------------------------------------------------------------------------------


def write(folder: Path, *laws: dict[str, Any], version: int = 1) -> Path:
    file = folder / "laws.yaml"
    file.write_text(yaml.safe_dump({"version": version, "laws": list(laws)}), encoding="utf-8")
    return file


def test_a_file_of_laws_replaces_those_of_its_exchanges_and_leaves_the_others(tmp_path: Path) -> None:
    earlier, later = {**OF_OKEX, "last_day": "2024-01-01"}, {**OF_OKEX, "first_day": "2024-01-02"}
    found = load_id_laws(write(tmp_path, later, {**earlier, "law": "unique"}))
    assert [one.law for one in found if one.exchange == "okex"] == ["unique", "monotone"]
    assert [one for one in found if one.exchange != "okex"] == [o for o in ID_LAWS if o.exchange != "okex"]
    feed = Feed("okex", "trades", "BTC-USDT")
    kinds = [law_of(found, feed, day) for day in ("2024-01-01", "2024-01-02")]
    assert [one.law for one in kinds if one] == ["unique", "monotone"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"law": "sequential"}, "laws.0.law: must be 'contiguous', "),
        ({"support": ""}, "laws.0.support: "),
        ({"source": None}, "laws.0.source: "),
        ({"data_type": "quotes"}, "laws.0.data_type: has no ids of trades; choose from trades"),
        ({"first_day": "2024-13-01"}, "laws.0.first_day: '2024-13-01' is not a day: write it as YYYY-MM-DD"),
        ({"first_day": "2024-01-02", "last_day": "2024-01-01"}, "laws.0: the law ends (2024-01-01) before"),
        ({"since": "2024-01-01"}, "laws.0.since: unknown key"),
    ],
)
def test_a_slip_in_a_file_of_laws_is_told_in_one_line(
    changes: dict[str, Any], said: str, tmp_path: Path
) -> None:
    with pytest.raises(SettingsError) as refused:
        load_id_laws(write(tmp_path, {**OF_OKEX, **changes}))
    message = str(refused.value)
    assert said in message
    assert "\n" not in message


def test_a_day_without_quotes_that_is_none_is_told_where_it_stands(tmp_path: Path) -> None:
    file = tmp_path / "laws.yaml"
    text = yaml.safe_dump({"version": 1, "laws": [{**OF_OKEX, "first_day": "DAY"}]})
    file.write_text(text.replace("DAY", "2023-13-01"))
    with pytest.raises(SettingsError, match=r"laws\.0\.first_day: '2023-13-01' is not a day"):
        load_id_laws(file)
    file.write_text(file.read_text().replace("2023-13-01", "2023-12-01"))
    assert "2023-12-01" in {law.first_day for law in load_id_laws(file)}


def test_two_laws_of_one_day_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="two laws of okex trades hold on the same days"):
        load_id_laws(
            write(tmp_path, {**OF_OKEX, "last_day": "2024-01-02"}, {**OF_OKEX, "first_day": "2024-01-02"})
        )


def test_a_file_of_another_version_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="version"):
        load_id_laws(write(tmp_path, OF_OKEX, version=2))


@pytest.mark.parametrize(
    ("exchange", "warns"), [("binance", True), ("nowhere", True), ("hyperliquid", False)]
)
def test_hashes_that_fall_back_are_no_new_count(exchange: str, warns: bool) -> None:
    law = law_of(ID_LAWS, Feed(exchange, "trades", "BTC"), DAY)
    found = quality(profile(symbol(id_resets=2)), law=law)
    assert any("ids fall back 2 times" in text for text in found.warnings) is warns
