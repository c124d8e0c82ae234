import logging
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bigearth_prep.card import MANIFEST_NAME
from dinomm_train.data.index import StoredDataset
from dinomm_train.errors import TrainError
from dinomm_train.evaluation.pipeline import open_splits
from tests.shard_fixture import MANIFEST_SCHEMA, make_dataset


@pytest.mark.parametrize("missing", ["train", "test"])
def test_a_dataset_without_train_or_test_is_refused(tmp_path: Path, missing: str) -> None:
    samples = {"train": 2, "validation": 1, "test": 2} | {missing: 0}
    dataset = StoredDataset.open(make_dataset(tmp_path, samples=samples))
    with pytest.raises(TrainError, match=f"no samples in split {missing}: evaluation learns on"):
        open_splits(dataset)


@pytest.mark.parametrize("bare", ["train", "validation", "test"])
def test_a_split_without_any_label_is_refused(tmp_path: Path, bare: str) -> None:
    folder = make_dataset(tmp_path)
    rows = pq.read_table(folder / MANIFEST_NAME).to_pylist()
    table = pa.Table.from_pylist(
        [row | {"labels": []} if row["split"] == bare else row for row in rows],
        schema=MANIFEST_SCHEMA,
    )
    pq.write_table(table, folder / MANIFEST_NAME)
    with pytest.raises(TrainError, match=f"no sample in split {bare} of .* has a label"):
        open_splits(StoredDataset.open(folder))


def test_a_missing_validation_split_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    dataset = StoredDataset.open(make_dataset(tmp_path, samples={"train": 3, "test": 2}))
    with caplog.at_level(logging.WARNING):
        assert list(open_splits(dataset)) == ["train", "test"]
    assert "has no validation samples; 20 % of the labelled train samples choose" in caplog.text
