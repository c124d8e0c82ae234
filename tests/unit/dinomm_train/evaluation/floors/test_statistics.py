import numpy as np
import torch

from bigearth_prep.bands import Sensor
from dinomm_train.evaluation.floors.statistics import ChannelStatistics

CHANNELS: tuple[Sensor, ...] = ("s2", "s2", "s1")


def test_numbers_are_those_of_the_centre_crop_channel_by_channel() -> None:
    images = torch.randn(2, 3, 10, 10, generator=torch.Generator().manual_seed(0))
    found = ChannelStatistics(CHANNELS, crop_px=6).encode(images, "s1+s2").reshape(2, 4, 3)
    pixels = images[:, :, 2:8, 2:8].numpy()
    axes = (2, 3)
    expected = [one(axis=axes) for one in (pixels.mean, pixels.std, pixels.min, pixels.max)]
    for row, numbers in enumerate(expected):
        np.testing.assert_allclose(found[:, row], numbers, atol=1e-6)


def test_a_missing_sensor_leaves_no_trace() -> None:
    images = torch.rand(2, 3, 8, 8)
    changed = images.clone()
    changed[:, 2] = 7.0
    floor = ChannelStatistics(CHANNELS, crop_px=8)
    assert torch.equal(floor.encode(images, "s2"), floor.encode(changed, "s2"))
    assert not torch.equal(floor.encode(images, "s1"), floor.encode(changed, "s1"))
