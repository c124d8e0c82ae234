"""One process at a time in a folder."""

import fcntl
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bigearth_prep.errors import PrepError

log = logging.getLogger(__name__)

LOCK_NAME = "lock"


@contextmanager
def hold_folder(folder: Path, refusal: str) -> Iterator[None]:
    """Holds a folder's lock for the time of the block.

    File systems without locks are taken on trust, with a warning.

    Raises:
        PrepError: another process holds it; the refusal says what to do.
    """
    with (folder / LOCK_NAME).open("w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise PrepError(f"{folder} is in use: {refusal}") from error
        except OSError:
            log.warning("%s cannot be locked; make sure no other build writes to it", folder)
        yield
