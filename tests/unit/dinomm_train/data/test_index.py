"""A finished dataset, opened."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import xxhash

from bigearth_prep.labels import multi_hot
from dinomm_train.data.index import StoredDataset
from dinomm_train.errors import TrainError
from tests.shard_fixture import make_dataset


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    return make_dataset(tmp_path / "dataset", size_px=4)


def edit_card(dataset: Path, change: Callable[[dict[str, Any]], None]) -> None:
    path = dataset / "dataset.json"
    fields = json.loads(path.read_text())
    change(fields)
    path.write_text(json.dumps(fields))


def edit_manifest(dataset: Path, change: Callable[[list[dict[str, Any]]], None]) -> None:
    path = dataset / "manifest.parquet"
    table = pq.read_table(path)
    rows = table.to_pylist()
    change(rows)
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), path)


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


def test_the_checksum_is_that_of_the_card(dataset: Path) -> None:
    content = (dataset / "dataset.json").read_bytes()
    assert StoredDataset.open(dataset).checksum == xxhash.xxh3_128_hexdigest(content)


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


@pytest.mark.parametrize("count", [0, 5, 100])
def test_a_split_can_be_cut_down_to_its_first_samples(dataset: Path, count: int) -> None:
    split = StoredDataset.open(dataset).split("train")
    cut = split.first(count)
    assert len(cut) == len(cut.table) == len(cut.labels) == min(count, 24)
    assert len(cut.arrays["s2"].offsets) == len(cut.sample_ids) == min(count, 24)
    assert [cut.key(position) for position in range(len(cut))] == [
        split.key(position) for position in range(len(cut))
    ]


def test_a_folder_without_card_is_no_dataset(tmp_path: Path) -> None:
    with pytest.raises(TrainError, match=r"no dataset\.json"):
        StoredDataset.open(tmp_path)


def test_an_unknown_split_is_refused_with_those_there_are(dataset: Path) -> None:
    with pytest.raises(TrainError, match="'val', it holds train, validation, test"):
        StoredDataset.open(dataset).split("val")


def test_a_missing_shard_is_named(dataset: Path) -> None:
    (dataset / "train/shard-000001.tar").unlink()
    with pytest.raises(TrainError, match=r"shard-000001\.tar is missing"):
        StoredDataset.open(dataset)


def test_a_shard_of_another_size_is_named(dataset: Path) -> None:
    shard = dataset / "test/shard-000000.tar"
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(TrainError, match=r"shard-000000\.tar has 30,719 bytes.*30,720"):
        StoredDataset.open(dataset)


def test_an_unknown_dtype_is_refused(dataset: Path) -> None:
    edit_card(dataset, lambda fields: fields["sensors"]["s2"].update(dtype="complex64"))
    with pytest.raises(TrainError, match="s2 is stored as complex64"):
        StoredDataset.open(dataset)


def test_a_manifest_without_offsets_is_refused(dataset: Path) -> None:
    path = dataset / "manifest.parquet"
    pq.write_table(pq.read_table(path).drop_columns(["offset_s1"]), path)
    with pytest.raises(TrainError, match="lacks the columns offset_s1"):
        StoredDataset.open(dataset)


def test_a_manifest_that_cannot_be_read_is_named(dataset: Path) -> None:
    (dataset / "manifest.parquet").write_bytes(b"not parquet")
    with pytest.raises(TrainError, match=r"manifest\.parquet cannot be read"):
        StoredDataset.open(dataset)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("labels", ["Moon"], "'Moon' is not among"),
        ("shard", "train/shard-9.tar", "names shard train/shard-9.tar"),
        ("offset_s2", 30_720 - 12 * 4 * 4 + 1, "its s2 array ends beyond its shard"),
        ("offset_s1", -1, "its s1 array ends beyond its shard"),
        ("split", "test", "has 23 rows of split train, the card says 24"),
    ],
)
def test_a_manifest_of_another_build_is_refused(
    dataset: Path, field: str, value: object, message: str
) -> None:
    edit_manifest(dataset, lambda rows: rows[3].update({field: value}))
    with pytest.raises(TrainError, match=message):
        StoredDataset.open(dataset).split("train")
