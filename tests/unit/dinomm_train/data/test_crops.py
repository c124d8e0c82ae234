"""Random resized crops."""

from dataclasses import fields, replace

import cv2
import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor
from torch.nn.functional import interpolate
from torchvision.transforms import RandomResizedCrop  # type: ignore[import-untyped]

from dinomm_train.config import CropConfig
from dinomm_train.data.crops import CROP_DRAWS, CropBoxes, cut_crops, draw_boxes

PLAIN = CropConfig(horizontal_flip=0.0, vertical_flip=0.0, quarter_turns=0.0)
IMAGE_PX = 30


def random_boxes(count: int, config: CropConfig = PLAIN, seed: int = 0) -> CropBoxes:
    uniforms = np.random.default_rng(seed).random((count, CROP_DRAWS))
    return draw_boxes(uniforms, config, (0.05, 1.0), IMAGE_PX)


def random_images(count: int) -> Tensor:
    rng = torch.Generator().manual_seed(count)
    return torch.rand((count, 3, IMAGE_PX, IMAGE_PX), generator=rng)


def inside(image: Tensor, boxes: CropBoxes, index: int) -> Tensor:
    top, left = boxes.top[index], boxes.left[index]
    return image[:, top : top + boxes.height[index], left : left + boxes.width[index]]


@pytest.mark.parametrize("crop_px", [7, 12, 30, 41])
@pytest.mark.parametrize("antialias", [False, True])
def test_crops_equal_torch_resizing_the_box_alone(crop_px: int, *, antialias: bool) -> None:
    images, boxes = random_images(3), random_boxes(12)
    crops = cut_crops(images, boxes, crop_px=crop_px, antialias=antialias)
    for index in range(12):
        expected = interpolate(
            inside(images[index % 3], boxes, index)[None],
            (crop_px, crop_px),
            mode="bicubic",
            antialias=antialias,
        )
        assert torch.allclose(crops[index], expected[0], atol=1e-5)


def test_many_images_are_cut_as_few_are() -> None:
    images, boxes = torch.rand(40, 14, 120, 120), random_boxes(80, CropConfig())
    crops = cut_crops(images, boxes, crop_px=20, antialias=False)
    for first in (0, 17, 39):
        chosen = [first, first + 40]
        few = {field.name: getattr(boxes, field.name)[chosen] for field in fields(CropBoxes)}
        alone = cut_crops(images[first : first + 1], CropBoxes(**few), crop_px=20, antialias=False)
        assert torch.allclose(crops[chosen], alone, atol=1e-6)


@pytest.mark.parametrize("crop_px", [7, 30, 41])
def test_crops_equal_opencv_resizing_the_box_alone(crop_px: int) -> None:
    images, boxes = random_images(2), random_boxes(10)
    crops = cut_crops(images, boxes, crop_px=crop_px, antialias=False)
    for index in range(10):
        part = inside(images[index % 2], boxes, index).permute(1, 2, 0).numpy()
        expected = cv2.resize(part, (crop_px, crop_px), interpolation=cv2.INTER_CUBIC)
        assert np.allclose(crops[index].permute(1, 2, 0).numpy(), expected, atol=1e-4)


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("flipped", [False, True])
@pytest.mark.parametrize("turned", [False, True])
def test_a_crop_is_mirrored_then_flipped_then_turned(
    *, mirrored: bool, flipped: bool, turned: bool
) -> None:
    images, boxes = random_images(2), random_boxes(6)
    upright = cut_crops(images, boxes, crop_px=9, antialias=False)
    boxes = replace(
        boxes,
        mirrored=np.full(6, mirrored),
        flipped=np.full(6, flipped),
        turned=np.array([turned, False] * 3),
    )
    crops = cut_crops(images, boxes, crop_px=9, antialias=False)
    expected = upright.flip(-1) if mirrored else upright
    expected = expected.flip(-2) if flipped else expected
    for index in range(6):
        clockwise = -1 if boxes.turned[index] else 0
        assert torch.allclose(
            crops[index], torch.rot90(expected[index], clockwise, (1, 2)), atol=1e-6
        )


