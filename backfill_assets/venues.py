"""What differs by venue: other names of currencies, and which of them are dollars.

Separate from the settings because these are facts about the venues, measured or documented, and not wishes.
What the ids of a venue's trades prove is in ``id_laws``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

#: Names that some venues give a currency, and its usual name.
CURRENCY_ALIASES: Final[Mapping[str, str]] = {"XBT": "BTC", "XDG": "DOGE"}
#: Quote currencies that count as one dollar; their own ups and downs are far below what weights can tell.
DOLLARS: Final = frozenset({"USD", "USDT", "USDC", "BUSD"})
