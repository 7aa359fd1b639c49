"""JSON documents of the lake: reading them as models, and changing them by compare-and-swap.

A change is a pure function from what is stored to what shall be; it is called again whenever another writer
was faster, so no writer ever undoes what it has not seen. The bytes are canonical: equal documents are equal
files, and a change that changes nothing writes nothing.
"""

from __future__ import annotations

import hashlib
import json
import random
import time
from collections.abc import Callable
from typing import Final, TypeVar, overload

from pydantic import BaseModel, ConfigDict, ValidationError

from backfill_assets.failures import PermanentFailure, Superseded
from backfill_assets.lake.store import Store

Model = TypeVar("Model", bound=BaseModel)

#: Attempts at one change. Twenty writers of one document need about as many; a bucket allows one write to an
#: object per second, so with the waits below this is more than a minute of contention.
ATTEMPTS: Final = 100
_FIRST_WAIT_SECONDS: Final = 0.005
_LONGEST_WAIT_SECONDS: Final = 1.0


class Document(BaseModel):
    """A document of the lake: frozen, and without keys that nobody declared.

    NaN and infinity reach the encoder, which refuses them; pydantic itself would write null, silently.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")


def encode(document: BaseModel) -> bytes:
    """Canonical JSON: sorted keys, no spaces, UTF-8, a newline at the end; NaN and infinity are refused."""
    content = document.model_dump(mode="json")
    text = json.dumps(content, sort_keys=True, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return f"{text}\n".encode()


def load(store: Store, path: str, model: type[Model]) -> tuple[Model | None, str | None]:
    """Return the document and its generation; None and None if there is none.

    Raises
    ------
    PermanentFailure
        The document is damaged or of another version of this package.
    """
    stored = store.read(path)
    if stored is None:
        return None, None
    return _decode(store, path, model, stored.data), stored.generation


def load_hashed(store: Store, path: str, model: type[Model]) -> tuple[Model | None, str]:
    """Return the document and the sha256 of its bytes; None and an empty text if there is none."""
    stored = store.read(path)
    if stored is None:
        return None, ""
    return _decode(store, path, model, stored.data), hashlib.sha256(stored.data).hexdigest()


def digest(store: Store, path: str) -> str:
    """Return the sha256 of the document's bytes, without parsing them; empty if there is none."""
    stored = store.read(path)
    return "" if stored is None else hashlib.sha256(stored.data).hexdigest()


@overload
def update(store: Store, path: str, model: type[Model], change: Callable[[Model | None], Model]) -> Model: ...


@overload
def update(
    store: Store, path: str, model: type[Model], change: Callable[[Model | None], Model | None]
) -> Model | None: ...


def update(
    store: Store, path: str, model: type[Model], change: Callable[[Model | None], Model | None]
) -> Model | None:
    """Replace the document by ``change(document)``, again on what is stored if another writer was faster.

    ``change`` gets None where there is no document. It writes nothing by returning None or a document equal
    to the stored one, and may be called several times: it must do nothing but compute. It is also applied
    twice where the answer to a write was lost and another writer replaced it before it could be recognised.

    Returns
    -------
    Model | None
        The document as it is now stored; None only where ``change`` returned it.

    Raises
    ------
    Superseded
        Other writers were faster every time; a later rerun may succeed.
    PermanentFailure
        The stored document cannot be read.
    """
    for attempt in range(ATTEMPTS):
        stored = store.read(path)
        current = None if stored is None else _decode(store, path, model, stored.data)
        changed = change(current)
        if changed is None:
            return current
        data = encode(changed)
        if stored is not None and data == stored.data:
            return current
        try:
            store.replace(path, data, None if stored is None else stored.generation)
        except Superseded:
            # Full jitter: writers that collided must not meet again in step.
            longest = min(_LONGEST_WAIT_SECONDS, _FIRST_WAIT_SECONDS * 2 ** min(attempt, 10))
            time.sleep(random.uniform(0, longest))
        else:
            return changed
    msg = (
        f"{store.uri_of(path)}: other writers were faster {ATTEMPTS} times; run again when fewer are at work"
    )
    raise Superseded(msg)


def _decode(store: Store, path: str, model: type[Model], data: bytes) -> Model:
    try:
        return model.model_validate_json(data)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        reason = f"{where}: {first['msg']}" if where else first["msg"]
        msg = (
            f"{store.uri_of(path)}: cannot be read as {model.__name__} ({reason}): "
            "move it away and run its day again, or run the version of the package that wrote it"
        )
        raise PermanentFailure(msg) from error
