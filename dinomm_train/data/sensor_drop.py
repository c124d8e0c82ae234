"""RandomSensorDrop (arXiv:2204.05381): crops of which one sensor alone is left."""

import logging

import numpy as np
from jaxtyping import Float32, Float64, Int8
from torch import Tensor

from dinomm_train.data.inputs import InputScaling, SensorChannels
from dinomm_train.transfer import to_device

_log = logging.getLogger(__name__)

BOTH, S1_DROPPED, S2_DROPPED = range(3)
"""What is left of a crop: both sensors, the optics alone, or the radar alone."""

SENSOR_DROP_DRAWS = 2
"""Uniform numbers that one crop takes."""


def draw_sensor_states(
    uniforms: Float64[np.ndarray, "crop draw"], probability: float
) -> Int8[np.ndarray, " crop"]:
    """One state per row of uniform numbers: with this probability one sensor goes, at even odds."""
    dropped = np.where(uniforms[:, 1] < 0.5, S1_DROPPED, S2_DROPPED)
    return np.where(uniforms[:, 0] < probability, dropped, BOTH).astype(np.int8)


def drop_sensors(
    crops: Float32[Tensor, "crop channel height width"],
    states: Int8[np.ndarray, " crop"],
    channels: SensorChannels,
    fill: float,
) -> Float32[Tensor, "crop channel height width"]:
    """The crops with the channels of dropped sensors set to `fill`."""
    left = crops.clone()
    for state, gone in ((S1_DROPPED, channels.s1), (S2_DROPPED, channels.s2)):
        chosen = to_device(np.flatnonzero(states == state), crops.device)
        # Assigning a number by index would copy it to a GPU first, and wait for that.
        left[:, gone].index_fill_(0, chosen, fill)
    return left


def warn_of_everyday_fill(fill: float, scaling: InputScaling) -> None:
    """Warn where the value that stands for a missing sensor is one that a sensor also measures.

    Standardized data have no value outside their range; their mean, 0, says least.
    """
    if scaling.channels.has_both and scaling.valid_range is None and fill != 0:
        _log.warning(
            "views.sensor_drop.fill is %g, but this dataset is standardized: there that is no sign "
            "of a missing sensor but a value %g standard deviations from the mean; start anew, in "
            "another --out, with --set views.sensor_drop.fill=0",
            fill,
            abs(fill),
        )
