"""One process at a time, by a lock file."""

import fcntl
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bigearth_prep.errors import PrepError

log = logging.getLogger(__name__)


@contextmanager
def hold_lock(path: Path, refusal: str) -> Iterator[None]:
    """Holds the lock file for the time of the block, and removes it at the end.

    File systems without locks are taken on trust, with a warning.

    Raises:
        PrepError: another process holds it, as the refusal says; or the folder takes no file.
    """
    try:
        stream = path.open("w")
    except OSError as error:
        raise PrepError(
            f"{path.parent} cannot be written to ({error.strerror}); choose another folder"
        ) from error
    with stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise PrepError(refusal) from error
        except OSError:
            log.warning("%s cannot be locked; make sure no other build works there", path)
        try:
            yield
        finally:
            path.unlink(missing_ok=True)
