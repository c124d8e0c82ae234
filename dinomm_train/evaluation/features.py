"""Frozen features of whole patches, as both sensors and as each alone."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float32, Int64, UInt8
from torch import Tensor
from torch.nn.functional import interpolate

from bigearth_prep.bands import SENSORS
from dinomm_train.data.index import StoredDataset, StoredSplit
from dinomm_train.data.inputs import InputScaling, to_network_input
from dinomm_train.data.stream import ShardReader, StoredBatch
from dinomm_train.distributed import choose_device
from dinomm_train.errors import TrainError
from dinomm_train.evaluation.config import SENSOR_SETS, ExtractionConfig, SensorSet
from dinomm_train.models.frozen import ExpectedInput, FrozenBackbone


@dataclass(frozen=True, kw_only=True, slots=True)
class InputSize:
    """How a patch is brought to the size that the network takes."""

    crop_px: int
    """Side of the centre crop, in pixels."""

    input_px: int
    """Side after resizing, in pixels."""

    antialias: bool
    """Whether shrinking averages over the pixels between, as it did in training or not."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelledFeatures:
    """One split under one sensor set."""

    features: Float32[Tensor, "sample dim"]
    labels: UInt8[Tensor, "sample class"]

    def __len__(self) -> int:
        return len(self.labels)

    def at(self, positions: Int64[np.ndarray, " chosen"]) -> "LabelledFeatures":
        """The samples at these positions."""
        chosen = torch.from_numpy(positions).to(self.labels.device)
        return LabelledFeatures(features=self.features[chosen], labels=self.labels[chosen])


def embed_split(
    frozen: FrozenBackbone,
    dataset: StoredDataset,
    split: StoredSplit,
    config: ExtractionConfig,
) -> Iterator[dict[SensorSet, Float32[Tensor, "batch dim"]]]:
    """Features of successive batches of the split in stored order, on the CPU.

    Raises:
        TrainError: the patches cannot be brought to a size that the network takes.
    """
    device = choose_device(config.device)
    network = frozen.network.to(device)
    scaling = InputScaling.of(dataset.card)
    size = choose_input_size(frozen, dataset.card.patch.size_px, config)
    for batch in _read_ahead(split, config.batch_size):
        with torch.no_grad():
            images = fit_images(to_network_input(batch, scaling, device), size)
            features = {
                sensors: network(blank_missing(images, frozen.expects, sensors)).cpu()
                for sensors in config.sensor_sets
            }
        yield features


def choose_sensor_sets(
    dataset: StoredDataset, wanted: tuple[SensorSet, ...]
) -> tuple[SensorSet, ...]:
    """The wanted sensor sets, or all that the dataset allows where none is wanted.

    Raises:
        TrainError: a wanted set holds a sensor that the dataset lacks.
    """
    held = {sensor for sensor in SENSORS if dataset.card.sensor_bands(sensor)}
    allowed = tuple(one for one in SENSOR_SETS if set(one.split("+")) <= held)
    for sensors in wanted:
        if sensors not in allowed:
            raise TrainError(
                f"--sensors {sensors}: {dataset.path} holds only {', '.join(sorted(held))}; "
                f"choose {' or '.join(allowed)}"
            )
    return wanted or allowed


def choose_input_size(frozen: FrozenBackbone, patch_px: int, config: ExtractionConfig) -> InputSize:
    """The sides of crop and input for patches of this side.

    Raises:
        TrainError: the crop is larger than a patch, or the network's patches do not tile the input.
    """
    crop_px = config.crop_px or patch_px
    if crop_px > patch_px:
        raise TrainError(
            f"--crop-px {crop_px} is more than the dataset's patches of {patch_px} px; "
            f"choose at most {patch_px}"
        )
    token_px = frozen.network.patch_px
    nearest_px = max(1, round(crop_px / token_px)) * token_px
    input_px = config.input_px or nearest_px
    if input_px % token_px:
        raise TrainError(
            f"--input-px {input_px} is not a multiple of the network's {token_px} px patches; "
            f"choose {nearest_px}, or leave it out"
        )
    return InputSize(crop_px=crop_px, input_px=input_px, antialias=frozen.expects.antialias)


def fit_images(
    images: Float32[Tensor, "batch channel height width"], size: InputSize
) -> Float32[Tensor, "batch channel side side"]:
    """The centre of each image, resized (bicubic) where sides differ."""
    top, left = ((side - size.crop_px) // 2 for side in images.shape[-2:])
    cropped = images[:, :, top : top + size.crop_px, left : left + size.crop_px]
    if size.input_px == size.crop_px:
        return cropped
    target = (size.input_px, size.input_px)
    return interpolate(cropped, size=target, mode="bicubic", antialias=size.antialias)


def blank_missing(
    images: Float32[Tensor, "batch channel height width"],
    expects: ExpectedInput,
    sensors: SensorSet,
) -> Float32[Tensor, "batch channel height width"]:
    """The images with the fill value in every channel of a sensor that is not in the set."""
    present = [sensor in sensors.split("+") for sensor in expects.channel_sensors]
    kept = torch.tensor(present, device=images.device)[:, None, None]
    return torch.where(kept, images, expects.fill)


def _read_ahead(split: StoredSplit, batch_size: int) -> Iterator[StoredBatch]:
    """The split's batches; the next one is read while the caller works on the last."""
    reader = ShardReader(split)
    positions = np.arange(len(split), dtype=np.int64)
    starts = range(0, len(split), batch_size)
    with ThreadPoolExecutor(max_workers=1) as pool:
        reads = (pool.submit(reader.read, positions[at : at + batch_size]) for at in starts)
        waiting = next(reads, None)
        while waiting is not None:
            batch = waiting.result()
            waiting = next(reads, None)
            yield batch
