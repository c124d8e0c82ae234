"""RandomSensorDrop."""

import numpy as np
import pytest
import torch

from dinomm_train.data.inputs import SensorChannels
from dinomm_train.data.sensor_drop import (
    BOTH,
    S1_DROPPED,
    S2_DROPPED,
    draw_sensor_states,
    drop_sensors,
)

CHANNELS = SensorChannels(s2=slice(0, 3), s1=slice(3, 5))


@pytest.mark.parametrize("probability", [0.0, 0.3, 0.5, 1.0])
def test_half_of_the_drops_go_to_each_sensor(probability: float) -> None:
    count = 20_000
    uniforms = np.random.default_rng(0).random((count, 2))
    states = draw_sensor_states(uniforms, probability)
    expected = {BOTH: 1 - probability, S1_DROPPED: probability / 2, S2_DROPPED: probability / 2}
    for state, share in expected.items():
        std = np.sqrt(count * share * (1 - share))
        assert abs((states == state).sum() - count * share) <= 4 * std


def test_dropped_channels_hold_the_fill_and_others_their_values() -> None:
    crops = torch.rand(3, 5, 4, 4)
    before = crops.clone()
    states = np.array([S2_DROPPED, BOTH, S1_DROPPED], dtype=np.int8)
    left = drop_sensors(crops, states, CHANNELS, fill=-1.0)
    expected = before.clone()
    expected[0, :3] = -1.0
    expected[2, 3:] = -1.0
    assert torch.equal(left, expected)
    assert torch.equal(crops, before)
