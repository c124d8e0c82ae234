"""Compressed tars to plain ones: whole or not at all, checked for room, used again, removed."""

import fcntl
import gzip
import hashlib
import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import zstandard

from bigearth_prep.decompress import (
    TAR_RATIO,
    drop_unpacked,
    is_compressed,
    unpack,
    unpacked_path,
)
from bigearth_prep.errors import PrepError

TAR = np.random.default_rng(0).integers(0, 8, 3_000_000, dtype=np.uint8).tobytes()


def zst(content: bytes) -> bytes:
    return zstandard.ZstdCompressor().compress(content)


def zst_of_unknown_size(content: bytes) -> bytes:
    packer = zstandard.ZstdCompressor(write_content_size=False).compressobj()
    return packer.compress(content) + packer.flush()


def zst_of_many_frames(content: bytes) -> bytes:
    skippable = b"\x50\x2a\x4d\x18" + (4).to_bytes(4, "little") + b"skip"
    return zst(content[:10]) + skippable + zst(content[10:1_000_000]) + zst(content[1_000_000:])


def gz_of_many_members(content: bytes) -> bytes:
    return gzip.compress(content[:10]) + gzip.compress(content[10:]) + bytes(3_000_000)


FORMS: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "zst": ("a.tar.zst", zst),
    "zst of unknown size": ("a.tar.zst", zst_of_unknown_size),
    "zst of many frames": ("a.tar.zst", zst_of_many_frames),
    "gz": ("a.tar.gz", gzip.compress),
    "gz of many members, padded": ("a.tar.gz", gz_of_many_members),
    "tgz": ("a.tgz", gzip.compress),
}


def write(folder: Path, name: str, content: bytes) -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("form", FORMS)
def test_every_form_decompresses_to_the_tar(
    tmp_path: Path, form: str, caplog: pytest.LogCaptureFixture
) -> None:
    name, pack = FORMS[form]
    source = write(tmp_path, name, pack(TAR))
    assert is_compressed(source)
    with caplog.at_level(logging.INFO):
        unpack([source], tmp_path / "scratch")
    assert unpacked_path(source, tmp_path / "scratch") == tmp_path / "scratch" / "a.tar"
    assert (tmp_path / "scratch" / "a.tar").read_bytes() == TAR
    for content in (source.read_bytes(), TAR):
        assert hashlib.md5(content).hexdigest() in caplog.text


def test_a_plain_tar_is_not_compressed() -> None:
    assert not is_compressed(Path("a.tar"))


@pytest.mark.parametrize(
    ("form", "about"),
    [
        ("zst", ""),
        ("zst of unknown size", "about "),
        ("zst of many frames", "about "),
        ("gz", "about "),
    ],
)
def test_room_is_checked_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str, about: str
) -> None:
    name, pack = FORMS[form]
    source = write(tmp_path, name, pack(TAR))
    needed = len(TAR) if form == "zst" else int(source.stat().st_size * TAR_RATIO)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=needed - 1))
    message = f"{name} takes {about}{needed / 1e9:,.3g} x .* bytes in .*scratch.*give --scratch"
    with pytest.raises(PrepError, match=message):
        unpack([source], tmp_path / "scratch")
    assert not list((tmp_path / "scratch").glob("*.tar*"))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=needed))
    unpack([source], tmp_path / "scratch")


def test_room_is_checked_for_all_archives_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources = [write(tmp_path, name, zst(TAR)) for name in ("a.tar.zst", "b.tar.zst")]
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=2 * len(TAR) - 1))
    with pytest.raises(PrepError, match=r"a\.tar\.zst and b\.tar\.zst takes 0\.006 x"):
        unpack(sources, tmp_path / "scratch")


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("keep", [0.0, 0.3, 0.999])
def test_a_truncated_archive_leaves_no_tar(tmp_path: Path, form: str, keep: float) -> None:
    name, pack = FORMS[form]
    packed = pack(TAR).rstrip(b"\0")
    source = write(tmp_path, name, packed[: int(len(packed) * keep)])
    with pytest.raises(PrepError, match=r"(truncated at byte|no zstd file).*download it again"):
        unpack([source], tmp_path / "scratch")
    assert not list((tmp_path / "scratch").glob("a.tar*"))


