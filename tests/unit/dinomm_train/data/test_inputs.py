"""From stored values to network input."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from bigearth_prep.bands import SENSORS
from bigearth_prep.card import DatasetCard, Scheme, read_card
from dinomm_train.data.index import StoredDataset
from dinomm_train.data.inputs import InputScaling, to_network_input
from dinomm_train.data.stream import ShardReader, StoredBatch
from dinomm_train.errors import TrainError
from tests.shard_fixture import make_dataset

CPU = torch.device("cpu")


def read_all(path: Path) -> tuple[DatasetCard, StoredBatch]:
    dataset = StoredDataset.open(path)
    return dataset.card, ShardReader(dataset.split("train")).read(np.arange(24))


def stacked(batch: StoredBatch) -> np.ndarray:
    return np.concatenate([batch.s2.astype(np.float64), batch.s1.astype(np.float64)], axis=1)


@pytest.mark.parametrize(("dtype", "top"), [("uint8", 255), ("uint16", 65_535)])
@pytest.mark.parametrize("scheme", ["paper", "percentile"])
def test_codes_are_divided_by_the_highest_code(
    tmp_path: Path, scheme: Scheme, dtype: str, top: int
) -> None:
    card, batch = read_all(make_dataset(tmp_path, scheme=scheme, dtype=dtype, size_px=5))
    scaling = InputScaling.of(card)
    images = to_network_input(batch, scaling, CPU)
    assert images.dtype == torch.float32
    assert np.allclose(images.numpy(), stacked(batch) / top, rtol=1e-6, atol=0)
    assert scaling.valid_range == (0.0, 1.0)


def test_standardized_values_pass_as_they_are(tmp_path: Path) -> None:
    card, batch = read_all(make_dataset(tmp_path, scheme="zscore", size_px=5))
    scaling = InputScaling.of(card)
    images = to_network_input(batch, scaling, CPU)
    assert np.allclose(images.numpy(), stacked(batch), atol=1e-6)
    assert scaling.valid_range is None


def test_native_values_are_standardized_by_the_card(tmp_path: Path) -> None:
    card, batch = read_all(make_dataset(tmp_path, scheme="none", size_px=5))
    images = to_network_input(batch, InputScaling.of(card), CPU)
    for channel, name in enumerate(card.channels):
        band = card.normalization.parameters[name]
        expected = (stacked(batch)[:, channel] - band.mean) / band.std
        assert np.allclose(images[:, channel].numpy(), expected, atol=1e-5)


@pytest.mark.parametrize("scheme", ["paper", "zscore", "percentile", "none"])
def test_network_input_leads_back_to_physical_units(tmp_path: Path, scheme: Scheme) -> None:
    card, batch = read_all(make_dataset(tmp_path, scheme=scheme, size_px=5))
    scaling = InputScaling.of(card)
    images = to_network_input(batch, scaling, CPU).numpy().astype(np.float64)
    physical = (
        images * scaling.physical_per_input[:, None, None] + scaling.physical_at_zero[:, None, None]
    )
    sensors = [card.sensors[sensor] for sensor in SENSORS]
    scale = np.concatenate([sensor.scale for sensor in sensors])[:, None, None]
    offset = np.concatenate([sensor.offset for sensor in sensors])[:, None, None]
    assert np.allclose(physical, stacked(batch) * scale + offset, rtol=1e-5, atol=1e-2)


def test_channels_follow_the_card(tmp_path: Path) -> None:
    card, batch = read_all(make_dataset(tmp_path, size_px=5))
    scaling = InputScaling.of(card)
    assert card.channels[scaling.channels.s1] == ("VH", "VV")
    assert card.channels[scaling.channels.s2] == card.sensor_bands("s2")
    images = to_network_input(batch, scaling, CPU)
    assert np.allclose(images[:, 13], batch.s1[:, 1] / 255)


def test_a_band_without_spread_is_refused(tmp_path: Path) -> None:
    path = make_dataset(tmp_path, scheme="zscore", size_px=5) / "dataset.json"
    fields = json.loads(path.read_text())
    fields["normalization"]["parameters"]["B05"]["std"] = 0.0
    path.write_text(json.dumps(fields))
    with pytest.raises(TrainError, match="normalization of B05 spans 0"):
        InputScaling.of(read_card(tmp_path))
