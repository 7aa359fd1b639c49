"""JSON documents of the lake: reads them as models, and changes them by compare-and-swap.

A change is a pure function from the stored document to the new one. It is called again whenever another
writer was faster, so no writer ever undoes a change that it has not seen. The bytes are canonical: equal
documents are equal files, and a change without effect writes nothing.

A document that cannot be read is ``Unreadable``. A ``Derived`` one counts as missing, and its next writer
makes it again. The bytes of a document that is replaced unread are kept below ``damaged/``.
"""

from __future__ import annotations

import hashlib
import json
import logging
import random
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from typing import ClassVar, Final, TypeVar, cast, overload

from pydantic import BaseModel, ConfigDict, ValidationError

from backfill_assets.failures import Superseded, Unreadable
from backfill_assets.lake import paths
from backfill_assets.lake.store import Store, Stored

Model = TypeVar("Model", bound=BaseModel)

LOGGER: Final = logging.getLogger(__name__)
#: Attempts at one change. Twenty writers of one document need about as many. A bucket allows one write to an
#: object per second, so with the waits below this is more than a minute of contention.
ATTEMPTS: Final = 100
_FIRST_WAIT_SECONDS: Final = 0.005
_LONGEST_WAIT_SECONDS: Final = 1.0


#: Total bytes of documents that are kept parsed, and the smallest document that is kept; parsed documents
#: take eight times as much memory.
PARSED_BYTES: Final = 8 << 20
_LEAST_PARSED_BYTES: Final = 1 << 16


class Document(BaseModel):
    """A document of the lake, or a part of one: frozen.

    Keys of a newer version of this package are left out, so that two versions can work on one lake side by
    side. NaN and infinity reach the encoder, which refuses them; pydantic itself would silently write null.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", ser_json_inf_nan="constants")
    #: Remedy for a damaged document.
    remedy: ClassVar[str] = "restore it, or run the version of the package that wrote it"


class Derived(Document):
    """A document that a run of its day can rebuild from others; a damaged one is no loss."""

    remedy: ClassVar[str] = "the next run of its day makes it again"


def encode(document: BaseModel) -> bytes:
    """Canonical JSON: sorted keys, no spaces, UTF-8, a newline at the end; NaN and infinity are refused."""
    content = document.model_dump(mode="json")
    text = json.dumps(content, sort_keys=True, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return f"{text}\n".encode()


def load(store: Store, path: str, model: type[Model]) -> Model | None:
    """Return the document; None if there is none or it is to be made again.

    Raises
    ------
    Unreadable
        The document is damaged and cannot be made again.
    """
    _, document, trouble = _current(store, path, model)
    if trouble is not None:
        if not issubclass(model, Derived):
            raise trouble
        _tell_once(str(trouble))
    return document


@lru_cache(maxsize=1024)
def _tell_once(trouble: str) -> None:
    """Log it when this process sees it for the first time: a polled service would fill its log."""
    LOGGER.warning("%s", trouble)


def look(store: Store, path: str, model: type[Model]) -> tuple[Model | None, str]:
    """Return the document if it is readable, and the reason if it exists but is not."""
    _, document, trouble = _current(store, path, model)
    return document, "" if trouble is None else str(trouble)


def damage(store: Store, path: str, model: type[BaseModel]) -> str:
    """Return one line that says why the document cannot be read; empty if it can, or if there is none."""
    return look(store, path, model)[1]


def load_hashed(store: Store, path: str, model: type[Model]) -> tuple[Model | None, str]:
    """Return the document and the sha256 of its bytes; None and an empty text if there is none."""
    stored = store.read(path)
    if stored is None:
        return None, ""
    return _decode(store, path, model, stored.data), hashlib.sha256(stored.data).hexdigest()


def digest(store: Store, path: str) -> str:
    """Return the sha256 of the document's bytes, without parsing them; empty if there is none."""
    try:
        stored = store.read(path)
    except Unreadable:
        return "unreadable"
    return "" if stored is None else hashlib.sha256(stored.data).hexdigest()


@overload
def update(
    store: Store,
    path: str,
    model: type[Model],
    change: Callable[[Model | None], Model],
    *,
    anew: bool = False,
) -> Model: ...


@overload
def update(
    store: Store,
    path: str,
    model: type[Model],
    change: Callable[[Model | None], Model | None],
    *,
    anew: bool = False,
) -> Model | None: ...


