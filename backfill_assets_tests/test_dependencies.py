"""What the project depends on is declared, explained and pinned: setup.cfg, its page in docs, the lock."""

from __future__ import annotations

import configparser
import re
from pathlib import Path
from typing import Final

REPOSITORY: Final = Path(__file__).parents[1]


def normalized(requirement: str) -> str:
    """The name in a requirement, as package indexes compare names."""
    name = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert name is not None
    return re.sub(r"[-_.]+", "-", name[0]).lower()


def declared() -> set[str]:
    config = configparser.ConfigParser()
    config.read(REPOSITORY / "setup.cfg", encoding="utf-8")
    text = config["options"]["install_requires"] + config["options.extras_require"]["test"]
    return {normalized(line) for line in text.split("\n") if line.strip()}


def test_every_dependency_has_a_row_that_says_why_and_every_row_is_a_dependency() -> None:
    page = (REPOSITORY / "docs" / "dependencies.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([^`]+)` \|", page, re.MULTILINE)
    assert {normalized(row) for row in rows} == declared()


def test_the_lock_pins_every_dependency_exactly_and_names_no_place_to_get_it_from() -> None:
    lines = (REPOSITORY / "requirements.lock").read_text(encoding="utf-8").splitlines()
    pins = [re.fullmatch(r"([A-Za-z0-9._-]+)==([^\s;*]+)( ; .+)?", line) for line in lines]
    assert [line for line, pin in zip(lines, pins, strict=True) if pin is None] == []
    assert declared() <= {normalized(line) for line in lines}
