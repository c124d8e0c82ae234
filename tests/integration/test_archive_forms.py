"""The same dataset, byte for byte, whatever form the archive comes in."""

import gzip
import shutil
import tarfile
from pathlib import Path

import pytest
import zstandard

from bigearth_prep.archive import StorageConfig
from bigearth_prep.synthetic.archive import ArchiveConfig, write_archive
from tests.archive_fixture import build, make_archive, request, tree_bytes

REAL = Path(__file__).parents[3] / "shared" / "real"


def pack(folder: Path, tar: Path) -> Path:
    """The folder in a tar as the archives are published: files only, sorted."""
    with tarfile.open(tar, "w", format=tarfile.GNU_FORMAT) as target:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                target.add(path, arcname=str(path.relative_to(folder.parent)))
    return tar


def compress(tar: Path, suffix: str) -> Path:
    packed = tar.with_name(tar.name + suffix)
    content = tar.read_bytes()
    if suffix == ".zst":
        packed.write_bytes(zstandard.ZstdCompressor(level=6).compress(content))
    else:
        packed.write_bytes(gzip.compress(content))
    tar.unlink()
    return packed


def built(archive: Path, out: Path, s2: Path, s1: Path) -> dict[str, bytes]:
    storage = StorageConfig(scratch=out.with_name(f"{out.name}.scratch"))
    build(archive, out, s2=s2, s1=s1, storage=storage)
    assert not storage.scratch.exists()
    # The options used name the archive's place.
    return {name: content for name, content in tree_bytes(out).items() if name != "build.toml"}


@pytest.mark.parametrize("layout", ["v1", "v2", "real"])
@pytest.mark.parametrize("suffix", ["", ".zst", ".gz"])
def test_folders_tars_and_compressed_tars_give_the_same_bytes(
    tmp_path: Path, v1_archive: Path, v2_archive: Path, layout: str, suffix: str
) -> None:
    if layout == "real" and not REAL.exists():
        pytest.skip("real patches are not at hand")
    archive = {"v1": v1_archive, "v2": v2_archive, "real": REAL / "v1"}[layout]
    folders = request(archive)
    expected = built(archive, tmp_path / "from_folders", folders.s2, folders.s1)
    tars = [pack(folder, tmp_path / f"{folder.name}.tar") for folder in (folders.s2, folders.s1)]
    if suffix:
        tars = [compress(tar, suffix) for tar in tars]
    assert built(archive, tmp_path / "from_tars", *tars) == expected


def test_the_made_up_archive_is_the_same_in_tars_and_in_folders(tmp_path: Path) -> None:
    folders = make_archive(tmp_path / "folders", "v2", pairs=8)
    packed = tmp_path / "packed"
    summary = write_archive(ArchiveConfig(out=packed, layout="v2", pairs=8, seed=5, tar=True))
    source = request(folders)
    expected = built(folders, tmp_path / "one", source.s2, source.s1)
    assert built(folders, tmp_path / "two", summary.s2, summary.s1) == expected


def test_a_tar_cut_short_is_refused_and_its_index_is_made_anew_when_it_is_whole(
    tmp_path: Path, v2_archive: Path
) -> None:
    source = request(v2_archive)
    tar = pack(source.s2, tmp_path / "BigEarthNet-S2.tar")
    whole = shutil.copy(tar, tmp_path / "whole")
    tar.write_bytes(tar.read_bytes()[: tar.stat().st_size // 2])
    with pytest.raises(Exception, match="truncated"):
        build(v2_archive, tmp_path / "out", s2=tar)
    shutil.move(whole, tar)
    summary = build(v2_archive, tmp_path / "out", s2=tar)
    assert summary.rejected == {}
