"""The `published` chain: what the public DINO-MM code did to crops, on 8-bit codes.

Each of its defects (D6 to D9) can be turned off alone by `PublishedConfig`.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float32, Float64
from torch import Tensor

from dinomm_train.config import PublishedConfig
from dinomm_train.data.blur import blur
from dinomm_train.data.draws import between
from dinomm_train.data.inputs import SensorChannels
from dinomm_train.data.radiometry import chosen
from dinomm_train.transfer import to_device

_JITTER, _BRIGHTNESS, _CONTRAST, _GRAY, _BLUR, _SIGMA, _SOLARIZE = range(7)
PUBLISHED_DRAWS = 7
"""Uniform numbers that one crop takes."""

_TOP_CODE = 255.0
_SOLARIZE_CODE = 128


@dataclass(frozen=True, kw_only=True, slots=True)
class ChangeProbabilities:
    """What the crop's role (first or other global crop, local crop) makes likely."""

    blur: Float64[np.ndarray, " crop"]
    """Of blurring the crop."""

    solarize: Float64[np.ndarray, " crop"]
    """Of solarizing it."""


def change_as_published(
    crops: Float32[Tensor, "crop channel side side"],
    uniforms: Float64[np.ndarray, "crop draw"],
    probabilities: ChangeProbabilities,
    config: PublishedConfig,
    channels: SensorChannels,
) -> Float32[Tensor, "crop channel side side"]:
    """The crops, in [0, 1], after the published colour operations on their 8-bit codes.

    Values are brought to whole codes first; overshoot of the interpolation is clipped, as OpenCV
    does.
    """
    codes = (crops * _TOP_CODE).round_().clamp_(0, _TOP_CODE)
    everything = slice(0, crops.shape[1])

    is_jittered = uniforms[:, _JITTER] < config.jitter
    jittered = chosen(is_jittered, crops.device)
    codes[jittered] = _jitter(codes[jittered], uniforms[is_jittered], config)

    gray = chosen(uniforms[:, _GRAY] < config.gray, crops.device)
    mixed = (everything,) if config.gray_mixes_sensors else (channels.s2, channels.s1)
    for part in mixed:
        codes[gray, part] = codes[gray, part].mean(dim=1, keepdim=True).trunc()

    is_blurred = uniforms[:, _BLUR] < probabilities.blur
    blurred = chosen(is_blurred, crops.device)
    part = everything if config.blur_s1 else channels.s2
    sigma_px = between(uniforms[is_blurred, _SIGMA], *config.blur_sigma_px)
    codes[blurred, part] = blur(codes[blurred, part], sigma_px).round_()

    solarized = chosen(uniforms[:, _SOLARIZE] < probabilities.solarize, crops.device)
    part = everything if config.solarize_s1 else channels.s2
    below = config.solarize_inverts_below
    codes[solarized, part] = _solarize(codes[solarized, part], inverts_below=below)
    return codes.div_(_TOP_CODE)


def _jitter(
    codes: Float32[Tensor, "crop channel side side"],
    uniforms: Float64[np.ndarray, "crop draw"],
    config: PublishedConfig,
) -> Float32[Tensor, "crop channel side side"]:
    """Brightness, then contrast about each channel's mean, cast to bytes after each."""
    brightness, contrast = (
        to_device(
            between(uniforms[:, draw], 1 - change, 1 + change).astype(np.float32), codes.device
        ).view(-1, 1, 1, 1)
        for draw, change in ((_BRIGHTNESS, config.brightness), (_CONTRAST, config.contrast))
    )
    codes = _to_bytes(codes * brightness, wrap=config.wrap)
    mean = codes.mean(dim=(2, 3), keepdim=True)
    return _to_bytes((codes - mean) * contrast + mean, wrap=config.wrap)


def _to_bytes(
    values: Float32[Tensor, "crop channel side side"], *, wrap: bool
) -> Float32[Tensor, "crop channel side side"]:
    """Whole codes, truncated; those that no byte holds wrap modulo 256, as a cast does, or clip."""
    codes = values.trunc()
    return codes.remainder_(_TOP_CODE + 1) if wrap else codes.clamp_(0, _TOP_CODE)


def _solarize(
    codes: Float32[Tensor, "crop channel side side"], *, inverts_below: bool
) -> Float32[Tensor, "crop channel side side"]:
    is_inverted = (codes < _SOLARIZE_CODE) == inverts_below
    return torch.where(is_inverted, _TOP_CODE - codes, codes)
