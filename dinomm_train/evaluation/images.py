"""Patches of a dataset as the images that a network is given."""

from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float32, Int64
from torch import Tensor
from torch.nn.functional import interpolate

from bigearth_prep.bands import SENSORS, Sensor
from dinomm_train.data.index import StoredDataset
from dinomm_train.data.inputs import InputScaling, to_network_input
from dinomm_train.data.planned_batches import read_batches
from dinomm_train.data.stored_split import StoredSplit
from dinomm_train.errors import TrainError
from dinomm_train.evaluation.config import SENSOR_SETS, ExtractionConfig, SensorSet
from dinomm_train.models.frozen import ExpectedInput, FrozenBackbone
from dinomm_train.transfer import to_device


@dataclass(frozen=True, kw_only=True, slots=True)
class InputSize:
    """How a patch is brought to the size that the network takes."""

    crop_px: int
    """Side of the centre crop, in pixels."""

    input_px: int
    """Side after resizing, in pixels."""

    antialias: bool
    """Whether shrinking averages over the pixels between, as it did in training or not."""


def read_images(
    dataset: StoredDataset,
    split: StoredSplit,
    batches: Sequence[Int64[np.ndarray, " _"]],
    device: torch.device,
) -> Generator[Float32[Tensor, "_ channel height width"]]:
    """The patches at each batch of positions as network input; the next ones are read meanwhile."""
    scaling = InputScaling.of(dataset.card)
    with closing(read_batches(split, batches, pinned=device.type == "cuda")) as stored:
        for batch in stored:
            yield to_network_input(batch, scaling, device)


def in_batches(positions: Int64[np.ndarray, " sample"], size: int) -> list[Int64[np.ndarray, " _"]]:
    """The positions cut into batches of this size, the last one maybe smaller."""
    return [positions[first : first + size] for first in range(0, len(positions), size)]


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
                f"--sensors {sensors}: {dataset.location} holds only {', '.join(sorted(held))}; "
                f"choose {' or '.join(allowed)}"
            )
    return wanted or allowed


def choose_input_size(frozen: FrozenBackbone, patch_px: int, config: ExtractionConfig) -> InputSize:
    """The sides of crop and input for patches of this side.

    Raises:
        TrainError: the crop is larger than a patch, or the network's patches do not tile the input.
    """
    crop_px = choose_crop(patch_px, config)
    token_px = frozen.network.patch_px
    nearest_px = max(1, round(crop_px / token_px)) * token_px
    input_px = config.input_px or nearest_px
    if input_px % token_px:
        raise TrainError(
            f"--input-px {input_px} is not a multiple of the network's {token_px} px patches; "
            f"choose {nearest_px}, or leave it out"
        )
    return InputSize(crop_px=crop_px, input_px=input_px, antialias=frozen.expects.antialias)


def choose_crop(patch_px: int, config: ExtractionConfig) -> int:
    """The side of the centre crop, in pixels.

    Raises:
        TrainError: it is larger than a patch.
    """
    if config.crop_px > patch_px:
        raise TrainError(
            f"--crop-px {config.crop_px} is more than the dataset's patches of {patch_px} px; "
            f"choose at most {patch_px}"
        )
    return config.crop_px or patch_px


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
    kept = present_channels(expects.channel_sensors, sensors, images.device)[:, None, None]
    return torch.where(kept, images, expects.fill)


def present_channels(
    channel_sensors: tuple[Sensor, ...], sensors: SensorSet, device: torch.device
) -> Bool[Tensor, " channel"]:
    """Which channels the sensors of the set measure, given whose each is; nothing is waited for."""
    return to_device(_is_measured(channel_sensors, sensors), device)


def measured_channels(
    channel_sensors: tuple[Sensor, ...], sensors: SensorSet, device: torch.device
) -> Int64[Tensor, " measured"]:
    """Their numbers: choosing by a mask would make a GPU count first, and the host wait."""
    return to_device(np.flatnonzero(_is_measured(channel_sensors, sensors)), device)


def _is_measured(
    channel_sensors: tuple[Sensor, ...], sensors: SensorSet
) -> Bool[np.ndarray, " channel"]:
    wanted = sensors.split("+")
    return np.array([sensor in wanted for sensor in channel_sensors])