def update(
    store: Store,
    path: str,
    model: type[Model],
    change: Callable[[Model | None], Model | None],
    *,
    anew: bool = False,
) -> Model | None:
    """Replace the document by ``change(document)``; try again if another writer was faster.

    ``change`` gets None if there is no document. It writes nothing by returning None or a document equal to
    the stored one. It may be called several times, so it must only compute. It is also applied twice if the
    answer to a write was lost and another writer replaced that write before it could be recognized.

    Parameters
    ----------
    anew
        Replace a document that cannot be read, as is always done for a ``Derived`` one: ``change`` gets None.

    Returns
    -------
    Model | None
        The document as it is now stored; None only if ``change`` returned it.

    Raises
    ------
    Superseded
        Other writers were faster every time; a later rerun may succeed.
    Unreadable
        The stored document cannot be read, and must not be replaced.
    """
    anew = anew or issubclass(model, Derived)
    for attempt in range(ATTEMPTS):
        stored, current, trouble = _current(store, path, model)
        if trouble is not None and not anew:
            raise trouble
        changed = change(current)
        # The stored document stays as it is, with keys of a newer version.
        if changed is None or changed is current:
            return current
        data = encode(changed)
        if stored is not None and data == stored.data:
            return current
        try:
            if trouble is not None:
                _set_aside(store, path, stored, trouble)
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


def _current(
    store: Store, path: str, model: type[Model]
) -> tuple[Stored | None, Model | None, Unreadable | None]:
    """Return the stored bytes, the document, and the reason if it cannot be read."""
    stored = None
    try:
        stored = store.read(path)
        return stored, None if stored is None else _decode(store, path, model, stored.data), None
    except Unreadable as failure:
        return stored, None, failure


def _set_aside(store: Store, path: str, stored: Stored | None, trouble: Unreadable) -> None:
    """Keep the bytes that are about to be replaced; the store itself keeps a folder found in their place."""
    if stored is None:
        LOGGER.warning("%s: it is made again", trouble)
        return
    aside = paths.damaged(f"{path}.{hashlib.sha256(stored.data).hexdigest()[:8]}")
    with suppress(Superseded):  # the bytes are already there
        store.replace(aside, stored.data, None)
    LOGGER.warning("%s: it is made again, the damaged one is kept as %s", trouble, store.uri_of(aside))


def _decode(store: Store, path: str, model: type[Model], data: bytes) -> Model:
    cause = None
    try:
        found = _PARSED.get(model, data)
    except ValidationError as error:
        first, cause = error.errors()[0], error
        where = ".".join(str(part) for part in first["loc"])
        reason = f"{where}: {first['msg']}" if where else first["msg"]
    else:
        reason = _foreign(path, found)
        if not reason:
            return found
    remedy = (model if issubclass(model, Document) else Document).remedy
    msg = f"{store.uri_of(path)}: cannot be read as {model.__name__} ({reason}): {remedy}"
    raise Unreadable(msg) from cause


def _foreign(path: str, document: BaseModel) -> str:
    """Return why the document belongs elsewhere: it was copied from another place; empty if it does not."""
    place = f"/{path.removesuffix('.json')}/"
    fields = type(document).model_fields
    named = [getattr(document, name) for name in ("exchange", "feed", "day") if name in fields]
    return next((f"it is of {n}" for n in named if isinstance(n, str) and f"/{n}/" not in place), "")


class _Parsed:
    """The large documents that were parsed last.

    Publishing reads the documents of a day again before each of its steps, because another run may have
    changed them. Mostly the bytes are the same, and then so is the document, which is frozen.
    """

    def __init__(self) -> None:
        self._known: OrderedDict[tuple[type[BaseModel], bytes], tuple[int, BaseModel]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, model: type[Model], data: bytes) -> Model:
        """Parse the bytes unless they are already parsed; raises ``ValidationError``."""
        if not _LEAST_PARSED_BYTES <= len(data) <= PARSED_BYTES:
            return model.model_validate_json(data)
        key = (model, hashlib.sha256(data).digest())
        with self._lock:
            if key in self._known:
                self._known.move_to_end(key)
                return cast("Model", self._known[key][1])
        found = model.model_validate_json(data)
        with self._lock:
            self._known[key] = (len(data), found)
            while sum(size for size, _ in self._known.values()) > PARSED_BYTES:
                self._known.popitem(last=False)
        return found


_PARSED: Final = _Parsed()
