"""From stored values to what the network sees, and back to physical units."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float32
from torch import Tensor

from bigearth_prep.bands import SENSORS
from bigearth_prep.card import BandParameters, DatasetCard, Scheme
from dinomm_train.data.stream import StoredBatch
from dinomm_train.errors import TrainError
from dinomm_train.transfer import to_device


@dataclass(frozen=True, kw_only=True, slots=True)
class SensorChannels:
    """Which of the network's input channels each sensor fills."""

    s2: slice
    """Sentinel-2's channels, the first ones."""

    s1: slice
    """Sentinel-1's channels, the last ones."""

    @property
    def has_both(self) -> bool:
        """Whether there is a channel of each sensor."""
        return bool(0 < self.s1.start < self.s1.stop)

    @classmethod
    def of(cls, card: DatasetCard) -> "SensorChannels":
        """The channels of a dataset; an empty slice for a sensor it lacks."""
        optical, all_of_them = len(card.sensor_bands("s2")), len(card.channels)
        return cls(s2=slice(0, optical), s1=slice(optical, all_of_them))


@dataclass(frozen=True, kw_only=True, slots=True)
class InputScaling:
    """How stored values become network input, channel by channel in the network's order.

    `network = stored * gain + bias`, and `physical = network * physical_per_input +
    physical_at_zero` in reflectance x 10^4 (Sentinel-2) or dB (Sentinel-1).
    """

    channels: SensorChannels
    """Which channels are whose."""

    gain: Float32[np.ndarray, " channel"]
    """Network units per stored unit."""

    bias: Float32[np.ndarray, " channel"]
    """Network input of a stored zero."""

    physical_per_input: Float32[np.ndarray, " channel"]
    """Physical units that one network unit stands for."""

    physical_at_zero: Float32[np.ndarray, " channel"]
    """Physical value of network input 0."""

    valid_range: tuple[float, float] | None
    """What the network input is clipped to after any change; None where it has no bounds."""

    @classmethod
    def of(cls, card: DatasetCard) -> "InputScaling":
        """The scaling of a dataset.

        `paper` and `percentile` data span [0, 1] from their lowest code to their highest (an 8-bit
        code is divided by 255); `zscore` and `none` data have mean 0 and standard deviation 1.

        Raises:
            TrainError: a band's parameters span nothing.
        """
        spans = np.array([_span(card, name) for name in card.channels])
        zero, unit = spans.T
        stored = [card.sensors[sensor] for sensor in SENSORS if sensor in card.sensors]
        scale = np.concatenate([sensor.scale for sensor in stored])
        offset = np.concatenate([sensor.offset for sensor in stored])
        return cls(
            channels=SensorChannels.of(card),
            gain=(scale / unit).astype(np.float32),
            bias=((offset - zero) / unit).astype(np.float32),
            physical_per_input=unit.astype(np.float32),
            physical_at_zero=zero.astype(np.float32),
            valid_range=(0.0, 1.0) if _is_bounded(card.normalization.scheme) else None,
        )


def to_network_input(
    batch: StoredBatch, scaling: InputScaling, device: torch.device
) -> Float32[Tensor, "batch channel height width"]:
    """The batch on the device, both sensors stacked; it travels there in its stored type."""
    count, _, height, width = batch.s2.shape
    images = torch.empty((count, len(scaling.gain), height, width), device=device)
    # From pinned memory the host goes on while the GPU copies; from other memory it waits.
    images[:, scaling.channels.s2] = torch.from_numpy(batch.s2).to(device, non_blocking=True)
    images[:, scaling.channels.s1] = torch.from_numpy(batch.s1).to(device, non_blocking=True)
    gain, bias = (per_channel(values, device) for values in (scaling.gain, scaling.bias))
    return images.mul_(gain).add_(bias)


def per_channel(
    values: Float32[np.ndarray, " channel"], device: torch.device
) -> Float32[Tensor, "channel 1 1"]:
    """One value per channel, shaped to meet a batch of images on the device."""
    return to_device(values, device)[:, None, None]


def _is_bounded(scheme: Scheme) -> bool:
    return scheme in ("paper", "percentile")


def _span(card: DatasetCard, name: str) -> tuple[float, float]:
    """Physical value of network input 0, and how far it is to network input 1."""
    parameters: BandParameters = card.normalization.parameters[name]
    if _is_bounded(card.normalization.scheme):
        zero, unit = parameters.lower, parameters.upper - parameters.lower
    else:
        zero, unit = parameters.mean, parameters.std
    if not unit > 0:
        raise TrainError(
            f"the card's normalization of {name} spans {unit}, expected more than zero; "
            "build the dataset with other --stats"
        )
    return zero, unit
