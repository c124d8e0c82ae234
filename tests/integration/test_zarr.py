"""Datasets as Zarr: values of the tars, no gaps where pairs were rejected, open to others."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import xarray
import zarr

import bigearth_prep
from bigearth_prep import pipeline, zarr_repack
from bigearth_prep.bands import select_bands
from bigearth_prep.card import CARD_NAME, read_card
from bigearth_prep.errors import PrepError
from bigearth_prep.manifest import read_manifest
from bigearth_prep.shard_task import ShardTask, make_shard
from dinomm_train.data.index import StoredDataset
from dinomm_train.errors import TrainError
from tests.archive_fixture import build, copy_archive, problems_of, tree_bytes

SHARD_MB = 0.5
"""Two samples."""

SPLITS = ("train", "validation", "test")


def spoil(archive: Path, keys: list[str]) -> None:
    """Make these patches lack a band."""
    for key in keys:
        next((archive / "BigEarthNet-S2").glob(f"*/{key}/*_B05.tif")).unlink()


def array_of(dataset: Path, split: str, name: str) -> np.ndarray:
    """A whole array, read by zarr-python."""
    return np.asarray(zarr.open_array(dataset / f"{split}.zarr" / name, mode="r")[:])


def assert_same_values(dataset: Path, tars: Path, split: str) -> None:
    samples = list(bigearth_prep.open_dataset(tars, split))  # type: ignore[call-overload]
    for name in ("s2", "s1", "labels"):
        found, expected = array_of(dataset, split, name), np.stack([item[name] for item in samples])
        assert found.dtype == expected.dtype
        assert np.array_equal(found, expected)
    assert array_of(dataset, split, "key").tolist() == [item["key"] for item in samples]
    for index, item in enumerate(samples):
        own = bigearth_prep.open_dataset(dataset, split)[index]
        assert all(np.array_equal(own[name], item[name]) for name in item)


@pytest.fixture(scope="module")
def plain(v2_archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The archive as tars."""
    out = tmp_path_factory.mktemp("plain") / "out"
    build(v2_archive, out, shard_mb=SHARD_MB)
    return out


@pytest.fixture(scope="module")
def ragged(
    v2_archive: Path, plain: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path]:
    """An archive that spoils the first, a middle and a whole shard of train, and it as tars."""
    folder = tmp_path_factory.mktemp("ragged")
    rows = [row for row in read_manifest(plain).to_pylist() if row["split"] == "train"]
    names = list(dict.fromkeys(row["shard"] for row in rows))
    assert len(names) >= 4
    bad = {rows[0]["key"]} | {row["key"] for row in rows if row["shard"] == names[1]}
    spoil(copy_archive(v2_archive, folder / "archive"), sorted(bad))
    build(folder / "archive", folder / "tars", shard_mb=SHARD_MB)
    return folder / "archive", folder / "tars"


@pytest.mark.parametrize("scheme", ["paper", "zscore", "none"])
@pytest.mark.parametrize("shard_format", ["zarr", "both"])
def test_zarr_python_reads_the_values_of_the_tars(
    v2_archive: Path, tmp_path: Path, scheme: str, shard_format: str
) -> None:
    build(v2_archive, tmp_path / "tars", scheme=scheme)
    build(v2_archive, tmp_path / "out", scheme=scheme, shard_format=shard_format, shard_mb=SHARD_MB)
    assert problems_of(tmp_path / "out") == []
    for split in SPLITS:
        assert_same_values(tmp_path / "out", tmp_path / "tars", split)


def test_xarray_opens_a_group_with_named_bands_and_classes(
    v2_archive: Path, tmp_path: Path
) -> None:
    build(v2_archive, tmp_path / "out", shard_format="zarr", shard_mb=SHARD_MB)
    with xarray.open_zarr(tmp_path / "out" / "train.zarr", chunks=None) as group:
        assert group["s2"].dims == ("sample", "s2_band", "y", "x")
        assert group["s1"].dims == ("sample", "s1_band", "y", "x")
        assert group["labels"].dims == ("sample", "class")
        sample = bigearth_prep.open_dataset(tmp_path / "out", "train")[2]
        red = group["s2"].sel(s2_band="B04")[2]
        assert red.dtype == np.uint8
        assert np.array_equal(red, sample["s2"][3])
        assert group["key"].values[2] == sample["key"]
        assert int(group["labels"].sel({"class": "Pastures"})[2]) == sample["labels"][4]
        assert group.attrs == json.loads((tmp_path / "out" / CARD_NAME).read_text())


