"""What a sample's arrays should be, made again from native pixels by the card alone.

Written a second time on purpose, with nothing of what builds use: a slip there shows as a
difference here.
"""

from typing import Any

import cv2
import numpy as np
from jaxtyping import Float64, Shaped

from bigearth_prep.bands import Sensor
from bigearth_prep.card import DatasetCard

_CV2_FLAGS = {"bilinear": cv2.INTER_LINEAR, "cubic": cv2.INTER_CUBIC}
_RADAR_CLIP = (1, 99)
"""`paper` clips each radar band of a patch to these percentiles of itself."""


def expected_band(
    card: DatasetCard, sensor: Sensor, band: str, pixels: Shaped[np.ndarray, "height width"]
) -> Shaped[np.ndarray, "side side"]:
    """What the card says is stored of a band with these native pixels."""
    scheme, side = card.normalization.scheme, card.patch.size_px
    if scheme == "paper" and sensor == "s2":
        codes = np.trunc(np.clip(_linear(card, band, pixels, top=255), 0, 255))
        return _resized(codes.astype(np.uint8), side, card.normalization.resampling)
    on_grid = _resized(pixels, side, card.normalization.resampling)
    if scheme == "paper":
        lower, upper = np.percentile(on_grid, _RADAR_CLIP).astype(on_grid.dtype)
        clipped = np.clip(on_grid, lower, upper)
        codes = np.trunc(np.clip(_linear(card, band, clipped, top=255), 0, 255))
        return np.asarray(codes, np.uint8)
    return _stored(card, sensor, band, on_grid)


def _stored(
    card: DatasetCard, sensor: Sensor, band: str, on_grid: Shaped[np.ndarray, "side side"]
) -> Shaped[np.ndarray, "side side"]:
    dtype: np.dtype[Any] = np.dtype(card.sensors[sensor].dtype)
    if dtype.kind == "f":
        return _linear(card, band, on_grid, top=1).astype(dtype)
    limits = np.iinfo(dtype)
    top = int(limits.max) if card.normalization.scheme == "percentile" else 1
    values = np.rint(_linear(card, band, on_grid, top=top))
    return np.asarray(np.clip(values, limits.min, limits.max), dtype)


def _linear(
    card: DatasetCard, band: str, pixels: Shaped[np.ndarray, "rows columns"], *, top: int
) -> Float64[np.ndarray, "rows columns"]:
    """Lower bound to 0, upper bound to `top`, the rest in proportion."""
    ends = card.normalization.parameters[band]
    values: Float64[np.ndarray, "rows columns"] = pixels.astype(np.float64)
    return (values - ends.lower) / (ends.upper - ends.lower) * top


def _resized(
    pixels: Shaped[np.ndarray, "height width"], side: int, method: str
) -> Shaped[np.ndarray, "side side"]:
    """On a grid of `side` pixels over the same ground; codes of 8 bits are interpolated as such."""
    if pixels.shape == (side, side):
        return pixels
    if method == "nearest":
        rows, columns = (
            np.floor((np.arange(side) + 0.5) * count / side).astype(int) for count in pixels.shape
        )
        return pixels[np.ix_(rows, columns)]
    values = pixels if pixels.dtype == np.uint8 else pixels.astype(np.float32)
    return cv2.resize(values, (side, side), interpolation=_CV2_FLAGS[method])
