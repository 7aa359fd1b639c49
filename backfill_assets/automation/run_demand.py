"""The processors and memory that the run of a day needs, estimated from the size of its files."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import Final

from backfill_assets.days import is_day, shift
from backfill_assets.lake.store import Store
from backfill_assets.quality.settled import load_settled
from backfill_assets.readable_numbers import bytes_text

#: Compressed bytes that a processor decodes in about a minute.
BYTES_PER_PROCESSOR: Final = 2 * 2**30
#: With more files at once, processors wait for the vendor.
MOST_PROCESSORS: Final = 4
#: A run of small files uses half of this.
LEAST_MEMORY: Final = 2**30
#: Memory to decode one file, with room to spare; a run decodes one file per processor.
MEMORY_PER_PROCESSOR: Final = 512 * 2**20
#: Days before and after a day whose files give an estimate of its size, the nearest first.
_DAYS_BESIDE: Final = 7


@dataclass(frozen=True, slots=True)
class Demand:
    """Processors and memory of a run, and the bytes that determined them.

    Attributes
    ----------
    measured
        The day whose files were measured.
    memory
        In bytes.
    """

    measured: str
    expected_bytes: int
    processors: int
    memory: int

    @property
    def text(self) -> str:
        """The demand in one line."""
        return (
            f"asks for {self.processors} CPU and {bytes_text(self.memory)} of memory: the files of "
            f"{self.measured} have {bytes_text(self.expected_bytes)}"
        )


def demand_of_day(store: Store, day: str) -> Demand | None:
    """Return the demand of the day's run; None if ``day`` is not a day, or no day near it was run."""
    if not is_day(day):
        return None
    for distance in range(_DAYS_BESIDE + 1):
        for near in dict.fromkeys((shift(day, -distance), shift(day, distance))):
            settled = load_settled(store, near)
            versions = [feed.judged for feed in settled.feeds] if settled else []
            if total := sum(version.raw_bytes for version in versions if version is not None):
                return demand(near, total)
    return None


def demand(measured: str, expected_bytes: int) -> Demand:
    """Return the demand of a run whose files have this many compressed bytes."""
    processors = min(MOST_PROCESSORS, ceil(expected_bytes / BYTES_PER_PROCESSOR))
    memory = LEAST_MEMORY + processors * MEMORY_PER_PROCESSOR
    return Demand(measured, expected_bytes, processors, memory)
