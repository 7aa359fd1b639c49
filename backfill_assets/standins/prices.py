"""The reference price of a coin, second by second, and the random numbers of the generated market.

Every venue trades around the same reference, so prices agree across venues. All randomness is seeded by a
hash of the thing that is generated, never by earlier output: any day can be made alone. Vector code keeps to
plain arithmetic, whose results do not depend on the processor's vector unit.
"""

from __future__ import annotations

import hashlib
import math
from functools import lru_cache
from typing import Final

import numpy as np
import numpy.typing as npt

from backfill_assets.days import start_us

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

SECONDS: Final = 86_400
DAY_US: Final = SECONDS * 1_000_000

_BASE_PRICES: Final = {"BTC": 42_500.0, "ETH": 2_300.0, "ADA": 0.6, "SOL": 100.0}
_OTHER_PRICE: Final = 10.0
_DAILY_VOLATILITY: Final = 0.025
_REGIME_SECONDS: Final = 900


def day_number(day: str) -> int:
    """Days since the epoch."""
    return start_us(day) // DAY_US


def generator(seed: int, *key: object) -> np.random.Generator:
    """Make a PCG64 generator that depends on seed and key alone."""
    text = "|".join(str(part) for part in (seed, *key))
    return np.random.default_rng(int.from_bytes(hashlib.sha256(text.encode()).digest()[:16], "big"))


def fraction(seed: int, *key: object) -> float:
    """Draw a number in [0, 1) that depends on seed and key alone."""
    text = "|".join(str(part) for part in (seed, *key))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6], "big") / 2**48


def _price_at_midnight(seed: int, base: str, number: int) -> float:
    phase = 2 * math.pi * fraction(seed, "phase", base)
    slow = 0.30 * math.sin(2 * math.pi * number / 400 + phase)
    middle = 0.08 * math.sin(2 * math.pi * number / 37 + 3 * phase)
    fast = 0.04 * (fraction(seed, "midnight", base, number) - 0.5)
    # Nine digits: beyond that, C libraries may differ.
    return float(f"{_BASE_PRICES.get(base, _OTHER_PRICE) * (1 + slow) * (1 + middle) * (1 + fast):.9g}")


@lru_cache(maxsize=64)
def reference_path(seed: int, base: str, day: str) -> Floats:
    """Return the reference at the day's seconds 0..86,400; the last is the first of the next day.

    It is a bridge between the prices at both midnights, so a day needs no other day.
    """
    number = day_number(day)
    first, last = _price_at_midnight(seed, base, number), _price_at_midnight(seed, base, number + 1)
    rng = generator(seed, "path", base, day)
    regimes = np.repeat(rng.uniform(0.5, 1.8, SECONDS // _REGIME_SECONDS), _REGIME_SECONDS)
    steps = rng.standard_normal(SECONDS) * regimes * (_DAILY_VOLATILITY / math.sqrt(SECONDS))
    walk = np.concatenate(([0.0], np.cumsum(steps)))
    elapsed = np.arange(SECONDS + 1) / SECONDS
    bridge = walk - walk[-1] * elapsed
    path: Floats = (first + (last - first) * elapsed) * (1 + bridge)
    path.flags.writeable = False
    return path


def reference_at(seed: int, base: str, day: str, times_us: Ints) -> Floats:
    """Return the reference at times of the day, interpolated between seconds."""
    path = reference_path(seed, base, day)
    offset = np.clip(times_us - start_us(day), 0, DAY_US - 1)
    second = offset // 1_000_000
    part = (offset - second * 1_000_000) / 1_000_000
    prices: Floats = path[second] + (path[second + 1] - path[second]) * part
    return prices
