"""Checks whether a data file still has the bytes that its name says: every data file is named by its sha256.

A failing disk, a cut copy and an editor all leave a name with other bytes. So a store checks each file that
it lends, and names the damaged one; no data is made or published from it. ``docs/performance.md`` says how
long this takes.
"""

from __future__ import annotations

import errno
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
    """Raise ``DamagedFile`` if the content of ``file`` does not match the name of the lake's ``path``."""
    if problem := content_problem(path, file):
        raise damaged(store, path, problem)


def content_problem(path: str, file: Path) -> str:
    """Return why the bytes do not match the path; empty if they do, or if the name is not a sha256."""
    name = path.rpartition("/")[2].partition(".")[0]
    if not _SHA256.fullmatch(name):
        return ""
    try:
        with file.open("rb") as handle:
            is_whole = hashlib.file_digest(handle, "sha256").hexdigest() == name
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EIO):
            raise
        return f"cannot be read ({error.strerror})"
    return "" if is_whole else "does not have the bytes that its name says"


def damaged(store: Store, path: str, problem: str) -> DamagedFile:
    """Return the failure for a data file with this ``problem``, with the commands that repair it."""
    days = _DAY.findall(path)
    day = days[-1] if days else "DAY"
    return DamagedFile(
        f"{store.uri_of(path)} {problem}: 'backfill-assets verify --date {day} --mend' sets it aside, "
        f"'backfill-assets backfill --start {day} --end {day}' then fetches it or makes it again",
        path,
        problem,
    )
