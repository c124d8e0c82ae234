"""Which patch a task is at, noted so that it can be told of a process that died without a word.

A task keeps a file of eight bytes for each try: the number of the patch that it is at. The file
is gone when the task ends by itself, well or with an error, and stays where its process was
killed. Thus tries are counted alike whatever a site's Dask configuration says of failures.
"""

import os
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from bigearth_prep.errors import PrepError

TRIES = 3
"""How often a task may die with its process before it is given up."""

_NUMBER = struct.Struct("<q")
_NOT_BEGUN = -1


@contextmanager
def leave_breadcrumbs(path: Path) -> Iterator[Callable[[int], None]]:
    """A function that notes which patch the task is at, in the place of this try."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        place = os.fstat(descriptor).st_size

        def note(number: int) -> None:
            os.pwrite(descriptor, _NUMBER.pack(number), place)

        note(_NOT_BEGUN)
        yield note
    finally:
        os.close(descriptor)
        path.unlink(missing_ok=True)


def patches_died_at(path: Path, keys: Sequence[str]) -> list[str]:
    """The patch at which each try died."""
    if not path.exists():
        return []
    content = path.read_bytes()
    numbers = [
        number
        for start in range(0, len(content) - _NUMBER.size + 1, _NUMBER.size)
        for number in _NUMBER.unpack_from(content, start)
    ]
    return [keys[max(number, 0)] for number in numbers]


def refuse_deadly(path: Path, shard: str, keys: Sequence[str]) -> None:
    """Nothing, if the shard may be tried once more.

    Raises:
        PrepError: its processes have been killed as often as may be.
    """
    died_at = patches_died_at(path, keys)
    if len(died_at) < TRIES:
        return
    at = " then ".join(dict.fromkeys(died_at))
    what_to_do = (
        "if that patch is at fault, name it in a file and leave it out with --exclude FILE "
        "--overwrite; if memory ran out, use fewer --workers or give them more, and run again"
        if len(set(died_at)) == 1
        else "different patches are a sign that memory ran out: use fewer --workers or give them "
        "more, and run the same command to go on"
    )
    raise PrepError(
        f"{shard} has killed its worker process {len(died_at)} times, at patch {at}; {what_to_do}"
    )
