"""A large file that reaches the disk while it is written, so that its progress can be seen."""

import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

PIECE_BYTES = 1 << 26


def unwatched() -> None:
    """Does nothing, where nobody asks whether a write gets on."""


class SteadyFile(io.FileIO):
    """A new file of which each piece is on disk before the next one is written, and is told of.

    What the system keeps in memory until the end takes its time then, and nobody can tell whether
    the disk is slow or does not answer.
    """

    def __init__(self, path: Path, advance: Callable[[], None]) -> None:
        super().__init__(path, "w")
        self._advance = advance
        self._unsynced_bytes = 0

    def write(self, content: "ReadableBuffer", /) -> int:
        """The number of bytes given, which are all written."""
        rest = memoryview(content).cast("B")
        count = len(rest)
        while rest:
            written = super().write(rest[: PIECE_BYTES - self._unsynced_bytes])
            rest = rest[written:]
            self._unsynced_bytes += written
            if self._unsynced_bytes == PIECE_BYTES:
                os.fdatasync(self.fileno())
                self._advance()
                self._unsynced_bytes = 0
        return count
