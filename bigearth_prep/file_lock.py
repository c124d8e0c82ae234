"""One process at a time, by a lock file."""

import fcntl
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from bigearth_prep.errors import PrepError

log = logging.getLogger(__name__)

_TRIES = 20
"""More than processes that remove the file in turn; some mounts never agree on which one it is."""


@contextmanager
def hold_lock(path: Path, refusal: str) -> Iterator[None]:
    """Holds the lock file for the time of the block, and removes it at the end.

    File systems without locks are taken on trust, with a warning.

    Raises:
        PrepError: another process holds it, as the refusal says; or the folder takes no file.
    """
    with _open_locked(path, refusal):
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def _open_locked(path: Path, refusal: str) -> TextIO:
    for _ in range(_TRIES):
        stream = _open(path)
        if not _takes_lock(stream, refusal):
            break
        if _is_at(stream, path):
            return stream
        stream.close()  # its holder has removed it meanwhile: what is locked keeps nobody out
    else:
        stream = _open(path)
    log.warning("%s cannot be locked; make sure no other process works there", path)
    return stream


def _open(path: Path) -> TextIO:
    try:
        return path.open("w")
    except OSError as error:
        raise PrepError(
            f"{path.parent} cannot be written to ({error.strerror}); choose another folder"
        ) from error


def _takes_lock(stream: TextIO, refusal: str) -> bool:
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        stream.close()
        raise PrepError(refusal) from error
    except OSError:
        return False
    return True


def _is_at(stream: TextIO, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(stream.fileno()), path.stat())
    except OSError:
        return False
