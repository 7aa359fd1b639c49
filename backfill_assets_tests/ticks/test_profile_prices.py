"""Spikes, grids, frozen prices and blocks sent twice: equal to a plain count by their definitions."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Sequence
from typing import Any

import pytest

from backfill_assets.days import start_us
from backfill_assets.feeds import Feed
from backfill_assets.quality.profiles import Spike, Stretch, SymbolProfile
from backfill_assets.settings import CountingSettings
from backfill_assets.ticks.profile import ProfileParameters

START = start_us("2024-01-01")
SMALL = CountingSettings(spike_neighbours=12, spike_least_neighbours=5, spike_scatter_trades=200)

#: symbol, timestamp, local_timestamp, id, side, price, amount
Row = tuple[str, int, int, str, str, str, str]


def body(rows: Sequence[Row]) -> str:
    return "".join(f"binance,{','.join(map(str, row))}\n" for row in rows)


def trades(prices: Sequence[float | str], symbol: str = "BTCUSDT", step_us: int = 1_000_000) -> list[Row]:
    return [
        (symbol, START + n * step_us, START + n * step_us + 5, str(n + 1), "buy", str(price), "1")
        for n, price in enumerate(prices)
    ]


def profile_of(decode_body: Any, rows: Sequence[Row], **options: Any) -> SymbolProfile:
    counting = options.pop("counting", CountingSettings())
    decoded, _ = decode_body("trades", body(rows), parameters=ProfileParameters(counting=counting), **options)
    (symbol,) = decoded.profile.symbols
    assert isinstance(symbol, SymbolProfile)
    return symbol


def walk(seed: int, count: int, *, start: float = 42_000.0, sigma: float = 1e-4) -> list[float]:
    rng = random.Random(seed)
    found, price = [], start
    for _ in range(count):
        price *= math.exp(rng.gauss(0, sigma))
        found.append(round(price, 2))
    return found


# --- spikes ------------------------------------------------------------------------------------------------


def upper_median(values: Sequence[float]) -> float:
    return sorted(values)[len(values) // 2]


def expected_spikes(prices: list[float], counting: CountingSettings, tick: float) -> tuple[list[int], int]:
    """Rows that are spikes, and the number of rows that cannot be judged, by the definition."""
    near, least = counting.spike_neighbours, counting.spike_least_neighbours
    many, n = counting.spike_scatter_trades, len(prices)
    # The first block ends after ``many`` trades, each later one a quarter of that after the last; the
    # final one takes the rest.
    ends = [*range(many, n - near + 1, many // 4), n]
    found, unjudged, begin = [], 0, 0
    for end in ends:
        window = prices[max(0, end - many) : end]
        distances = []
        for group in (window[at : at + near] for at in range(0, len(window), near)):
            middle = math.log(upper_median(group))
            distances += [abs(math.log(p) - middle) for p in group]
        scatter = 1.4826 * upper_median(distances)
        moves = sorted(abs(b - a) for a, b in itertools.pairwise(window) if a != b)
        step = tick or (moves[4] if len(moves) >= 5 else 0.0)
        known = prices[: min(n, end + near)]
        for i in range(begin, end):
            before, after = known[max(0, i - near) : i], known[i + 1 : i + 1 + near]
            around = [upper_median(side) for side in (before, after) if len(side) >= least]
            if around and len(before) < least:
                around.append(upper_median(after[:least]))
            if around and len(after) < least:
                around.append(upper_median(before[-least:]))
            half = near // 2
            if len(before) >= half and len(after) >= half:
                around.append(upper_median(before[-half:] + after[:half]))
            if not [side for side in (before, after) if len(side) >= least]:
                unjudged += 1
                continue
            floor = max(counting.spike_least_scatter_bp * 1e-4, step / prices[i])
            others = [math.log(p) for p in before + after]
            own = 1.4826 * upper_median([abs(p - upper_median(others)) for p in others])
            limit = counting.spike_multiple * max(scatter, own, floor)
            if min(abs(math.log(prices[i] / m)) for m in around) > limit:
                found.append(i)
        begin = end
    return found, unjudged


@pytest.mark.parametrize("count", [1, 6, 9, 10, 40, 199, 211, 212, 213, 262, 1500])
@pytest.mark.parametrize("seed", [1, 2])
def test_spikes_are_those_of_the_definition(seed: int, count: int, decode_body: Any) -> None:
    rng = random.Random(1000 * seed + count)
    prices = walk(
        seed, count, start=rng.choice([0.01, 3.0, 42_000.0]) * 100, sigma=rng.choice([0, 1e-5, 1e-3])
    )
    for _ in range(count // 15):
        at = rng.randrange(count)
        stop = at + rng.choice([1, 1, 3, 20])
        prices[at:stop] = [round(p * rng.choice([0.9, 0.99, 1.01, 1.2]), 2) for p in prices[at:stop]]
    tick = rng.choice([0.0, 0.01])
    grids = {"BTCUSDT": (tick,)} if tick else None
    found = profile_of(
        decode_body, trades(prices), counting=SMALL, grids=grids, block_bytes=2000, row_group_rows=97
    )
    rows, unjudged = expected_spikes(prices, SMALL, tick)
    assert (found.spike_count, found.unjudged_prices) == (len(rows), unjudged)
    assert found.spikes == tuple(
        Spike(time_us=START + row * 1_000_000, price=prices[row]) for row in rows[:100]
    )


@pytest.mark.parametrize("count", [5_000, 20_000])
@pytest.mark.parametrize("row", [0, 30, 2_500, 4_970, 4_999])
def test_a_fat_finger_is_found_wherever_it_stands(count: int, row: int, decode_body: Any) -> None:
    prices = walk(3, count)
    prices[row] = round(prices[row] * 1.05, 2)
    found = profile_of(decode_body, trades(prices, step_us=4_000_000))
    assert found.spikes == (Spike(time_us=START + row * 4_000_000, price=prices[row]),)


@pytest.mark.parametrize("row", [19, 30, 2_500, 4_970, 4_979])
def test_a_real_jump_of_five_percent_is_no_spike(row: int, decode_body: Any) -> None:
    prices = [round(p * (1.05 if n > row else 1), 2) for n, p in enumerate(walk(3, 5_000))]
    assert profile_of(decode_body, trades(prices, step_us=4_000_000)).spike_count == 0


@pytest.mark.parametrize(("length", "spikes"), [(1, 1), (25, 25), (26, 0)])
def test_prices_that_come_back_are_spikes_until_half_of_the_neighbours_are_there(
    length: int, spikes: int, decode_body: Any
) -> None:
    prices = [100.0] * 2_500 + [101.0] * length + [100.0] * 2_500
    assert profile_of(decode_body, trades(prices)).spike_count == spikes


@pytest.mark.parametrize(("price", "spikes"), [(10_005, 0), (10_006, 1), (9_996, 0), (9_995, 1)])
def test_a_market_that_stands_still_scatters_by_half_a_basis_point(
    price: int, spikes: int, decode_body: Any
) -> None:
    found = profile_of(decode_body, trades([10_000] * 50 + [price] + [10_000] * 50))
    assert found.spike_count == spikes


def test_ten_steps_of_a_coarse_grid_are_no_spike_and_eleven_are(decode_body: Any) -> None:
    for steps, spikes in ((9, 0), (12, 1)):
        rows = trades([100] * 50 + [100 + steps] + [100] * 50)
        assert profile_of(decode_body, rows, grids={"BTCUSDT": (1.0,)}).spike_count == spikes
        assert profile_of(decode_body, rows).spike_count == 1


def test_without_a_known_grid_the_least_of_many_moves_is_the_step(decode_body: Any) -> None:
    bouncing = [100, 101, 100, 100, 100] * 40
    assert profile_of(decode_body, trades(bouncing)).spike_count == 0
    bouncing[102] = 112
    assert profile_of(decode_body, trades(bouncing)).spike_count == 1
    assert (
        profile_of(decode_body, trades([100] * 80 + [101] + [100] * 40 + [101] + [100] * 80)).spike_count == 2
    )


def test_a_hundred_spikes_are_listed_and_all_are_counted(decode_body: Any) -> None:
    prices = [200.0 if n % 60 == 30 else 100.0 + n % 2 / 100 for n in range(60 * 150)]
    found = profile_of(decode_body, trades(prices))
    assert (found.spike_count, len(found.spikes)) == (150, 100)
    assert found.spikes[99].time_us == START + (60 * 99 + 30) * 1_000_000


def test_rows_without_price_or_amount_are_no_neighbours(decode_body: Any) -> None:
    prices: list[float | str] = [100.0] * 60 + [101.0] + [100.0] * 60
    sound = profile_of(decode_body, trades(prices))
    broken = profile_of(decode_body, trades([*prices[:58], *["0", ""] * 40, *prices[58:]]))
    assert (sound.spike_count, broken.spike_count) == (1, 1)


def test_symbols_of_a_grouped_file_are_judged_apart(decode_body: Any) -> None:
    counts = {"BTCUSDT": 700, "ETHUSDT": 300, "XYZ": 5}
    own = {name: walk(n, count, start=1000.0 * n) for n, (name, count) in enumerate(counts.items(), 1)}
    own["ETHUSDT"][150] *= 2
    rows = [row for name, prices in own.items() for row in trades(prices, name)]
    random.Random(1).shuffle(rows)
    ordered = {name: iter(sorted(r for r in rows if r[0] == name)) for name in counts}
    mixed = [next(ordered[row[0]]) for row in rows]
    decoded, _ = decode_body("trades", body(mixed), feed=Feed("binance", "trades", "SPOT"), block_bytes=3000)
    found = {s.dataset_symbol: (s.spike_count, s.unjudged_prices) for s in decoded.profile.symbols}
    assert found == {"BTCUSDT": (0, 0), "ETHUSDT": (1, 0), "XYZ": (0, 5)}


# --- the grid ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("grids", "price", "expected"),
    [
        ((0.01,), "42000.37", (0, 0)),
        ((0.01,), "42000.375", (1, 0)),
        ((0.01,), "42000.3701", (1, 0)),
        ((0.01,), "42000.37001", (1, 1)),
        ((0.1,), "27123.4", (0, 0)),
        ((0.1,), "0.30000000000000004", (0, 0)),
        ((0.5,), "27123.5", (0, 0)),
        ((0.5,), "27123.4", (1, 0)),
        ((1e-8,), "0.00143099", (0, 0)),
        ((1e-8,), "0.001430995", (1, 0)),
        ((1e-8,), "98765.43210987", (0, 0)),
        ((0.01, 0.0001), "1.2345", (0, 0)),
        ((0.0001, 0.00001), "1.23455", (0, 0)),
        ((0.01, 0.0001), "1.23455", (1, 0)),
        ((0.25, 0.1), "1.25", (0, 0)),
        ((0.25, 0.1), "1.3", (0, 0)),
        ((0.25, 0.1), "1.35", (1, 0)),
        ((10.0,), "42010", (0, 0)),
        ((10.0,), "42011", (1, 0)),
        ((10.0,), "42011.55", (1, 1)),
    ],
)
def test_a_price_is_on_the_grid_or_not_whatever_its_binary_form(
    grids: tuple[float, ...], price: str, expected: tuple[int, int], decode_body: Any
) -> None:
    found = profile_of(decode_body, trades([price]), grids={"BTCUSDT": grids})
    assert (found.off_grid_rows, found.off_finer_grid_rows) == expected
    assert found.price_increments == tuple(sorted(grids))


@pytest.mark.parametrize("grids", [None, {}, {"ETHUSDT": (1.0,)}, {"BTCUSDT": (1.0, 2.0, 3.0, 4.0, 5.0)}])
def test_without_a_known_grid_prices_are_not_judged_by_one(grids: Any, decode_body: Any) -> None:
    found = profile_of(decode_body, trades(["0.123456789"]), grids=grids)
    assert (found.off_grid_rows, found.off_finer_grid_rows, found.price_increments) == (None, None, ())


# --- one price ---------------------------------------------------------------------------------------------


def test_the_longest_stretches_of_one_price_by_rows_and_by_time_are_kept(decode_body: Any) -> None:
    rng = random.Random(4)
    prices = [rng.choice([1.0, 2.0, 3.0]) for _ in range(3_000)]
    rows = [(*row[:2], row[2] + n // 7 * 13_000_000, *row[3:]) for n, row in enumerate(trades(prices))]
    found = profile_of(decode_body, rows, block_bytes=1500)
    runs = [list(run) for _, run in itertools.groupby(rows, key=lambda row: row[5])]
    for stretch, key in (
        (found.most_rows_at_one_price, lambda run: len(run)),
        (found.longest_at_one_price, lambda run: run[-1][2] - run[0][2]),
    ):
        run = max(runs, key=key)
        assert stretch == Stretch(
            start_us=run[0][2], end_us=run[-1][2], rows=len(run), price=float(run[0][5])
        )


def test_of_equal_stretches_the_first_is_kept(decode_body: Any) -> None:
    found = profile_of(decode_body, trades([1, 2, 2, 3, 3, 4, 5, 5]))
    for stretch in (found.most_rows_at_one_price, found.longest_at_one_price):
        assert stretch is not None
        assert (stretch.price, stretch.rows) == (2.0, 2)


# --- ids and blocks ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("second", "resets"), [("1", 1), ("99999", 1), ("100000", 0), ("200001", 0)])
def test_a_large_step_back_of_the_ids_is_a_reset(second: str, resets: int, decode_body: Any) -> None:
    rows = trades([1.0, 1.0])
    rows = [(*row[:3], new, *row[4:]) for row, new in zip(rows, ("200000", second), strict=True)]
    assert profile_of(decode_body, rows).id_resets == resets


def without_ids(prices: Sequence[float], arrivals: Sequence[int]) -> list[Row]:
    return [
        (*row[:2], START + arrival * 1_000, "", *row[4:])
        for row, arrival in zip(trades(prices), arrivals, strict=True)
    ]


def resend(rows: list[Row], part: list[Row], arrival: int) -> list[Row]:
    return rows + [(*row[:2], START + arrival * 1_000, *row[3:]) for row in part]


@pytest.mark.parametrize("at", [0, 137, 489])
@pytest.mark.parametrize(("length", "expected"), [(9, (0, 0)), (10, (1, 10)), (11, (1, 11))])
def test_ten_rows_sent_again_at_once_are_a_block(
    length: int, expected: tuple[int, int], at: int, decode_body: Any
) -> None:
    rows = without_ids(walk(1, 500), range(500))
    rows = resend(rows, rows[at : at + length], 600)
    found = profile_of(decode_body, rows, block_bytes=900)
    assert (found.resent_blocks, found.resent_rows) == expected


def test_a_block_goes_on_after_it_and_may_hold_rows_that_are_alike(decode_body: Any) -> None:
    rows = without_ids(walk(1, 500), range(500))
    alike = [row for row in rows[100:112] for _ in range(3)]
    first = rows[:100] + alike + rows[112:]
    again = resend(first, alike, 600)
    again = resend(again, without_ids([7.0] * 3, range(3)), 600)
    found = profile_of(decode_body, resend(again, rows[200:215], 601))
    assert (found.resent_blocks, found.resent_rows) == (2, 36 + 15)


def test_rows_that_come_again_in_other_order_at_other_times_or_changed_are_no_block(decode_body: Any) -> None:
    rows = without_ids(walk(1, 500), range(500))
    part = rows[100:118]
    changed = [(*row[:5], row[5], "2") if n % 9 == 5 else row for n, row in enumerate(part)]
    spread = [(*row[:2], START + (600 + n) * 1_000, *row[3:]) for n, row in enumerate(part)]
    for more in (part[::-1], changed):
        assert profile_of(decode_body, resend(rows, more, 600)).resent_blocks == 0
    assert profile_of(decode_body, rows + spread).resent_blocks == 0


def test_a_block_may_come_twice_in_one_arrival(decode_body: Any) -> None:
    rows = without_ids(walk(1, 12), [0] * 12)
    found = profile_of(decode_body, rows + rows)
    assert (found.resent_blocks, found.resent_rows) == (1, 12)


def test_an_order_filled_in_equal_parts_is_no_block(decode_body: Any) -> None:
    fills = [("BTCUSDT", START, START + n // 30, "", "buy", "1", "1") for n in range(120)]
    assert profile_of(decode_body, fills).resent_blocks == 0


@pytest.mark.parametrize("times", [2, 3])
def test_every_row_of_a_file_that_holds_them_several_times_has_an_equal(times: int, decode_body: Any) -> None:
    rows = without_ids(walk(1, 500), range(500))
    behind = [row for row in rows for _ in range(times)]
    later = [row for at in range(0, 500, 5) for _ in range(times) for row in rows[at : at + 5]]
    for found in (behind, later):
        assert profile_of(decode_body, found, block_bytes=900).twin_rows == 500 * times


def test_rows_that_differ_in_anything_or_have_ids_equal_no_other(decode_body: Any) -> None:
    rows = without_ids([7.0] * 500, range(500))
    half = [(*row[:2], *row[2:5], row[5], "2") if n % 2 else row for n, row in enumerate(rows)]
    for found in (rows, half, trades([7.0] * 500)):
        assert profile_of(decode_body, found).twin_rows == 0
    assert profile_of(decode_body, [*rows[:3], *rows[2:]]).twin_rows == 2


def test_with_ids_repeats_are_counted_by_them_alone(decode_body: Any) -> None:
    rows = trades(walk(1, 500))
    found = profile_of(decode_body, resend(rows, rows[100:150], 600_000))
    assert (found.resent_blocks, found.duplicate_rows) == (0, 50)
