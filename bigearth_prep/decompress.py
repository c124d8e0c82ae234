"""Compressed archives to plain tars in a scratch folder: one stream, checksummed on the way."""

import hashlib
import json
import logging
import shutil
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Protocol, runtime_checkable

import zstandard

from bigearth_prep.errors import PrepError
from bigearth_prep.file_lock import hold_lock
from bigearth_prep.published_files import ArchiveSums, compare_with_published
from bigearth_prep.terminal import progress_bar
from bigearth_prep.whole_file import whole_file, write_text

log = logging.getLogger(__name__)

TAR_RATIO = 1.75
"""Tar to compressed size where a file does not state it: a little above the published archives,
which have 1.62 and 1.21 (v2), 1.49 and about 1.3 (v1)."""

_BLOCK_BYTES = 1 << 20
_ZSTD_HEADER_BYTES = 18
_LARGEST_WINDOW_BYTES = 1 << 31
"""Whatever `zstd --long` may have used."""

_GZIP_WBITS = 31


@runtime_checkable
class _Decoder(Protocol):
    """Decodes one compressed frame, as `zlib` and `zstandard` both do."""

    @property
    def eof(self) -> bool:
        """Whether the frame has ended."""

    @property
    def unused_data(self) -> bytes:
        """What followed the frame's end."""

    def decompress(self, data: bytes, /) -> bytes:
        """What the bytes decode to."""


def _zstd_decoder() -> _Decoder:
    return zstandard.ZstdDecompressor(max_window_size=_LARGEST_WINDOW_BYTES).decompressobj()


def _gzip_decoder() -> _Decoder:
    return zlib.decompressobj(wbits=_GZIP_WBITS)


_DECODERS: dict[str, Callable[[], _Decoder]] = {
    ".tar.zst": _zstd_decoder,
    ".tar.gz": _gzip_decoder,
    ".tgz": _gzip_decoder,
}
COMPRESSED_SUFFIXES = tuple(_DECODERS)


def is_compressed(source: Path) -> bool:
    """Whether the name is that of a compressed tar."""
    return source.name.endswith(COMPRESSED_SUFFIXES)


def unpacked_path(source: Path, scratch: Path) -> Path:
    """Where the plain tar of a compressed one is put."""
    return scratch / f"{source.name.removesuffix(_suffix(source))}.tar"


def _suffix(source: Path) -> str:
    return next(suffix for suffix in COMPRESSED_SUFFIXES if source.name.endswith(suffix))


def unpack(sources: Sequence[Path], scratch: Path) -> None:
    """Decompress archives to the scratch folder, except those whose tars stand there already.

    Raises:
        PrepError: there is not enough room, or an archive is truncated or damaged.
    """
    if len({unpacked_path(source, scratch) for source in sources}) < len(sources):
        raise PrepError(f"both archives are named {sources[0].name}; rename one of the files")
    if all(_is_unpacked(source, scratch) for source in sources):
        return
    scratch.mkdir(parents=True, exist_ok=True)
    refusal = f"another build is decompressing in {scratch}; wait for it, or give --scratch"
    with hold_lock(scratch / ".lock", refusal):
        waiting = [source for source in sources if not _is_unpacked(source, scratch)]
        _check_room(waiting, scratch)
        for source in waiting:
            _unpack_one(source, unpacked_path(source, scratch))


def drop_unpacked(sources: Sequence[Path], scratch: Path) -> None:
    """Remove what `unpack` left of these archives, and the folder once nothing else is in it."""
    for source in sources:
        tar = unpacked_path(source, scratch)
        _record_path(tar).unlink(missing_ok=True)
        tar.unlink(missing_ok=True)
    if scratch.is_dir() and not any(scratch.iterdir()):
        scratch.rmdir()


def _record_path(tar: Path) -> Path:
    return tar.with_name(f"{tar.name}.json")


def _is_unpacked(source: Path, scratch: Path) -> bool:
    """Whether an earlier run finished this archive, and neither file has changed since."""
    tar = unpacked_path(source, scratch)
    record = _record_path(tar)
    if not (tar.exists() and record.exists()):
        return False
    return record.read_text(encoding="utf-8") == _record_of(source, tar)


