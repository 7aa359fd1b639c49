"""Candidate laws come from many published days of several symbols; one counterexample refutes a law."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from backfill_assets.cli import main
from backfill_assets.days import shift
from backfill_assets.id_laws import load_id_laws
from backfill_assets.lake import paths
from backfill_assets.lake.local import LocalStore
from backfill_assets.quality.learned_laws import Learned, Seen, learn
from backfill_assets.quality.profiles import SymbolProfile
from backfill_assets.quality.settle import settle
from backfill_assets_tests.quality.quality_samples import DAY, FEED, THRESHOLDS, gaps, symbol, without_ids
from backfill_assets_tests.quality.settled_lake import expect, fetch, ids


def days_of(symbols: int = 5, days: int = 28, **odd: Any) -> list[Seen]:
    """Days whose ids continue over midnight; the last symbol's last day is odd."""
    found = []
    for s in range(symbols):
        for d in range(days):
            changes = odd if (s, d) == (symbols - 1, days - 1) else {}
            first = 1 + d * 1000 + changes.get("shifted", 0)
            rest = {k: v for k, v in changes.items() if k != "shifted"}
            found.append(seen(symbol(first, first + 999, dataset_symbol=f"S{s}", **rest), d))
    return found


def seen(profile: SymbolProfile, day: int) -> Seen:
    return Seen("somewhere", "trades", shift(DAY, day), profile)


def only(found: list[Learned]) -> Learned:
    (one,) = found
    return one


def test_ids_in_a_row_on_all_days_are_a_candidate_with_its_support() -> None:
    law = only(learn(days_of(), THRESHOLDS)).law
    assert law is not None
    assert (law.law, law.first_day) == ("contiguous", DAY)
    assert law.support == "measured on 28 published days of 5 symbols to 2024-01-29, 140000 rows"


@pytest.mark.parametrize(("symbols", "days"), [(4, 28), (5, 27), (1, 400)])
def test_fewer_days_or_symbols_show_nothing(symbols: int, days: int) -> None:
    found = only(learn(days_of(symbols, days), THRESHOLDS))
    assert found.law is None
    assert found.refuted[0].startswith("nothing is inferred: ")


@pytest.mark.parametrize(
    ("odd", "kind", "refuted"),
    [
        (gaps((27_100, 27_100)), "contiguous_with_holes", ["S4 2024-01-29: 1 ids in a row are missing"]),
        (
            gaps(*((n, n) for n in range(27_010, 27_073, 3))),
            "unique",
            ["1 ids in a row", "21 ids are missing in short runs, more than 2% of its ids"],
        ),
        (gaps((27_100, 27_105)), "unique", ["6 ids in a row", "6 ids in a row"]),
        ({"shifted": 3}, "contiguous_with_holes", ["3 ids lie between its first and the last of the day"]),
        ({"shifted": -101}, "unique", ["101 of its ids are the day before's"] * 2),
        ({"shifted": -100}, "contiguous", []),
        ({"conflicting_rows": 1}, "hash", ["1 rows share an id", "1 rows share", "1 rows share"]),
        ({"numeric_ids": 999, "empty_ids": 1}, None, ["not every id"] * 2 + ["1 rows have no id"] * 2),
    ],
)
def test_one_counter_example_refutes(odd: dict[str, Any], kind: str | None, refuted: list[str]) -> None:
    found = only(learn(days_of(**odd), THRESHOLDS))
    assert (found.law.law if found.law else None) == kind
    assert len(found.refuted) == len(refuted)
    assert all(part in reason for part, reason in zip(refuted, found.refuted, strict=True))


def test_texts_that_never_come_again_are_unique() -> None:
    texts = [
        seen(without_ids(10, dataset_symbol=f"S{s}").model_copy(update={"empty_ids": 0}), d)
        for s in range(5)
        for d in range(28)
    ]
    law = only(learn(texts, THRESHOLDS)).law
    assert law is not None
    assert law.law == "unique"


