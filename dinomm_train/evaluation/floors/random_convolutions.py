"""Random convolutional features (Rolf et al. 2021, doi:10.1038/s41467-021-24638-z)."""

import torch
from jaxtyping import Float32
from torch import Tensor
from torch.nn.functional import conv2d, relu

from bigearth_prep.bands import Sensor
from dinomm_train.errors import TrainError
from dinomm_train.evaluation.config import SensorSet
from dinomm_train.evaluation.encoders import Columns, Encoder
from dinomm_train.evaluation.images import measured_channels

FILTERS = 128
SIDE_PX = 3

STRIDE_PX = 2
"""A filter is applied at every second row and column: a mean over the patch needs no more."""

_IMAGES_AT_ONCE = {"cpu": 4, "cuda": 64}
"""So few that their responses stay in a processor's cache; enough to keep a GPU busy."""


class RandomConvolutions(Encoder):
    """The mean over a patch of relu(x - 1) and relu(-x - 1) for each filter's response x.

    Filters of 3 x 3 pixels hold standard normal numbers and see every channel that is there.
    """

    def __init__(
        self, channel_sensors: tuple[Sensor, ...], *, crop_px: int, seed: int, device: torch.device
    ) -> None:
        """Draw the filters.

        Raises:
            TrainError: the crop is smaller than a filter.
        """
        if crop_px < SIDE_PX:
            raise TrainError(
                f"--crop-px {crop_px} is less than the {SIDE_PX} px of rcf's filters; choose at "
                f"least {SIDE_PX}, or other floors with --floor or --no-floor"
            )
        self._channel_sensors = channel_sensors
        self._crop_px = crop_px
        generator = torch.Generator().manual_seed(seed)
        shape = (FILTERS, len(channel_sensors), SIDE_PX, SIDE_PX)
        self._filters = torch.randn(shape, generator=generator).to(device)
        self.origin = f"{FILTERS} random filters of {SIDE_PX} x {SIDE_PX} px, seed {seed}"
        about = (FILTERS, STRIDE_PX, seed, crop_px, *channel_sensors)
        self.checksum = f"random-convolutions-{'-'.join(map(str, about))}"
        self.width = 2 * FILTERS
        self.plain = Columns(name="filters", start=0, stop=self.width)
        self.choices = (self.plain,)

    def encode(
        self, images: Float32[Tensor, "batch channel height width"], sensors: SensorSet
    ) -> Float32[Tensor, "batch feature"]:
        """See the base class; filters do not see a missing channel."""
        top, left = ((side - self._crop_px) // 2 for side in images.shape[-2:])
        cropped = images[:, :, top : top + self._crop_px, left : left + self._crop_px]
        present = measured_channels(self._channel_sensors, sensors, images.device)
        filters = self._filters[:, present]
        at_once = _IMAGES_AT_ONCE[images.device.type]
        return torch.cat(
            [_means(few, filters) for few in torch.split(cropped[:, present], at_once)]
        )


def _means(images: Tensor, filters: Tensor) -> Tensor:
    responses = conv2d(images, filters, stride=STRIDE_PX)
    return torch.cat([relu(sign * responses - 1).mean(dim=(2, 3)) for sign in (1, -1)], dim=1)