def test_inner_chunks_are_samples_and_each_task_wrote_one_shard_file_per_array(
    v2_archive: Path, plain: Path, tmp_path: Path
) -> None:
    build(v2_archive, tmp_path / "out", shard_format="zarr", shard_mb=SHARD_MB)
    for split, part in read_card(plain).splits.items():
        group = zarr.open_group(tmp_path / "out" / f"{split}.zarr", mode="r")
        for sensor, bands in (("s2", 12), ("s1", 2)):
            array = group[sensor]
            assert isinstance(array, zarr.Array)
            assert array.chunks == (1, bands, 120, 120)
            assert array.shards is not None
            assert -(-array.shape[0] // array.shards[0]) == len(part.shards)
            files = list((tmp_path / "out" / f"{split}.zarr" / sensor / "c").glob("*/0/0/0"))
            assert len(files) == len(part.shards)


def test_without_tars_the_manifest_places_samples_in_the_group(
    v2_archive: Path, plain: Path, tmp_path: Path
) -> None:
    build(v2_archive, tmp_path / "out", shard_format="zarr", shard_mb=SHARD_MB)
    assert not list((tmp_path / "out").glob("*/*.tar"))
    before, rows = read_manifest(plain).to_pylist(), read_manifest(tmp_path / "out").to_pylist()
    assert [(row["key"], row["xxh3_64"]) for row in rows] == [
        (row["key"], row["xxh3_64"]) for row in before
    ]
    for split in SPLITS:
        own = [row for row in rows if row["split"] == split]
        assert {row["shard"] for row in own} == {f"{split}.zarr"}
        assert [row["index_in_shard"] for row in own] == list(range(len(own)))
    assert {row["offset_s2"] for row in rows} | {row["offset_s1"] for row in rows} == {None}


def test_with_both_the_tars_and_the_manifest_are_those_of_tars_alone(
    v2_archive: Path, plain: Path, tmp_path: Path
) -> None:
    build(v2_archive, tmp_path / "out", shard_format="both", shard_mb=SHARD_MB)
    both, tars = tree_bytes(tmp_path / "out"), tree_bytes(plain)
    assert all(
        both[name] == tars[name] for name in tars if name.endswith(".tar") or "parquet" in name
    )
    assert any(name.startswith("train.zarr/s2/c/") for name in both)


@pytest.mark.parametrize("shard_format", ["zarr", "both"])
def test_rejected_pairs_leave_no_gap(
    ragged: tuple[Path, Path], tmp_path: Path, shard_format: str
) -> None:
    archive, tars = ragged
    build(archive, tmp_path / "out", shard_format=shard_format, shard_mb=SHARD_MB)
    assert problems_of(tmp_path / "out") == []
    assert_same_values(tmp_path / "out", tars, "train")
    keys = read_manifest(tars).column("key")
    assert read_manifest(tmp_path / "out").column("key").equals(keys)


def test_a_split_whose_pairs_all_are_bad_has_no_group(
    v2_archive: Path, plain: Path, tmp_path: Path
) -> None:
    archive = copy_archive(v2_archive, tmp_path / "archive")
    rows = read_manifest(plain).to_pylist()
    spoil(archive, [row["key"] for row in rows if row["split"] == "test"])
    card = build(archive, tmp_path / "out", shard_format="zarr", shard_mb=SHARD_MB).card
    assert set(card.splits) == {"train", "validation"}
    assert problems_of(tmp_path / "out") == []
    assert not (tmp_path / "out" / "test.zarr").exists()


def test_one_sensor_alone_is_a_group_too(v2_archive: Path, tmp_path: Path) -> None:
    build(
        v2_archive,
        tmp_path / "out",
        bands=select_bands(["VV"]),
        shard_format="zarr",
        shard_mb=SHARD_MB,
    )
    assert problems_of(tmp_path / "out") == []
    group = zarr.open_group(tmp_path / "out" / "train.zarr", mode="r")
    assert set(group.array_keys()) == {"s1", "labels", "key", "s1_band", "class"}
    assert bigearth_prep.open_dataset(tmp_path / "out", "train")[0]["s1"].shape == (1, 120, 120)


def dies_at(function: Callable[..., object], call: int) -> Callable[..., object]:
    """The function, until it is called for this time."""
    calls = 0

    def dying(*arguments: object) -> object:
        nonlocal calls
        calls += 1
        if calls > call:
            raise KeyboardInterrupt
        return function(*arguments)

    return dying


@pytest.mark.parametrize(
    ("module", "name", "call"),
    [
        (pipeline, "make_shard", 2),
        (zarr_repack, "repack_shard", 1),
        (zarr_repack, "move_into_place", 1),
        (zarr_repack, "move_into_place", 3),
        (pipeline, "write_bytes", 4),
    ],
)
def test_an_interrupted_build_goes_on_to_the_same_bytes(
    ragged: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    module: object,
    name: str,
    call: int,
) -> None:
    build(ragged[0], tmp_path / "whole", shard_format="zarr", shard_mb=SHARD_MB)
    with monkeypatch.context() as patch:
        patch.setattr(module, name, dies_at(getattr(module, name), call))
        with pytest.raises(KeyboardInterrupt):
            build(ragged[0], tmp_path / "out", shard_format="zarr", shard_mb=SHARD_MB)
    assert not (tmp_path / "out" / CARD_NAME).exists()
    build(ragged[0], tmp_path / "out", shard_format="zarr", shard_mb=SHARD_MB)
    assert tree_bytes(tmp_path / "out") == tree_bytes(tmp_path / "whole")


def test_finished_shard_files_are_kept_and_damaged_ones_made_again(
    v2_archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "make_shard", dies_at(make_shard, 2))
        with pytest.raises(KeyboardInterrupt):
            build(v2_archive, tmp_path / "out", shard_format="zarr", shard_mb=SHARD_MB)
    written: list[str] = []
    first, second = sorted((tmp_path / "out" / "train.zarr" / "s1" / "c").glob("*/0/0/0"))
    second.write_bytes(second.read_bytes()[:-1] + b"?")
    kept = first.stat().st_mtime_ns

    def noting(task: ShardTask) -> int:
        written.append(task.name)
        return make_shard(task)

    monkeypatch.setattr(pipeline, "make_shard", noting)
    build(v2_archive, tmp_path / "out", shard_format="zarr", shard_mb=SHARD_MB)
    assert first.stat().st_mtime_ns == kept
    assert problems_of(tmp_path / "out") == []


@pytest.fixture(scope="module")
def zarr_dataset(v2_archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("zarr") / "out"
    build(v2_archive, out, shard_format="zarr", shard_mb=SHARD_MB)
    return out


def test_building_again_notices_a_lost_shard_file_and_another_format(
    zarr_dataset: Path, v2_archive: Path, tmp_path: Path
) -> None:
    shutil.copytree(zarr_dataset, tmp_path / "out")
    assert build(v2_archive, tmp_path / "out", shard_format="zarr", shard_mb=SHARD_MB).was_complete
    with pytest.raises(PrepError, match="format was zarr, is both"):
        build(v2_archive, tmp_path / "out", shard_format="both", shard_mb=SHARD_MB)
    (tmp_path / "out" / "train.zarr" / "s2/c/0/0/0/0").unlink()
    with pytest.raises(PrepError, match=r"damaged: train.zarr/s2/c/0/0/0/0"):
        build(v2_archive, tmp_path / "out", shard_format="zarr", shard_mb=SHARD_MB)


def test_the_trainer_says_that_it_needs_tars(zarr_dataset: Path) -> None:
    with pytest.raises(TrainError, match="--format both"):
        StoredDataset.open(zarr_dataset)


def test_a_missing_zarr_shard_file_is_one_message(zarr_dataset: Path, tmp_path: Path) -> None:
    shutil.copytree(zarr_dataset, tmp_path / "out")
    (tmp_path / "out" / "train.zarr" / "s2/c/0/0/0/0").unlink()
    with pytest.raises(PrepError, match=r"train.zarr/s2/c/0/0/0/0: .*run verify"):
        bigearth_prep.open_dataset(tmp_path / "out", "train")[0]
