"""A finished dataset, opened."""

import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import xxhash

from dinomm_train.data.index import StoredDataset
from dinomm_train.errors import TrainError
from tests.shard_fixture import edit_card, edit_manifest, make_dataset


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    return make_dataset(tmp_path / "dataset", size_px=4)


def test_the_checksum_is_that_of_the_card(dataset: Path) -> None:
    content = (dataset / "dataset.json").read_bytes()
    assert StoredDataset.open(dataset).checksum == xxhash.xxh3_128_hexdigest(content)


def test_opening_a_dataset_leaves_no_thread_to_the_end_of_the_process(dataset: Path) -> None:
    told = subprocess.run(
        [sys.executable, "-c", _COUNT_THREADS, str(dataset)],
        capture_output=True,
        text=True,
        check=True,
    )
    before, after = told.stdout.split()
    assert before == after


_COUNT_THREADS = """
import sys
from pathlib import Path
from dinomm_train.data.index import StoredDataset
def count():
    return len(list(Path("/proc/self/task").iterdir()))
before = count()
split = StoredDataset.open(Path(sys.argv[1])).split("train")
print(before, count())
"""


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


def test_a_manifest_that_is_not_the_one_of_the_card_is_refused(dataset: Path) -> None:
    checksum = xxhash.xxh3_128_hexdigest((dataset / "manifest.parquet").read_bytes())
    edit_card(dataset, lambda fields: fields.update(tables={"manifest.parquet": checksum}))
    assert len(StoredDataset.open(dataset).manifest) == 40
    edit_manifest(dataset, lambda rows: rows.reverse())
    with pytest.raises(TrainError, match=rf"manifest\.parquet .* the card says {checksum}.*copy"):
        StoredDataset.open(dataset)


def test_a_card_that_names_no_manifest_opens_with_any(dataset: Path) -> None:
    edit_manifest(dataset, lambda rows: rows.reverse())
    assert len(StoredDataset.open(dataset).manifest) == 40
