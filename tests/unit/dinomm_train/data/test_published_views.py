"""The `published` chain, against one image at a time in NumPy and OpenCV."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from dinomm_train.config import PublishedConfig
from dinomm_train.data.inputs import SensorChannels
from dinomm_train.data.published_views import (
    PUBLISHED_DRAWS,
    ChangeProbabilities,
    change_as_published,
)

CHANNELS = SensorChannels(s2=slice(0, 12), s1=slice(12, 14))
STILL = PublishedConfig(jitter=0.0, gray=0.0, solarize=0.0)
COUNT = 60
Image = NDArray[np.uint8]


@pytest.fixture
def images() -> Image:
    """Height, width and channel last, as OpenCV has them."""
    rng = np.random.default_rng(0)
    return np.clip(rng.normal(128, 70, (COUNT, 16, 16, 14)), 0, 255).astype(np.uint8)


@pytest.fixture
def uniforms() -> np.ndarray:
    return np.random.default_rng(1).random((COUNT, PUBLISHED_DRAWS))


def change(
    images: Image,
    uniforms: np.ndarray,
    config: PublishedConfig,
    *,
    blur: float = 0.0,
    solarize: float = 0.0,
) -> Image:
    crops = torch.from_numpy(images).permute(0, 3, 1, 2) / 255
    probabilities = ChangeProbabilities(
        blur=np.full(COUNT, blur), solarize=np.full(COUNT, solarize)
    )
    changed = change_as_published(crops, uniforms, probabilities, config, CHANNELS) * 255
    assert torch.allclose(changed, changed.round(), atol=1e-3)
    codes: Image = changed.round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    return codes


def as_bytes(values: np.ndarray, *, wrap: bool) -> Image:
    whole = np.trunc(values).astype(np.int64)
    codes: Image = (whole % 256 if wrap else np.clip(whole, 0, 255)).astype(np.uint8)
    return codes


@pytest.mark.parametrize("wrap", [True, False])
def test_jitter_multiplies_all_channels_and_casts_to_bytes(
    images: Image, uniforms: np.ndarray, *, wrap: bool
) -> None:
    changed = change(images, uniforms, replace(STILL, jitter=1.0, wrap=wrap))
    wrong = 0
    for image, draws, result in zip(images, uniforms, changed, strict=True):
        brightness, contrast = 0.6 + 0.8 * draws[1], 0.6 + 0.8 * draws[2]
        bright = as_bytes(image * brightness, wrap=wrap)
        mean = bright.mean(axis=(0, 1))
        expected = as_bytes((bright - mean) * contrast + mean, wrap=wrap)
        wrong += int(np.count_nonzero(expected != result))
    # Single precision falls on the other side of a whole number now and then.
    assert wrong < 1e-3 * images.size


def test_wrapping_is_what_a_cast_to_bytes_does_on_the_published_machines() -> None:
    values = np.array([0.9, 254.9, 255.5, 256.0, 299.7])
    assert as_bytes(values, wrap=True).tolist() == values.astype(np.uint8).tolist()


def test_gray_mixes_radar_and_optics(images: Image, uniforms: np.ndarray) -> None:
    changed = change(images, uniforms, replace(STILL, gray=1.0))
    expected = images.mean(axis=-1, keepdims=True).astype(np.uint8)
    assert np.array_equal(changed, np.broadcast_to(expected, images.shape))


def test_gray_can_keep_the_sensors_apart(images: Image, uniforms: np.ndarray) -> None:
    changed = change(images, uniforms, replace(STILL, gray=1.0, gray_mixes_sensors=False))
    for part in (CHANNELS.s2, CHANNELS.s1):
        expected = images[..., part].mean(axis=-1, keepdims=True).astype(np.uint8)
        assert np.array_equal(
            changed[..., part], np.broadcast_to(expected, changed[..., part].shape)
        )


@pytest.mark.parametrize("blur_s1", [True, False])
def test_blur_equals_opencv_within_its_rounding(
    images: Image, uniforms: np.ndarray, *, blur_s1: bool
) -> None:
    changed = change(images, uniforms, replace(STILL, blur_s1=blur_s1), blur=1.0)
    for image, draws, result in zip(images, uniforms, changed, strict=True):
        expected = image.copy()
        for channel in range(14 if blur_s1 else 12):
            sigma = 0.1 + 1.9 * draws[5]
            expected[..., channel] = cv2.GaussianBlur(image[..., channel], (0, 0), sigma)
        # OpenCV's kernel of 8-bit images has 8 binary digits.
        assert np.abs(result.astype(int) - expected.astype(int)).max() <= 3


@pytest.mark.parametrize("inverts_below", [True, False])
@pytest.mark.parametrize("solarize_s1", [True, False])
def test_solarize_inverts_one_side_of_128(
    images: Image, uniforms: np.ndarray, *, inverts_below: bool, solarize_s1: bool
) -> None:
    config = replace(
        STILL, solarize=1.0, solarize_inverts_below=inverts_below, solarize_s1=solarize_s1
    )
    changed = change(images, uniforms, config, solarize=1.0)
    expected = images.copy()
    part = expected[..., : 14 if solarize_s1 else 12]
    inverted = part < 128 if inverts_below else part >= 128
    part[inverted] = 255 - part[inverted]
    assert np.array_equal(changed, expected)


@pytest.mark.parametrize(
    ("config", "blur", "solarize", "draw"),
    [
        (replace(STILL, jitter=0.4), 0.0, 0.0, 0),
        (replace(STILL, gray=0.4), 0.0, 0.0, 3),
        (STILL, 0.4, 0.0, 4),
        (STILL, 0.0, 0.4, 6),
    ],
    ids=["jitter", "gray", "blur", "solarize"],
)
def test_a_change_comes_where_its_own_draw_is_below_the_probability(
    images: Image,
    uniforms: np.ndarray,
    config: PublishedConfig,
    blur: float,
    solarize: float,
    draw: int,
) -> None:
    changed = change(images, uniforms, config, blur=blur, solarize=solarize)
    differs = (changed != images).any(axis=(1, 2, 3))
    below = uniforms[:, draw] < 0.4
    # A blur of the least width moves no code.
    assert np.array_equal(differs, below) or (blur and not (differs & ~below).any())


def test_overshoot_is_clipped_before_anything_else(uniforms: np.ndarray) -> None:
    crops = torch.full((COUNT, 14, 4, 4), 1.1)
    crops[:, 0] = -0.2
    never = ChangeProbabilities(blur=np.zeros(COUNT), solarize=np.zeros(COUNT))
    changed = change_as_published(crops, uniforms, never, STILL, CHANNELS)
    assert torch.equal(changed, (crops > 0).float())
