import hashlib
import tarfile
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from bigearth_prep.errors import PrepError
from bigearth_prep.synthetic.archive import ArchiveConfig, ArchiveSummary, write_archive
from bigearth_prep.synthetic.patch_files import Layout

BOTH: list[Layout] = ["v1", "v2"]


def _write(
    out: Path, layout: Layout = "v2", *, pairs: int = 6, tar: bool = False
) -> ArchiveSummary:
    return write_archive(ArchiveConfig(out=out, layout=layout, pairs=pairs, seed=5, tar=tar))


def _digests(root: Path) -> dict[str, str]:
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def test_a_v1_folder_has_two_flat_roots_and_six_tables(tmp_path: Path) -> None:
    summary = _write(tmp_path / "made", "v1")
    assert summary.s2 == tmp_path / "made" / "BigEarthNet-v1.0"
    assert summary.s1 == tmp_path / "made" / "BigEarthNet-S1-v1.0"
    assert {path.name for path in (tmp_path / "made").iterdir()} == {
        "BigEarthNet-v1.0",
        "BigEarthNet-S1-v1.0",
        *(table.name for table in summary.tables),
    }
    assert len(summary.tables) == 6
    for root, count in ((summary.s2, 13), (summary.s1, 3)):
        patches = list(root.iterdir())
        assert len(patches) == 6
        for patch in patches:
            files = list(patch.iterdir())
            assert len(files) == count
            assert all(path.name.startswith(f"{patch.name}_") for path in files)


def test_a_v2_folder_has_a_level_for_products_and_scenes(tmp_path: Path) -> None:
    summary = _write(tmp_path)
    rows = [row for table in summary.tables for row in pq.read_table(table).to_pylist()]
    assert len(rows) == summary.pairs == 6
    for row in rows:
        product, scene = row["patch_id"].rsplit("_", 2)[0], row["s1_name"].rsplit("_", 3)[0]
        assert len(list((summary.s2 / product / row["patch_id"]).iterdir())) == 12
        assert len(list((summary.s1 / scene / row["s1_name"]).iterdir())) == 2


def test_both_versions_of_one_seed_show_the_same_places_and_labels(tmp_path: Path) -> None:
    v1, v2 = _write(tmp_path / "v1", "v1"), _write(tmp_path / "v2", "v2")
    assert (v1.splits, v1.snow, v1.cloud) == (v2.splits, v2.snow, v2.cloud)
    rows = [row for table in v2.tables for row in pq.read_table(table).to_pylist()]
    for row in rows:
        old, new = v1.s1 / row["s1_name"], v2.s1 / row["s1_name"].rsplit("_", 3)[0] / row["s1_name"]
        name = f"{row['s1_name']}_VV.tif"
        assert (old / name).read_bytes() == (new / name).read_bytes()


@pytest.mark.parametrize("layout", BOTH)
def test_the_same_request_gives_the_same_bytes(tmp_path: Path, layout: Layout) -> None:
    for tar in (False, True):
        _write(tmp_path / f"a{tar}", layout, pairs=3, tar=tar)
        _write(tmp_path / f"b{tar}", layout, pairs=3, tar=tar)
        assert _digests(tmp_path / f"a{tar}") == _digests(tmp_path / f"b{tar}")


@pytest.mark.parametrize("layout", BOTH)
def test_a_tar_holds_the_folder_tree_sorted_by_path(tmp_path: Path, layout: Layout) -> None:
    folder = _write(tmp_path / "folder", layout)
    tarred = _write(tmp_path / "tar", layout, tar=True)
    for root, path in ((folder.s2, tarred.s2), (folder.s1, tarred.s1)):
        with tarfile.open(path) as tar:
            contents: dict[str, Any] = {
                member.name: tar.extractfile(member) for member in tar.getmembers()
            }
            digests = {
                name.removeprefix(f"{root.name}/"): hashlib.sha256(stream.read()).hexdigest()
                for name, stream in contents.items()
            }
        assert list(contents) == sorted(contents)
        assert digests == _digests(root)
    assert [path.name for path in tarred.tables] == [path.name for path in folder.tables]


def test_progress_is_told_of_both_patches_of_every_pair(tmp_path: Path) -> None:
    told: list[int] = []
    write_archive(ArchiveConfig(out=tmp_path, layout="v1", pairs=2, seed=0), told.append)
    assert sum(told) == 4


def test_an_occupied_folder_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(PrepError, match=r"mine\.txt"):
        _write(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_a_file_in_the_way_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    with pytest.raises(PrepError, match="is a file"):
        _write(tmp_path / "out")


def test_an_interrupted_run_leaves_no_archive_and_the_next_one_succeeds(tmp_path: Path) -> None:
    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    config = ArchiveConfig(out=tmp_path / "out", layout="v2", pairs=2, seed=0)
    with pytest.raises(KeyboardInterrupt):
        write_archive(config, interrupt)
    assert not any(path.name.startswith("BigEarthNet") for path in config.out.iterdir())
    write_archive(config)
    write_archive(
        ArchiveConfig(out=tmp_path / "undisturbed", layout="v2", pairs=2, seed=0), lambda _: None
    )
    assert _digests(config.out) == _digests(tmp_path / "undisturbed")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pairs": 0}, "0 pairs"),
        ({"pairs": 10**6}, "1,000,000 pairs"),
        ({"seed": -1}, "-1"),
    ],
)
def test_nonsense_is_refused_before_anything_is_written(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    request: dict[str, Any] = {"out": tmp_path, "layout": "v1", "pairs": 1, "seed": 0}
    with pytest.raises(PrepError, match=message):
        ArchiveConfig(**(request | change))
