import numpy as np
import pytest
import torch

from bigearth_prep.bands import Sensor
from dinomm_train.errors import TrainError
from dinomm_train.evaluation.floors import random_convolutions
from dinomm_train.evaluation.floors.random_convolutions import RandomConvolutions

CHANNELS: tuple[Sensor, ...] = ("s2", "s2", "s1")
CPU = torch.device("cpu")


def floor(seed: int = 0) -> RandomConvolutions:
    return RandomConvolutions(CHANNELS, crop_px=9, seed=seed, device=CPU)


def test_features_equal_a_plain_loop_over_filters_and_places() -> None:
    images = torch.randn(6, 3, 11, 11, generator=torch.Generator().manual_seed(1))
    filters = torch.randn((128, 3, 3, 3), generator=torch.Generator().manual_seed(0))
    found = floor().encode(images, "s1+s2")
    assert found.shape == (6, 256)
    image = images[5, :, 1:10, 1:10].numpy()
    for number in (0, 77, 127):
        responses = [
            float((image[:, y : y + 3, x : x + 3] * filters[number].numpy()).sum())
            for y in range(0, 7, random_convolutions.STRIDE_PX)
            for x in range(0, 7, random_convolutions.STRIDE_PX)
        ]
        above = np.mean([max(0.0, one - 1) for one in responses])
        below = np.mean([max(0.0, -one - 1) for one in responses])
        np.testing.assert_allclose(found[5, [number, 128 + number]], [above, below], atol=1e-4)


def test_a_missing_sensor_leaves_no_trace_and_the_seed_decides() -> None:
    images = torch.rand(2, 3, 9, 9)
    changed = images.clone()
    changed[:, 2] = 7.0
    assert torch.equal(floor().encode(images, "s2"), floor().encode(changed, "s2"))
    assert not torch.equal(floor().encode(images, "s1"), floor().encode(changed, "s1"))
    assert not torch.equal(floor().encode(images, "s2"), floor(1).encode(images, "s2"))
    assert floor().checksum != floor(1).checksum


def test_a_crop_smaller_than_a_filter_is_refused() -> None:
    with pytest.raises(TrainError, match="--crop-px 2 is less than the 3 px of rcf's filters"):
        RandomConvolutions(CHANNELS, crop_px=2, seed=0, device=CPU)
