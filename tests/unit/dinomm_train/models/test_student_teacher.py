"""The teacher starts as the student and then follows as a moving average."""

from dataclasses import replace

import pytest
import torch

from dinomm_train.config import CropConfig, HeadConfig, ModelConfig, RunConfig, ViewConfig
from dinomm_train.errors import TrainError
from dinomm_train.models.student_teacher import StudentTeacher, build_student_teacher

TINY = RunConfig(
    model=ModelConfig(name="vit_tiny_patch16_224", patch_px=8, depth=2, width=24, heads=2),
    head=HeadConfig(hidden=16, bottleneck=8, prototypes=32),
    views=ViewConfig(crops=CropConfig(global_px=32, local_px=16)),
)


def tiny_pair(drop_path: float = 0.5) -> StudentTeacher:
    torch.manual_seed(0)
    config = replace(TINY, model=replace(TINY.model, drop_path=drop_path))
    return build_student_teacher(config, channels=3)


def test_student_and_teacher_start_with_equal_weights_of_their_own() -> None:
    pair = tiny_pair()
    for mine, other in zip(pair.student.parameters(), pair.teacher.parameters(), strict=True):
        assert torch.equal(mine, other)
        assert mine.data_ptr() != other.data_ptr()


def test_the_teacher_takes_no_gradient_and_has_no_stochastic_depth() -> None:
    pair = tiny_pair(drop_path=0.9)
    crops = (torch.randn(8, 3, 32, 32),)
    assert not any(weights.requires_grad for weights in pair.teacher.parameters())
    assert torch.equal(pair.teacher(crops).logits(), pair.teacher(crops).logits())
    assert not torch.equal(pair.student(crops).logits(), pair.student(crops).logits())


def test_crops_of_two_sizes_give_logits_in_the_order_given() -> None:
    pair = tiny_pair(drop_path=0.0)
    large, small = torch.randn(4, 3, 32, 32), torch.randn(6, 3, 16, 16)
    together = pair.student((large, small)).logits()
    assert together.shape == (10, 32)
    assert torch.allclose(together[:4], pair.student((large,)).logits(), atol=1e-6)
    assert torch.allclose(together[4:], pair.student((small,)).logits(), atol=1e-6)


def test_a_local_crop_that_patches_do_not_divide_is_refused() -> None:
    crops = CropConfig(global_px=32, local_px=20)
    config = replace(TINY, views=replace(TINY.views, crops=crops))
    with pytest.raises(TrainError, match="20 px is not a multiple of the model's 8 px"):
        build_student_teacher(config, channels=3)
