"""The files of a patch as bytes, from a folder tree or straight from a tar."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from bigearth_prep.errors import PrepError
from bigearth_prep.patch import PatchError, RejectReason

Content = bytes | memoryview

_BLOCK_BYTES = 1 << 16
"""Holds any file of the archives; larger blocks would be mapped anew for each file."""


@dataclass(frozen=True, slots=True)
class PatchPlace:
    """Where one patch lies in its archive."""

    folder: str
    """Relative to the archive's root, with forward slashes; it ends in the patch's name."""

    members: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    """In a tar, first byte and length of each file, by what follows the patch's name."""

    @property
    def name(self) -> str:
        """The patch's name, with which its files begin."""
        return self.folder.rpartition("/")[2]


def place_of(folder: str, members: Sequence[Mapping[str, Any]] | None) -> PatchPlace:
    """The place of a patch from its folder and, in a tar, its row of the index."""
    return PatchPlace(
        folder, {row["ending"]: (row["start"], row["bytes"]) for row in members or ()}
    )


@runtime_checkable
class PatchSource(Protocol):
    """An open archive."""

    def read(self, place: PatchPlace, endings: Sequence[str]) -> dict[str, Content]:
        """Those of the files `<patch><ending>` that are there, by ending.

        Raises:
            PatchError: a file is there but cannot be read.
            PrepError: the archive cannot be read any more.
        """


@contextmanager
def open_source(root: Path) -> Iterator[PatchSource]:
    """The archive in this folder or tar, for the time of the block.

    Raises:
        PrepError: it cannot be opened.
    """
    if root.is_dir():
        yield FolderSource(root)
        return
    try:
        descriptor = os.open(root, os.O_RDONLY)
    except OSError as error:
        raise archive_gone(root) from error
    try:
        yield TarSource(root, descriptor)
    finally:
        os.close(descriptor)


def archive_gone(path: Path | str) -> PrepError:
    """The error that ends a build whose archive is not there any more."""
    return PrepError(
        f"{path} was there when the build was planned and is gone; see that its disk is mounted, "
        "and run the same command to go on"
    )


class FolderSource:
    """Reads the files of an extracted archive."""

    def __init__(self, root: Path) -> None:
        self._root = str(root)

    def read(self, place: PatchPlace, endings: Sequence[str]) -> dict[str, Content]:
        """Those of the patch's files that are there."""
        stem = f"{self._root}/{place.folder}/{place.name}"
        files: dict[str, Content] = {}
        for ending in endings:
            try:
                files[ending] = read_file(stem + ending)
            except (FileNotFoundError, NotADirectoryError):
                continue
            except OSError as error:
                raise PatchError(
                    RejectReason.UNREADABLE_FILE, f"{place.name}{ending}: {error.strerror}"
                ) from error
        if not files and not Path(stem).parent.is_dir():
            raise archive_gone(Path(stem).parent)
        return files


def read_file(path: str) -> bytes:
    """All bytes of a file of the size of a patch's files, by as few system calls as there are."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        content = block = os.read(descriptor, _BLOCK_BYTES)
        while len(block) == _BLOCK_BYTES:
            block = os.read(descriptor, _BLOCK_BYTES)
            content += block
    finally:
        os.close(descriptor)
    return content


class TarSource:
    """Reads files of an indexed tar by their place."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self._path = path
        self._descriptor = descriptor

    def read(self, place: PatchPlace, endings: Sequence[str]) -> dict[str, Content]:
        """Those of the patch's files that are there: one read where they lie close together."""
        extents = {name: place.members[name] for name in endings if name in place.members}
        if not extents:
            return {}
        first = min(start for start, _ in extents.values())
        end = max(start + size for start, size in extents.values())
        if end - first > 2 * sum(size for _, size in extents.values()):
            return {name: self._read(*extent, place) for name, extent in extents.items()}
        span = memoryview(self._read(first, end - first, place))
        return {
            name: span[start - first : start - first + size]
            for name, (start, size) in extents.items()
        }

    def _read(self, start: int, size: int, place: PatchPlace) -> bytes:
        try:
            content = os.pread(self._descriptor, size, start)
        except OSError as error:
            raise PrepError(
                f"{self._path} cannot be read at byte {start:,} ({place.name}): {error.strerror}; "
                "repair the disk, and run the same command to go on"
            ) from error
        if len(content) < size:
            raise PrepError(
                f"{self._path} ends at byte {start + len(content):,}, inside {place.name}; it was "
                "cut since it was indexed: restore it, and run the same command to go on"
            )
        return content
