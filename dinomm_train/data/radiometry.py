"""The `fixed` chain: each sensor changes in its own physics, in float, and never mixes.

Optics change by illumination (a gain on reflectance), contrast and blur; radar by calibration (an
offset in dB) and speckle (in linear power a unit-mean gamma law, so in dB added log-gamma noise).
"""

from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Bool, Float32, Float64, Int64
from torch import Tensor

from dinomm_train.config import RadiometryConfig
from dinomm_train.data.blur import blur
from dinomm_train.data.draws import between
from dinomm_train.data.inputs import InputScaling, per_channel
from dinomm_train.transfer import to_device

(
    _JITTER,
    _GAIN,
    _CONTRAST,
    _GRAY,
    _BLUR,
    _SIGMA,
    _S1_GAIN,
    _SPECKLE,
    _SPECKLE_ROW,
    _SPECKLE_COLUMN,
    _CHANNELS,
) = range(11)

_SPECKLE_FIELD_PX = 512


def radiometry_draws(channel_count: int) -> int:
    """Uniform numbers that one crop takes."""
    return _CHANNELS + channel_count


def change_radiometry(
    crops: Float32[Tensor, "crop channel side side"],
    uniforms: Float64[np.ndarray, "crop draw"],
    blur_probability: Float64[np.ndarray, " crop"],
    config: RadiometryConfig,
    scaling: InputScaling,
) -> Float32[Tensor, "crop channel side side"]:
    """The crops under another light and another calibration, within the valid range if any."""
    optics, radar = scaling.channels.s2, scaling.channels.s1
    changed = _regained(crops, uniforms, config, scaling)

    gray = chosen(uniforms[:, _GRAY] < config.s2_gray, crops.device)
    changed[gray, optics] = changed[gray, optics].mean(dim=1, keepdim=True)

    is_blurred = uniforms[:, _BLUR] < blur_probability
    sigma_px = between(uniforms[is_blurred, _SIGMA], *config.blur_sigma_px)
    blurred = chosen(is_blurred, crops.device)
    changed[blurred, optics] = blur(changed[blurred, optics], sigma_px)

    is_speckled = uniforms[:, _SPECKLE] < config.s1_speckle
    noise_db = _speckle_db(uniforms[is_speckled], config.s1_speckle_looks, crops[:, radar])
    unit_db = per_channel(scaling.physical_per_input, crops.device)[radar]
    changed[chosen(is_speckled, crops.device), radar] += noise_db / unit_db
    return changed.clamp_(*scaling.valid_range) if scaling.valid_range else changed


def chosen(mask: Bool[np.ndarray, " crop"], device: torch.device) -> Int64[Tensor, " chosen"]:
    """The indices of the true entries, on the device; found on the host, so nothing waits."""
    return to_device(np.flatnonzero(mask), device)


def _regained(
    crops: Float32[Tensor, "crop channel side side"],
    uniforms: Float64[np.ndarray, "crop draw"],
    config: RadiometryConfig,
    scaling: InputScaling,
) -> Float32[Tensor, "crop channel side side"]:
    """Gain, contrast about each channel's mean, and offset, as one multiplication and addition."""
    gain, contrast, offset = (
        to_device(factor.astype(np.float32), crops.device)
        for factor in _factors(uniforms, config, scaling)
    )
    # contrast * (gain x + offset - m) + m, where m = gain mean(x) + offset
    shift = offset + (1 - contrast) * gain * crops.mean(dim=(2, 3))
    scale = contrast * gain
    return torch.addcmul(shift[..., None, None], crops, scale[..., None, None])


def _factors(
    uniforms: Float64[np.ndarray, "crop draw"], config: RadiometryConfig, scaling: InputScaling
) -> Float64[np.ndarray, "3 crop channel"]:
    """Gain, contrast and offset in network units."""
    optics, radar = scaling.channels.s2, scaling.channels.s1
    signed = between(uniforms, -1.0, 1.0)
    per_channel_signed = signed[:, _CHANNELS:]
    gain, contrast = np.ones((2, *per_channel_signed.shape))
    jittered = (uniforms[:, _JITTER] < config.s2_jitter)[:, None]
    shared_gain = 1 + config.s2_gain * signed[:, _GAIN, None]
    gain[:, optics] += jittered * (
        shared_gain * (1 + config.s2_band_gain * per_channel_signed[:, optics]) - 1
    )
    contrast[:, optics] += jittered * config.s2_contrast * signed[:, _CONTRAST, None]
    # A gain multiplies reflectance, whose zero is not that of the network's input.
    offset = (gain - 1) * scaling.physical_at_zero / scaling.physical_per_input
    is_offset = (uniforms[:, _S1_GAIN] < config.s1_gain)[:, None]
    offset_db = is_offset * config.s1_gain_db * per_channel_signed[:, radar]
    offset[:, radar] = offset_db / scaling.physical_per_input[radar]
    return np.stack([gain, contrast, offset])


def _speckle_db(
    uniforms: Float64[np.ndarray, "crop draw"],
    looks: float,
    crops: Float32[Tensor, "all_crops polarization side side"],
) -> Float32[Tensor, "crop polarization side side"]:
    """Noise to add to backscatter in dB: for each crop a window of the field, placed by its draw.

    The field repeats at its borders.
    """
    corners = uniforms[:, [_SPECKLE_ROW, _SPECKLE_COLUMN]] * _SPECKLE_FIELD_PX
    start = to_device(corners.astype(np.int64), crops.device)
    steps = torch.arange(crops.shape[-1], device=crops.device)
    rows, columns = ((start[:, :, None] + steps) % _SPECKLE_FIELD_PX).unbind(dim=1)
    field = _speckle_field(looks, crops.shape[1], crops.device)
    return field[:, rows[:, :, None], columns[:, None, :]].transpose(0, 1)


@lru_cache(maxsize=4)
def _speckle_field(
    looks: float, polarizations: int, device: torch.device
) -> Float32[Tensor, "{polarizations} y x"]:
    """Independent log-gamma noise in dB; the same in every run."""
    shape = (polarizations, _SPECKLE_FIELD_PX, _SPECKLE_FIELD_PX)
    power = np.random.default_rng(0).gamma(looks, 1 / looks, shape)
    return to_device((10 * np.log10(power)).astype(np.float32), device)
