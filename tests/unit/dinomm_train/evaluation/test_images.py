import dataclasses

import cv2
import numpy as np
import pytest
import torch

from dinomm_train.data.index import StoredDataset
from dinomm_train.data.inputs import InputScaling, to_network_input
from dinomm_train.data.stream import ShardReader
from dinomm_train.errors import TrainError
from dinomm_train.evaluation.config import SENSOR_SETS, ExtractionConfig, SensorSet
from dinomm_train.evaluation.images import (
    InputSize,
    blank_missing,
    choose_input_size,
    choose_sensor_sets,
    fit_images,
    read_images,
)
from dinomm_train.models.frozen import FrozenBackbone, expected_input, untrained
from tests.checkpoint_fixture import TINY_MODEL, TINY_RUN
from tests.shard_fixture import make_dataset


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> StoredDataset:
    return StoredDataset.open(make_dataset(tmp_path_factory.mktemp("dataset"), size_px=40))


@pytest.fixture
def frozen(dataset: StoredDataset) -> FrozenBackbone:
    expects = expected_input(dataset.card, TINY_RUN.views)
    return untrained(TINY_MODEL, expects, seed=0, origin="a network")


def extraction(*, crop_px: int = 0, input_px: int = 0) -> ExtractionConfig:
    return ExtractionConfig(
        sensor_sets=SENSOR_SETS, device="cpu", crop_px=crop_px, input_px=input_px
    )


def test_images_are_the_patches_at_the_positions_in_the_order_asked_for(
    dataset: StoredDataset,
) -> None:
    split, device = dataset.split("train"), torch.device("cpu")
    batches = [np.array(one, dtype=np.int64) for one in ([5, 1, 20], [0], [23, 2])]
    found = torch.cat(list(read_images(dataset, split, batches, device)))
    scaling = InputScaling.of(dataset.card)
    for image, position in zip(found, np.concatenate(batches), strict=True):
        stored = ShardReader(split).read(np.array([position], dtype=np.int64))
        assert torch.equal(image, to_network_input(stored, scaling, device)[0])


def test_a_network_without_patches_is_given_none(dataset: StoredDataset) -> None:
    assert list(read_images(dataset, dataset.split("test"), [], torch.device("cpu"))) == []


@pytest.mark.parametrize(("sensors", "blank"), [("s1", slice(12)), ("s2", slice(12, 14))])
def test_a_missing_sensor_holds_the_fill_value_and_the_other_is_untouched(
    frozen: FrozenBackbone, sensors: SensorSet, blank: slice
) -> None:
    images = torch.rand(2, 14, 8, 8)
    expected = images.clone()
    expected[:, blank] = -1.5
    assert torch.equal(blank_missing(images, frozen.expects, sensors), expected)
    assert torch.equal(blank_missing(images, frozen.expects, "s1+s2"), images)


@pytest.mark.parametrize("input_px", [24, 8])
def test_resizing_equals_opencvs_cubic_on_the_centre(input_px: int) -> None:
    image = np.random.default_rng(0).random((20, 20), dtype=np.float32)
    images = torch.from_numpy(image)[None, None]
    fitted = fit_images(images, InputSize(crop_px=12, input_px=input_px, antialias=False))
    expected = cv2.resize(image[4:16, 4:16], (input_px, input_px), interpolation=cv2.INTER_CUBIC)
    np.testing.assert_allclose(fitted[0, 0].numpy(), expected, atol=1e-5)


def test_antialiasing_averages_over_what_shrinking_would_skip() -> None:
    stripes = torch.tensor([1.0, 0.0, 0.0, 0.0]).repeat(32, 8)[None, None]
    shrunk = fit_images(stripes, InputSize(crop_px=32, input_px=8, antialias=True))
    inner = shrunk[:, :, :, 1:-1]
    torch.testing.assert_close(inner, torch.full_like(inner, 0.25), atol=0.05, rtol=0)


@pytest.mark.parametrize(
    ("patch_px", "crop_px", "input_px", "expected"),
    [
        (120, 0, 0, (120, 120)),
        (120, 112, 0, (112, 112)),
        (120, 0, 56, (120, 56)),
        (100, 0, 0, (100, 96)),
        (5, 0, 0, (5, 8)),
    ],
)
def test_input_is_the_whole_patch_unless_asked_otherwise(
    frozen: FrozenBackbone,
    patch_px: int,
    crop_px: int,
    input_px: int,
    expected: tuple[int, int],
) -> None:
    size = choose_input_size(frozen, patch_px, extraction(crop_px=crop_px, input_px=input_px))
    assert (size.crop_px, size.input_px) == expected


def test_a_crop_beyond_the_patch_and_an_untileable_input_are_refused(
    frozen: FrozenBackbone,
) -> None:
    with pytest.raises(TrainError, match="--crop-px 128 is more than the dataset's patches"):
        choose_input_size(frozen, 120, extraction(crop_px=128))
    with pytest.raises(TrainError, match=r"--input-px 60 is not a multiple.*choose 120"):
        choose_input_size(frozen, 120, extraction(input_px=60))


def test_sensor_sets_default_to_what_the_dataset_allows(dataset: StoredDataset) -> None:
    assert choose_sensor_sets(dataset, ()) == SENSOR_SETS
    assert choose_sensor_sets(dataset, ("s2",)) == ("s2",)
    optical_alone = dataclasses.replace(
        dataset,
        card=dataclasses.replace(dataset.card, sensors={"s2": dataset.card.sensors["s2"]}),
    )
    assert choose_sensor_sets(optical_alone, ()) == ("s2",)
    with pytest.raises(TrainError, match=r"--sensors s1\+s2: .* holds only s2; choose s2"):
        choose_sensor_sets(optical_alone, ("s1+s2",))
