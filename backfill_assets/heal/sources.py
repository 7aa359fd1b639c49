"""What every second source has in common: how it is asked, what it answers, and how much it may be asked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from backfill_assets.failures import BackfillError, PermanentFailure
from backfill_assets.heal.conclusions import Hole, Issued

SourceName = Literal["exchange", "archive"]


@dataclass(frozen=True, slots=True)
class Body:
    """The body of one answer, as it is kept.

    ``whole_sha256`` is of the file that the body is a part of; empty where the body is the whole answer.
    """

    request: str
    data: bytes
    whole_sha256: str = ""


@dataclass(frozen=True, slots=True)
class Answered:
    """Everything that the source has around one hole, and the bodies that say so."""

    bodies: tuple[Body, ...]
    issued: tuple[Issued, ...]


@dataclass(slots=True)
class Budget:
    """How many requests are left."""

    limit: int
    used: int = field(default=0)

    @property
    def is_spent(self) -> bool:
        """Whether no request is left."""
        return self.used >= self.limit

    def take(self) -> None:
        """Count one request.

        Raises
        ------
        PermanentFailure
            None is left.
        """
        if self.is_spent:
            msg = f"{self.limit} requests are used up (heal.requests): run it again for the rest"
            raise PermanentFailure(msg)
        self.used += 1


class Source(Protocol):
    """Something that may have the trades which a file lacks."""

    @property
    def name(self) -> SourceName:
        """Its kind, as receipts have it."""
        ...

    @property
    def asked(self) -> str:
        """Who is asked for which market, for people."""
        ...

    def ask(self, holes: Sequence[Hole]) -> Iterator[tuple[Hole, Answered | BackfillError]]:
        """Answer each hole, or say why that cannot be done."""
        ...
