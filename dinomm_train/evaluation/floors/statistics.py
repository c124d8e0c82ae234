"""Four numbers per channel: what can be told of a patch without looking at its texture."""

import torch
from jaxtyping import Float32
from torch import Tensor

from bigearth_prep.bands import Sensor
from dinomm_train.evaluation.config import SensorSet
from dinomm_train.evaluation.encoders import Columns, Encoder
from dinomm_train.evaluation.images import present_channels


class ChannelStatistics(Encoder):
    """Mean, standard deviation, least and greatest value of every channel that is there."""

    def __init__(self, channel_sensors: tuple[Sensor, ...], *, crop_px: int) -> None:
        self._channel_sensors = channel_sensors
        self._crop_px = crop_px
        self.origin = "mean, standard deviation, minimum and maximum of each channel"
        self.checksum = f"channel-statistics-{crop_px}-{','.join(channel_sensors)}"
        self.width = 4 * len(channel_sensors)
        self.plain = Columns(name="statistics", start=0, stop=self.width)
        self.choices = (self.plain,)

    def encode(
        self, images: Float32[Tensor, "batch channel height width"], sensors: SensorSet
    ) -> Float32[Tensor, "batch feature"]:
        """See the base class; a missing channel's four numbers are zero."""
        top, left = ((side - self._crop_px) // 2 for side in images.shape[-2:])
        pixels = images[:, :, top : top + self._crop_px, left : left + self._crop_px].flatten(2)
        std, mean = torch.std_mean(pixels, dim=2, correction=0)
        least, greatest = torch.aminmax(pixels, dim=2)
        numbers = torch.stack([mean, std, least, greatest], dim=1)
        present = present_channels(self._channel_sensors, sensors, images.device)
        return torch.where(present, numbers, 0.0).flatten(1)
