"""Samples to the shard files of Zarr arrays: raw chunks in order, then the index of the chunks.

A shard file is what the `sharding_indexed` codec of Zarr 3 describes, with one uncompressed
inner chunk per sample and the index at the end. Chunk `i` begins at byte `i * chunk_bytes`, so a
sample is one positional read away without reading the index.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

import numpy as np
import xxhash

from bigearth_prep.card import ShardCard
from bigearth_prep.whole_file import whole_file

_ABSENT = np.uint64(2**64 - 1)
_BUFFER_BYTES = 1 << 20
_REMEMBERED_INDICES = 8
_CRC32C_POLYNOMIAL = 0x82F63B78


class ZarrShardStream:
    """Adds samples to an open shard file, hashing every byte as it goes by."""

    def __init__(self, stream: BinaryIO, capacity: int) -> None:
        self._stream = stream
        self._capacity = capacity
        self._hash = xxhash.xxh3_128()
        self._samples = 0
        self._position = 0

    def add(self, chunks: bytes | memoryview, *, samples: int = 1) -> None:
        """Append the bytes of one sample, or of several in order."""
        self._write(chunks)
        self._samples += samples

    def end(self) -> None:
        """Write the index; an empty shard has none, and no place in an array."""
        if self._samples:
            chunk_bytes = self._position // self._samples
            self._write(shard_index(self._samples, self._capacity, chunk_bytes))

    def card(self, name: str) -> ShardCard:
        """Size and checksum of what was written, under the file's name in the dataset."""
        return ShardCard(
            name=name,
            samples=self._samples,
            bytes=self._position,
            xxh3_128=self._hash.hexdigest(),
        )

    def _write(self, content: bytes | memoryview) -> None:
        self._stream.write(content)
        self._hash.update(content)
        self._position += len(content)


@contextmanager
def open_zarr_shard(path: Path, capacity: int) -> Iterator[ZarrShardStream]:
    """A stream to add samples to; the shard file appears at `path` when the block succeeds.

    Args:
        path: The file.
        capacity: Samples that every shard file of the array has room for.
    """
    with (
        whole_file(path, is_shared=True) as partial,
        partial.open("wb", buffering=_BUFFER_BYTES) as stream,
    ):
        shard = ZarrShardStream(stream, capacity)
        yield shard
        shard.end()


@lru_cache(_REMEMBERED_INDICES)
def shard_index(samples: int, capacity: int, chunk_bytes: int) -> bytes:
    """Where each inner chunk begins and how long it is, and the CRC-32C of that."""
    index = np.full((capacity, 2), _ABSENT, dtype="<u8")
    index[:samples, 0] = np.arange(samples, dtype=np.uint64) * np.uint64(chunk_bytes)
    index[:samples, 1] = chunk_bytes
    content = index.tobytes()
    return content + crc32c(content).to_bytes(4, "little")


def crc32c(content: bytes) -> int:
    """The CRC-32C (Castagnoli) checksum of the bytes (RFC 3720, appendix B.4)."""
    crc = 0xFFFFFFFF
    for byte in content:
        crc = _CRC32C_TABLE[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    return crc ^ 0xFFFFFFFF


def _crc32c_of_byte(byte: int) -> int:
    for _ in range(8):
        byte = (byte >> 1) ^ (_CRC32C_POLYNOMIAL if byte & 1 else 0)
    return byte


_CRC32C_TABLE = tuple(_crc32c_of_byte(byte) for byte in range(256))
