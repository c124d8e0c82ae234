"""A build killed at any change that it makes to the disk, and started again."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.archive_fixture import build, copy_archive, make_archive, tree_bytes
from tests.kill_fixture import build_killed_at

OPTIONS: dict[str, Any] = {"shard_format": "both", "statistics": "compute", "shard_mb": 0.7}


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight pairs, one of them bad, so that Zarr shards have a gap to close."""
    folder = tmp_path_factory.mktemp("killed")
    copied = copy_archive(make_archive(folder / "whole", "v2", pairs=8), folder / "archive")
    min((copied / "BigEarthNet-S2").glob("*/*/*_B05.tif")).unlink()
    return copied


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """In memory where there is room for it: every start flushes all it writes to the disk."""
    memory = Path("/dev/shm")
    is_roomy = memory.is_dir() and shutil.disk_usage(memory).free > 1 << 28
    with tempfile.TemporaryDirectory(dir=memory if is_roomy else tmp_path) as name:
        yield Path(name)


def kill_everywhere(archive: Path, folder: Path, step: int) -> int:
    """How many moments a build was killed at; each time, the next start gave the same bytes."""
    build(archive, folder / "whole", **OPTIONS)
    expected = tree_bytes(folder / "whole")
    work = folder / "work"
    moment = 1
    while build_killed_at(moment, archive, work / "out", OPTIONS):
        build(archive, work / "out", **OPTIONS)
        assert tree_bytes(work / "out") == expected, moment
        assert [path.name for path in work.iterdir()] == ["out"], moment
        shutil.rmtree(work)
        moment += step
    return moment // step


def test_killed_at_any_of_some_changes_to_the_disk_a_build_goes_on_to_the_same_bytes(
    archive: Path, folder: Path
) -> None:
    assert kill_everywhere(archive, folder, step=29) >= 8


@pytest.mark.slow
def test_killed_at_each_third_change_to_the_disk_a_build_goes_on_to_the_same_bytes(
    archive: Path, folder: Path
) -> None:
    assert kill_everywhere(archive, folder, step=3) >= 80


@pytest.mark.slow
def test_an_overwrite_killed_at_any_change_leaves_the_old_dataset_or_the_new(
    archive: Path, folder: Path
) -> None:
    build(archive, folder / "old")
    build(archive, folder / "new", **OPTIONS)
    old, new = (tree_bytes(folder / name) for name in ("old", "new"))
    work = folder / "work"
    shutil.copytree(folder / "old", work / "out")
    moment = 1
    while build_killed_at(moment, archive, work / "out", {"overwrite": True, **OPTIONS}):
        if (work / "out").exists():
            found = tree_bytes(work / "out")
            complete = {name: found[name] for name in found if not name.startswith(".build/")}
            assert complete in (old, new), moment
        build(archive, work / "out", overwrite=True, **OPTIONS)
        assert tree_bytes(work / "out") == new, moment
        assert [path.name for path in work.iterdir()] == ["out"], moment
        shutil.rmtree(work / "out")
        shutil.copytree(folder / "old", work / "out")
        moment += 19
    assert moment > 60
