"""What differs by venue, in one table: what trade ids prove, other names of currencies, which are dollars.

Separate from the settings because these are facts about the venues, measured or documented, and not wishes:
a change of one changes verdicts, and so raises the version of the rules.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Venue:
    """Facts about one venue.

    Attributes
    ----------
    contiguous_since
        First day from which trade ids are contiguous per symbol; empty for always, null for never.
    leaves_gaps
        Whether the venue itself leaves short runs of ids out (insurance fund, liquidations).
    """

    contiguous_since: str | None = None
    leaves_gaps: bool = False


#: By the vendor's exchange id. A venue that is not named has no ids that prove anything.
VENUES: Final[Mapping[str, Venue]] = {
    "binance": Venue(contiguous_since=""),
    "binance-futures": Venue(leaves_gaps=True),
    "coinbase": Venue(contiguous_since=""),
    "kraken": Venue(contiguous_since="2026-07-10"),
}
UNKNOWN: Final = Venue()

#: Names that some venues give a currency, and its usual name.
CURRENCY_ALIASES: Final[Mapping[str, str]] = {"XBT": "BTC", "XDG": "DOGE"}
#: Quote currencies that count as one dollar; their own ups and downs are far below what weights can tell.
DOLLARS: Final = frozenset({"USD", "USDT", "USDC", "BUSD"})


def venue(exchange: str) -> Venue:
    """The venue's facts."""
    return VENUES.get(exchange, UNKNOWN)
