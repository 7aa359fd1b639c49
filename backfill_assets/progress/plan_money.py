"""The money of a plan: its bytes and hours at the prices of the settings.

Without prices there is no money. A part with unknown bytes or hours is named and left out of the sums.
"""

from __future__ import annotations

from typing import Final, Literal

from pydantic import Field

from backfill_assets.progress.model import ApiModel
from backfill_assets.settings import PriceSettings

What = Literal["download", "load", "machines", "storage"]
_GB: Final = 1e9
_TB: Final = 1e12
_HOUR: Final = 3600


class Range(ApiModel):
    """The low and high bounds of a quantity."""

    low: float
    high: float


class Cost(ApiModel):
    """A part of the money; storage is for one month."""

    what: What
    amount: Range | None = Field(description="Null if its bytes or hours are not known.")


class Money(ApiModel):
    """The cost of a backfill."""

    currency: str
    date: str = Field(description="Date of the price list.")
    costs: tuple[Cost, ...] = Field(description="All parts with a price.")
    once: Range = Field(description="Download, load and machines; unknown parts are left out.")
    month: Range = Field(description="Storage for a month; unknown parts are left out.")
    binds: What | None = Field(description="The most expensive known part, with one month of storage.")


def money(
    prices: PriceSettings,
    *,
    expected_bytes: int | None,
    lake_bytes: int | None,
    warehouse_bytes: int | None,
    run_seconds: Range | None,
) -> Money | None:
    """Return the money; None if nothing has a price.

    Parameters
    ----------
    run_seconds
        How long all runs take together, one after another.
    """
    stored = None if lake_bytes is None else lake_bytes + (warehouse_bytes or 0)
    bytes_of: dict[What, tuple[float, float | None]] = {
        "download": (prices.download_per_gb / _GB, expected_bytes),
        "load": (prices.load_per_tb / _TB, lake_bytes),
        "storage": (prices.storage_per_gb_month / _GB, stored),
    }
    costs = {what: _range(known, known, price) for what, (price, known) in bytes_of.items() if price}
    if prices.machine_per_hour:
        low, high = (run_seconds.low, run_seconds.high) if run_seconds else (None, None)
        costs["machines"] = _range(low, high, prices.machine_per_hour / _HOUR)
    if not costs:
        return None
    known_costs = {what: cost for what, cost in costs.items() if cost is not None}
    return Money(
        currency=prices.currency,
        date=prices.date,
        costs=tuple(Cost(what=what, amount=cost) for what, cost in costs.items()),
        once=_sum([cost for what, cost in known_costs.items() if what != "storage"]),
        month=known_costs.get("storage", Range(low=0, high=0)),
        binds=max(known_costs, key=lambda what: known_costs[what].high, default=None),
    )


def money_text(found: Money) -> str:
    """Return the money in one line."""
    parts = []
    for cost in found.costs:
        if cost.amount is None:
            parts.append(f"{cost.what} unknown")
        elif cost.what != "storage":
            parts.append(f"{cost.what} {_amount(cost.amount)}")
    once = f"{_amount(found.once)} {found.currency}"
    month = f", {_amount(found.month)} {found.currency} a month for storage" if found.month.high else ""
    binds = f"; most is {found.binds}" if found.binds else ""
    of = f" ({', '.join(parts)})" if parts else ""
    return f"{once}{of}{month}{binds}; prices of {found.date}"


def _range(low: float | None, high: float | None, price: float) -> Range | None:
    return None if low is None or high is None else Range(low=low * price, high=high * price)


def _sum(costs: list[Range]) -> Range:
    return Range(low=sum(cost.low for cost in costs), high=sum(cost.high for cost in costs))


def _amount(amount: Range) -> str:
    low, high = f"{amount.low:,.2f}", f"{amount.high:,.2f}"
    return low if low == high else f"{low} to {high}"
