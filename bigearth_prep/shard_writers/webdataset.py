"""Samples to one uncompressed USTAR tar, hashed and indexed on the way."""

import io
import json
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import xxhash
from jaxtyping import Shaped

from bigearth_prep.bands import Sensor
from bigearth_prep.whole_file import whole_file

TAR_BLOCK = 512
"""Headers and contents of a tar begin at multiples of this."""

TAR_END = bytes(2 * TAR_BLOCK)
"""What ends a tar."""

_BUFFER_BYTES = 1 << 20
_JSON_BLOCKS = 3
_NAME_BYTES = 100
_REMEMBERED_HEADERS = 16
_EMPTY_HEADER = tarfile.TarInfo("").tobuf(tarfile.USTAR_FORMAT)
_EMPTY_HEADER_SUM = int(_EMPTY_HEADER[148:154], 8) - sum(_EMPTY_HEADER[124:135])
"""Sum of the bytes of a header, name and size left out."""

_UNCHANGED = _EMPTY_HEADER[100:124], _EMPTY_HEADER[135:148], _EMPTY_HEADER[156:]


@dataclass(frozen=True, slots=True)
class StoredSample:
    """Where one sample landed in its shard."""

    index: int
    offsets: dict[Sensor, int]
    """Byte in the tar where the sensor's array data begin."""

    xxh3_64: int
    """Of the arrays' bytes, in the order given."""


class ShardStream:
    """Adds samples to an open tar, hashing every byte as it goes by."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._hash = xxhash.xxh3_128()
        self._samples = 0
        self._position = 0

    @property
    def samples(self) -> int:
        """Samples written so far."""
        return self._samples

    @property
    def size_bytes(self) -> int:
        """Bytes written so far."""
        return self._position

    @property
    def xxh3_128(self) -> str:
        """Checksum of all bytes so far, as 32 hexadecimal digits."""
        return self._hash.hexdigest()

    def add(
        self,
        key: str,
        arrays: Mapping[Sensor, Shaped[np.ndarray, "band height width"]],
        fields: Mapping[str, Any],
    ) -> StoredSample:
        """Append `<key>.s2.npy`, `<key>.s1.npy` and `<key>.json`, and say where they lie."""
        offsets: dict[Sensor, int] = {}
        content = xxhash.xxh3_64()
        for sensor, array in arrays.items():
            pixels = np.ascontiguousarray(array)
            head = npy_header(pixels)
            start = self._member(
                f"{key}.{sensor}.npy", head, pixels.reshape(-1).view(np.uint8).data
            )
            offsets[sensor] = start + len(head)
            content.update(pixels.data)
        text = json.dumps(fields, ensure_ascii=False, sort_keys=True).encode()
        self._member(f"{key}.json", b"", text)
        self._samples += 1
        return StoredSample(self._samples - 1, offsets, content.intdigest())

    def end(self) -> None:
        """Write the tar's end marker."""
        self._write(TAR_END)

    def _member(self, name: str, head: bytes, body: bytes | memoryview) -> int:
        """Write one file into the tar; returns the byte where its content begins."""
        size = len(head) + len(body)
        self._write(tar_header(name, size))
        start = self._position
        self._write(head)
        self._write(body)
        self._write(bytes(-size % TAR_BLOCK))
        return start

    def _write(self, content: bytes | memoryview) -> None:
        self._stream.write(content)
        self._hash.update(content)
        self._position += len(content)


@contextmanager
def open_shard(path: Path) -> Iterator[ShardStream]:
    """A stream to add samples to; the shard appears at `path` when the block succeeds."""
    with (
        whole_file(path, is_shared=True) as partial,
        partial.open("wb", buffering=_BUFFER_BYTES) as stream,
    ):
        shard = ShardStream(stream)
        yield shard
        shard.end()


def tar_header(name: str, size: int) -> bytes:
    """A USTAR header without clock, user or host, as `tarfile` writes it."""
    path = name.encode()
    if len(path) > _NAME_BYTES:
        member = tarfile.TarInfo(name)
        member.size = size
        return member.tobuf(tarfile.USTAR_FORMAT)
    digits = b"%011o" % size
    checksum = b"%06o\0 " % (_EMPTY_HEADER_SUM + sum(path) + sum(digits))
    before, between, after = _UNCHANGED
    return b"".join((path.ljust(_NAME_BYTES, b"\0"), before, digits, between, checksum, after))


def npy_header(array: Shaped[np.ndarray, "..."]) -> bytes:
    """The bytes that precede the array's data in an `.npy` file of format 1.0."""
    return _npy_header(array.dtype, array.shape)


@lru_cache(_REMEMBERED_HEADERS)
def _npy_header(dtype: np.dtype[Any], shape: tuple[int, ...]) -> bytes:
    header = io.BytesIO()
    fields = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(header, fields)
    return header.getvalue()


def sample_bytes(arrays: Mapping[Sensor, Shaped[np.ndarray, "band height width"]]) -> int:
    """Room that one sample of such arrays takes in a tar, its JSON estimated."""
    sizes = [len(npy_header(array)) + array.nbytes for array in arrays.values()]
    return sum(TAR_BLOCK + size + -size % TAR_BLOCK for size in sizes) + _JSON_BLOCKS * TAR_BLOCK
