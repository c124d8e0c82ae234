"""Gaussian blur, each crop with its own width."""

import numpy as np
from jaxtyping import Float32, Float64, Int64
from torch import Tensor

from dinomm_train.data.resampling import Taps, resample
from dinomm_train.transfer import to_device

_RADIUS_SIGMAS = 3
"""Where OpenCV ends the kernel of 8-bit images, in standard deviations."""


def blur(
    crops: Float32[Tensor, "crop channel side side"], sigma_px: Float64[np.ndarray, " crop"]
) -> Float32[Tensor, "crop channel side side"]:
    """The crops, blurred with these standard deviations; borders mirror (OpenCV's reflect 101)."""
    if not crops.numel():
        return crops
    count, side = len(crops), crops.shape[-1]
    kernels = to_device(_kernels(sigma_px), crops.device)
    reach = kernels.shape[1] // 2
    steps = np.arange(-reach, reach + 1)
    lines = to_device(_reflected(np.arange(side)[:, None] + steps, side), crops.device)
    taps = Taps(indices=lines.expand(count, -1, -1), weights=kernels[:, None].expand(-1, side, -1))
    return resample(crops, taps, taps)


def _kernels(sigma_px: Float64[np.ndarray, " crop"]) -> Float32[np.ndarray, "crop tap"]:
    """One kernel per crop, ended where OpenCV ends it: its size is `6 sigma + 1`, made odd."""
    radius = (np.rint(2 * _RADIUS_SIGMAS * sigma_px + 1).astype(np.int64) | 1) // 2
    steps = np.arange(-radius.max(), radius.max() + 1)
    weights = np.exp(-0.5 * (steps / sigma_px[:, None]) ** 2)
    weights[np.abs(steps) > radius[:, None]] = 0.0
    kernels: Float32[np.ndarray, "crop tap"] = weights / weights.sum(axis=1, keepdims=True)
    return kernels.astype(np.float32)


def _reflected(lines: Int64[np.ndarray, "..."], side: int) -> Int64[np.ndarray, "..."]:
    """Lines beyond the border, mirrored about the outermost line until they lie inside."""
    period = max(2 * (side - 1), 1)
    inside = lines % period
    mirrored: Int64[np.ndarray, ...] = np.minimum(inside, period - inside)
    return mirrored
