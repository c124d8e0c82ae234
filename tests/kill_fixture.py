"""Builds in processes of their own that kill themselves at a chosen change to the disk."""

import multiprocessing
import os
import signal
import sys
from pathlib import Path
from typing import Any

from tests.archive_fixture import build

_CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate"}
_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(["bigearth_prep.pipeline", "tests.archive_fixture"])


def build_killed_at(moment: int, archive: Path, out: Path, options: dict[str, Any]) -> bool:
    """Whether the build died before its change to the disk of that number, counted from 1."""
    process = _FORKS.Process(target=_build_and_die, args=(moment, archive, out, options))
    process.start()
    process.join()
    assert process.exitcode in {0, -signal.SIGKILL}
    return process.exitcode != 0


def _build_and_die(moment: int, archive: Path, out: Path, options: dict[str, Any]) -> None:
    left = moment

    def die_in_time(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal left
        is_write = event == "open" and bool(arguments[2] & (os.O_WRONLY | os.O_RDWR))
        if (is_write or event in _CHANGES) and str(out.parent) in str(arguments[0]):
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(die_in_time)
    build(archive, out, **options)