def _record_of(source: Path, tar: Path) -> str:
    status = source.stat()
    fields = {
        "source": source.name,
        "bytes": status.st_size,
        "mtime_ns": status.st_mtime_ns,
        "tar_bytes": tar.stat().st_size,
    }
    return json.dumps(fields)


def _check_room(sources: Sequence[Path], scratch: Path) -> None:
    needs = [_tar_bytes(source) for source in sources]
    needed = sum(size for size, _ in needs)
    about = "" if all(is_stated for _, is_stated in needs) else "about "
    free = shutil.disk_usage(scratch).free
    what = (
        f"decompressing {' and '.join(source.name for source in sources)} takes {about}"
        f"{needed / 1e9:,.3g} x 10^9 bytes in {scratch}, where {free / 1e9:,.3g} x 10^9 are free"
    )
    if needed > free:
        raise PrepError(f"{what}; free space there, or give --scratch on another disk")
    log.info("%s", what)


def _tar_bytes(source: Path) -> tuple[int, bool]:
    """Size of the plain tar, and whether the file states it; otherwise it is an estimate.

    A stated size below the file's own is that of the first of many zstd frames.
    """
    packed = source.stat().st_size
    if _suffix(source) == ".tar.zst":
        with source.open("rb") as stream:
            head = stream.read(_ZSTD_HEADER_BYTES)
        try:
            stated = zstandard.frame_content_size(head)
        except zstandard.ZstdError as error:
            raise PrepError(f"{source} is no zstd file ({error}); download it again") from error
        if stated >= packed:
            return stated, True
    return int(packed * TAR_RATIO), False


def _unpack_one(source: Path, tar: Path) -> None:
    packed_md5 = hashlib.md5(usedforsecurity=False)
    tar_md5 = hashlib.md5(usedforsecurity=False)
    total = source.stat().st_size
    try:
        with (
            whole_file(tar) as partial,
            partial.open("wb") as target,
            progress_bar(total, f"bytes of {source.name} decompressed") as advance,
            ThreadPoolExecutor(2) as pool,
        ):
            hashing: tuple[Future[None], ...] = ()
            for packed, content in _decoded(source):
                wait(hashing)
                hashing = (
                    pool.submit(packed_md5.update, packed),
                    pool.submit(tar_md5.update, content),
                )
                target.write(content)
                advance(len(packed))
    except OSError as error:
        raise PrepError(
            f"{source} cannot be decompressed to {tar}: {error.strerror}; "
            "free space or repair the disk, and run the same command again"
        ) from error
    write_text(_record_path(tar), _record_of(source, tar))
    sums = ArchiveSums(packed_md5.hexdigest(), tar_md5.hexdigest())
    compare_with_published(source.name, sums)


def _decoded(source: Path) -> Iterator[tuple[bytes, bytes]]:
    """Blocks of the compressed file, each with what it decodes to.

    Raises:
        PrepError: the file is truncated or damaged.
    """
    new_decoder = _DECODERS[_suffix(source)]
    decoder = new_decoder()
    position = 0
    with source.open("rb") as stream:
        while packed := stream.read(_BLOCK_BYTES):
            try:
                decoder, content = _decode(packed, decoder, new_decoder)
            except (zlib.error, zstandard.ZstdError) as error:
                raise PrepError(
                    f"{source} is damaged at or after byte {position:,} ({error}); "
                    "download it again"
                ) from error
            position += len(packed)
            yield packed, content
    if not decoder.eof:
        raise PrepError(f"{source} is truncated at byte {position:,}; download it again")


def _decode(
    packed: bytes, decoder: _Decoder, new_decoder: Callable[[], _Decoder]
) -> tuple[_Decoder, bytes]:
    """What a block decodes to, whatever number of frames it touches, and the decoder to go on."""
    contents = []
    while packed := packed.lstrip(b"\0") if decoder.eof else packed:  # padding between frames
        if decoder.eof:
            decoder = new_decoder()
        contents.append(decoder.decompress(packed))
        packed = decoder.unused_data
    return decoder, b"".join(contents)
