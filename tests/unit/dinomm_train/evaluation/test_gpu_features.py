"""What a GPU would be asked for while features are made and probes are fitted."""

from collections.abc import Callable
from pathlib import Path
from typing import Literal

import pytest
import torch

from bigearth_prep.bands import Sensor
from dinomm_train.data.index import StoredDataset
from dinomm_train.evaluation.config import ExtractionConfig, SensorSet
from dinomm_train.evaluation.encoders import Columns, Encoder, NetworkEncoder
from dinomm_train.evaluation.floors.random_convolutions import RandomConvolutions
from dinomm_train.evaluation.floors.statistics import ChannelStatistics
from dinomm_train.evaluation.protocol_config import LinearConfig
from dinomm_train.evaluation.protocols.linear_probe import fit_linear_probes
from dinomm_train.models.frozen import expected_input, untrained
from tests.checkpoint_fixture import TINY_MODEL, TINY_RUN
from tests.fake_gpu import GPU, NeverWaits, on_gpu, put_on_gpu
from tests.shard_fixture import make_dataset

CHANNELS: tuple[Sensor, ...] = ("s2",) * 12 + ("s1",) * 2


def filters() -> Encoder:
    return RandomConvolutions(CHANNELS, crop_px=20, seed=0, device=GPU)


def statistics() -> Encoder:
    return ChannelStatistics(CHANNELS, crop_px=20)


@pytest.mark.parametrize("sensors", ["s1", "s2", "s1+s2"])
@pytest.mark.parametrize("floor", [filters, statistics])
def test_no_floor_waits_for_the_gpu(
    floor: Callable[[], Encoder], sensors: SensorSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    with on_gpu(monkeypatch):
        encoder = floor()
        images = torch.empty(5, 14, 24, 24, device=GPU)
        with NeverWaits():  # type: ignore[no-untyped-call]
            features = encoder.encode(images, sensors)
        assert features.device == GPU


@pytest.mark.parametrize("sensors", ["s1", "s1+s2"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_no_network_waits_for_the_gpu(
    sensors: SensorSet,
    precision: Literal["fp32", "bf16"],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    dataset = StoredDataset.open(make_dataset(tmp_path, samples={"train": 1}))
    expects = expected_input(dataset.card, TINY_RUN.views)
    frozen = untrained(TINY_MODEL, expects, seed=0, origin="a network")
    config = ExtractionConfig(precision=precision)
    encoder = NetworkEncoder(frozen, patch_px=32, config=config, device=torch.device("cpu"))
    with on_gpu(monkeypatch):
        put_on_gpu(frozen.network)
        images = torch.empty(5, 14, 32, 32, device=GPU)
        with NeverWaits():  # type: ignore[no-untyped-call]
            assert encoder.encode(images, sensors).device == GPU


def test_no_step_of_a_probe_waits_for_the_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    config = LinearConfig(epochs=2, batch_size=4)
    columns = (Columns(name="all", start=0, stop=6),)
    with on_gpu(monkeypatch):
        features = torch.empty(10, 6, device=GPU)
        labels = torch.empty(10, 3, dtype=torch.uint8, device=GPU)
        with NeverWaits():  # type: ignore[no-untyped-call]
            probes = fit_linear_probes(features, labels, columns, config, seed=0)
        assert probes.bias.device == GPU
