"""Checks of the arguments of Python callers: each raises ``BadInput`` in one line with the remedy."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from backfill_assets.failures import BadInput
from backfill_assets.yaml_files import did_you_mean

_EXAMPLES: Final = {"exchange": "binance", "symbol": "BTC-USDT", "data_type": "trades"}


def insist_on_type(name: str, value: object, kinds: type | tuple[type, ...], remedy: str) -> None:
    """Raise ``BadInput`` unless the value has one of the types."""
    if not isinstance(value, kinds):
        # A type is always one short line; a frame or an array as text is not.
        msg = f"{name} has type {type(value).__name__}: {remedy}"
        raise BadInput(msg)


def insist_on_texts(**given: object) -> None:
    """Raise ``BadInput`` unless each of ``exchange``, ``symbol`` and ``data_type`` is a text."""
    for name, value in given.items():
        insist_on_type(name, value, str, f"give one text, such as {_EXAMPLES[name]!r}")


def insist_on_choice(name: str, value: object, known: Collection[str]) -> None:
    """Raise ``BadInput`` unless the value is one of the known texts; suggest close ones."""
    choice = f"choose from {', '.join(known)}"
    insist_on_type(name, value, str, choice)
    if value not in known:
        msg = f"{value!r} is not a {name}; {did_you_mean(str(value), known) or choice}"
        raise BadInput(msg)
