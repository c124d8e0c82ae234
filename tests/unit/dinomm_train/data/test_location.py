"""Datasets in a folder, staged from one, and far away."""

import json
import logging
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from dinomm_train.data import location
from dinomm_train.data.location import choose_cache_dir, open_dataset
from dinomm_train.data.storage_options import RetryConfig, StorageOptions
from dinomm_train.data.stream import ShardReader
from dinomm_train.errors import TrainError
from tests.shard_fixture import make_dataset
from tests.unreliable_server import UnreliableServer, serve

QUICK = RetryConfig(attempts=2, pause_s=0.01, stall_s=0.5)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_dataset(tmp_path / "dataset", size_px=4)


@pytest.fixture
def server(folder: Path) -> Iterator[UnreliableServer]:
    with serve(folder) as running:
        yield running


@pytest.fixture
def storage(tmp_path: Path) -> StorageOptions:
    return StorageOptions(cache_dir=tmp_path / "cache", retry=QUICK)


def cached(tmp_path: Path) -> set[str]:
    return {path.name for path in (tmp_path / "cache").rglob("*.tar")}


def test_a_folder_is_read_where_it_lies(folder: Path) -> None:
    stored = open_dataset(folder)
    assert stored.location == str(folder)
    assert stored.store.room is None


def test_a_remote_dataset_reads_like_the_folder_it_is_served_from(
    server: UnreliableServer, folder: Path, storage: StorageOptions, tmp_path: Path
) -> None:
    local, remote = open_dataset(folder), open_dataset(server.url, storage)
    assert (remote.location, remote.checksum) == (server.url, local.checksum)
    assert remote.manifest.equals(local.manifest)
    assert not cached(tmp_path)
    positions = np.array([3, 21])
    mine, other = (ShardReader(one.split("train")).read(positions) for one in (remote, local))
    assert np.array_equal(mine.s2, other.s2)
    assert np.array_equal(mine.s1, other.s1)
    assert cached(tmp_path) == {"shard-000000.tar", "shard-000002.tar"}


def test_card_and_manifest_of_a_known_dataset_come_from_the_cache(
    server: UnreliableServer, storage: StorageOptions
) -> None:
    open_dataset(server.url, storage)
    open_dataset(server.url, storage)
    assert (server.served["dataset.json"], server.served["manifest.parquet"]) == (2, 1)


def test_a_remote_dataset_that_has_changed_is_another_one(
    server: UnreliableServer, folder: Path, storage: StorageOptions
) -> None:
    first = open_dataset(server.url, storage)
    card = json.loads((folder / "dataset.json").read_text())
    (folder / "dataset.json").write_text(json.dumps(card | {"created_by": "another build"}))
    second = open_dataset(server.url, storage)
    assert second.checksum != first.checksum
    assert second.path != first.path


def test_a_manifest_of_another_build_is_refused(
    server: UnreliableServer, folder: Path, storage: StorageOptions
) -> None:
    card = json.loads((folder / "dataset.json").read_text())
    card["tables"] = {"manifest.parquet": "0" * 32}
    (folder / "dataset.json").write_text(json.dumps(card))
    with pytest.raises(TrainError, match=r"manifest\.parquet could not be fetched .*expected 0000"):
        open_dataset(server.url, storage)


@pytest.mark.parametrize("change", ["cut", "gone"])
def test_a_remote_shard_that_is_missing_or_of_the_wrong_size_is_refused_before_the_first_step(
    change: str, server: UnreliableServer, folder: Path, storage: StorageOptions
) -> None:
    shard = folder / "train/shard-000001.tar"
    if change == "gone":
        shard.unlink()
    else:
        shard.write_bytes(shard.read_bytes()[:-1])
    expected = r"shard-000001\.tar is missing" if change == "gone" else r"has 30,719 bytes"
    with pytest.raises(TrainError, match=expected):
        open_dataset(server.url, storage)


def test_an_address_without_dataset_is_refused(
    server: UnreliableServer, storage: StorageOptions
) -> None:
    with pytest.raises(TrainError, match=r"nothing/dataset\.json is missing"):
        open_dataset(f"{server.url}/nothing", storage)


def test_a_page_that_is_no_card_is_refused(
    server: UnreliableServer, folder: Path, storage: StorageOptions
) -> None:
    (folder / "dataset.json").write_text("<html>please log in</html>")
    with pytest.raises(TrainError, match=rf"{server.url}: .*not a readable card"):
        open_dataset(server.url, storage)


def test_a_folder_can_be_staged(folder: Path, tmp_path: Path) -> None:
    storage = StorageOptions(stage_dir=tmp_path / "cache", retry=QUICK)
    staged, plain = (open_dataset(folder, one).split("train") for one in (storage, None))
    read = ShardReader(staged).read(np.array([8, 9]))
    assert np.array_equal(read.s2, ShardReader(plain).read(np.array([8, 9])).s2)
    assert cached(tmp_path) == {"shard-000001.tar"}
    # From now on the copy is read.
    (folder / "train/shard-000001.tar").unlink()
    assert np.array_equal(ShardReader(staged).read(np.array([8, 9])).s2, read.s2)


def test_a_damaged_shard_is_not_staged(folder: Path, tmp_path: Path) -> None:
    shard = folder / "train/shard-000001.tar"
    content = bytearray(shard.read_bytes())
    content[900] ^= 1
    shard.write_bytes(content)
    storage = StorageOptions(stage_dir=tmp_path / "cache", retry=QUICK)
    split = open_dataset(folder, storage).split("train")
    with pytest.raises(TrainError, match=r"shard-000001\.tar could not be fetched .*xxh3_128"):
        ShardReader(split).read(np.array([8]))
    assert not cached(tmp_path)


def test_the_cache_lies_where_jobs_keep_their_files_and_says_where(
    server: UnreliableServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert choose_cache_dir({"SLURM_TMPDIR": "/local/job"}) == Path("/local/job")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    assert choose_cache_dir({}) == tmp_path / "tmp"
    monkeypatch.delenv("SLURM_TMPDIR", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    stored = open_dataset(server.url, StorageOptions(cache_gb=2.0))
    assert stored.path.parent == tmp_path / "tmp" / f"dinomm-{os.getuid()}"
    assert stored.store.kept_in == f"{stored.path} (in the home folder)"
    monkeypatch.setenv("HOME", "/elsewhere")
    stored = open_dataset(server.url, StorageOptions(cache_gb=2.0))
    assert stored.store.kept_in == str(stored.path)


@pytest.mark.parametrize("kind", ["tmpfs", "ext4"])
@pytest.mark.parametrize("cache_gb", [0.0, 1.0])
def test_who_keeps_shards_without_bounds_in_memory_is_warned(
    kind: str,
    cache_gb: float,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    device = folder.stat().st_dev
    mounts = tmp_path / "mountinfo"
    mounts.write_text(
        "22 1 0:999999 / / rw,relatime shared:1 - tmpfs elsewhere rw\n"
        f"36 22 {os.major(device)}:{os.minor(device)} / /a\\040b rw shared:2 - {kind} here rw\n"
    )
    monkeypatch.setattr(location, "_MOUNTS", mounts)
    with caplog.at_level(logging.WARNING):
        open_dataset(folder, StorageOptions(stage_dir=tmp_path / "cache", cache_gb=cache_gb))
    is_told = f"{tmp_path / 'cache' / f'dinomm-{os.getuid()}'}, which is memory" in caplog.text
    assert is_told == (kind == "tmpfs" and not cache_gb)
    assert ("--cache-dir" in caplog.text) == is_told
