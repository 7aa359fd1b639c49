"""The feeds that a request means: the universe's combinations, and the mistakes in a choice among them.

Plan, API and command line check a choice here, so that all of them refuse the same with the same words.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Final

from backfill_assets.failures import BadInput
from backfill_assets.feeds import FeedChoice
from backfill_assets.settings import UniverseEntry

#: The parts of a choice, as ``FeedChoice`` and ``UniverseEntry`` both name them, and a word for one of each.
PARTS: Final = {"exchanges": "exchange", "symbols": "symbol", "data_types": "data type"}


@dataclass(frozen=True, order=True, slots=True)
class Combination:
    """One expected feed of the universe, under its canonical symbol instead of the venue's name of a day."""

    exchange: str
    data_type: str
    #: Canonical, or a group such as ``SPOT``.
    symbol: str


@dataclass(frozen=True, slots=True)
class UnknownName:
    """One name of a choice that the universe does not have."""

    part: str
    index: int
    detail: str


def combinations(universe: Sequence[UniverseEntry]) -> list[Combination]:
    """Every expected feed of the universe, in order and once."""
    found = {
        Combination(exchange, data_type, symbol)
        for entry in universe
        for exchange, data_type, symbol in product(entry.exchanges, entry.data_types, entry.symbols)
    }
    return sorted(found)


def chosen(choice: FeedChoice, wanted: Combination) -> bool:
    """Whether the choice has the combination."""
    parts = (
        (choice.exchanges, wanted.exchange),
        (choice.symbols, wanted.symbol),
        (choice.data_types, wanted.data_type),
    )
    return all(not names or name in names for names, name in parts)


def unknown_names(universe: Sequence[UniverseEntry], choice: FeedChoice) -> list[UnknownName]:
    """Each name that the universe does not have, with the nearest that it has."""
    return [
        UnknownName(part, index, _unknown(name, word, known))
        for part, word in PARTS.items()
        for known in [{name for entry in universe for name in getattr(entry, part)}]
        for index, name in enumerate(getattr(choice, part))
        if name not in known
    ]


def checked_choice(universe: Sequence[UniverseEntry], choice: FeedChoice) -> list[Combination]:
    """The chosen combinations.

    Raises
    ------
    BadInput
        A name that the universe does not have, or a combination that it does not have; one line.
    """
    unknown = unknown_names(universe, choice)
    if unknown:
        raise BadInput("; ".join(name.detail for name in unknown))
    found = [wanted for wanted in combinations(universe) if chosen(choice, wanted)]
    if not found:
        msg = (
            "no feed of the universe has this combination of exchange, symbol and data type: "
            "leave one of them out"
        )
        raise BadInput(msg)
    return found


def _unknown(name: str, word: str, known: Collection[str]) -> str:
    close = difflib.get_close_matches(name.upper() if word == "symbol" else name, sorted(known), n=2)
    hint = f"did you mean {' or '.join(close)}?" if close else f"choose from {', '.join(sorted(known))}"
    return f"'{name}' is no {word} of the universe: {hint}"
