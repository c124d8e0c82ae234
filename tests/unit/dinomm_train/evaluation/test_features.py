from pathlib import Path

import numpy as np
import pytest
import torch
from jaxtyping import Float32
from torch import Tensor

from dinomm_train.data.index import StoredDataset
from dinomm_train.evaluation import features
from dinomm_train.evaluation.config import ExtractionConfig, SensorSet
from dinomm_train.evaluation.encoders import Columns, Encoder
from dinomm_train.evaluation.features import FeatureStore, Share, wait_for
from dinomm_train.evaluation.floors.statistics import ChannelStatistics
from tests.shard_fixture import make_dataset

CPU = torch.device("cpu")
SENSORS: tuple[SensorSet, ...] = ("s2", "s1+s2")
CONFIG = ExtractionConfig(sensor_sets=SENSORS, batch_size=4)


class CountingEncoder(Encoder):
    """The mean of an image, and how many images were seen."""

    def __init__(self, checksum: str = "one") -> None:
        self.origin, self.checksum, self.width, self.seen = "a mean", checksum, 1, 0
        self.plain = Columns(name="mean", start=0, stop=1)
        self.choices = (self.plain,)

    def encode(
        self, images: Float32[Tensor, "batch channel height width"], sensors: SensorSet
    ) -> Float32[Tensor, "batch feature"]:
        self.seen += len(images)
        return images.mean(dim=(1, 2, 3))[:, None] + len(sensors)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> StoredDataset:
    return StoredDataset.open(make_dataset(tmp_path_factory.mktemp("dataset"), size_px=8))


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "PART_SAMPLES", 10)


def computed(cache: Path, dataset: StoredDataset, encoder: Encoder, *shares: Share) -> FeatureStore:
    store = FeatureStore(cache, encoder, dataset)
    splits = {name: dataset.split(name) for name in ("train", "test")}
    for share in shares or (Share(),):
        store.compute("it", splits, CONFIG, device=CPU, share=share)
    return store


def test_features_are_the_encoders_in_stored_order(dataset: StoredDataset, tmp_path: Path) -> None:
    encoder = CountingEncoder()
    store = computed(tmp_path, dataset, encoder)
    assert encoder.seen == 2 * (24 + 8)
    from dinomm_train.evaluation.images import read_images

    split = dataset.split("train")
    (images,) = read_images(dataset, split, [np.arange(24)], CPU)
    expected = images.mean(dim=(1, 2, 3)).numpy()[:, None] + 2
    np.testing.assert_allclose(store.read(split, "s2"), expected, atol=1e-6)


def test_what_is_on_disk_is_not_computed_again(dataset: StoredDataset, tmp_path: Path) -> None:
    store = computed(tmp_path, dataset, CountingEncoder())
    again = CountingEncoder()
    computed(tmp_path, dataset, again)
    assert again.seen == 0
    (store.folder / "train-s2" / "part-000001.npy").unlink()
    computed(tmp_path, dataset, again)
    assert again.seen == 10, "the part that was lost, under the sensor set that was lost"


def test_another_encoder_or_dataset_shares_nothing(dataset: StoredDataset, tmp_path: Path) -> None:
    other = StoredDataset.open(make_dataset(tmp_path / "other", size_px=8, seed=1))
    folders = {
        FeatureStore(tmp_path, CountingEncoder(), dataset).folder,
        FeatureStore(tmp_path, CountingEncoder("two"), dataset).folder,
        FeatureStore(tmp_path, CountingEncoder(), other).folder,
    }
    assert len(folders) == 3


@pytest.mark.parametrize("world", [2, 3])
def test_processes_write_the_bytes_that_one_alone_writes(
    dataset: StoredDataset, tmp_path: Path, world: int
) -> None:
    def encoder() -> Encoder:
        return ChannelStatistics(("s2",) * 12 + ("s1",) * 2, crop_px=8)

    alone = computed(tmp_path / "alone", dataset, encoder()).folder
    shares = [Share(rank=rank, world=world) for rank in range(world)]
    shared = computed(tmp_path / "shared", dataset, encoder(), *shares).folder
    files = sorted(path.relative_to(alone) for path in alone.rglob("*.npy"))
    assert files == sorted(path.relative_to(shared) for path in shared.rglob("*.npy"))
    assert len(files) == 2 * (3 + 1)
    for name in files:
        assert (alone / name).read_bytes() == (shared / name).read_bytes()


def test_a_process_that_dies_leaves_whole_parts_alone(
    dataset: StoredDataset, tmp_path: Path
) -> None:
    class DyingEncoder(CountingEncoder):
        def encode(
            self, images: Float32[Tensor, "batch channel height width"], sensors: SensorSet
        ) -> Float32[Tensor, "batch feature"]:
            if self.seen > 30:
                raise KeyboardInterrupt
            return super().encode(images, sensors)

    with pytest.raises(KeyboardInterrupt):
        computed(tmp_path, dataset, DyingEncoder())
    assert 0 < len(list(tmp_path.rglob("*.npy"))) < 8
    assert not list(tmp_path.rglob("*.partial"))
    rest = CountingEncoder()
    store = computed(tmp_path, dataset, rest)
    assert 0 < rest.seen < 2 * 32
    assert len(store.read(dataset.split("train"), "s2")) == 24


def test_waiting_ends_when_the_last_file_is_there(tmp_path: Path) -> None:
    import threading

    late = tmp_path / "late"
    timer = threading.Timer(0.3, late.touch)
    timer.start()
    wait_for([late])
    assert late.exists()
