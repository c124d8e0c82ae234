"""The files in a tar, found by going from header to header: nothing is extracted."""

import os
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bigearth_prep.errors import PrepError

_BLOCK = 512
_WINDOW_BYTES = 4 * _BLOCK
"""The header of a long name, the name, and the file's own header, in one read."""

_MOST_PADDING_BYTES = 1 << 20
"""Zeros that a tar may end with; more are a hole in a broken download."""

_FILES = {b"0", b"\0", b"7"}
_LONG_NAME, _PAX = b"L", b"x"

_ADLER = 65521
_PAX_PATH = re.compile(rb"(?:\A|\n)[0-9]+ path=([^\n]*)\n")


@dataclass(frozen=True, slots=True)
class TarMember:
    """One regular file in a tar."""

    name: str
    start: int
    """Byte of the tar where the content begins."""

    size: int
    """Bytes of content."""


def walk_tar(tar: Path) -> Iterator[TarMember]:
    """Every regular file of an uncompressed tar, under its full name.

    Raises:
        PrepError: there is no header where one must be, or the file ends before the tar does.
    """
    descriptor = os.open(tar, os.O_RDONLY)
    try:
        yield from _Walk(tar, descriptor).members()
    finally:
        os.close(descriptor)


class _Walk:
    """Reads an open tar where the headers are."""

    def __init__(self, tar: Path, descriptor: int) -> None:
        self._tar = tar
        self._descriptor = descriptor
        self._size = os.fstat(descriptor).st_size
        self._window, self._window_start = b"", 0

    def members(self) -> Iterator[TarMember]:
        """Regular files in order, long names of GNU and pax resolved."""
        position = 0
        long_name = ""
        while any(header := self._read(position, _BLOCK)):
            size, kind = self._content_size(header, position), header[156:157]
            start = position + _BLOCK
            position = start + size + -size % _BLOCK
            if kind == _LONG_NAME:
                long_name = self._read(start, size).rstrip(b"\0").decode(errors="replace")
            elif kind == _PAX:
                long_name = _path_in_pax(self._read(start, size))
            else:
                if kind in _FILES:
                    yield TarMember(long_name or _short_name(header), start, size)
                long_name = ""
        self._check_padding(position)

    def _read(self, start: int, size: int) -> bytes:
        offset = start - self._window_start
        if offset + size > len(self._window):
            self._window = os.pread(self._descriptor, max(size, _WINDOW_BYTES), start)
            self._window_start, offset = start, 0
        if start + size > self._size:
            raise PrepError(
                f"{self._tar} is truncated: it has {self._size:,} bytes and goes on to byte "
                f"{start + size:,} at least; copy or download it again"
            )
        return self._window[offset : offset + size]

    def _content_size(self, header: bytes, position: int) -> int:
        """The size that a header states, once the header's own checksum is right."""
        blank_checksum = 8 * ord(" ")
        try:
            stated, size = _octal(header[148:156]), _octal(header[124:136])
        except ValueError:
            stated, size = -1, 0
        # Adler's lower half is one more than the sum of the bytes, and fast to come by.
        found = zlib.adler32(header[156:], zlib.adler32(header[:148])) & 0xFFFF
        if (stated - blank_checksum + 1) % _ADLER != found:
            raise PrepError(
                f"{self._tar} has no readable header at byte {position:,}: it is not a plain tar, "
                "or damaged; copy or download it again"
            )
        return size

    def _check_padding(self, end: int) -> None:
        if self._size - end > _MOST_PADDING_BYTES:
            raise PrepError(
                f"{self._tar} ends at byte {end:,} of {self._size:,}: a part of the download is "
                "missing there, or tars were joined; copy or download it again"
            )


def _octal(field: bytes) -> int:
    return int(field.rstrip(b"\0 ") or b"0", 8)


def _short_name(header: bytes) -> str:
    """The name in the header itself, with the folders that USTAR keeps apart."""
    name = header[:100].rstrip(b"\0").decode(errors="replace")
    prefix = (
        header[345:500].rstrip(b"\0").decode(errors="replace")
        if header[257:263] == b"ustar\0"
        else ""
    )
    return f"{prefix}/{name}" if prefix else name


def _path_in_pax(records: bytes) -> str:
    """The path among a member's pax records; empty if there is none."""
    found = _PAX_PATH.search(records)
    return found.group(1).decode(errors="replace") if found else ""