def test_a_crop_sees_nothing_beyond_its_box() -> None:
    boxes = random_boxes(20)
    images = torch.full((20, 1, IMAGE_PX, IMAGE_PX), torch.nan)
    for index in range(20):
        inside(images[index], boxes, index).fill_(1.0)
    for antialias in (False, True):
        crops = cut_crops(images, boxes, crop_px=8, antialias=antialias)
        assert torch.allclose(crops, torch.ones_like(crops), atol=1e-5)


def test_boxes_lie_inside_the_image() -> None:
    boxes = random_boxes(5000)
    assert boxes.top.min() == boxes.left.min() == 0
    assert min(boxes.height.min(), boxes.width.min()) > 0
    assert (boxes.top + boxes.height).max() == (boxes.left + boxes.width).max() == IMAGE_PX


@pytest.mark.parametrize("area", [(0.4, 1.0), (0.05, 0.4)])
def test_boxes_follow_the_law_of_torchvision(area: tuple[float, float]) -> None:
    count = 1500
    uniforms = np.random.default_rng(1).random((count, CROP_DRAWS))
    ours = draw_boxes(uniforms, PLAIN, area, 120)
    torch.manual_seed(0)
    image = torch.zeros(1, 120, 120)
    theirs = np.array(
        [RandomResizedCrop.get_params(image, list(area), list(PLAIN.aspect)) for _ in range(count)]
    )
    for mine, other in zip((ours.top, ours.left, ours.height, ours.width), theirs.T, strict=True):
        assert stats.ks_2samp(mine, other).pvalue > 1e-3
    shapes = ours.height / ours.width, theirs[:, 2] / theirs[:, 3]
    assert stats.ks_2samp(*shapes).pvalue > 1e-3


@pytest.mark.parametrize(
    ("aspect", "box"),
    [((2.0, 2.5), (7, 0, 15, 30)), ((0.3, 0.5), (0, 7, 30, 15)), ((0.3, 2.0), (0, 0, 30, 30))],
)
def test_where_no_try_fits_the_largest_central_box_is_taken(
    aspect: tuple[float, float], box: tuple[int, int, int, int]
) -> None:
    # Every try draws the whole area at the least aspect, which is longer than the image.
    boxes = draw_boxes(
        np.zeros((1, CROP_DRAWS)), replace(PLAIN, aspect=aspect), (1.0, 1.0), IMAGE_PX
    )
    assert (boxes.top[0], boxes.left[0], boxes.height[0], boxes.width[0]) == box


def test_the_first_try_that_fits_is_taken() -> None:
    uniforms = np.full((1, CROP_DRAWS), 0.5)
    uniforms[0, :2] = 1.0 - 1e-9
    uniforms[0, 10:12] = 0.0
    # Tries 0 and 1 want nearly the whole area at 3:4, which is too high; try 2 half of it, square.
    boxes = draw_boxes(uniforms, PLAIN, (1e-9, 1.0), 100)
    assert (boxes.height[0], boxes.width[0]) == (71, 71)
    assert (boxes.top[0], boxes.left[0]) == (15, 15)


def test_the_aspect_is_width_over_height() -> None:
    uniforms = np.random.default_rng(0).random((50, CROP_DRAWS))
    boxes = draw_boxes(uniforms, replace(PLAIN, aspect=(2.0, 2.0)), (0.1, 0.3), 200)
    assert np.allclose(boxes.width / boxes.height, 2.0, rtol=0.05)


def test_symmetries_come_with_their_probabilities() -> None:
    config = replace(PLAIN, horizontal_flip=0.2, vertical_flip=0.3, quarter_turns=0.4)
    boxes = random_boxes(4000, config)
    shares = [mask.mean() for mask in (boxes.mirrored, boxes.flipped, boxes.turned)]
    # Binomial: a standard deviation is at most 0.0078.
    assert shares == pytest.approx([0.2, 0.3, 0.4], abs=4 * 0.0078)
