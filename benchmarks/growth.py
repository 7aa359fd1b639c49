"""How cost grows with rows, feeds and days, as one SVG with three log-log panels."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

Points = list[tuple[float, float]]
WIDTH, HEIGHT, LEFT, TOP = 230, 200, 60, 40
COLORS = ("#1b6ca8", "#c0392b", "#5d8a3a", "#8e5ea2", "#7f8c8d")
NUMBER = re.compile(r"[\d,]+")


def plot(lines: Sequence[dict[str, Any]]) -> str:
    """The whole picture."""
    panels = [
        ("trades in a file", _by_case(lines, r"^([\d,]+) trades to Parquet")),
        ("feeds in a day", _by_case(lines, r"^A day of ([\d,]+) feeds .* graph", "day")),
        ("days in the lake", _of_lakes(lines)),
    ]
    parts = [_panel(number, name, series) for number, (name, series) in enumerate(panels) if series]
    width, height = len(parts) * (WIDTH + LEFT) + 110, HEIGHT + TOP + 50
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}"'
        f' height="{height}" font-family="sans-serif" font-size="11">\n'
        f'<rect width="{width}" height="{height}" fill="white"/>\n{"".join(parts)}</svg>\n'
    )


def _by_case(lines: Sequence[dict[str, Any]], pattern: str, of: str = "") -> dict[str, Points]:
    found: dict[str, Points] = {}
    for line in lines:
        size = re.search(pattern, line["work"])
        if size and of in line["case"]:
            point = (float(size[1].replace(",", "")), line["seconds"])
            found.setdefault(line["case"], []).append(point)
    return found


def _of_lakes(lines: Sequence[dict[str, Any]]) -> dict[str, Points]:
    found: dict[str, Points] = {}
    for line in lines:
        if line["case"].endswith("days in the lake"):
            days = NUMBER.search(line["case"])
            assert days is not None
            name = line["work"].split(", ")[0:2]
            found.setdefault(", ".join(name), []).append((float(days[0].replace(",", "")), line["seconds"]))
    return found


def _panel(number: int, name: str, series: dict[str, Points]) -> str:
    """Axes in powers of ten, and a line for each case."""
    xs, ys = zip(*(point for each in series.values() for point in each), strict=True)
    low = [math.floor(math.log10(min(axis))) for axis in (xs, ys)]
    high = [max(at + 1, math.ceil(math.log10(max(axis)))) for at, axis in zip(low, (xs, ys), strict=True)]
    left = number * (WIDTH + LEFT) + LEFT

    def place(x: float, y: float) -> tuple[float, float]:
        across = (math.log10(x) - low[0]) / (high[0] - low[0])
        up = (math.log10(y) - low[1]) / (high[1] - low[1])
        return left + across * (WIDTH - 40), TOP + HEIGHT - up * HEIGHT

    parts = [f'<text x="{left}" y="20" font-weight="bold">CPU seconds by {name}</text>\n']
    for power in range(low[0], high[0] + 1):
        x, _ = place(10.0**power, 10.0 ** low[1])
        parts.append(f'<line x1="{x:.1f}" y1="{TOP}" x2="{x:.1f}" y2="{TOP + HEIGHT}" stroke="#ddd"/>')
        parts.append(
            f'<text x="{x:.1f}" y="{TOP + HEIGHT + 16}" text-anchor="middle">{_short(10**power)}</text>\n'
        )
    for power in range(low[1], high[1] + 1):
        _, y = place(10.0 ** low[0], 10.0**power)
        parts.append(f'<line x1="{left}" y1="{y:.1f}" x2="{left + WIDTH - 40}" y2="{y:.1f}" stroke="#ddd"/>')
        parts.append(f'<text x="{left - 6}" y="{y + 4:.1f}" text-anchor="end">{10.0**power:g}</text>\n')
    ends = {}
    for color, (case, of_case) in zip(COLORS * 2, series.items(), strict=False):
        placed = [place(*point) for point in sorted(of_case)]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in placed)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="1.5"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.5" fill="{color}"/>' for x, y in placed]
        ends[case] = (*placed[-1], color)
    last = -math.inf
    for case, (x, y, color) in sorted(ends.items(), key=lambda end: end[1][1]):
        # Names of lines with neighboring ends are placed below each other.
        last = max(y + 4, last + 12)
        parts.append(f'<text x="{x + 5:.1f}" y="{last:.1f}" fill="{color}">{case.split(",")[0]}</text>\n')
    return "".join(parts)


def _short(value: int) -> str:
    return f"{value // 10**6}M" if value >= 10**6 else f"{value // 1000}k" if value >= 1000 else str(value)
