"""Missing ids are asked for: ids never issued stop counting, trades are added, the rest stays missing."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from backfill_assets.failures import PermanentFailure
from backfill_assets.feeds import Feed
from backfill_assets.heal.healing import heal
from backfill_assets.heal.sources import Budget
from backfill_assets.lake import paths
from backfill_assets.lake.manifests import update_manifest
from backfill_assets.quality.settle import settle
from backfill_assets.settings import HealSettings, Settings
from backfill_assets.standins import faults
from backfill_assets.standins.exchanges import Traded, summed_up, zip_of
from backfill_assets.standins.faults import Fault, Refusal
from backfill_assets.ticks.healed import heal_version
from backfill_assets_tests.heal.healed_lake import (
    AFTER,
    BEFORE,
    BINANCE,
    COINBASE,
    DAY,
    HealedLake,
    at_another_price,
    id_at,
    traded,
    vendor_file,
    without_ids,
)
from backfill_assets_tests.quality.watched_stores import CountingStore, ReadOnlyStore

Make = Callable[..., HealedLake]
TRADES_OF_COINBASE = "/coinbaseexchange/products/BTC-USD/trades"
SUMMED_UP = "/binance/api/v3/aggTrades"
ARCHIVED = f"/data/spot/daily/trades/BTCUSDT/BTCUSDT-trades-{DAY}.zip"


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    with ExitStack() as running:

        def lake(*arguments: object, **options: object) -> HealedLake:
            folder = tmp_path / str(len(list(tmp_path.iterdir())))
            folder.mkdir()
            made = HealedLake.of(folder, *arguments, **options)
            running.enter_context(made.standin)
            return made

        yield lake


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and ".locks" not in path.parts
    }


def minutes(lake: HealedLake) -> bytes:
    """The partial candles of the accepted version."""
    accepted = lake.found.accepted
    assert accepted is not None
    held = lake.manifest.version(accepted.content)
    assert held is not None
    assert held.candles is not None
    with lake.store.local_copy(paths.partials_data(lake.feed, DAY, held.candles.file.content)) as file:
        return file.read_bytes()


@pytest.mark.parametrize("feed", [COINBASE, BINANCE], ids=["coinbase", "binance"])
def test_ids_that_the_exchange_never_issued_are_missing_no_more(make: Make, feed: Feed) -> None:
    lake = make(feed=feed, never=(1_000, 2_000, 2_001))
    before = lake.found
    assert (before.verdict.completeness_state, before.verdict.missing_ids) == ("degraded", 3)

    done = lake.heal()
    assert done.is_whole, done.problems
    verdict = lake.found.verdict
    assert (verdict.completeness_state, verdict.completeness, verdict.missing_ids) == ("proven", 1.0, 0)
    assert (verdict.never_issued_ids, verdict.healed_rows) == (3, 0)
    names = ", ".join(receipt.name for receipt in lake.manifest.receipts)
    assert f"3 ids were never issued by the venue (receipts {names})" in verdict.warnings
    assert lake.found.accepted == before.accepted, "no row was added"
    # The minute is proven, and not called traded with a loss.
    evidence = lake.found.evidence
    assert [e.lost for e in evidence.values()] == [()]


def test_a_receipt_holds_the_request_and_an_answer_that_is_named_by_its_content(make: Make) -> None:
    lake = make(never=(1_000,))
    lake.heal()
    [receipt] = lake.manifest.receipts
    [answer] = receipt.answers
    assert (receipt.first_id, receipt.last_id) == (id_at(1_000), id_at(1_000))
    assert receipt.never_issued == ((id_at(1_000), id_at(1_000)),)
    assert f"{TRADES_OF_COINBASE}?" in answer.request
    body = Path(lake.store.uri_of(paths.receipt_data(COINBASE, DAY, answer.content, "json"))).read_bytes()
    assert hashlib.sha256(body).hexdigest() == answer.content
    assert str(id_at(999)).encode() in body
    assert str(id_at(1_000)).encode() not in body


def test_a_second_heal_asks_nobody_and_changes_nothing(make: Make) -> None:
    lake = make(without_ids(500), never=(1_000,))
    lake.heal()
    asked, stored = len(lake.standin.requests), files(lake.days.folder)
    assert lake.heal().is_whole
    assert len(lake.standin.requests) == asked
    assert files(lake.days.folder) == stored


@pytest.mark.parametrize("feed", [COINBASE, BINANCE], ids=["coinbase", "binance"])
def test_lost_rows_come_back_and_the_candles_are_those_of_the_undamaged_day(make: Make, feed: Feed) -> None:
    lost = (700, 701, 702, 1_500, 2_500)
    whole, lake = make(feed=feed), make(without_ids(*lost), feed=feed)
    assert lake.found.verdict.missing_ids == len(lost)
    vendor = lake.found.accepted
    done = lake.heal()
    assert done.is_whole, done.problems

    found = lake.found
    assert found.accepted is not None
    assert vendor is not None
    assert found.accepted.content != vendor.content
    assert found.accepted.raw_sha256 == vendor.raw_sha256
    assert (found.verdict.completeness_state, found.verdict.healed_rows) == ("proven", len(lost))
    source = lake.manifest.receipts[0].asked
    assert f"5 rows were recovered from {source}" in found.verdict.warnings
    assert found.restatement is not None
    assert (found.restatement.before, found.restatement.ids_added) == (vendor.content, len(lost))
    with lake.store.local_copy(paths.ticks_data(feed, DAY, found.accepted.content)) as file:
        rows = pl.read_parquet(file)
    expected = [(str(t.id), t.side, float(t.price), float(t.amount)) for t in traded(DAY, feed)]
    assert rows.select("id", pl.col("side").cast(pl.String), "price", "amount").rows() == expected
    assert rows["timestamp"].dt.epoch("us").to_list() == [t.time_us for t in traded(DAY, feed)]
    assert rows["local_timestamp"].is_sorted()
    # The vendor's whole file, without any healing, gives the same candles.
    assert minutes(lake) == partials_of(whole)


def partials_of(lake: HealedLake) -> bytes:
    """The partial candles of the undamaged file, decoded as a fetch decodes it."""
    [version] = lake.manifest.versions
    names = {lake.feed.dataset_symbol: dict(lake.found.symbols)[lake.feed.dataset_symbol]}
    made = heal_version(lake.store, lake.settings, lake.feed, DAY, names, version, lake.manifest)
    assert made.content == version.content, "without recovered trades it is the same file"
    assert made.candles is not None
    with lake.store.local_copy(paths.partials_data(lake.feed, DAY, made.candles.file.content)) as file:
        return file.read_bytes()


def test_what_the_exchange_gives_for_one_hole_and_refuses_for_another_is_told_apart(make: Make) -> None:
    lake = make(without_ids(500, 2_000))
    # Three requests are allowed: the list of markets, the currencies, the first hole.
    done = lake.heal(requests=3)
    assert not done.is_whole
    assert done.still_missing == 1
    assert [receipt.first_id for receipt in lake.manifest.receipts] == [id_at(500)]
    verdict = lake.found.verdict
    assert (verdict.completeness_state, verdict.missing_ids, verdict.healed_rows) == ("degraded", 1, 1)
    assert done.problems == [
        f"id {id_at(2_000)}: the public trades of coinbaseexchange for BTC-USD: 3 requests are used up "
        "(heal.requests): run it again for the rest"
    ]
    assert lake.heal().is_whole
    assert lake.found.verdict.healed_rows == 2


def same_moment(trades: list[Traded], *numbers: int) -> list[Traded]:
    """Make these trades one order: the same time, price and side."""
    first = next(t for t in trades if t.id == id_at(numbers[0]))
    ids = {id_at(n) for n in numbers}
    return [
        replace(t, time_us=first.time_us, price=first.price, side=first.side) if t.id in ids else t
        for t in trades
    ]


def lossy_binance(make: Make) -> HealedLake:
    """A lake that lacks two of three trades of one order, which Binance sums up."""
    whole = same_moment(traded(DAY, BINANCE), 700, 701, 702)
    lake = make(lambda _: [t for t in whole if t.id not in (id_at(700), id_at(701))], feed=BINANCE)
    of_day = {trade.id for trade in whole}
    others = [trade for trade in lake.standin.binance["BTCUSDT"] if trade.id not in of_day]
    lake.standin.binance["BTCUSDT"] = sorted([*others, *whole], key=lambda trade: trade.id)
    return lake


def test_trades_that_binance_has_summed_up_come_from_its_archive(make: Make) -> None:
    lake = lossy_binance(make)
    done = lake.heal()
    assert done.is_whole, done.problems
    assert [receipt.source for receipt in lake.manifest.receipts] == ["exchange", "archive"]
    assert lake.found.verdict.healed_rows == 2
    assert lake.heal(dry_run=True).is_whole


def test_summed_up_trades_without_an_archive_stay_missing_and_say_so(make: Make) -> None:
    lake = lossy_binance(make)
    lake.standin.faults.put(ARCHIVED, Fault(always=faults.not_found()))
    done = lake.heal()
    assert done.still_missing == 2
    [problem] = done.problems
    assert "2 trades summed up with others" in problem
    assert "404" in problem
    assert lake.found.verdict.completeness_state == "degraded"


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (Fault(always=faults.server_error()), "500 Internal Server Error"),
        (Fault(always=faults.too_many_requests(0)), "429 Too Many Requests"),
        (Fault(body=b"<html>Moved</html>"), "the answer is not a list of trades"),
        (Fault(cut_body_at=700), "the answer"),
        (Fault(cut_connection_at=300), "does not answer"),
        (Fault(body=b"[]"), "no id before the hole"),
        (Fault(body=b'{"message": "NotFound"}'), "NotFound"),
        (Fault(body=b'[{"trade_id": "x"}]'), "the answer"),
    ],
    ids=["500", "429", "html", "cut", "broken", "empty", "refused", "odd"],
)
def test_an_answer_that_does_not_show_the_hole_proves_nothing(make: Make, fault: Fault, said: str) -> None:
    lake = make(without_ids(700), never=(1_000,))
    lake.standin.faults.put(TRADES_OF_COINBASE, fault)
    before = files(lake.days.folder)
    done = lake.heal()
    assert done.still_missing == 2
    assert len(done.problems) == 2
    assert said in done.problems[0]
    assert files(lake.days.folder) == before


def test_a_passing_refusal_is_asked_again(make: Make) -> None:
    lake = make(never=(1_000,))
    refusals = (faults.server_error(), faults.too_many_requests(0))
    lake.standin.faults.put(TRADES_OF_COINBASE, Fault(refusals=refusals))
    assert lake.heal().is_whole
    [receipt] = lake.manifest.receipts
    assert len(receipt.answers) == 1, "refusals are no answers"
    assert lake.heal(dry_run=True).is_whole


@pytest.mark.parametrize("feed", [COINBASE, BINANCE], ids=["coinbase", "binance"])
def test_an_answer_of_another_market_proves_nothing(make: Make, feed: Feed) -> None:
    lake = make(never=(1_000,), feed=feed)
    market = getattr(lake.standin, feed.exchange)
    market[feed.dataset_symbol] = at_another_price(market[feed.dataset_symbol])
    done = lake.heal()
    assert "another market" in done.problems[0]
    assert f"the trade {id_at(999)} has price 3000.0" in done.problems[0]
    assert not lake.manifest.receipts


def test_a_market_that_the_exchange_does_not_list_proves_nothing(make: Make) -> None:
    lake = make(never=(1_000,))
    lake.standin.coinbase = {"ETH-USD": []}
    assert "lists no spot market BTC-USD" in lake.heal().problems[0]


@pytest.mark.parametrize(("feed", "path"), [(COINBASE, TRADES_OF_COINBASE), (BINANCE, SUMMED_UP)])
def test_pages_that_end_early_prove_nothing_and_pages_that_go_on_prove_all(
    make: Make, feed: Feed, path: str
) -> None:
    lake = make(without_ids(*range(700, 730)), feed=feed, most=7)
    whole = getattr(lake.standin, feed.exchange)[feed.dataset_symbol]
    # The exchange forgets the trades on one side.
    kept = [t for t in whole if (t.id > id_at(710)) == (feed == COINBASE)]
    getattr(lake.standin, feed.exchange)[feed.dataset_symbol] = kept
    lake.standin.faults.put(ARCHIVED, Fault(always=faults.not_found()))
    done = lake.heal()
    side = "before" if feed == COINBASE else "after"
    assert f"no id {side} the hole" in done.problems[0]
    assert not lake.manifest.receipts
    getattr(lake.standin, feed.exchange)[feed.dataset_symbol] = whole
    assert lake.heal().is_whole
    [receipt] = lake.manifest.receipts
    assert len(receipt.answers) > 3
    assert sum(path in request for request in lake.standin.requests) > 3
    assert lake.heal(dry_run=True).is_whole


def test_a_page_that_lacks_a_row_in_its_middle_proves_nothing(make: Make) -> None:
    lake = make(without_ids(700, 701, 702), feed=BINANCE)
    rows = summed_up(lake.standin.binance["BTCUSDT"])
    around = [row for row in rows if id_at(699) <= row["f"] <= id_at(703)]
    lake.standin.faults.put(SUMMED_UP, Fault(body=json.dumps([around[0], *around[2:]]).encode()))
    lake.standin.faults.put(ARCHIVED, Fault(always=faults.not_found()))
    assert "lacks the summed-up trade" in lake.heal().problems[0]
    assert not lake.manifest.receipts


def archive_only(lake: HealedLake) -> None:
    lake.standin.faults.put(SUMMED_UP, Fault(always=faults.server_error()))


TOKEN = "planted-path-token"


def through_gateway(lake: HealedLake) -> Settings:
    """Settings with a gateway before the stand-in that takes its token from the path."""
    own, url = lake.standin.answer, f"{lake.standin.url}/{TOKEN}/"
    lake.standin.answer = lambda path, query: own(path.removeprefix(f"/{TOKEN}"), query)  # type: ignore[method-assign]
    healing = HealSettings(exchange_endpoint=url, archive_endpoint=url)
    return lake.days.settings.model_copy(update={"heal": healing})


@pytest.mark.parametrize("source", ["exchange", "archive"])
def test_the_token_in_the_path_of_a_gateway_is_in_no_receipt(make: Make, source: str) -> None:
    lake = make(without_ids(700), feed=BINANCE)
    settings = through_gateway(lake)
    if source == "archive":
        lake.standin.faults.put(f"/{TOKEN}{SUMMED_UP}", Fault(always=Refusal(401, 401, "not here")))
    assert heal(lake.store, settings, DAY, str(BINANCE), Budget(100)).is_whole
    [receipt] = lake.manifest.receipts
    assert receipt.source == source
    assert all(answer.request.startswith(f"{lake.standin.url}/***/") for answer in receipt.answers)
    assert lake.heal(dry_run=True).is_whole, "the stored requests are those of the replay"
    assert {path.split("/")[1] for path in lake.standin.requests} == {TOKEN}
    assert TOKEN.encode() not in b"".join(files(lake.days.folder).values())


def test_the_token_in_the_path_of_a_gateway_is_in_no_message(make: Make) -> None:
    lake = make(without_ids(700), feed=BINANCE)
    settings = through_gateway(lake)
    refused = Fault(always=Refusal(401, 401, f"no client /{TOKEN}/"))
    for path in ("/binance/api/v3/exchangeInfo", f"{ARCHIVED}.CHECKSUM"):
        lake.standin.faults.put(f"/{TOKEN}{path}", refused)
    done = heal(lake.store, settings, DAY, str(BINANCE), Budget(100))
    assert f"binance refuses: binance GET {lake.standin.url}/***/binance/" in done.problems[0]
    assert f"the archive answers 401 to {lake.standin.url}/***/data/" in done.problems[0]
    assert TOKEN not in " ".join([*done.lines, *done.problems])


def zipped(rows: bytes) -> bytes:
    return zip_of(f"BTCUSDT-trades-{DAY}.csv", rows)


@pytest.mark.parametrize(
    ("path", "fault", "said"),
    [
        (f"{ARCHIVED}.CHECKSUM", Fault(body=f"{'0' * 64}  BTCUSDT-trades-{DAY}.zip\n".encode()), "sha256"),
        (f"{ARCHIVED}.CHECKSUM", Fault(body=b"<html>no</html>"), "checksum"),
        (f"{ARCHIVED}.CHECKSUM", Fault(always=faults.not_found()), "404"),
        (ARCHIVED, Fault(always=faults.server_error()), "500"),
        (ARCHIVED, Fault(cut_body_at=2_000), "sha256"),
        (ARCHIVED, Fault(cut_connection_at=2_000), "ends after"),
    ],
    ids=["other-checksum", "html", "not-there", "500", "cut", "broken"],
)
def test_a_file_of_the_archive_that_is_not_what_its_checksum_says_proves_nothing(
    make: Make, path: str, fault: Fault, said: str
) -> None:
    lake = make(without_ids(700), feed=BINANCE)
    archive_only(lake)
    lake.standin.faults.put(path, fault)
    before = files(lake.days.folder)
    done = lake.heal()
    assert said in done.problems[0]
    assert files(lake.days.folder) == before
    lake.standin.faults.clear(path)
    assert lake.heal().is_whole
    [receipt] = lake.manifest.receipts
    assert receipt.source == "archive"
    assert receipt.answers[1].whole_sha256 in receipt_text(lake, receipt.answers[0].content)


def receipt_text(lake: HealedLake, content: str) -> str:
    with lake.store.local_copy(paths.receipt_data(lake.feed, DAY, content, "csv")) as file:
        return file.read_text()


@pytest.mark.parametrize(
    ("file", "said"),
    [
        (zipped(b"1,1\n" * 10_000_000), "inflates beyond"),
        (zipped(b"1," * 1_000_000), "a row of more than"),
        (zip_of("other.csv", b"1,2\n"), "does not hold"),
        (b"PK but no zip", "not a readable zip"),
    ],
    ids=["bomb", "one-row", "another-file", "no-zip"],
)
def test_a_zip_with_a_right_checksum_may_still_be_a_bomb_or_another_file(
    make: Make, file: bytes, said: str
) -> None:
    lake = make(without_ids(700), feed=BINANCE)
    archive_only(lake)
    digest = hashlib.sha256(file).hexdigest()
    lake.standin.faults.put(ARCHIVED, Fault(body=file))
    checksum = f"{digest}  BTCUSDT-trades-{DAY}.zip\n".encode()
    lake.standin.faults.put(f"{ARCHIVED}.CHECKSUM", Fault(body=checksum))
    assert said in lake.heal().problems[0]
    assert not lake.manifest.receipts


def test_a_dry_run_writes_nothing_and_asks_nobody(make: Make) -> None:
    lake = make(without_ids(700), never=(1_000,))
    read_only = ReadOnlyStore(lake.days.folder / "lake")
    done = lake.heal(dry_run=True, store=read_only)
    assert not done.is_whole
    assert [line.strip() for line in done.lines[1:3]] == [
        f"would ask for id {id_at(700)}",
        f"would ask for id {id_at(1_000)}",
    ]
    assert lake.standin.requests == []
    lake.heal()
    asked = len(lake.standin.requests)
    done = lake.heal(dry_run=True, store=read_only)
    assert done.is_whole
    assert "2 of 2 receipts give the same conclusion again" in done.lines[1]
    assert len(lake.standin.requests) == asked


def test_a_receipt_whose_answer_was_changed_does_not_hold(make: Make) -> None:
    lake = make(never=(1_000,))
    lake.heal()
    [receipt] = lake.manifest.receipts
    file = Path(lake.store.uri_of(paths.receipt_data(COINBASE, DAY, receipt.answers[0].content, "json")))
    file.write_bytes(file.read_bytes().replace(b"42", b"43", 1))
    done = lake.heal(dry_run=True)
    assert not done.is_whole
    assert "does not hold" in done.problems[0]


def test_a_receipt_that_claims_more_than_its_answers_does_not_hold(make: Make) -> None:
    lake = make(without_ids(700))
    lake.heal()
    [receipt] = lake.manifest.receipts
    forged = receipt.model_copy(update={"never_issued": receipt.recovered, "recovered": (), "rows": None})
    update_manifest(lake.store, COINBASE, DAY, lambda found: found.model_copy(update={"receipts": (forged,)}))
    done = lake.heal(dry_run=True)
    said = f"receipt {receipt.name} for id {id_at(700)} does not hold"
    assert done.problems == [f"{said}: the stored answers give another conclusion"]


def test_a_later_version_of_the_file_uses_the_receipts_of_the_one_before(make: Make) -> None:
    lake = make(without_ids(500), never=(1_000,))
    lake.heal()
    # The vendor's next file has the lost trade.
    again = traded(DAY, never=[id_at(1_000)])
    lake.days.bring(COINBASE, DAY, vendor_file(COINBASE, again), {"BTC-USD": "BTC-USD"})
    found = lake.found
    assert found.candidate is not None
    assert found.candidate_verdict is not None
    assert found.candidate_verdict.completeness_state == "proven"
    assert (found.candidate_verdict.never_issued_ids, found.candidate_verdict.healed_rows) == (1, 0)


def test_feeds_whose_ids_prove_nothing_are_refused(make: Make) -> None:
    lake = make()
    settings = lake.settings
    for name in ("coinbase/trades/ETH-USD", "kraken/trades/XBT-USD"):
        with pytest.raises(PermanentFailure, match="is not a feed"):
            heal(lake.store, settings, DAY, name, Budget(9))
    with pytest.raises(PermanentFailure, match="nothing is recorded"):
        heal(lake.store, settings, "2024-02-01", str(COINBASE), Budget(9))
    laws = {"thresholds": settings.thresholds.model_copy(update={"id_laws": ()})}
    with pytest.raises(PermanentFailure, match="no law of them is known"):
        heal(lake.store, settings.model_copy(update=laws), DAY, str(COINBASE), Budget(9))


def test_settling_reads_no_answer_again(make: Make) -> None:
    lake = make(without_ids(500), never=(1_000,))
    lake.heal()
    store = CountingStore(lake.days.folder / "lake")
    for day in (BEFORE, DAY, AFTER):
        settle(store, day, lake.settings.thresholds)
    assert not [path for path in (*store.reads, *store.opened) if path.startswith("receipts/")]
