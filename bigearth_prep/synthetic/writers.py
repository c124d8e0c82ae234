"""Where an archive's files go: a folder tree, or a tar like the published ones."""

import io
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

WriteFile = Callable[[str, bytes], None]
"""Stores one file under a path with forward slashes."""

_MTIME_S = 1_704_067_200
"""2024-01-01 00:00 UTC, the time of every member of the official tars."""


@contextmanager
def folder_writer(root: Path) -> Iterator[WriteFile]:
    """A function that writes files into this folder, making the folders between."""
    made: set[Path] = set()

    def write(name: str, content: bytes) -> None:
        path = root / name
        if path.parent not in made:
            path.parent.mkdir(parents=True, exist_ok=True)
            made.add(path.parent)
        path.write_bytes(content)

    yield write


@contextmanager
def tar_writer(path: Path) -> Iterator[WriteFile]:
    """A function that appends regular files to a new GNU tar, with nothing of clock or user.

    As in the official tars there are no members for directories.
    """
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as tar:

        def write(name: str, content: bytes) -> None:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            member.mtime = _MTIME_S
            tar.addfile(member, io.BytesIO(content))

        yield write
