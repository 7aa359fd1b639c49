"""The replay of an order book in a plain form: dictionaries, one message after the other.

The counts of the kernels are compared with this replay, so both share only the numbers that the
documentation names.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from itertools import groupby
from typing import Any

MINUTE = 60_000_000


@dataclass(frozen=True, slots=True)
class Change:
    """One row; the side is ``bid``, ``ask`` or empty, price and amount may be NaN."""

    time: int
    local: int
    snapshot: bool
    side: str
    price: float
    amount: float

    @property
    def is_sound(self) -> bool:
        amount_is_sound = self.amount == 0 or 1e-18 <= self.amount <= 1e18
        return self.side != "" and 1e-18 <= self.price <= 1e15 and amount_is_sound


class PlainBook:
    """The book of one symbol."""

    def __init__(self, day_start: int) -> None:
        self.day_start = day_start
        self.counts: Counter[str] = Counter()
        self.book: dict[str, dict[float, float]] = {"bid": {}, "ask": {}}
        self.before: dict[str, dict[float, float]] = {"bid": {}, "ask": {}}
        self.depth: dict[str, float | None] = {}
        self.in_snapshot = False
        self.snapshot_row = self.snapshot_at = self.snapshot_gap = 0
        self.changes: list[int] = []
        self.states: list[tuple[int, str]] = []
        self.found: list[tuple[int, int, int, int]] = []
        self.proven: set[int] = set()
        self.most_rows = 0

    def replay(self, rows: list[Change]) -> None:
        last = rows[0].local
        for local, group in groupby(rows, key=lambda row: row.local):
            self._message(local, last, list(group))
            last = local
        if self.in_snapshot:
            self._end_snapshot()
        self.counts["rows"] = len(rows)

    def _message(self, local: int, last: int, rows: list[Change]) -> None:
        changed = False
        updates = 0
        for row in rows:
            if self.in_snapshot and (not row.snapshot or row.local - self.snapshot_row > 1_000_000):
                self._end_snapshot()
            if row.snapshot:
                if not self.in_snapshot:
                    self.counts["snapshots"] += 1
                    self.in_snapshot = True
                    self.snapshot_at, self.snapshot_gap = local, 0 if updates else local - last
                    self.before, self.book = self.book, {"bid": {}, "ask": {}}
                self.snapshot_row = local
            else:
                updates += 1
            self.counts["rows_before_snapshot"] += not self.counts["snapshots"]
            if not row.is_sound:
                self.counts["invalid_price_rows"] += not 1e-18 <= row.price <= 1e15
                self.counts["invalid_amount_rows"] += not (row.amount == 0 or 1e-18 <= row.amount <= 1e18)
                self.counts["sideless_rows"] += row.side == ""
                continue
            changed |= self._apply(row)
        self.counts["messages"] += 1
        self.most_rows = max(self.most_rows, updates)
        if changed:
            self.changes.append(local)
        if self.counts["snapshots"]:
            self.states.append((local, self._state()))

    def _apply(self, row: Change) -> bool:
        levels = self.book[row.side]
        if row.snapshot:
            if row.amount:
                levels[row.price] = row.amount
            return True
        if row.amount:
            former = levels.get(row.price)
            levels[row.price] = row.amount
            return former != row.amount
        self.counts["deletes"] += 1
        if row.price in levels:
            del levels[row.price]
            return True
        is_known = row.side in self.depth and self._reaches(row.side, row.price, self.depth[row.side])
        self.counts["absent_deletes" if is_known else "absent_deletes_beyond"] += 1
        return False

    def _reaches(self, side: str, price: float, depth: float | None) -> bool:
        if depth is None:
            return True
        return price >= depth if side == "bid" else price <= depth

    def _state(self) -> str:
        bids, asks = self.book["bid"], self.book["ask"]
        if not bids or not asks:
            return "one_sided"
        bid, ask = max(bids), min(asks)
        return "crossed" if bid > ask else "locked" if bid == ask else "valid"

    def _end_snapshot(self) -> None:
        self.in_snapshot = False
        compared = differing = 0
        for side in ("bid", "ask"):
            new, old = self.book[side], self.before[side]
            worst = min if side == "bid" else max
            depth = worst(new) if new else None
            for price in {*new, *old}:
                if side in self.depth and all(
                    self._reaches(side, price, reach) for reach in (depth, self.depth[side])
                ):
                    compared += 1
                    differing += new.get(price) != old.get(price)
            self.depth[side] = depth
        if compared:
            self.counts["compared_snapshots"] += 1
            self.counts["compared_levels"] += compared
            self.counts["differing_levels"] += differing
            if differing:
                self.found.append((self.snapshot_at, self.snapshot_gap, compared, differing))
            else:
                self.proven.add((self.snapshot_at - self.day_start) // MINUTE)

    def profile(self, rows: list[Change]) -> dict[str, Any]:
        """The content of ``BookProfile`` without names, grids and repeats."""
        times: Counter[str] = Counter()
        crossed_in: Counter[int] = Counter()
        known: set[int] = set()
        ends = [*(at for at, _ in self.states[1:]), rows[-1].local]
        for (start, state), end in zip(self.states, ends, strict=False):
            times[state] += end - start
            first_minute = (start - self.day_start) // MINUTE
            known |= {*range(first_minute, (max(start, end - 1) - self.day_start) // MINUTE + 1)}
            if state in ("crossed", "locked"):
                for minute in range(first_minute, (end - self.day_start) // MINUTE + 1):
                    opened = self.day_start + minute * MINUTE
                    crossed_in[minute] += max(0, min(end, opened + MINUTE) - max(start, opened))
        stretches = []
        for is_crossed, group in groupby(
            zip(self.states, ends, strict=False), key=lambda one: one[0][1] in ("crossed", "locked")
        ):
            parts = list(group)
            if is_crossed:
                stretches.append((parts[0][0][0], parts[-1][1]))
        longest = max(stretches, key=lambda one: one[1] - one[0], default=(0, 0))
        per_minute = Counter((at - self.day_start) // MINUTE for at in self.changes)
        rate = max((n for m, n in per_minute.items() if 0 <= m < 1440), default=0) / MINUTE
        listed = self.found[:100]
        explained = [
            min(compared, (math.ceil(rate * gap) if rate * gap >= 0.01 else 0) * self.most_rows)
            for _, gap, compared, _ in listed
        ]
        diverged = {
            (at - self.day_start) // MINUTE
            for (at, _, _, differing), free in zip(listed, explained, strict=True)
            if differing > free
        }

        def letter(minute: int) -> str:
            if minute not in known:
                return "n"
            if minute in diverged:
                return "d"
            if crossed_in[minute] >= 1_000_000:
                return "x"
            return "v" if minute in self.proven else "c" if per_minute[minute] else "s"

        first = next((row.local for row in rows if row.snapshot), rows[-1].local)
        names = (
            "rows", "messages", "snapshots", "rows_before_snapshot", "deletes", "absent_deletes",
            "absent_deletes_beyond", "invalid_price_rows", "invalid_amount_rows", "sideless_rows",
            "compared_snapshots", "compared_levels", "differing_levels",
        )  # fmt: skip
        return {
            **{name: self.counts[name] for name in names},
            "unknown_us": first - rows[0].local,
            **{f"{state}_us": times[state] for state in ("valid", "one_sided", "locked", "crossed")},
            "stuck_us": sum(end - start for start, end in stretches if end - start >= 1_000_000),
            "longest_crossed": longest if longest[1] > longest[0] else None,
            "disagreements": [(*one, free) for one, free in zip(listed, explained, strict=True)],
            "disagreement_count": len(self.found),
            "last_change_us": self.changes[-1] if self.changes else None,
            "longest_unchanged": self._unchanged(rows[-1].local),
            "minutes": "".join(map(letter, range(1440))),
        }

    def _unchanged(self, end: int) -> tuple[int, int, float] | None:
        if len(self.changes) < 3:
            return None
        pairs = list(zip(self.changes, [*self.changes[1:], end], strict=True))
        start, stop = max(pairs, key=lambda pair: pair[1] - pair[0])
        others = (end - self.changes[0]) - (stop - start)
        return (start, stop, others / (len(self.changes) - 2)) if stop > start else None
