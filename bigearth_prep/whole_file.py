"""Files that appear whole or not at all, and their checksums."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import xxhash


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A path to write to; when the block ends well, what was written there becomes `path`.

    Should the block fail, `path` is as it was before.
    """
    partial = path.with_name(f"{path.name}.partial")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield partial
        _flush_to_disk(partial)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    partial.replace(path)
    _flush_to_disk(path.parent)


def write_text(path: Path, text: str) -> None:
    """Write a whole UTF-8 file."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Write a whole file."""
    with whole_file(path) as partial:
        partial.write_bytes(content)


def xxh3_128_of(path: Path) -> str:
    """The file's checksum, as 32 hexadecimal digits."""
    digest = xxhash.xxh3_128()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _flush_to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
