"""The profile equals a slow plain count over the rows, on random days full of gaps, repeats and disorder."""

from __future__ import annotations

import itertools
import json
import math
import random
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from backfill_assets.days import start_us
from backfill_assets.feeds import DATA_TYPES, Feed
from backfill_assets.quality.profiles import FeedProfile, Gap, Silence
from backfill_assets.settings import CountingSettings, ThresholdSettings
from backfill_assets.ticks import profile as profile_module
from backfill_assets.ticks.partials import minute_candles
from backfill_assets.ticks.profile import ProfileParameters, profile_parameters_hash

DAY = "2024-01-01"
START = start_us(DAY)
END = START + 86_400_000_000
SEAM = 300_000_000

#: symbol, timestamp, local_timestamp, id, side, price, amount
Row = tuple[str, int, int, str, str, str, str]


def body(rows: Sequence[Row], exchange: str = "binance") -> str:
    return "".join(f"{exchange},{','.join(map(str, row))}\n" for row in rows)


def random_day(seed: int, count: int, symbols: Sequence[str] = ("BTCUSDT",)) -> list[Row]:
    rng = random.Random(seed)
    rows: list[Row] = []
    next_id = {symbol: rng.randrange(10**9) for symbol in symbols}
    local = START + rng.randrange(-2_000_000, 10**9)
    for _ in range(count):
        symbol = rng.choice(symbols)
        local += rng.choice([0, 0, 10, 1000, 200_000, 1_000_000, 6_000_000 if rng.random() < 0.3 else 0])
        if rng.random() < 0.002:
            local += rng.randrange(10**7, 10**8)
        time = local - rng.randrange(-20_000, 300_000)
        if rng.random() < 0.01:
            time += rng.choice([-1, 1]) * rng.randrange(10**11)
        if rng.random() < 0.002:
            local -= rng.randrange(10**6)
        if rng.random() < 0.02:
            next_id[symbol] += rng.choice([1, 2, 5, 6, 40, 2_000])
        price = rng.choice(["", "0", "-1"]) if rng.random() < 0.01 else f"{rng.uniform(1, 100):.2f}"
        amount = rng.choice(["", "0", "9.9e-7"]) if rng.random() < 0.01 else f"{rng.uniform(0.001, 5):.3f}"
        side = rng.choice(["buy", "sell", "sell", "unknown", ""])
        rows.append((symbol, time, local, str(next_id[symbol]), side, price, amount))
        next_id[symbol] += 1
    for _ in range(count // 50):  # repeats and swaps near and far
        i, j = rng.randrange(count), rng.randrange(count)
        if rng.random() < 0.5:
            rows[i] = (rows[j][0], *rows[j][1:3], rows[j][3], *rng.choice([rows[j], rows[i]])[4:])
        else:
            rows[i], rows[j] = (*rows[i][:3], *rows[j][3:]), (*rows[j][:3], *rows[i][3:])
    return rows


def number(cell: str) -> float | None:
    return float(cell) if cell else None


def positive(cell: str) -> bool:
    return bool(cell) and float(cell) > 0


def expected_symbol(rows: list[Row]) -> dict[str, Any]:
    valid = [r for r in rows if positive(r[5]) and positive(r[6])]
    ids = [int(r[3]) for r in rows if r[3].isdigit()]
    first_row: dict[int, Row] = {}
    duplicates = conflicts = 0
    for r in rows:
        if not r[3].isdigit():
            continue
        v = int(r[3])
        if v not in first_row:
            first_row[v] = r
        elif (r[1], r[4], number(r[5]), number(r[6])) == (
            first_row[v][1], first_row[v][4], number(first_row[v][5]), number(first_row[v][6])
        ):  # fmt: skip
            duplicates += 1
        else:
            conflicts += 1
    present = sorted(first_row)
    gaps = [
        Gap(first_missing=a + 1, last_missing=b - 1, after_us=first_row[a][1], before_us=first_row[b][1])
        for a, b in itertools.pairwise(present)
        if b > a + 1
    ]
    lengths = [h.last_missing - h.first_missing + 1 for h in gaps]
    local = [r[2] for r in rows]
    steps = [b - a for a, b in itertools.pairwise(local)]
    silences = []
    for i, step in enumerate(steps):
        if step >= 5_000_000:
            around = steps[max(0, i - 200) : i] + steps[i + 1 : i + 201]
            usual = sum(around) / len(around) if around else 0.0
            silences.append(Silence(start_us=local[i], end_us=local[i + 1], usual_us=usual))
    longest = sorted(range(len(silences)), key=lambda n: (silences[n].start_us - silences[n].end_us, n))[
        :1000
    ]
    minutes = [0] * 1440
    for r in valid:
        if START <= r[1] < END:
            minutes[(r[1] - START) // 60_000_000] += 1
    seam = [r for r in valid if START - SEAM <= r[1] < START or END <= r[1] < END + SEAM]
    return {
        "rows": len(rows),
        "valid_rows": len(valid),
        "first_trade_us": min((r[1] for r in valid), default=None),
        "last_trade_us": max((r[1] for r in valid), default=None),
        "buy_rows": sum(r[4] == "buy" for r in rows),
        "sell_rows": sum(r[4] == "sell" for r in rows),
        "unknown_side_rows": sum(r[4] in ("", "unknown") for r in rows),
        "numeric_ids": len(ids),
        "empty_ids": sum(r[3] == "" for r in rows),
        "id_first": ids[0] if ids else None,
        "id_last": ids[-1] if ids else None,
        "id_min": min(ids, default=None),
        "id_max": max(ids, default=None),
        "unique_ids": len(present),
        "missing_ids": sum(lengths) if ids else None,
        "gaps": tuple(gaps[:1000]),
        "gap_count": len(gaps) if ids else None,
        "longest_gap": max(lengths, default=0) if ids else None,
        "missing_in_short_gaps": sum(n for n in lengths if n <= 5) if ids else None,
        "duplicate_rows": duplicates,
        "conflicting_rows": conflicts,
        "id_resets": sum(b < a - 100_000 for a, b in itertools.pairwise(ids)),
        "silences": tuple(sorted((silences[n] for n in longest), key=lambda g: (g.start_us, g.end_us))),
        "silence_count": len(silences),
        "minute_rows": tuple(minutes),
        "seam_rows": len(seam),
    }


def expected_feed(rows: list[Row]) -> dict[str, Any]:
    times, local = [r[1] for r in rows], [r[2] for r in rows]
    ahead = sorted(
        min(max((t - a) // 1000, -60_000), 60_000) * 1000 for t, a in zip(times, local, strict=True)
    )
    offset = ahead[math.ceil(0.99 * len(rows)) - 1]
    hours: list[list[int]] = [[] for _ in range(24)]
    for t, a in zip(times, local, strict=True):
        hours[min(max((a - START) // 3_600_000_000, 0), 23)].append(
            min(max(-((t - a) // 1000), -60_000), 60_000) * 1000
        )
    return {
        "rows": len(rows),
        "has_header": True,
        "clock_residual_rows": sum(n > max(offset, 0) + 250_000 for n in ahead),
        "hour_latency_us": tuple(sorted(h)[math.ceil(len(h) / 2) - 1] if h else None for h in hours),
        "hour_rows": tuple(map(len, hours)),
        "first_timestamp_us": min(times),
        "last_timestamp_us": max(times),
        "first_local_timestamp_us": min(local),
        "last_local_timestamp_us": max(local),
        "local_before_day": sum(a < START for a in local),
        "local_after_day": sum(a >= END for a in local),
        "local_decreases": sum(b < a for a, b in itertools.pairwise(local)),
        "misplaced_rows": sum(not START - SEAM <= t < END + SEAM for t in times),
        "ahead_rows": sum(t > a for t, a in zip(times, local, strict=True)),
        "clock_offset_p99_us": offset,
        "invalid_price_rows": sum(not positive(r[5]) for r in rows),
        "invalid_amount_rows": sum(not positive(r[6]) for r in rows),
        "crossed_rows": 0,
        "valueless_rows": 0,
        "unknown_columns": (),
        "longest_silence": None,
    }


def assert_equal(profile: FeedProfile, rows: list[Row]) -> None:
    of_updates = {"odd_rows", "apart_rows", "off_hour_rows", "books", "tops", "numbers"}
    assert not any(getattr(profile, name) for name in of_updates)
    counted_elsewhere = {"symbols", "implausible_times", "wrong_exchange_rows", "unknown_symbol_rows"}
    found = profile.model_dump(exclude=of_updates | counted_elsewhere)
    assert found == expected_feed(rows)
    assert [s.dataset_symbol for s in profile.symbols] == sorted({r[0] for r in rows})
    for symbol in profile.symbols:
        own = [r for r in rows if r[0] == symbol.dataset_symbol]
        for name, value in expected_symbol(own).items():
            assert getattr(symbol, name) == value, name
        exact = sum(Fraction(float(r[5]) * float(r[6])) for r in own if positive(r[5]) and positive(r[6]))
        assert symbol.notional == pytest.approx(float(exact), rel=1e-14)


@pytest.mark.parametrize("seed", range(6))
def test_a_random_day_is_counted_as_by_hand(seed: int, decode_body: Any) -> None:
    rows = random_day(seed, [1, 2, 150, 420, 3000, 30_000][seed])
    decoded, _ = decode_body("trades", body(rows), block_bytes=5000, row_group_rows=777)
    assert_equal(decoded.profile, rows)


@pytest.mark.parametrize("seed", range(3))
def test_a_random_grouped_day_is_counted_by_symbol(seed: int, decode_body: Any) -> None:
    rows = random_day(100 + seed, 6000, ["BTCUSDT", "ETHUSDT", "XYZ", "RARE"])
    decoded, _ = decode_body("trades", body(rows), feed=Feed("binance", "trades", "SPOT"), block_bytes=4096)
    assert_equal(decoded.profile, rows)
    assert {s.dataset_symbol: s.symbol for s in decoded.profile.symbols}["XYZ"] is None


def test_reversed_and_shuffled_ids_give_the_same_gaps(decode_body: Any) -> None:
    ids = [n for n in range(5000) if n % 97 and not 300 <= n < 420]
    for order in (ids[::-1], random.Random(3).sample(ids, len(ids))):
        rows = [
            ("BTCUSDT", START + n * 1000, START + i, str(n), "buy", "1", "1") for i, n in enumerate(order)
        ]
        assert_equal(decode_body("trades", body(rows))[0].profile, rows)


def test_gap_times_survive_more_disorder_than_the_edges_hold(
    decode_body: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(profile_module, "_EDGES", 64)
    rows = random_day(7, 20_000)
    assert_equal(decode_body("trades", body(rows), block_bytes=3000)[0].profile, rows)


def test_dropped_edges_widen_gap_times_to_the_file_but_lose_no_gap(
    decode_body: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(profile_module, "_EDGES", 64)
    monkeypatch.setattr(profile_module, "_MOST_EDGES", 64)
    rows = [("BTCUSDT", START + n, START + n, str(2 * n), "buy", "1", "1") for n in range(1500)]
    (symbol,) = decode_body("trades", body(rows))[0].profile.symbols
    assert (symbol.gap_count, len(symbol.gaps), symbol.missing_ids) == (1499, 1000, 1499)
    for n, gap in enumerate(symbol.gaps):
        assert gap.first_missing == gap.last_missing == 2 * n + 1
        assert START <= gap.after_us <= START + n
        assert START + n + 1 <= gap.before_us <= START + 1499
    assert (symbol.gaps[0].after_us, symbol.gaps[0].before_us) == (START, START + 1)


def test_many_silences_keep_the_longest_thousand(decode_body: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profile_module, "_SILENCES", 256)
    rng, local, rows = random.Random(5), START, []
    for n in range(6000):
        rows.append(("BTCUSDT", local, local, str(n), "buy", "1", "1"))
        local += rng.choice([1_000_000, 4_999_999, 5_000_000, 6_000_000, rng.randrange(5 * 10**6, 2 * 10**7)])
    profile = decode_body("trades", body(rows), block_bytes=2000)[0].profile
    assert profile.symbols[0].silence_count > 3000
    assert_equal(profile, rows)


def test_scattered_ids_are_no_evidence_and_contiguous_ones_beside_them_are(
    decode_body: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(profile_module, "BITMAP_PAGES", 4)
    rows = [("BTCUSDT", START + n, START + n, str(n), "buy", "1", "1") for n in range(10)]
    rows += [("ETHUSDT", START + n, START + n, str(n * 10**6), "buy", "1", "1") for n in range(10)]
    near, far = decode_body("trades", body(rows))[0].profile.symbols
    assert (near.unique_ids, near.missing_ids, near.gap_count) == (10, 0, 0)
    assert (far.unique_ids, far.missing_ids, far.gap_count, far.longest_gap, far.gaps) == (
        None,
        None,
        None,
        None,
        (),
    )
    assert (far.numeric_ids, far.duplicate_rows) == (10, 0)


def test_a_span_of_any_width_is_counted_when_ids_are_few(decode_body: Any) -> None:
    rows = [("BTCUSDT", START + n, START + n, str(v), "buy", "1", "1") for n, v in enumerate([5, 10**17])]
    (symbol,) = decode_body("trades", body(rows))[0].profile.symbols
    assert symbol.missing_ids == symbol.longest_gap == 10**17 - 6


def test_a_repeat_out_of_the_window_is_a_duplicate_and_within_it_a_conflict(
    decode_body: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [("BTCUSDT", START + n, START + n, str(n), "buy", "1", "1") for n in range(100)]
    rows.append(("BTCUSDT", START + 100, START + 100, "3", "buy", "2", "1"))
    (symbol,) = decode_body("trades", body(rows))[0].profile.symbols
    assert (symbol.duplicate_rows, symbol.conflicting_rows) == (0, 1)
    monkeypatch.setattr(profile_module, "WINDOW_IDS", 16)
    (symbol,) = decode_body("trades", body(rows))[0].profile.symbols
    assert (symbol.duplicate_rows, symbol.conflicting_rows) == (1, 0)


def test_rows_without_ids_do_not_take_the_places_of_ids(
    decode_body: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(profile_module, "WINDOW_IDS", 16)
    rows = [("BTCUSDT", START + n, START + n, "", "buy", str(n + 1), "1") for n in range(200)]
    rows[0] = (*rows[0][:3], "7", "buy", "1", "1")
    rows.append(("BTCUSDT", START + 200, START + 200, "7", "buy", "2", "1"))
    (symbol,) = decode_body("trades", body(rows), row_group_rows=64)[0].profile.symbols
    assert (symbol.duplicate_rows, symbol.conflicting_rows) == (0, 1)


@pytest.mark.parametrize(
    ("second", "expected"),
    [
        (("buy", "1", "1", 0), (1, 0)),
        (("buy", "1.0", "1e0", 0), (1, 0)),
        (("sell", "1", "1", 0), (0, 1)),
        (("buy", "1.01", "1", 0), (0, 1)),
        (("buy", "1", "1.01", 0), (0, 1)),
        (("buy", "1", "1", 1), (0, 1)),
        (("buy", "", "1", 0), (0, 1)),
    ],
)
def test_a_repeated_id_conflicts_when_side_price_amount_or_time_differ(
    second: Any, expected: Any, decode_body: Any
) -> None:
    side, price, amount, later = second
    rows = [
        ("BTCUSDT", START, START, "9", "buy", "1", "1"),
        ("BTCUSDT", START + later, START + 5, "9", side, price, amount),
    ]
    (symbol,) = decode_body("trades", body(rows))[0].profile.symbols
    assert (symbol.duplicate_rows, symbol.conflicting_rows) == expected


def test_rows_without_id_are_neither_repeats_nor_gaps(decode_body: Any) -> None:
    rows = [("BTCUSDT", START, START, name, "buy", "1", "1") for name in ("", "", "", "a-1", "a-2")]
    (symbol,) = decode_body("trades", body(rows))[0].profile.symbols
    assert (symbol.empty_ids, symbol.numeric_ids, symbol.duplicate_rows, symbol.missing_ids) == (
        3,
        0,
        0,
        None,
    )


@pytest.mark.parametrize(
    ("time", "count"),
    [
        (1_704_067_200_000, 2),
        (1_704_067_200, 2),
        (0, 2),
        (START, 0),
        (1_230_768_000_000_000, 0),
        (4_102_444_800_000_000, 2),
    ],
)
def test_times_in_another_unit_are_implausible(time: int, count: int, decode_body: Any) -> None:
    profile = decode_body("trades", body([("BTCUSDT", time, time, "1", "buy", "1", "1")]))[0].profile
    assert profile.implausible_times == count


@pytest.mark.parametrize(
    ("offset", "misplaced", "seam"),
    [
        (-SEAM - 1, 1, 0),
        (-SEAM, 0, 1),
        (-1, 0, 1),
        (0, 0, 0),
        (END - START - 1, 0, 0),
        (END - START, 0, 1),
        (END - START + SEAM - 1, 0, 1),
        (END - START + SEAM, 1, 0),
    ],
)
def test_the_seam_window_ends_where_it_says(offset: int, misplaced: int, seam: int, decode_body: Any) -> None:
    profile = decode_body("trades", body([("BTCUSDT", START + offset, START, "1", "buy", "1", "1")]))[
        0
    ].profile
    assert (profile.misplaced_rows, profile.symbols[0].seam_rows) == (misplaced, seam)


@pytest.mark.parametrize(
    ("bid", "ask", "crossed"),
    [("10", "10", 1), ("10.1", "10", 1), ("9.9", "10", 0), ("", "10", 0), ("10", "", 0)],
)
def test_crossed_books_are_counted_and_one_sided_ones_are_not(
    bid: str, ask: str, crossed: int, decode_body: Any
) -> None:
    line = f"binance,BTCUSDT,{START},{START},"
    levels = f"{ask},1,{bid},1," + ",".join([""] * 16)
    for data_type, tail in (
        ("quotes", f"1,{ask},{bid},1"),
        ("book_ticker", f"1,{ask},{bid},1"),
        ("book_snapshot_5", levels),
    ):
        profile = decode_body(data_type, line + tail + "\n")[0].profile
        assert (profile.crossed_rows, profile.invalid_price_rows, profile.symbols) == (crossed, 0, ())


@pytest.mark.parametrize(
    ("bid", "ask", "invalid"), [("0", "10", 1), ("-1", "0", 1), ("9", "10", 0), ("", "", 0), ("0", "", 1)]
)
def test_quotes_at_or_below_zero_are_invalid_and_absent_ones_are_not(
    bid: str, ask: str, invalid: int, decode_body: Any
) -> None:
    line = f"binance,BTCUSDT,{START},{START},1,{ask},{bid},1\n"
    assert decode_body("quotes", line)[0].profile.invalid_price_rows == invalid


@pytest.mark.parametrize(
    ("data_type", "full", "empty"),
    [
        ("quotes", "1,10,9,1", ",,,"),
        ("book_snapshot_5", "10,1,9,1" + "," * 16, "," * 19),
        ("derivative_ticker", ",,,,5,,", f"{START},,,,,,"),
    ],
)
def test_rows_without_a_value_are_counted_and_rows_with_one_are_not(
    data_type: str, full: str, empty: str, decode_body: Any
) -> None:
    lines = "".join(f"binance,BTCUSDT,{START},{START},{tail}\n" for tail in (full, empty, full, empty, empty))
    assert decode_body(data_type, lines, row_group_rows=2)[0].profile.valueless_rows == 3


@pytest.mark.parametrize("cut", [1, 2, 100])
def test_the_longest_silence_of_updates_is_kept_with_the_usual_one(cut: int, decode_body: Any) -> None:
    locals_ = [START + second * 1_000_000 for second in (0, 2, 3, 103, 104, 204, 206)]
    lines = "".join(f"binance,BTCUSDT,{START},{local},1,10,9,1\n" for local in locals_)
    found = decode_body("quotes", lines, row_group_rows=cut)[0].profile.longest_silence
    assert found == Silence(start_us=locals_[2], end_us=locals_[3], usual_us=106 * 1_000_000 / 5)


@pytest.mark.parametrize(("data_type", "tail"), [("trades", "1,buy,1,1"), ("liquidations", "1,buy,1,1")])
def test_events_have_no_longest_silence(data_type: str, tail: str, decode_body: Any) -> None:
    lines = "".join(f"binance,BTCUSDT,{START},{START + n * 100_000_000},{tail}\n" for n in range(5))
    assert decode_body(data_type, lines)[0].profile.longest_silence is None


def test_liquidations_are_judged_by_price_and_amount_but_have_no_trade_evidence(decode_body: Any) -> None:
    lines = f"binance,BTCUSDT,{START},{START},1,buy,0,1\nbinance,BTCUSDT,{START},{START},2,buy,1,\n"
    profile = decode_body("liquidations", lines)[0].profile
    assert (profile.invalid_price_rows, profile.invalid_amount_rows, profile.symbols) == (1, 1, ())


def test_the_hash_of_parameters_tells_profiles_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    first = profile_parameters_hash(ProfileParameters())
    assert first == profile_parameters_hash(ProfileParameters(seam_window_us=SEAM))
    assert first != profile_parameters_hash(ProfileParameters(seam_window_us=0))
    assert first != profile_parameters_hash(ProfileParameters(counting=CountingSettings(resent_rows=11)))
    assert first == profile_parameters_hash(ProfileParameters.of(ThresholdSettings()))
    assert first != profile_parameters_hash(ProfileParameters.of(ThresholdSettings(seam_window_seconds=1)))
    monkeypatch.setattr(profile_module, "PROFILE_VERSION", 0)
    assert first != profile_parameters_hash(ProfileParameters())


def test_other_numbers_by_minute_let_only_files_that_have_them_be_fetched_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = {name: profile_parameters_hash(ProfileParameters(), name) for name in DATA_TYPES}
    monkeypatch.setattr(profile_module, "NUMBERS_VERSION", 0)
    assert {n for n in DATA_TYPES if profile_parameters_hash(ProfileParameters(), n) != before[n]} == {
        "quotes", "book_snapshot_5", "book_snapshot_25", "incremental_book_L2", "derivative_ticker",
        "liquidations",
    }  # fmt: skip


def test_a_profile_survives_json(decode_body: Any) -> None:
    profile = decode_body("trades", body(random_day(1, 500)))[0].profile
    assert FeedProfile.model_validate_json(profile.model_dump_json()) == profile


def test_arrivals_belong_to_the_day_from_its_first_to_its_last_microsecond(decode_body: Any) -> None:
    rows = [("BTCUSDT", START, at, "", "buy", "1", "1") for at in (START - 1, START, END - 1, END)]
    profile = decode_body("trades", body(rows))[0].profile
    assert (profile.local_before_day, profile.local_after_day, profile.local_decreases) == (1, 1, 0)


@pytest.mark.parametrize(
    ("usual_ms", "ahead_ms", "residuals"),
    [(-20, 250, 0), (-20, 251, 1), (0, 251, 1), (1_200, 1_450, 0), (1_200, 1_451, 1), (-20, 70_000, 1)],
)
def test_a_row_is_ahead_beyond_the_offset_from_a_quarter_of_a_second_on(
    usual_ms: int, ahead_ms: int, residuals: int, decode_body: Any
) -> None:
    ahead = [usual_ms] * 300
    ahead[150] = ahead_ms
    rows = [
        ("BTCUSDT", START + (10_000 * n + by) * 1_000, START + 10_000_000 * n, str(n), "buy", "1", "1")
        for n, by in enumerate(ahead, 1)
    ]
    profile = decode_body("trades", body(rows))[0].profile
    assert (profile.clock_offset_p99_us, profile.clock_residual_rows) == (usual_ms * 1_000, residuals)


@pytest.mark.parametrize(
    ("price", "amount", "bad"),
    [
        ("1e15", "1e18", (0, 0)),
        ("1e-18", "1e-18", (0, 0)),
        ("1.0000001e15", "1", (1, 0)),
        ("0.99e-18", "1", (1, 0)),
        ("1e308", "1e308", (1, 1)),
        ("1e-320", "1e-320", (1, 1)),
        ("-1e300", "1", (1, 0)),
        ("1", "1.01e18", (0, 1)),
        ("1", "5e-324", (0, 1)),
    ],
)
def test_prices_and_amounts_outside_their_ranges_are_invalid_and_end_no_sum(
    price: str, amount: str, bad: tuple[int, int], decode_body: Any, tmp_path: Path
) -> None:
    odd = ("BTCUSDT", START, START, "1", "buy", price, amount)
    rows = [
        odd,
        ("BTCUSDT", START, START, "2", "buy", price, amount),
        ("BTCUSDT", START, START, "3", "buy", "9", "1"),
    ]
    decoded, table = decode_body("trades", body(rows))
    profile = decoded.profile
    assert (profile.invalid_price_rows, profile.invalid_amount_rows) == (2 * bad[0], 2 * bad[1])
    [symbol] = profile.symbols
    assert symbol.valid_rows == (1 if any(bad) else 3)
    assert table["price"].to_pylist()[0] == float(price)
    written = tmp_path / "ticks.parquet"
    pq.write_table(table, written)
    totals = [found.model_dump(mode="json") for found in decoded.totals]
    text = json.dumps([profile.model_dump(mode="json"), totals], allow_nan=False)
    assert "Infinity" not in text
    candles = minute_candles(written, numeric_ids=True)
    assert candles["trade_count"].to_pylist() == [symbol.valid_rows]


@pytest.mark.parametrize(("ask", "bad"), [("1e308", 1), ("1e-320", 1), ("", 0), ("10", 0)])
def test_quotes_outside_the_range_of_prices_are_invalid(ask: str, bad: int, decode_body: Any) -> None:
    line = f"binance,BTCUSDT,{START},{START},1,{ask},9,1\n"
    assert decode_body("quotes", line)[0].profile.invalid_price_rows == bad


def counted_in_python(rows: list[Row]) -> tuple[int, int]:
    """Rows that repeat an id of their symbol with the payload of its first row, and with another."""
    first: dict[tuple[str, str], Row] = {}
    duplicates = conflicts = 0
    for row in rows:
        known = first.setdefault((row[0], row[3]), row)
        if known is not row:
            same = (known[1], *known[4:]) == (row[1], *row[4:])
            duplicates, conflicts = duplicates + same, conflicts + (not same)
    return duplicates, conflicts


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("x{:x}".format, id="texts"),
        pytest.param("0{}".format, id="zeros in front"),
        pytest.param(lambda n: str(10**19 + n), id="more than 18 digits"),
        pytest.param(lambda n: str(n * 10**12), id="scattered integers"),
        pytest.param(lambda n: f"é{n}", id="beyond ASCII"),
    ],
)
def test_repeats_of_ids_of_any_kind_are_counted_exactly(
    name: Callable[[int], str], decode_body: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Repeats are found at any distance, and while the set of ids grows."""
    monkeypatch.setattr(profile_module, "BITMAP_PAGES", 4)
    monkeypatch.setattr(profile_module, "_SEEN", 16)
    chance = random.Random(11)
    rows = [
        (symbol, START + n, START + n, name(n), "buy", str(n % 7 + 1), "1")
        for n in range(3_000)
        for symbol in ("BTCUSDT", "ETHUSDT")
    ]
    last = START + 3_000
    for row in chance.sample(rows, 500):
        rows.append((*row[:2], last, *row[3:]))
    for row in chance.sample(rows[:6_000], 40):
        rows.append((*row[:2], last, *row[3:6], "2"))
    found = decode_body("trades", body(rows), row_group_rows=512)[0].profile.symbols
    counted = (sum(s.duplicate_rows for s in found), sum(s.conflicting_rows for s in found))
    assert counted == counted_in_python(rows) == (500, 40)
    assert [s.uncounted_ids for s in found] == [0, 0]


def test_ids_beyond_the_memory_for_them_are_uncounted(
    decode_body: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(profile_module, "_SEEN", 16)
    monkeypatch.setattr(profile_module, "_MOST_SEEN", 64)
    rows = [("BTCUSDT", START + n, START + n, f"x{n}", "buy", "1", "1") for n in range(100)]
    (symbol,) = decode_body("trades", body([*rows, (*rows[3][:2], START + 100, *rows[3][3:])]))[
        0
    ].profile.symbols
    assert (symbol.duplicate_rows, symbol.uncounted_ids) == (1, 52)
