"""One split of a dataset: samples in stored order, and where their bytes lie."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import xxhash

from bigearth_prep.labels import multi_hot
from dinomm_train.data.index import StoredDataset
from dinomm_train.errors import TrainError
from tests.shard_fixture import edit_card, edit_manifest, make_dataset


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    return make_dataset(tmp_path / "dataset", size_px=4)


def test_a_split_lists_its_samples_in_stored_order(dataset: Path) -> None:
    split = StoredDataset.open(dataset).split("validation")
    rows = [
        row
        for row in pq.read_table(dataset / "manifest.parquet").to_pylist()
        if row["split"] == "validation"
    ]
    assert len(split) == 8
    assert [split.key(position) for position in range(8)] == [row["key"] for row in rows]
    for position, row in enumerate(rows):
        assert np.array_equal(split.labels[position], multi_hot(row["labels"]))
        assert split.shard_paths[split.shard_of[position]] == dataset / row["shard"]
        assert split.arrays["s1"].offsets[position] == row["offset_s1"]
        assert split.sample_ids[position] == xxhash.xxh3_64_intdigest(row["key"].encode())
    assert split.table["country"].to_pylist() == ["Austria"] * 8


def test_a_split_without_samples_is_empty(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path, samples={"train": 3, "test": 0}, size_px=4)
    split = StoredDataset.open(dataset).split("test")
    assert len(split) == 0
    assert split.labels.shape == (0, 19)


def test_samples_without_labels_have_no_class(dataset: Path) -> None:
    def clear(rows: list[dict[str, Any]]) -> None:
        rows[0]["labels"], rows[1]["labels"] = [], None

    edit_manifest(dataset, clear)
    labels = StoredDataset.open(dataset).split("train").labels
    assert labels[:2].sum() == 0
    assert labels[2:].any(axis=1).all()


def test_a_dataset_may_lack_a_sensor(dataset: Path) -> None:
    edit_card(dataset, lambda fields: fields["sensors"].pop("s1"))

    def clear(rows: list[dict[str, Any]]) -> None:
        for row in rows:
            row["offset_s1"] = None

    edit_manifest(dataset, clear)
    arrays = StoredDataset.open(dataset).split("train").arrays["s1"]
    assert arrays.shape == (0, 4, 4)
    assert arrays.sample_bytes == 0
    assert not arrays.offsets.any()


@pytest.mark.parametrize("count", [0, 5, 100])
def test_a_split_can_be_cut_down_to_its_first_samples(dataset: Path, count: int) -> None:
    split = StoredDataset.open(dataset).split("train")
    cut = split.first(count)
    assert len(cut) == len(cut.table) == len(cut.labels) == min(count, 24)
    assert len(cut.arrays["s2"].offsets) == len(cut.sample_ids) == min(count, 24)
    assert [cut.key(position) for position in range(len(cut))] == [
        split.key(position) for position in range(len(cut))
    ]
    for name in ("sample_ids", "labels", "shard_of"):
        assert np.array_equal(getattr(cut, name), getattr(split, name)[:count])
    for sensor, arrays in split.arrays.items():
        assert np.array_equal(cut.arrays[sensor].offsets, arrays.offsets[:count])


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("labels", ["Moon"], "'Moon' is not among"),
        ("shard", "train/shard-9.tar", "names shard train/shard-9.tar"),
        ("offset_s2", 30_720 - 12 * 4 * 4 + 1, "its s2 array does not lie within its shard"),
        ("offset_s1", -1, "its s1 array does not lie within its shard"),
        ("split", "test", "has 23 rows of split train, the card says 24"),
    ],
)
def test_a_manifest_of_another_build_is_refused(
    dataset: Path, field: str, value: object, message: str
) -> None:
    edit_manifest(dataset, lambda rows: rows[3].update({field: value}))
    with pytest.raises(TrainError, match=message):
        StoredDataset.open(dataset).split("train")


def test_an_array_may_end_where_its_shard_ends(dataset: Path) -> None:
    split = StoredDataset.open(dataset).split("train")
    last = split.shards[split.shard_of[3]].bytes - split.arrays["s2"].sample_bytes
    edit_manifest(dataset, lambda rows: rows[3].update(offset_s2=last))
    assert StoredDataset.open(dataset).split("train").arrays["s2"].offsets[3] == last


def test_a_manifest_with_a_sample_too_many_is_refused(dataset: Path) -> None:
    edit_manifest(dataset, lambda rows: rows.append(dict(rows[3])))
    with pytest.raises(TrainError, match="has 25 rows of split train, the card says 24"):
        StoredDataset.open(dataset).split("train")
