"""A shard file read once from start to end: handed out piece by piece, hashed on the way."""

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import xxhash

_BLOCK_BYTES = 1 << 20


class HashedFile:
    """Gives out a file's bytes in order, and knows the checksum of what it has read."""

    def __init__(self, stream: io.FileIO) -> None:
        self._stream = stream
        self._hash = xxhash.xxh3_128()
        self._buffer = memoryview(bytearray(_BLOCK_BYTES))
        self._start = self._end = 0
        self.position = 0
        """Bytes given out so far."""

    def take(self, size: int) -> memoryview:
        """The next bytes, fewer where the file ends; they last until the next call."""
        if self._end - self._start < size:
            self._fill(size)
        view = self._buffer[self._start : min(self._start + size, self._end)]
        self._start += len(view)
        self.position += len(view)
        return view

    def _fill(self, size: int) -> None:
        """Move what is left to the front, and read so much behind it that `size` bytes are there.

        Nothing is read beyond the buffer, so that reads are of whole blocks nearly always.
        """
        left = self._buffer[self._start : self._end]
        if size > len(self._buffer):
            self._buffer = memoryview(bytearray(size))
        self._buffer[: len(left)] = left
        self._start, self._end = 0, len(left)
        while count := self._stream.readinto(self._buffer[self._end :]):
            self._hash.update(self._buffer[self._end : self._end + count])
            self._end += count

    def finish(self) -> tuple[int, str]:
        """How many bytes were left, and the checksum of the whole file (32 hexadecimal digits)."""
        left = 0
        while block := self.take(_BLOCK_BYTES):
            left += len(block)
        return left, self._hash.hexdigest()


@contextmanager
def open_hashed(path: Path) -> Iterator[HashedFile]:
    """The file, for the time of the block; the system is told to read ahead."""
    with path.open("rb", buffering=0) as stream:
        os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_SEQUENTIAL)
        yield HashedFile(stream)
