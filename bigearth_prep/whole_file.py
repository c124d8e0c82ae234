"""Files that appear whole or not at all, and their checksums."""

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import xxhash

PARTIAL_SUFFIX = ".partial"

_NO_SYNC = (errno.EINVAL, errno.ENOTSUP)
"""What file systems say that do not sync folders, such as some that are mounted by FUSE or CIFS."""


@contextmanager
def whole_file(path: Path, *, is_shared: bool = False) -> Iterator[Path]:
    """A path to write to; when the block ends well, what was written there becomes `path`.

    Should the block fail, `path` is as it was before.

    Args:
        path: The file.
        is_shared: Others may write the same file at the same time, such as a task that was taken
            for dead. Each then writes under a name of its own, which stays where it is killed;
            `drop_partial_files` removes those.
    """
    own = f".{secrets.token_hex(4)}" if is_shared else ""
    partial = path.with_name(f"{path.name}{own}{PARTIAL_SUFFIX}")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield partial
        _flush_to_disk(partial)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    partial.replace(path)
    _flush_folder(path.parent)


def drop_partial_files(folder: Path) -> None:
    """Remove what killed writers have left anywhere in the folder."""
    for partial in folder.rglob(f"*{PARTIAL_SUFFIX}"):
        partial.unlink(missing_ok=True)


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


def _flush_folder(folder: Path) -> None:
    try:
        _flush_to_disk(folder)
    except OSError as error:
        if error.errno not in _NO_SYNC:
            raise


def _flush_to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
