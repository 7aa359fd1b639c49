"""The common interface of second sources: requests, answers, and the budget of requests."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from backfill_assets.failures import BackfillError, PermanentFailure
from backfill_assets.heal.conclusions import Hole, Issued

SourceName = Literal["exchange", "archive"]


@dataclass(frozen=True, slots=True)
class Body:
    """The body of one answer, as it is stored.

    ``whole_sha256`` is the hash of the file that contains the body; empty if the body is the whole answer.
    """

    request: str
    data: bytes
    whole_sha256: str = ""


@dataclass(frozen=True, slots=True)
class Answered:
    """All trades that the source has around one hole, and the bodies that contain them."""

    bodies: tuple[Body, ...]
    issued: tuple[Issued, ...]


@dataclass(slots=True)
class Budget:
    """The limit of requests, and the requests used."""

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
            No request is left.
        """
        if self.is_spent:
            msg = f"{self.limit} requests are used up (heal.requests): run it again for the rest"
            raise PermanentFailure(msg)
        self.used += 1


class Source(Protocol):
    """A source that may have the trades that a file lacks."""

    @property
    def name(self) -> SourceName:
        """Kind of the source, as stored in receipts."""
        ...

    @property
    def asked(self) -> str:
        """The source and the market, as text for people."""
        ...

    def ask(self, holes: Sequence[Hole]) -> Iterator[tuple[Hole, Answered | BackfillError]]:
        """Yield an answer for each hole, or the reason why there is none."""
        ...
