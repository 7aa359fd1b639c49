"""The replay of books by the kernels equals a plain one by dictionaries, for any division of the rows."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any, Final

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backfill_assets.days import start_us
from backfill_assets.quality.profiles import BookProfile
from backfill_assets.ticks import books as books_module
from backfill_assets.ticks.books import Books
from backfill_assets.ticks.profile import Name, Rows
from backfill_assets_tests.ticks.plain_books import Change, PlainBook

DAY: Final = "2024-01-01"
START: Final = start_us(DAY)
SECOND: Final = 1_000_000
_SIDES: Final = {"bid": 0, "ask": 1, "": 255}


def rows_of(changes: list[tuple[int, Change]]) -> Rows:
    rows = [change for _, change in changes]
    return Rows(
        times=np.array([row.time for row in rows], np.int64),
        locals=np.array([row.local for row in rows], np.int64),
        codes=np.array([symbol for symbol, _ in changes], np.int32),
        price=np.array([row.price for row in rows]),
        amount=np.array([row.amount for row in rows]),
        side=np.array([_SIDES[row.side] for row in rows], np.uint8),
        is_snapshot=np.array([row.snapshot for row in rows], np.uint8),
    )


def replayed(
    changes: list[tuple[int, Change]], cuts: tuple[int, ...] = (), resent: int = 10, grids: Any = None
) -> tuple[BookProfile, ...]:
    """The profiles of the rows, added in the parts that the cuts make; names are S0, S1 and so on."""
    made = Books(START, grids or {}, resent)
    numbers = sorted({symbol for symbol, _ in changes})
    for number in range(numbers[-1] + 1):
        made.name(number, Name("binance", f"S{number}", f"C{number}"))
    symbol_of = np.arange(numbers[-1] + 1, dtype=np.int32)
    rows = rows_of(changes)
    edges = sorted({0, len(changes), *(cut % (len(changes) + 1) for cut in cuts)})
    for start, stop in pairwise(edges):
        made.add(rows, symbol_of, start, stop)
    return made.finish()


def plain(changes: list[Change]) -> dict[str, Any]:
    book = PlainBook(START)
    book.replay(changes)
    return book.profile(changes)


def shown(book: BookProfile) -> dict[str, Any]:
    """The profile in the form of ``PlainBook.profile``."""
    found = {name: getattr(book, name) for name in BookProfile.model_fields}
    for name in ("dataset_symbol", "symbol", "off_grid_rows", "off_finer_grid_rows", "dropped_levels",
                 "resent_blocks", "resent_messages", "far_levels", "shifted_levels",
                 "first_shifted_us"):  # fmt: skip
        found.pop(name)
    crossed, silence = book.longest_crossed, book.longest_unchanged
    found["longest_crossed"] = (crossed.start_us, crossed.end_us) if crossed else None
    found["longest_unchanged"] = (silence.start_us, silence.end_us, silence.usual_us) if silence else None
    found["disagreements"] = [
        (one.time_us, one.gap_us, one.compared, one.differing, one.explained) for one in book.disagreements
    ]
    return found


#: Steps of time: within a message, a moment, more than a snapshot's, minutes.
_STEPS: Final = (0, 0, 0, 1_000, 400_000, 999_999, 1_000_001, 20 * SECOND, 130 * SECOND)
change = st.tuples(
    st.sampled_from(_STEPS),
    st.sampled_from([False, False, False, True]),
    st.sampled_from(["bid", "ask", "bid", "ask", "bid", "ask", "bid", "ask", "bid", "ask", ""]),
    st.one_of(st.integers(90, 110), st.integers(95, 105), st.sampled_from([-5, 0, math.nan, 1e16])),
    st.sampled_from([0, 0, 1, 2, 3, 5, 1, 2, 3, 5, -1, math.nan, 1e19]),
    st.integers(0, 2),
)


def stream(steps: list[Any], at: int = START) -> list[tuple[int, Change]]:
    found = []
    for step, snapshot, side, price, amount, symbol in steps:
        at += step
        found.append((symbol, Change(at - 5_000, at, snapshot, side, float(price), float(amount))))
    return found


@settings(max_examples=300, deadline=None)
@given(
    st.lists(change, min_size=1, max_size=80),
    st.lists(st.integers(0, 80), max_size=4).map(tuple),
    st.sampled_from([0, 23 * 3600 * SECOND + 3550 * SECOND]),
)
def test_kernels_count_what_a_plain_replay_counts_in_any_parts(
    steps: list[Any], cuts: tuple[int, ...], into_day: int
) -> None:
    changes = stream(steps, START + into_day)
    found = {book.dataset_symbol: shown(book) for book in replayed(changes, cuts)}
    expected = {
        f"S{symbol}": plain([row for s, row in changes if s == symbol]) for symbol in {s for s, _ in changes}
    }
    assert found == expected


@pytest.mark.parametrize("seed", range(12))
def test_deep_books_of_many_rows_are_replayed_alike(seed: int) -> None:
    rng = np.random.default_rng(seed)
    cuts = tuple(rng.integers(0, 6_000, seed % 4).tolist())
    steps = [
        (int(rng.choice([0, 0, 0, 1_000, 5 * SECOND])), n % 2_500 < 1_500, str(rng.choice(["bid", "ask"])),
         int(rng.integers(1, 2_000)), int(rng.choice([0, 1, 2, 3])), 0)
        for n in range(6_000)
    ]  # fmt: skip
    changes = stream(steps)
    [found] = replayed(changes, cuts)
    assert shown(found) == plain([row for _, row in changes])


def test_levels_far_from_the_best_that_come_and_go_are_those_of_a_plain_replay() -> None:
    rng, depth = np.random.default_rng(7), 1_500
    sides = {"bid": lambda n: 10_000.0 - n, "ask": lambda n: 10_001.0 + n}
    ladder = [
        (side, price(n), 1.0) for side, price in sides.items() for n in range(0, depth, 1 + (side == "ask"))
    ]
    changes, at = message(0, *ladder, snapshot=True), 0

    def change(side: str, n: int, amount: float) -> None:
        nonlocal at
        at += 20_000
        changes.extend(message(at, (side, sides[side](n), amount)))

    for _ in range(1_200):
        change(str(rng.choice(["bid", "ask"])), int(rng.integers(500, depth)), float(rng.integers(0, 3)))
    # The best of both sides is removed level by level, through levels that came and went.
    for n in range(depth):
        change("bid", n, 0.0)
        change("ask", n, 0.0)
        if n % 3 == 0 and n < 1_100:
            change("ask", int(rng.integers(n + 1, depth)), float(rng.integers(0, 3)))
    changes += message(at + 30_000, *ladder[1_200:1_500], *ladder[-100:], snapshot=True)
    changes += message(at + 40_000, ladder[1_200])
    [found] = replayed(changes)
    assert shown(found) == plain([row for _, row in changes])
    assert found.absent_deletes > 100
    assert found.one_sided_us > 0


def test_a_change_of_a_deep_book_moves_no_more_than_one_of_a_shallow_one() -> None:
    levels, rng = 30_000, np.random.default_rng(4)
    best = 100_000.0
    ladder = [("bid", best - n, 1.0) for n in range(levels)] + [
        ("ask", best + 1 + n, 1.0) for n in range(levels)
    ]
    deep = rng.integers(0, levels, 20_000).tolist()
    changes = [
        *message(0, *ladder, snapshot=True),
        *(
            row
            for n, at in enumerate(deep)
            for row in message(1_000 * (n + 1), ("bid", best - at, float(n % 2)))
        ),
    ]
    made = Books(START, {}, 10)
    made.name(0, Name("binance", "S0", "C0"))
    made.add(rows_of(changes), np.zeros(1, np.int32), 0, len(changes))
    moved = made._counts[0, made._k.B_MOVED] / len(deep)
    assert 20 < moved < 400, moved
    assert made._sizes[:4].tolist() != [0, 0, levels, levels]


def test_a_lone_level_ten_times_as_far_is_counted_and_far_ones_of_a_venue_with_them_too() -> None:
    lone = [*message(0, *LADDER, snapshot=True), *message(5, ("ask", 1_020.0, 1.0), ("bid", 10.0, 1.0))]
    [found] = replayed(lone)
    assert (found.far_levels, found.shifted_levels, found.first_shifted_us) == (2, 2, START + 5)
    [found] = replayed([*lone, *message(9, ("ask", 700.0, 1.0), ("ask", 400.0, 1.0), ("bid", 30.0, 1.0))])
    assert (found.far_levels, found.shifted_levels) == (3, 2)
    [found] = replayed([*message(0, *LADDER, ("ask", 900.0, 1.0), snapshot=True), *message(5, LADDER[0])])
    # Such a deep snapshot shows that far levels are usual there.
    assert (found.far_levels, found.shifted_levels, found.first_shifted_us) == (1, 0, None)


def test_room_for_levels_is_made_as_they_come(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    steps = [
        (int(rng.choice([0, 1_000])), n < 40, str(rng.choice(["bid", "ask"])), int(rng.integers(1, 10_000)),
         int(rng.choice([0, 1, 2])), int(rng.integers(0, 3)))
        for n in range(4_000)
    ]  # fmt: skip
    changes = stream(steps)
    whole = replayed(changes)
    monkeypatch.setattr(books_module, "_LEAST_LEVELS", 2)
    assert replayed(changes) == whole


def message(at: int, *rows: tuple[str, float, float], snapshot: bool = False) -> list[tuple[int, Change]]:
    """Rows of one arrival, ``at`` microseconds into the day."""
    local = START + at
    return [(0, Change(local - 1_000, local, snapshot, side, price, amount)) for side, price, amount in rows]


LADDER: Final = (("bid", 100.0, 1.0), ("bid", 99.0, 1.0), ("ask", 101.0, 1.0), ("ask", 102.0, 1.0))


def test_a_side_with_too_many_levels_loses_those_furthest_from_the_best_and_says_so() -> None:
    many = 1 << 17
    bids = [("bid", float(many + 50 - n), 1.0) for n in range(many)]
    first = message(0, *bids, ("ask", many + 60.0, 1.0), snapshot=True)
    more = [row for n in range(3) for row in message(1_000 * (n + 1), ("bid", many + 51.0 + n, 1.0))]
    deep = message(10_000, ("bid", 60.0, 0), ("bid", 2.0, 1.0))
    [found] = replayed([*first, *more, *deep])
    # Three better levels push the three worst out (51, 52, 53), and the level 2 is worse than all.
    assert found.dropped_levels == 3
    assert (found.deletes, found.absent_deletes, found.absent_deletes_beyond) == (1, 0, 0)
    [found] = replayed([*first, *more, *message(10_000, ("bid", 52.0, 0))])
    assert (found.dropped_levels, found.absent_deletes, found.absent_deletes_beyond) == (3, 0, 1)


def test_a_snapshot_in_any_order_is_one_book() -> None:
    rng = np.random.default_rng(1)
    rows = [("bid", 100.0 - n, 1.0 + n) for n in range(50)] + [("ask", 101.0 + n, 2.0 + n) for n in range(50)]
    shuffled = [rows[n] for n in rng.permutation(len(rows))]
    for order in (rows, rows[::-1], shuffled):
        [found] = replayed([*message(0, *order, snapshot=True), *message(1_000, *order)])
        assert (found.valid_us, found.absent_deletes) == (1_000, 0)
        [found] = replayed([*message(0, *order, snapshot=True), *message(5, ("bid", 100.0, 3.0)),
                            *message(10, *rows, snapshot=True)])  # fmt: skip
        assert (found.compared_levels, found.differing_levels) == (100, 1)


def test_a_second_snapshot_without_an_update_between_is_another_book() -> None:
    again = message(5 * SECOND, ("bid", 90.0, 1.0), ("ask", 91.0, 1.0), snapshot=True)
    [found] = replayed(
        [*message(0, *LADDER, snapshot=True), *again, *message(6 * SECOND, ("bid", 90.0, 2.0))]
    )
    assert (found.snapshots, found.crossed_us) == (2, 0)
    parts = [*message(0, *LADDER[:2], snapshot=True), *message(900_000, *LADDER[2:], snapshot=True)]
    [found] = replayed([*parts, *message(SECOND, ("bid", 100.0, 2.0))])
    assert (found.snapshots, found.one_sided_us, found.valid_us) == (1, 900_000, 100_000)


def updates(count: int, every: int, first: int = SECOND) -> list[tuple[int, Change]]:
    rows = []
    for n in range(count):
        rows += message(first + n * every, ("bid", 100.0, 2.0 + n % 7), ("ask", 101.0, 2.0 + n % 5))
    return rows


@pytest.mark.parametrize(
    ("gap_us", "explained"),
    # One change a second: 5 ms are too short to miss one, in 2.5 s there may have been three.
    [(5_000, 0), (9_000, 0), (11_000, 2), (2_500_000, 4)],
)
def test_what_may_have_changed_before_a_snapshot_is_told_by_the_busiest_minute(
    gap_us: int, explained: int
) -> None:
    first = [*message(0, *LADDER, snapshot=True), *updates(180, SECOND)]
    wrong = [(side, price, amount + 50) for side, price, amount in LADDER]
    [found] = replayed([*first, *message(180 * SECOND + gap_us, *wrong, snapshot=True)])
    [one] = found.disagreements
    assert (one.gap_us, one.compared, one.differing, one.explained) == (gap_us, 4, 4, explained)
    assert found.unexplained_levels == 4 - explained
    assert found.minutes[3] == ("d" if explained < 4 else "c")


def test_a_snapshot_that_equals_the_book_proves_its_minute() -> None:
    rows = [*message(0, *LADDER, snapshot=True), *updates(60, SECOND)]
    true = [("bid", 100.0, 2.0 + 59 % 7), ("ask", 101.0, 2.0 + 59 % 5), LADDER[1], LADDER[3]]
    [found] = replayed([*rows, *message(61 * SECOND, *true, snapshot=True), *message(200 * SECOND, *true)])
    assert (found.compared_snapshots, found.compared_levels, found.differing_levels) == (1, 4, 0)
    assert found.minutes[:5] == "cvssn"


def test_messages_that_come_again_in_order_are_counted_and_a_flickering_level_is_not() -> None:
    block = [message(n * 1_000, ("bid", 90.0 + n % 9, 1.0 + n)) for n in range(1, 15)]
    again = [
        [(s, Change(row.time, START + 50_000 + n, False, row.side, row.price, row.amount)) for s, row in one]
        for n, one in enumerate(block)
    ]
    flat = [row for one in (message(0, *LADDER, snapshot=True), *block, *again) for row in one]
    [found] = replayed(flat)
    assert (found.resent_blocks, found.resent_messages) == (1, 14)
    [found] = replayed(flat[: -len(block) + 9])
    assert (found.resent_blocks, found.resent_messages) == (0, 0)
    flicker = [(0, Change(START, START + 1_000 * n, False, "bid", 99.0, float(n % 2))) for n in range(1, 200)]
    [found] = replayed([*message(0, *LADDER, snapshot=True), *flicker])
    assert found.resent_messages == 0


def test_prices_off_the_grid_are_counted_where_it_is_known() -> None:
    rows = [*message(0, *LADDER, snapshot=True), *message(1, ("bid", 99.5, 1.0), ("bid", 99.123456, 1.0))]
    [found] = replayed(rows)
    assert (found.off_grid_rows, found.off_finer_grid_rows) == (None, None)
    [found] = replayed(rows, grids={"S0": (1.0,)})
    assert (found.off_grid_rows, found.off_finer_grid_rows) == (2, 1)
    [found] = replayed(rows, grids={"S0": (1.0, 0.5)})
    assert (found.off_grid_rows, found.off_finer_grid_rows) == (1, 1)
