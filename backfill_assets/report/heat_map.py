"""The minutes of a feed as SVG paths and signs, and in words for screen readers.

Runs of equal minutes are one piece of a path, and the words also list runs, so that the page of a day with
sixty feeds opens at once.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final

import numpy as np

from backfill_assets.quality.bucket_states import MINUTES
from backfill_assets.readable_numbers import plural
from backfill_assets.report.actions import clock_range
from backfill_assets.report.evidence import FeedReport
from backfill_assets.report.minutes import (
    BOOK,
    EMPTY,
    NOTABLE,
    PROVEN_BOOK,
    SILENT,
    STATES,
    TRADED,
    UNPROVEN,
    Mark,
    Minutes,
)

#: Shades of traded minutes.
LEVELS: Final = 4
#: Signs on a row that are closer than this number of minutes would cover each other.
SIGN_MINUTES: Final = 24
#: Number of runs of a feed that the text of the heat map lists; the others are in the feed's own minutes.
TEXT_RUNS: Final = 40
#: States in which nothing is known to be lost.
_QUIET: Final = frozenset(state.code for state in (TRADED, EMPTY, UNPROVEN, PROVEN_BOOK, BOOK, SILENT))
#: A run that the words give as one: minutes in one state, or in any of the quiet states.
_TOLD_RUN: Final = re.compile(f"[{re.escape(''.join(sorted(_QUIET)))}]+|(.)\\1*")
#: States that have a pattern, so that color is never the only difference.
_PATTERNED: Final = frozenset(state.code for state in STATES) - {
    state.code for state in (TRADED, EMPTY, PROVEN_BOOK, BOOK, SILENT)
}


def _levels(minutes: Minutes) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Shade of each minute, 1 to ``LEVELS``, by the logarithm of its trades; 0 without trades."""
    logarithms = np.log1p(minutes.trades)
    most = logarithms.max(initial=0) or 1.0
    levels = np.minimum(LEVELS, 1 + (LEVELS * logarithms / most).astype(int))
    return np.where(logarithms > 0, levels, 0)


def heat_map(feed: FeedReport) -> dict[str, Any] | None:
    """Paths, signs and words of one row of the heat map; None where the feed has no minutes."""
    minutes = feed.minutes
    if minutes is None:
        return None
    shown = feed.waiting or minutes
    return {
        "paths": _paths(minutes),
        # If the tables lack the feed, its pending file is drawn below.
        "waiting": _paths(feed.waiting) if feed.waiting else None,
        "signs": _signs(feed.marks),
        "words": words(minutes),
        "shown": words(shown),
    }


def words(minutes: Minutes) -> str:
    """The number of minutes in each state, in words."""
    counted = {state: minutes.count(state) for state in STATES if minutes.count(state)}
    flagged = [plural(len(minutes.flagged), "unconfirmed spike")] if minutes.flagged else []
    return ", ".join([*(f"{count:,} {state.name}" for state, count in counted.items()), *flagged])


def _paths(minutes: Minutes) -> dict[str, str]:
    """Runs of equal minutes as SVG paths by kind: areas for states with a pattern, lines for the others."""
    letters = np.frombuffer(minutes.states.encode("ascii"), np.uint8)
    # Shades are smaller numbers than the codes of letters.
    kinds = np.where(letters == ord(TRADED.code), _levels(minutes), letters)
    firsts = np.flatnonzero(np.diff(kinds, prepend=-1))
    lengths = np.diff(firsts, append=kinds.size)
    shapes: dict[str, list[tuple[int, int]]] = {}
    for kind, first, length in zip(kinds[firsts].tolist(), firsts.tolist(), lengths.tolist(), strict=True):
        shapes.setdefault(f"t{kind}" if kind <= LEVELS else chr(kind), []).append((first, length))
    return {
        kind: _areas(runs) if kind in _PATTERNED else _lines(runs) for kind, runs in sorted(shapes.items())
    }


def _areas(runs: Iterable[tuple[int, int]]) -> str:
    return "".join(f"M{first} 0h{length}v1h-{length}z" for first, length in runs)


def _lines(runs: Iterable[tuple[int, int]]) -> str:
    """Lines take a third of the bytes of areas; they are most of a page."""
    parts, at = ["M0 .5"], 0
    for first, length in runs:
        parts.append(f"m{first - at} 0h{length}" if first > at else f"h{length}")
        at = first + length
    return "".join(parts)


def _signs(marks: Iterable[Mark]) -> list[tuple[float, str, str]]:
    """Signs on the strip with their positions in percent; of signs too close together the worst stays."""
    placed: list[tuple[float, Mark]] = []
    for mark in marks:
        middle = (mark.first + mark.after) / 2
        if all(abs(middle - other) >= SIGN_MINUTES for other, _ in placed):
            placed.append((middle, mark))
    return [
        (100 * middle / MINUTES, mark.sign, f"{clock_range(mark.first, mark.after)} {mark.words}")
        for middle, mark in sorted(placed, key=lambda p: p[0])
    ]


def text(feed: FeedReport) -> list[tuple[str, str]]:
    """The row of the heat map in words: pairs of time and state. Runs of quiet states are joined."""
    if feed.minutes is None:
        return [("the whole day", "not counted by minute")]
    lines = _runs_in_words(feed.minutes, "")
    if feed.waiting is not None:
        lines += _runs_in_words(feed.waiting, "in the pending file: ")
    told = {state.name for state in NOTABLE}
    lines += [
        (clock_range(mark.first, mark.after), mark.words) for mark in feed.marks if mark.words not in told
    ]
    if len(lines) > TEXT_RUNS:
        rest = plural(len(lines) - TEXT_RUNS, "more run")
        lines = [*lines[:TEXT_RUNS], ("", f"{rest}: see the feed's minutes below")]
    return lines


def _runs_in_words(minutes: Minutes, prefix: str) -> list[tuple[str, str]]:
    return [
        (clock_range(*run.span()), prefix + words(Minutes(run[0], ())))
        for run in _TOLD_RUN.finditer(minutes.states)
    ]
