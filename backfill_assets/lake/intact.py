"""Whether a data file still has the bytes that its name says: every data file is named by its sha256.

A disk that fails, a copy that was cut and an editor all leave a name with other bytes. So a store checks each
file that it lends, and names the one that is damaged; nothing is made or published of it. How long this takes
is in ``benchmarks/README.md``.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import TYPE_CHECKING, Final

from backfill_assets.failures import DamagedFile

if TYPE_CHECKING:
    from backfill_assets.lake.store import Store

_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_DAY: Final = re.compile(r"\d{4}-\d\d-\d\d")


def insist_on_content(store: Store, path: str, file: Path) -> None:
    """Raise ``DamagedFile`` where ``file`` is not what the lake's ``path`` is named after."""
    if not has_content(path, file):
        raise damaged(store, path, "does not have the bytes that its name says")


def has_content(path: str, file: Path) -> bool:
    """Whether the file has the sha256 of the path's name; of a name that is none, every file has it."""
    name = path.rpartition("/")[2].partition(".")[0]
    if not _SHA256.fullmatch(name):
        return True
    with file.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest() == name


def damaged(store: Store, path: str, problem: str) -> DamagedFile:
    """Return the failure for a data file of which ``problem`` is true, with the commands that mend it."""
    days = _DAY.findall(path)
    day = days[-1] if days else "DAY"
    return DamagedFile(
        f"{store.uri_of(path)} {problem}: 'backfill-assets verify --date {day} --mend' sets it aside, "
        f"'backfill-assets backfill --start {day} --end {day}' then fetches or makes it anew",
        path,
        problem,
    )
