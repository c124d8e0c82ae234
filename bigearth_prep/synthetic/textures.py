"""Random fields of one patch: smooth ones that shape regions, and the textures inside them.

Every texture has zero mean and unit variance in expectation, so that its pattern alone tells it
from another. Distances are in pixels of 10 m; smooth fields wrap around at the patch edges.
"""

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Literal

import numpy as np
from jaxtyping import Complex, Float

from bigearth_prep.bands import ALL_BANDS

PATCH_PX = max(band.native_px for band in ALL_BANDS)
"""Side of a patch on the finest grid, that of the 10 m bands, in pixels."""

TextureName = Literal[
    "blocks", "canopy", "clumps", "fields", "gardens", "pools", "rows", "swell", "trees"
]

Field = Float[np.ndarray, f"{PATCH_PX} {PATCH_PX}"]

_TABLE_SIDE = 64
"""Side of the table of random values that parcels are filled from."""


def draw_smooth_fields(
    rng: np.random.Generator, count: int, scale_px: float
) -> Float[np.ndarray, "field 120 120"]:
    """Gaussian fields of zero mean and unit variance.

    Args:
        rng: Source of randomness.
        count: How many independent fields.
        scale_px: Standard deviation of the Gaussian that white noise is blurred with.
    """
    noise = rng.standard_normal((count, PATCH_PX, PATCH_PX), dtype=np.float32)
    spectrum = np.fft.rfft2(noise) * _blur_response(scale_px)[:, : PATCH_PX // 2 + 1]
    return np.fft.irfft2(spectrum, s=(PATCH_PX, PATCH_PX))


def draw_complex_fields(
    rng: np.random.Generator, shape: tuple[int, ...], scale_px: float
) -> Complex[np.ndarray, "*batch 120 120"]:
    """Circular Gaussian fields whose squared magnitude is 1 in expectation.

    Args:
        rng: Source of randomness.
        shape: How many independent fields, along any number of axes.
        scale_px: Standard deviation of the Gaussian that white noise is blurred with.
    """
    parts = rng.standard_normal((*shape, PATCH_PX, PATCH_PX, 2), dtype=np.float32)
    # The transform of white noise is white noise: drawn there, one transform is saved.
    white = parts.view(np.complex64)[..., 0]
    return np.fft.ifft2(white * (math.sqrt(0.5) * PATCH_PX * _blur_response(scale_px)))


@lru_cache
def _blur_response(scale_px: float) -> Field:
    """Transfer function of a Gaussian blur that keeps the variance of white noise."""
    frequency = np.fft.fftfreq(PATCH_PX)
    squared = frequency[:, None] ** 2 + frequency[None, :] ** 2
    response = np.exp(-2 * (np.pi * scale_px) ** 2 * squared)
    unit: Field = (response / np.sqrt(np.mean(response**2))).astype(np.float32)
    return unit


def draw_texture(rng: np.random.Generator, name: TextureName) -> Field:
    """One texture over the whole patch, in a random position and direction."""
    return _TEXTURES[name](rng)


def _draw_parcels(rng: np.random.Generator, width_px: float, length_px: float) -> Field:
    """Rectangles of one random value each, in staggered strips of one direction."""
    across, along = _turned_axes(rng)
    strip = np.floor(across / width_px).astype(np.int64) % _TABLE_SIDE
    stagger = rng.uniform(0, length_px, _TABLE_SIDE)
    place = np.floor((along + stagger[strip]) / length_px).astype(np.int64) % _TABLE_SIDE
    return rng.standard_normal((_TABLE_SIDE, _TABLE_SIDE))[strip, place]


def _draw_rows(rng: np.random.Generator, period_px: float) -> Field:
    across, _ = _turned_axes(rng)
    return math.sqrt(2) * np.sin(across * (2 * math.pi / period_px))


def _turned_axes(rng: np.random.Generator) -> tuple[Field, Field]:
    """Distances across and along a random direction, from a random point outside the patch."""
    angle = rng.uniform(0, np.pi)
    down, right = np.mgrid[:PATCH_PX, :PATCH_PX] + rng.uniform(0, PATCH_PX, (2, 1, 1))
    across = right * np.cos(angle) + down * np.sin(angle)
    return across, down * np.cos(angle) - right * np.sin(angle)


def _draw_spots(rng: np.random.Generator, scale_px: float, threshold: float) -> Field:
    """Two values only: the higher one where a smooth field exceeds the threshold."""
    inside = draw_smooth_fields(rng, 1, scale_px)[0] > threshold
    share = _normal_tail(threshold)
    spots: Field = (inside - share) / math.sqrt(share * (1 - share))
    return spots


def _normal_tail(threshold: float) -> float:
    return 0.5 * math.erfc(threshold / math.sqrt(2))


_TEXTURES: dict[TextureName, Callable[[np.random.Generator], Field]] = {
    "blocks": lambda rng: _draw_parcels(rng, 3.5, 5.0),
    "canopy": lambda rng: draw_smooth_fields(rng, 1, 0.8)[0],
    "clumps": lambda rng: draw_smooth_fields(rng, 1, 3.0)[0],
    "fields": lambda rng: _draw_parcels(rng, 18.0, 30.0),
    "gardens": lambda rng: _draw_parcels(rng, 7.0, 11.0),
    "pools": lambda rng: _draw_spots(rng, 2.0, 0.0),
    "rows": lambda rng: _draw_rows(rng, 4.5),
    "swell": lambda rng: draw_smooth_fields(rng, 1, 9.0)[0],
    "trees": lambda rng: _draw_spots(rng, 1.2, 1.0),
}
