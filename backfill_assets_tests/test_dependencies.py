"""The project's dependencies are declared, explained and pinned: setup.cfg, its page in docs, the locks."""

from __future__ import annotations

import configparser
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

REPOSITORY: Final = Path(__file__).parents[1]
#: Requirements of a deployment, and of work on the package.
LOCKS: Final = ("requirements.lock", "requirements-test.lock")


def normalized(requirement: str) -> str:
    """The name in a requirement, as package indexes compare names."""
    name = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert name is not None
    return re.sub(r"[-_.]+", "-", name[0]).lower()


def declared(part: str = "") -> set[str]:
    """Names in setup.cfg: of the run time, of the tests, of Ray, of second sources, or all of them."""
    config = configparser.ConfigParser()
    config.read(REPOSITORY / "setup.cfg", encoding="utf-8")
    parts = {
        "run time": config["options"]["install_requires"],
        "reference": config["options.extras_require"]["reference"],
        "test": config["options.extras_require"]["test"],
        "ray": config["options.extras_require"]["ray"],
    }
    text = parts[part] if part else "".join(parts.values())
    return {normalized(line) for line in text.split("\n") if line.strip()}


@dataclass(frozen=True)
class Pin:
    """One entry of a lock: the version, its users, and the files that may be installed as it."""

    version: str
    marker: str
    hashes: frozenset[str]


def pins(lock: str) -> dict[str, Pin]:
    """The entries by name; any other text in the file fails."""
    text = (REPOSITORY / lock).read_text(encoding="utf-8").replace(" \\\n", "")
    found = {}
    for line in text.splitlines():
        parts = re.fullmatch(
            r"([A-Za-z0-9._-]+)==([^\s;*]+)( ; .+?)?((?: +--hash=sha256:[0-9a-f]{64})+)",
            line,
        )
        assert parts is not None, line
        found[normalized(parts[1])] = Pin(parts[2], parts[3] or "", frozenset(parts[4].split()))
    return found


def test_every_dependency_has_a_row_that_says_why_and_every_row_is_a_dependency() -> None:
    page = (REPOSITORY / "docs" / "dependencies.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([^`]+)` \|", page, re.MULTILINE)
    assert {normalized(row) for row in rows} == declared()


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_is_exact_pins_with_hashes_and_names_no_place_to_get_them_from(lock: str) -> None:
    assert len(pins(lock)) > 100
    assert "://" not in (REPOSITORY / lock).read_text(encoding="utf-8")


def test_the_lock_of_the_run_time_is_the_part_of_the_other_that_no_test_alone_needs() -> None:
    run_time, everything = (pins(lock) for lock in LOCKS)
    assert declared("run time") <= run_time.keys()
    assert declared("test").isdisjoint(run_time)
    assert declared("run time") | declared("test") <= everything.keys()
    # The extra is tested; an installation that compares with no other source has none of it.
    assert declared("reference") <= declared("test")
    # An installation without a cluster has no Ray.
    assert declared("ray").isdisjoint(everything)
    same = {name: (everything[name].version, everything[name].hashes) for name in run_time}
    assert {name: (pin.version, pin.hashes) for name, pin in run_time.items()} == same


def test_what_ci_runs_of_others_is_named_by_its_content() -> None:
    used = [
        line.split("uses:")[1].split("#")[0].strip()
        for file in (REPOSITORY / ".github").rglob("*.yml")
        for line in file.read_text(encoding="utf-8").splitlines()
        if "uses:" in line and "uses: ./" not in line
    ]
    assert used
    assert [action for action in used if not re.fullmatch(r"[\w./-]+@[0-9a-f]{40}", action)] == []
