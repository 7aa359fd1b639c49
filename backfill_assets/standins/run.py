"""Runs a command with the stand-in behind it, or the stand-in alone.

The command finds the server through ``BACKFILL_STANDIN_URL`` in its environment, and through
``BACKFILL_DATASETS_URL`` as well if own files are served. Apart from ``settings``, only this module handles
environment variables, and it only adds these for a child.
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Final

from backfill_assets.failures import BadInput, PermanentFailure, SettingsError
from backfill_assets.settings import OWN_FILES_VARIABLE, current_settings, own_files_command
from backfill_assets.standins.tardis import TardisStandin

URL_VARIABLE: Final = "BACKFILL_STANDIN_URL"
_FORWARDED: Final = (signal.SIGINT, signal.SIGTERM)


def run_with_standins(command: Sequence[str], *, datasets_dir: Path | None = None, port: int = 0) -> int:
    """Run the command with the stand-in up; return its exit code (128 + n if signal n ended it).

    SIGINT and SIGTERM are passed on to the command, and this function waits for it to end.

    Raises
    ------
    PermanentFailure
        The command cannot be started, the port is unavailable, or the directory holds no data sets.
    BadInput
        The settings in force belong to another directory of own files.
    """
    if not command:
        msg = "there is no command to run: write it behind --, as in 'backfill-assets standins -- COMMAND'"
        raise PermanentFailure(msg)
    if datasets_dir is not None:
        _insist_on_folder(datasets_dir)
    child: subprocess.Popen[bytes] | None = None
    pending: list[int] = []

    def hand_on(number: int) -> None:
        if number == signal.SIGINT and _terminal_signals_us():
            return  # The command has Ctrl-C from the terminal; twice would mean "stop the hard way".
        if child is None:
            pending.append(number)
        else:
            child.send_signal(number)

    with TardisStandin(datasets_dir=datasets_dir, port=port) as standin, _signals(hand_on):
        try:
            child = subprocess.Popen(list(command), env={**os.environ, **_addresses(standin, datasets_dir)})
        except OSError as error:
            msg = f"cannot run '{command[0]}': {error.strerror}; check its spelling and PATH"
            raise PermanentFailure(msg) from error
        for number in pending:
            child.send_signal(number)
        code = child.wait()
    return code if code >= 0 else 128 - code


def serve_standins(port: int = 0, datasets_dir: Path | None = None) -> None:
    """Serve until SIGINT or SIGTERM; print the URL and how to point the pipeline at it."""
    stopped: list[int] = []
    with TardisStandin(datasets_dir=datasets_dir, port=port) as standin, _signals(stopped.append):
        exchanges = ", ".join(standin.source.exchanges)
        sys.stdout.write(
            f"Tardis stand-in on {standin.url} ({exchanges}); Ctrl-C stops it\n"
            + "".join(f"export {k}={v}\n" for k, v in _addresses(standin, datasets_dir).items())
        )
        sys.stdout.flush()
        # An Event set from a signal handler can deadlock with its own wait.
        while not stopped:
            time.sleep(0.1)


def _insist_on_folder(datasets_dir: Path) -> None:
    """Refuse a directory other than the one that the settings in force name: each has a lake of its own."""
    with suppress(SettingsError):
        served = own_files_command(current_settings()).removesuffix(" -- ")
        words = shlex.split(served)
        wanted = words[words.index("--datasets") + 1] if "--datasets" in words else ""
        if wanted and Path(wanted).resolve() != datasets_dir.expanduser().resolve():
            others = f"backfill-assets import {shlex.quote(str(datasets_dir))} --settings FILE"
            msg = (
                f"these settings read {wanted}, not {datasets_dir}: run your command as "
                f"'{served} -- COMMAND', or write others with '{others}'"
            )
            raise BadInput(msg)


def _addresses(standin: TardisStandin, datasets_dir: Path | None) -> dict[str, str]:
    """Return the variables by which a command finds the server."""
    names = (URL_VARIABLE, OWN_FILES_VARIABLE) if datasets_dir else (URL_VARIABLE,)
    return dict.fromkeys(names, standin.url)


@contextmanager
def _signals(handle: Callable[[int], None]) -> Iterator[None]:
    """Handle the forwarded signals within the block; outside the main thread Python allows no handlers."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handler(number: int, frame: FrameType | None) -> None:
        del frame
        handle(number)

    before = {number: signal.signal(number, handler) for number in _FORWARDED}
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)


def _terminal_signals_us() -> bool:
    """Whether this process is in the foreground of a terminal, which then signals the command as well."""
    try:
        terminal = os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY)
    except OSError:
        return False
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:
        return False
    finally:
        os.close(terminal)
