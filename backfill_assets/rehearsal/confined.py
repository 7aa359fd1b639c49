"""A limit of the kernel on the memory of a whole process tree, in its own cgroup.

Only the manager of a machine's cgroups may make one: a program that writes below ``/sys/fs/cgroup`` itself
takes processes away from their manager. So the rehearsal asks systemd, as its own user. A limit counts only
if it was seen to kill.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

#: Limit of the probe: enough for the interpreter, and far less than the probe then allocates.
_PROBE_MB, _PROBE_TOO_MUCH_MB = 100, 400
_PROBE_SECONDS: Final = 30.0


@dataclass(frozen=True, slots=True)
class Confinement:
    """How to start a command so that its process tree stays below a limit.

    Attributes
    ----------
    words
        The words before the command; their process becomes the command.
    variables
        Environment variables that the command needs.
    why_not
        The reason why there is no limit; empty if there is one.
    """

    words: tuple[str, ...] = ()
    variables: Mapping[str, str] = field(default_factory=dict)
    why_not: str = ""


UNCONFINED: Final = Confinement()


def confinement(limit_mb: int) -> Confinement:
    """A limit on memory without swap, in 2**20 bytes; tested with a command that takes more."""
    program = shutil.which("systemd-run")
    if program is None:
        return Confinement(why_not="there is no command systemd-run")
    # The address of the user's own manager, by convention.
    variables = {} if os.geteuid() == 0 else {"XDG_RUNTIME_DIR": f"/run/user/{os.geteuid()}"}
    if why := _refusal(_words(program, _PROBE_MB), variables):
        return Confinement(why_not=why)
    return Confinement(_words(program, limit_mb), variables)


def _words(program: str, limit_mb: int) -> tuple[str, ...]:
    manager = () if os.geteuid() == 0 else ("--user",)
    limits = ("-p", f"MemoryMax={limit_mb}M", "-p", "MemorySwapMax=0")
    return (program, *manager, "--scope", "--quiet", "--collect", *limits, "--")


def _refusal(words: tuple[str, ...], variables: Mapping[str, str]) -> str:
    """Why the limit does not work; empty if it kills a command that takes too much, and no other."""
    harmless = _probe(words, variables, 1)
    if harmless.returncode != 0:
        said = harmless.stderr.strip().splitlines() or [f"exit code {harmless.returncode}"]
        return f"systemd-run cannot set a limit: {said[-1]}"
    greedy = _probe(words, variables, _PROBE_TOO_MUCH_MB)
    if greedy.returncode != -signal.SIGKILL:
        return f"a limit of {_PROBE_MB} MB did not stop a command that took {_PROBE_TOO_MUCH_MB} MB"
    return ""


def _probe(
    words: tuple[str, ...], variables: Mapping[str, str], megabytes: int
) -> subprocess.CompletedProcess[str]:
    # Repeated bytes are written, so that each page is allocated; zeros would only be reserved.
    take = f"import time; taken = b'x' * ({megabytes} << 20); time.sleep(0.2)"
    return subprocess.run(
        [*words, sys.executable, "-c", take],
        env={"PATH": os.defpath, **variables},
        capture_output=True,
        text=True,
        check=False,
        timeout=_PROBE_SECONDS,
    )