def test_texts_that_come_again_with_the_same_payload_show_nothing() -> None:
    """The parts of an order that is filled in equal parts may share its id."""
    texts = [
        seen(
            without_ids(10, dataset_symbol=f"S{s}", duplicate_rows=d // 27).model_copy(
                update={"empty_ids": 0}
            ),
            d,
        )
        for s in range(5)
        for d in range(28)
    ]
    found = only(learn(texts, THRESHOLDS))
    assert found.law is None
    assert all("1 rows repeat an id with the same payload" in reason for reason in found.refuted[2:])


def test_the_command_prints_a_file_of_laws_that_can_be_adopted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = LocalStore(tmp_path / "lake")
    feeds = [type(FEED)("somewhere", "trades", f"{name}USDT") for name in ("A", "B", "C", "D", "E")]
    for d in range(28):
        expect(store, shift(DAY, d), *feeds)
        for feed in feeds:
            found = ids(shift(DAY, d), 1 + 1000 * d, 1000 * (d + 1), dataset_symbol=feed.dataset_symbol)
            fetch(store, shift(DAY, d), found, feed)
        settle(store, shift(DAY, d), THRESHOLDS)
    settings = {
        "universe": [{"exchanges": ["binance"], "symbols": ["BTC-USDT"]}],
        "lake": {"uri": str(tmp_path / "lake")},
        "warehouse": {"kind": "duckdb", "folder": str(tmp_path / "warehouse")},
    }
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump(settings), encoding="utf-8")
    monkeypatch.setenv("BACKFILL_ENV", str(file))
    nothing = CliRunner().invoke(main, ["laws", "learn", "--start", "2023-01-01", "--end", "2023-01-02"])
    assert (nothing.exit_code, nothing.stdout) == (1, "")
    said = "Error: no file of trades counts from 2023-01-01 to 2023-01-02: run these days, or choose others\n"
    assert nothing.stderr == said
    learned = CliRunner().invoke(main, ["laws", "learn", "--start", DAY, "--end", shift(DAY, 27)])
    assert learned.exit_code == 0, learned.output
    (tmp_path / "laws.yaml").write_text(f"version: 1\nlaws:\n{learned.output}", encoding="utf-8")
    (law,) = [law for law in load_id_laws(tmp_path / "laws.yaml") if law.exchange == "somewhere"]
    assert law.law == "contiguous"
    damaged = {DAY: paths.settled_day(DAY), shift(DAY, 1): paths.ticks_manifest(feeds[1], shift(DAY, 1))}
    for path in damaged.values():
        (tmp_path / "lake" / path).write_bytes(b"{")
    manifest = tmp_path / "lake" / paths.ticks_manifest(feeds[2], shift(DAY, 1))
    content = json.loads(manifest.read_bytes())
    content["versions"][-1]["profile"] = {"symbols": [7]}
    manifest.write_text(json.dumps(content))
    fewer = CliRunner().invoke(main, ["laws", "learn", "--start", DAY, "--end", shift(DAY, 27)])
    assert fewer.exit_code == 1, "a law may be broken in a file that was left out"
    first, second, third = fewer.stderr.splitlines()
    assert first.startswith(f"{DAY} is left out: {store.uri_of(damaged[DAY])}: cannot be read as SettledDay")
    of_file = f"{store.uri_of(damaged[shift(DAY, 1)])}: cannot be read as FeedManifest"
    assert second.startswith(f"{feeds[1]} of {shift(DAY, 1)} is left out: {of_file}")
    assert third.startswith(f"{feeds[2]} of {shift(DAY, 1)} is left out: {manifest}: the profile of version ")
    assert "0 symbols were published on 28 days" in fewer.stdout, "the other days were read"
    settings["thresholds"] = {"id_laws": "laws.yaml"}
    file.write_text(yaml.safe_dump(settings), encoding="utf-8")
    shown = CliRunner().invoke(main, ["laws", "show"])
    assert (
        "somewhere  trades  contiguous: ids are contiguous per symbol from 2024-01-02 (measured on"
        in shown.output
    )
    assert "upbit  trades  unique" in shown.output
