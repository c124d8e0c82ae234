"""Gaussian blur."""

import cv2
import numpy as np
import pytest
import torch

from dinomm_train.data.blur import blur


def kernel_px(sigma_px: float) -> int:
    """Side of OpenCV's kernel for 8-bit images of this standard deviation."""
    return round(6 * sigma_px + 1) | 1


@pytest.mark.parametrize("side", [9, 20])
def test_each_crop_is_blurred_as_opencv_does(side: int) -> None:
    crops = torch.rand((5, 3, side, side), generator=torch.Generator().manual_seed(0))
    sigma_px = np.array([0.1, 0.45, 0.8, 1.3, 2.0])
    blurred = blur(crops, sigma_px)
    for crop, sigma, result in zip(crops, sigma_px, blurred, strict=True):
        image = np.ascontiguousarray(crop.permute(1, 2, 0).numpy())
        kernel = (kernel_px(sigma),) * 2
        expected = cv2.GaussianBlur(image, kernel, sigma, borderType=cv2.BORDER_REFLECT_101)
        assert np.allclose(result.permute(1, 2, 0).numpy(), expected, atol=1e-5)


def test_kernels_are_as_wide_as_opencvs_for_bytes() -> None:
    image = np.zeros((21, 21), dtype=np.uint8)
    image[10, 10] = 255
    for sigma in (0.5, 0.9, 1.1, 1.7, 2.0):
        theirs = cv2.GaussianBlur(image, (0, 0), sigma)
        ours = blur(torch.from_numpy(image / 1.0).float()[None, None], np.array([sigma]))[0, 0]
        assert np.abs(ours.round().numpy() - theirs).max() <= 1
        assert torch.count_nonzero(ours[10]) == kernel_px(sigma)


def test_crops_smaller_than_the_kernel_keep_their_mean_where_it_is_even() -> None:
    crops = torch.full((1, 1, 3, 3), 0.25)
    assert torch.allclose(blur(crops, np.array([2.0])), crops)


def test_nothing_to_blur_stays_nothing() -> None:
    assert blur(torch.zeros(0, 2, 5, 5), np.zeros(0)).shape == (0, 2, 5, 5)
