"""The feeds of a request: the universe's combinations, and the errors in a choice among them.

Plan, API and command line check a choice here, so that all refuse the same choice with the same words.
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

#: The parts of a choice, by their name in ``FeedChoice`` and ``UniverseEntry``, with the singular.
PARTS: Final = {"exchanges": "exchange", "symbols": "symbol", "data_types": "data type"}


@dataclass(frozen=True, order=True, slots=True)
class Combination:
    """One expected feed of the universe, under its canonical symbol, not the venue's name on a day."""

    exchange: str
    data_type: str
    #: A canonical symbol, or a group such as ``SPOT``.
    symbol: str


@dataclass(frozen=True, slots=True)
class UnknownName:
    """A name in a choice that the universe does not have."""

    part: str
    index: int
    detail: str


def combinations(universe: Sequence[UniverseEntry]) -> list[Combination]:
    """Return every expected feed of the universe once, in order."""
    found = {
        Combination(exchange, data_type, symbol)
        for entry in universe
        for exchange, data_type, symbol in product(entry.exchanges, entry.data_types, entry.symbols)
    }
    return sorted(found)


def chosen(choice: FeedChoice, wanted: Combination) -> bool:
    """Whether the choice includes the combination."""
    parts = (
        (choice.exchanges, wanted.exchange),
        (choice.symbols, wanted.symbol),
        (choice.data_types, wanted.data_type),
    )
    return all(not names or name in names for names, name in parts)


def unknown_names(universe: Sequence[UniverseEntry], choice: FeedChoice) -> list[UnknownName]:
    """Return each name that the universe does not have, with the nearest names that it has."""
    return [
        UnknownName(part, index, _unknown(name, word, known))
        for part, word in PARTS.items()
        for known in [{name for entry in universe for name in getattr(entry, part)}]
        for index, name in enumerate(getattr(choice, part))
        if name not in known
    ]


def checked_choice(universe: Sequence[UniverseEntry], choice: FeedChoice) -> list[Combination]:
    """Return the chosen combinations.

    Raises
    ------
    BadInput
        The universe does not have a name or a combination; one line.
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
    article = "an" if word == "exchange" else "a"
    return f"'{name}' is not {article} {word} of the universe: {hint}"
