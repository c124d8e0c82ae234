"""Random resized crops of a whole batch at once, each with its own draw.

Boxes follow torchvision's `RandomResizedCrop`; pixels follow bicubic interpolation with half-pixel
centres, in which a crop sees nothing beyond its own border.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float32, Float64, Int64
from torch import Tensor

from dinomm_train.config import CropConfig
from dinomm_train.data.draws import between
from dinomm_train.data.resampling import Taps, resample
from dinomm_train.transfer import to_device

_TRIES = 10
_TOP, _LEFT, _MIRROR, _FLIP, _TURN = range(2 * _TRIES, 2 * _TRIES + 5)
CROP_DRAWS = 2 * _TRIES + 5
"""Uniform numbers that one crop takes."""

# Keys' cubic (doi:10.1109/TASSP.1981.1163711): the constant of OpenCV and torch, and that of torch
# and Pillow where shrinking is antialiased.
_SHARP, _SMOOTH = -0.75, -0.5


@dataclass(frozen=True, kw_only=True, slots=True)
class CropBoxes:
    """Which part of its image each crop shows, in pixels, and how it is turned afterwards."""

    top: Int64[np.ndarray, " crop"]
    """First row."""

    left: Int64[np.ndarray, " crop"]
    """First column."""

    height: Int64[np.ndarray, " crop"]
    """Rows."""

    width: Int64[np.ndarray, " crop"]
    """Columns."""

    mirrored: Bool[np.ndarray, " crop"]
    """Left and right change places, first."""

    flipped: Bool[np.ndarray, " crop"]
    """Top and bottom change places, second."""

    turned: Bool[np.ndarray, " crop"]
    """The crop turns clockwise by 90 degrees, last."""


def draw_boxes(
    uniforms: Float64[np.ndarray, "crop draw"],
    config: CropConfig,
    area: tuple[float, float],
    image_px: int,
) -> CropBoxes:
    """One box per row of uniform numbers, inside a square image of this side.

    As torchvision does: up to ten tries at an area (a share of the image, drawn evenly) and an
    aspect (drawn evenly in its logarithm); if none fits, the largest central box.
    """
    sides = _tried_sides(uniforms, config, area, image_px)
    fits = np.all((sides > 0) & (sides <= image_px), axis=0)
    found, first = np.any(fits, axis=1), np.argmax(fits, axis=1)
    height, width = (
        np.where(found, tries[np.arange(len(tries)), first], central).astype(np.int64)
        for tries, central in zip(sides, _central_sides(config.aspect, image_px), strict=True)
    )
    top, left = (
        np.where(found, _start(uniforms[:, draw], image_px - side), (image_px - side) // 2)
        for draw, side in ((_TOP, height), (_LEFT, width))
    )
    return CropBoxes(
        top=top,
        left=left,
        height=height,
        width=width,
        mirrored=uniforms[:, _MIRROR] < config.horizontal_flip,
        flipped=uniforms[:, _FLIP] < config.vertical_flip,
        turned=uniforms[:, _TURN] < config.quarter_turns,
    )


def cut_crops(
    images: Float32[Tensor, "batch channel height width"],
    boxes: CropBoxes,
    *,
    crop_px: int,
    antialias: bool,
) -> Float32[Tensor, "crop channel crop_px crop_px"]:
    """The crops, resized to `crop_px`; crop `i` is of image `i % batch`, so views come one by one.

    Values may overshoot those of the image a little, as bicubic interpolation does.
    """
    turned = boxes.turned
    # A clockwise turn exchanges rows and columns after the rows are flipped.
    vertical = np.stack([boxes.top, boxes.height, boxes.flipped ^ turned])
    horizontal = np.stack([boxes.left, boxes.width, boxes.mirrored])
    down, across, is_turned = (
        to_device(array, images.device)
        for array in (
            np.where(turned, horizontal, vertical),
            np.where(turned, vertical, horizontal),
            turned,
        )
    )
    most_shrunk = max(1.0, max(images.shape[-2:]) / crop_px) if antialias else None
    rows, columns = (_cubic_taps(ranges, crop_px, most_shrunk) for ranges in (down, across))
    return resample(images, rows, columns, is_turned if turned.any() else None)


def _tried_sides(
    uniforms: Float64[np.ndarray, "crop draw"],
    config: CropConfig,
    area: tuple[float, float],
    image_px: int,
) -> Float64[np.ndarray, "2 crop try"]:
    """Heights and widths of all tries."""
    pixels = image_px**2 * between(uniforms[:, :_TRIES], *area)
    aspect = np.exp(between(uniforms[:, _TRIES : 2 * _TRIES], *np.log(config.aspect)))
    return np.rint(np.sqrt([pixels / aspect, pixels * aspect]))


def _central_sides(aspect: tuple[float, float], image_px: int) -> tuple[int, int]:
    """Height and width of the largest box of an allowed aspect in a square image."""
    narrowest, widest = aspect
    if narrowest > 1:
        return round(image_px / narrowest), image_px
    if widest < 1:
        return image_px, round(image_px * widest)
    return image_px, image_px


def _start(
    uniforms: Float64[np.ndarray, " crop"], room_px: Int64[np.ndarray, " crop"]
) -> Int64[np.ndarray, " crop"]:
    """One of the `room_px + 1` places that a box may start at, each as likely."""
    starts: Int64[np.ndarray, " crop"] = np.floor(uniforms * (room_px + 1)).astype(np.int64)
    return starts


def _cubic_taps(ranges: Int64[Tensor, "3 crop"], crop_px: int, most_shrunk: float | None) -> Taps:
    """The input lines of each output line along one axis, given first line, length and direction.

    With `most_shrunk`, an upper bound of input lines per output line, the kernel widens as a crop
    shrinks; without, it is always four lines wide and repeats the crop's border.
    """
    start, length, is_reversed = ranges[..., None]
    scale = length / crop_px
    centre = (torch.arange(crop_px, device=start.device) + 0.5) * scale
    centre = torch.where(is_reversed > 0, length - centre, centre)[..., None]
    stretch = scale.clamp(min=1.0)[..., None] if most_shrunk else torch.ones_like(centre)
    taps = torch.arange(math.ceil(4 * (most_shrunk or 1.0)), device=start.device)
    lines = torch.floor(centre - 2 * stretch + 0.5).long() + taps
    weights = _cubic((lines + 0.5 - centre) / stretch, _SMOOTH if most_shrunk else _SHARP)
    inside = lines.clamp(min=0).minimum(length[..., None] - 1)
    if most_shrunk:
        weights = torch.where(lines == inside, weights, 0.0)
        weights = weights / weights.sum(dim=-1, keepdim=True)
    return Taps(indices=inside + start[..., None], weights=weights)


def _cubic(x: Float32[Tensor, "..."], a: float) -> Float32[Tensor, "..."]:
    """Keys' cubic convolution kernel."""
    x = x.abs()
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = ((a * x - 5 * a) * x + 8 * a) * x - 4 * a
    return torch.where(x <= 1, near, torch.where(x < 2, far, 0.0))
