"""The docs as a site, by ``make docs``: for a browser, from files and without a network.

Pages stay as GitHub shows them. In their copies links lead to the targets in the site, and syntax that
Python-Markdown reads differently from GitHub is rewritten.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

REPOSITORY: Final = Path(__file__).parents[1]
DOCS: Final = REPOSITORY / "docs"
#: Where copies and site are written, unless a folder is named.
BUILD: Final = REPOSITORY / "build" / "docs"
#: Pages outside of ``docs``, and their names in the site.
PAGES: Final = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "SECURITY.md": "security.md",
    ".github/CONTRIBUTING.md": "contributing.md",
    "benchmarks/README.md": "benchmarks.md",
    "deploy/ray/README.md": "ray.md",
}
#: A link, and the address of a picture.
_LINK: Final = re.compile(r"\[(?P<text>[^\[\]]*)\]\((?P<target>[^)\s]+)\)")
_PICTURE: Final = re.compile(r'(?<=src=")(?P<target>[^"]+)(?=")')
#: The drawing of the README needs a script that is not in the site; another page has one in text.
_DRAWING: Final = re.compile(r"^```mermaid\n.*?^```$", re.DOTALL | re.MULTILINE)
_INSTEAD: Final = "[The way of the data](architecture.md#the-way-of-the-data)"
#: The generator lets every page load a script from elsewhere, by which the search works on files, too.
_ELSEWHERE: Final = "https://unpkg.com/iframe-worker/shim"
_WORKER: Final = Path(__file__).parent / "site" / "iframe-worker.js"


def main(folder: Path = BUILD) -> int:
    """Write ``site`` below the folder; the exit code is 1 where a link leads nowhere."""
    shutil.rmtree(folder, ignore_errors=True)
    copy_pages(folder / "pages")
    shutil.copyfile(REPOSITORY / "mkdocs.yml", folder / "mkdocs.yml")
    command = [Path(sys.executable).parent / "zensical", "build", "--strict", "--clean"]
    done = subprocess.run(command, cwd=folder, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if done.returncode:
        sys.stderr.buffer.write(done.stdout)
        return 1
    site = folder / "site"
    for page in site.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        page.write_text(text.replace(_ELSEWHERE, _WORKER.name), encoding="utf-8")
    shutil.copyfile(_WORKER, site / _WORKER.name)
    sys.stdout.write(f"{site / 'index.html'}\n")
    return 0


def copy_pages(pages: Path) -> None:
    """Write the copies, and the files that pages show or name beside them."""
    for source in [*DOCS.glob("*.md"), *map(REPOSITORY.joinpath, PAGES)]:
        text, named = fitted(source)
        for file in [source, *(file for file in named if file.suffix != ".md")]:
            place = pages / str(place_of(file))
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, place)
        (pages / str(place_of(source))).write_text(text, encoding="utf-8")


def fitted(source: Path) -> tuple[str, list[Path]]:
    """The page as the site has it, and the files of the clone that it shows or names."""
    named = []

    def bent(target: str) -> str | None:
        """The address in the site, or None for a folder, which the site does not have."""
        path, _, anchor = target.partition("#")
        file = (source.parent / path).resolve()
        if not path or "://" in target or not file.exists():
            return target
        place = place_of(file)
        if place is None:
            return None
        named.append(file)
        return f"{place}#{anchor}" if anchor else place

    def link(found: re.Match[str]) -> str:
        target = bent(found["target"])
        return f"[{found['text']}]({target})" if target else found["text"]

    text = _DRAWING.sub(_INSTEAD, source.read_text(encoding="utf-8"))
    text = _PICTURE.sub(lambda found: bent(found["target"]) or "", _LINK.sub(link, text))
    # Marks for tests, and second words of code blocks, which name their loader.
    text = re.sub(r"^<!-- .*? -->\n", "\n", text, flags=re.MULTILINE)
    return re.sub(r"^( *```\w+) \w+$", r"\1", text, flags=re.MULTILINE), named


def place_of(file: Path) -> str | None:
    """Place of a file of the clone in the site; None for a folder and for files outside of the clone."""
    if not file.is_relative_to(REPOSITORY) or file.is_dir():
        return None
    name = file.relative_to(REPOSITORY).as_posix()
    if file.is_relative_to(DOCS):
        return file.relative_to(DOCS).as_posix()
    return PAGES.get(name, f"files/{name}")


if __name__ == "__main__":
    sys.exit(main(*map(Path, sys.argv[1:2])))