@pytest.mark.parametrize("form", ["zst", "gz"])
def test_a_damaged_archive_leaves_no_tar(tmp_path: Path, form: str) -> None:
    name, pack = FORMS[form]
    packer = zstandard.ZstdCompressor(write_checksum=True)
    packed = bytearray(packer.compress(TAR) if form == "zst" else pack(TAR))
    packed[len(packed) // 2] ^= 0x55
    source = write(tmp_path, name, bytes(packed))
    with pytest.raises(PrepError, match="is damaged at or after byte"):
        unpack([source], tmp_path / "scratch")
    assert not list((tmp_path / "scratch").glob("a.tar*"))


def test_a_finished_tar_is_used_again_and_a_changed_archive_is_not(tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    source = write(tmp_path, "a.tar.zst", zst(TAR))
    unpack([source], scratch)
    before = (scratch / "a.tar").stat()
    unpack([source], scratch)
    assert (scratch / "a.tar").stat().st_ino == before.st_ino
    status = source.stat()
    os.utime(source, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    unpack([source], scratch)
    remade = (scratch / "a.tar").stat()
    assert remade.st_mtime_ns > before.st_mtime_ns
    write(tmp_path, "a.tar.zst", zst(TAR[::-1]))
    unpack([source], scratch)
    assert (scratch / "a.tar").read_bytes() == TAR[::-1]


def test_nothing_to_unpack_leaves_no_trace(tmp_path: Path) -> None:
    unpack([], tmp_path / "scratch")
    assert not (tmp_path / "scratch").exists()


def test_a_tar_without_its_record_or_of_another_size_is_made_again(tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    source = write(tmp_path, "a.tar.zst", zst(TAR))
    unpack([source], scratch)
    os.truncate(scratch / "a.tar", 1000)
    unpack([source], scratch)
    assert (scratch / "a.tar").read_bytes() == TAR
    (scratch / "a.tar.json").unlink()
    (scratch / "a.tar").write_bytes(b"another")
    unpack([source], scratch)
    assert (scratch / "a.tar").read_bytes() == TAR


def test_archives_of_one_name_do_not_overwrite_each_other(tmp_path: Path) -> None:
    (tmp_path / "s1").mkdir()
    sources = [write(tmp_path, "a.tar.gz", b""), write(tmp_path / "s1", "a.tgz", b"")]
    with pytest.raises(PrepError, match="both archives are named"):
        unpack(sources, tmp_path / "scratch")


def test_what_was_unpacked_is_removed_and_nothing_else(tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    source = write(tmp_path, "a.tar.zst", zst(TAR))
    unpack([source], scratch)
    write(scratch, "thesis.tex", b"years of work")
    drop_unpacked([source], scratch)
    assert [path.name for path in scratch.iterdir()] == ["thesis.tex"]
    (scratch / "thesis.tex").unlink()
    drop_unpacked([source], scratch)
    assert not scratch.exists()
    drop_unpacked([source], scratch)


def test_a_second_build_does_not_write_into_the_same_scratch(tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    source = write(tmp_path, "a.tar.zst", zst(TAR))
    with (scratch / ".lock").open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        with pytest.raises(PrepError, match="another build is decompressing in"):
            unpack([source], scratch)


def test_a_disk_that_fills_up_is_one_message_and_leaves_no_tar(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write(tmp_path, "a.tar.zst", zst(TAR))
    path_open = Path.open

    def open_full(path: Path, mode: str = "r", **options: object) -> object:
        if path.name == "a.tar.partial":
            path.touch()
            return path_open(Path("/dev/full"), "wb")
        return path_open(path, mode, **options)  # type: ignore[call-overload]

    monkeypatch.setattr(Path, "open", open_full)
    with pytest.raises(PrepError, match=r"a\.tar\.zst cannot be decompressed .*No space left"):
        unpack([source], tmp_path / "scratch")
    assert not list((tmp_path / "scratch").glob("a.tar*"))
