"""RandomSensorDrop."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from bigearth_prep.card import Scheme
from dinomm_train.data.index import StoredDataset
from dinomm_train.data.inputs import InputScaling, SensorChannels
from dinomm_train.data.sensor_drop import (
    BOTH,
    S1_DROPPED,
    S2_DROPPED,
    draw_sensor_states,
    drop_sensors,
    warn_of_everyday_fill,
)
from tests.shard_fixture import make_dataset

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


@pytest.mark.parametrize(
    ("scheme", "fill", "is_warned"),
    [
        ("zscore", -1.0, True),
        ("none", -1.0, True),
        ("zscore", 0.0, False),
        ("paper", -1.0, False),
        ("percentile", -1.0, False),
        ("paper", 0.0, False),
    ],
)
def test_a_fill_that_standardized_data_hold_too_is_warned_of(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    *,
    scheme: Scheme,
    fill: float,
    is_warned: bool,
) -> None:
    warn_of_everyday_fill(fill, scaling_of(tmp_path, scheme))
    assert ("with --set views.sensor_drop.fill=0" in caplog.text) == is_warned


@pytest.mark.parametrize(
    "channels",
    [
        SensorChannels(s2=slice(0, 12), s1=slice(12, 12)),
        SensorChannels(s2=slice(0, 0), s1=slice(0, 2)),
    ],
)
def test_where_there_is_one_sensor_no_fill_is_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, channels: SensorChannels
) -> None:
    warn_of_everyday_fill(-1.0, replace(scaling_of(tmp_path, "zscore"), channels=channels))
    assert caplog.text == ""


def scaling_of(folder: Path, scheme: Scheme) -> InputScaling:
    dataset = make_dataset(folder, size_px=8, scheme=scheme, samples={"train": 2})
    return InputScaling.of(StoredDataset.open(dataset).card)
